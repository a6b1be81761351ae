"""What moves the weights: AdamW, or Muon for matrices and AdamW for all else; with one learning rate for both."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
"""Factors of an update, of its third and of its fifth power, in each of five iterations."""
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Updates whose singular values are equal (Jordan et al. 2024), of AdamW's size (Liu et al., arXiv 2502.16982).

    It is ``torch.optim.Muon``, which iterates in bfloat16 everywhere: on a processor without units for that, a matrix
    of 1024 x 256 took a second.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, weight_decay: float, bfloat16: bool) -> None:
        """Of matrices; ``bfloat16`` is what it iterates in, otherwise float32."""
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
                momentum = self.state[parameter]["momentum_buffer"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                update = orthogonal(parameter.grad.lerp(momentum, MOMENTUM).to(self._dtype))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with singular values near 1 and the same singular vectors, by iterations of Newton and Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=1e-7)
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(5):
        square = found @ found.T
        found = torch.addmm(found, torch.addmm(square, square, square, beta=third, alpha=fifth), found, beta=first)
    return found.T if tall else found


class Optimizer:
    """All trained parameters; its state exists from the start, so that a saved one can be read into it.

    Networks that are trained for minutes learn several times faster by :class:`Muon`.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        *,
        muon: bool,
        bfloat16: bool,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """
        Args:
            module: which the parameters are of.
            parameters: by name, all that are trained.
            muon: False: AdamW for all.
            bfloat16: what Muon iterates in; otherwise float32.
            betas: of AdamW.
            eps: of AdamW.
            weight_decay: on matrices and convolution kernels only.

        Raises:
            ValueError: there are no parameters.
        """
        if not parameters:
            raise ValueError("the module has nothing to train: requires_grad is off everywhere")
        self.parameters = dict(parameters)
        # of a kernel, one dimension is a row, and the others together a column; the memory is the same
        self.matrices = {
            name: nn.Parameter(self.parameters[name].detach().view(len(self.parameters[name]), -1))
            for name in (_matrices(module, self.parameters) if muon else ())
        }
        others = [parameter for name, parameter in self.parameters.items() if name not in self.matrices]
        self.optimizers: list[torch.optim.Optimizer] = []
        if others:
            groups = [
                {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay},
                {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            ]
            self.optimizers.append(torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True))
        if self.matrices:
            self.optimizers.append(Muon(self.matrices.values(), weight_decay=weight_decay, bfloat16=bfloat16))
        for parameter in self.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.step(0.0)  # without a gradient: makes the state and changes no weight
        for parameter in others:
            self.optimizers[0].state[parameter]["step"].zero_()

    def step(self, learning_rate: float) -> None:
        """Move the parameters against their gradients, which are then gone."""
        for name, matrix in self.matrices.items():
            gradient = self.parameters[name].grad
            matrix.grad = None if gradient is None else gradient.flatten(1)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad()
        for parameter in self.parameters.values():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state, by the parameter's name and that of its part; sharing memory."""
        owners = [(name, self.matrices.get(name, parameter)) for name, parameter in self.parameters.items()]
        return {
            f"{name}.{key}": value
            for optimizer in self.optimizers
            for name, owner in owners
            if owner in optimizer.state
            for key, value in optimizer.state[owner].items()
        }


def _matrices(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Names of the weights that take vectors to vectors: of layers, kernels and attention, not of tables."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    weights = {name: p for name, p in parameters.items() if name.endswith("weight") and id(p) not in tables}
    return [name for name, weight in weights.items() if weight.ndim >= 2 and min(weight.shape[:2]) > 1]
