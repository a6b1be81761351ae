"""Low-rank updates of a frozen U-Net's attention, learnt along with the audio token.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685; AudioToken's option of that name: all
four projections of every attention, of the picture with itself and with the words, rank 4, scale 1.

In the released code these layers are frozen together with the U-Net they are attached to. Here they learn: they are
a module of their own beside the U-Net, whose weights stay as they are.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


class Lora(nn.Module):
    """For each attention projection y = W x of a U-Net an update: y += up(down(x))."""

    def __init__(self, unet: nn.Module, rank: int) -> None:
        """As published, ``down`` is normal with a deviation of 1 / rank, and ``up`` zero: at first nothing changes.

        Args:
            unet: a U-Net of the diffusers library, which is left as it is.
            rank: of the updates, at least 1.
        """
        super().__init__()
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()  # (rank, in) and (out, rank)
        for name, linear in projections(unet):
            self.down[_key(name)] = torch.randn(rank, linear.in_features) / rank
            self.up[_key(name)] = torch.zeros(linear.out_features, rank)

    def attach(self, unet: nn.Module) -> None:
        """From now on the U-Net computes with the updates. Gradients reach them, also where it is computed twice."""

        def updated(key: str) -> Any:
            def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                down, up = self.down[key], self.up[key]
                return output + F.linear(F.linear(inputs[0].to(down), down), up).to(output)

            return hook

        for name, linear in projections(unet):
            linear.register_forward_hook(updated(_key(name)))


def projections(unet: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Name and layer of each of the four projections of every attention."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(tuple(f".{one}" for one in PROJECTIONS)):
            yield name, module


def merge(unet: nn.Module, lora: Lora) -> None:
    """Put the updates into the U-Net's weights, for good: painting then costs what it cost without them."""
    for name, linear in projections(unet):
        linear.weight.data += (lora.up[_key(name)] @ lora.down[_key(name)]).to(linear.weight)


def _key(name: str) -> str:
    """Parameters cannot have dots in their names."""
    return str(name).replace(".", "/")
