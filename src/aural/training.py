"""The one training loop.

What a system hands over is small: a module whose ``forward(batch)`` returns its losses, a function from an index to an
example, and a function that joins examples to a batch. The example of an index is always the same, so that nothing
about the data needs to be saved: step ``s`` learns from the examples ``[s * B, (s + 1) * B)`` of the global batch size
``B``, and each process and each micro-batch takes its slice of them. A training that was stopped, killed or moved to
another number of processes therefore goes on as if nothing had happened.

Every loss is a mean over items (tokens, clips), of which each micro-batch holds another number. The mean of such means
is not the mean over the batch: short captions would weigh more than long ones, and the result would depend on how the
batch was cut. So the module returns means, ``counts`` says over how many items each is taken, and the loop weighs each
micro-batch by its share of the items of the whole step, over all processes, before it goes backward. (A contrastive
loss sees only the clips of its own micro-batch, however it is weighed.)
"""

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from aural.errors import AuralError
from aural.processes import (
    Interruption,
    Parallel,
    Processes,
    assembled,
    gradients_shared,
    joined,
    once,
    spread,
    total,
    whole,
)
from aural.training_batches import batches, moved
from aural.training_folder import load_state, open_training, save_state
from aural.training_optimizer import Optimizer
from aural.training_report import Report


@dataclass(frozen=True)
class TrainConfig:
    """How to train. ``validate_every`` and ``save_every`` are in steps; 0 means only at the end."""

    steps: int
    batch_size: int = 16
    """Examples a step, over all processes and micro-batches."""
    micro_batch_size: int | None = None
    """Examples that go through the module at once in one process; ``None``: all of its share."""
    learning_rate: float = 3e-4
    """The highest one, reached at the end of the warm-up."""
    final_learning_rate: float = 0.0
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    """On matrices and convolution kernels only: decaying gains, biases and other vectors helps nothing."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``"muon"``: for matrices and kernels, with AdamW for the rest (:class:`aural.training_optimizer.Optimizer`)."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = 1.0
    """Largest norm of all gradients together."""
    ema_decay: float | None = None
    """Keep a running average of the weights, and validate and save that; lower during the first steps."""
    validate_every: int = 0
    save_every: int = 0
    log_every: int = 10
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    """``"bfloat16"``: autocast, for CUDA and for processors with units for it; on others it works and is slow."""
    parallel: Parallel = "ddp"
    """Used with several processes only."""
    workers: int = 0
    """Processes that prepare examples, for each training process; 0: it does so itself."""
    best: str = "loss"
    """The validation metric by which the best model is chosen."""
    best_is: Literal["max", "min"] = "min"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be positive, not {self.micro_batch_size}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps must lie between 0 and steps ({self.steps}), not {self.warmup_steps}")
        if self.optimizer == "muon" and self.parallel == "fsdp":
            raise ValueError("Muon needs whole matrices, which fsdp cuts: set parallel to ddp")


def adjusted(config: TrainConfig, *, seed: int, steps: int | None = None, precision: str | None = None) -> TrainConfig:
    """The settings of a recipe with what a user gave instead; of a shorter training, the warm-up is the same share."""
    config = dataclasses.replace(config, seed=seed)
    if steps is not None:
        warmup_steps = min(config.warmup_steps, config.warmup_steps * steps // config.steps)
        config = dataclasses.replace(config, steps=steps, warmup_steps=warmup_steps)
    if precision is not None:
        config = dataclasses.replace(config, precision=precision)  # type: ignore[arg-type]
    return config


@dataclass(frozen=True)
class TrainResult:
    """What came out; the best model lies in the output folder, the last one in its folder ``last``."""

    steps: int
    best: float | None
    """Of the metric ``TrainConfig.best``; ``None`` without validation."""
    best_step: int | None
    metrics: dict[str, float]
    """Of the last validation."""


class Save(Protocol):
    """Writes a model folder, usually by :func:`aural.checkpoint.save_model`; called in the first process only."""

    def __call__(self, weights: dict[str, Tensor], folder: Path, metrics: dict[str, float]) -> None:
        """``weights``: of the trained module, on the CPU; ``metrics``: of the last validation, and ``"step"``."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of the update that follows ``step`` finished ones.

    It grows in equal parts over ``warmup_steps`` updates, the last of which has the full rate, and then falls along
    half a cosine, or a line, that would reach ``final_learning_rate`` at ``steps``.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * left


def ema_decay(config: TrainConfig, step: int) -> float:
    """Weight of the old average of the weights, ``min(ema_decay, (1 + step) / (10 + step))`` after ``step`` updates.

    It is small at first so that the average soon forgets the weights that training began with.
    """
    assert config.ema_decay is not None
    return min(config.ema_decay, (1 + step) / (10 + step))


def train(
    module: nn.Module,
    *,
    example: Callable[[int], Any],
    collate: Callable[[list[Any]], Any],
    counts: Callable[[Any], Mapping[str, float]],
    loss_weights: Mapping[str, float],
    config: TrainConfig,
    out: Path,
    save: Save,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    blocks: Callable[[nn.Module], Sequence[nn.Module]] | None = None,
    resume: bool = False,
    of: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train ``module``; the best model so far is always in ``out``, the last saved one in ``out/last``, both loadable.

    Starts alone or, through torchrun, as one of several processes, which must share a file system. Ctrl-C finishes the
    step, saves and raises ``KeyboardInterrupt``. See :mod:`aural.training_folder` for what ``out/training`` holds.

    Args:
        module: its ``forward(batch)`` returns ``{name: mean loss}`` as scalar tensors; what should not be trained has
            ``requires_grad`` off, and parts without any trained parameter stay in eval mode. Dropout and the like must
            draw from torch's global generator, which is seeded anew in each step. Ends with the last weights, which
            are not averaged.
        example: the training example of an index from 0 on, without end; the same one each time.
        collate: joins examples to a batch: tensors in dicts, lists, tuples or dataclasses, which the loop moves to the
            device. With ``config.workers``, both run in other processes.
        counts: how many items each loss of a batch is a mean over; where it is 0, the loss must still be finite.
        loss_weights: weight of each loss in their sum. Exactly the names of ``module`` and ``counts``.
        config: how to train.
        out: folder of the training and of the models.
        save: writes a model folder.
        validate: metrics of the module (in eval mode, without gradients, with averaged weights); all processes call
            it, those of the first count. Without it the last model is also the best.
        blocks: those parts of the module it is given that FSDP assembles one at a time, such as transformer layers.
        resume: go on with the training in ``out``; starts one if there is none.
        of: what it learns from, as plain data by a name in the singular: clips, borrowed weights, or digests of them.
            What goes on must be of the same.
        device: see :func:`aural.processes.joined`.
        progress: show a progress bar on a terminal, and messages, on stderr.

    Raises:
        UsageError: ``out`` holds a training and ``resume`` is false, or one with another config, or of something else.
        ValueError: the names of losses, counts and weights differ, or the metric ``config.best`` is missing.
        AuralError: the gradients are not finite any more.
        KeyboardInterrupt: after the state has been saved.
    """
    with joined(device) as processes, Interruption(talk=progress and processes.first) as interruption:
        saved = once(lambda: open_training(out, dataclasses.asdict(config), resume, of))
        given = module
        if processes.size > 1 and config.parallel == "fsdp":
            module = copy.deepcopy(module)  # there is no way back from shards
        wrapped = spread(module.to(processes.device), processes, config.parallel, blocks)
        parameters = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
        optimizer = Optimizer(
            module,
            parameters,
            muon=config.optimizer == "muon",
            bfloat16=config.precision == "bfloat16",
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        average = {} if config.ema_decay is None else {name: p.detach().clone() for name, p in parameters.items()}
        changing = partial(_tensors, module, optimizer, average)
        done = _Progress(**load_state(saved, changing())) if saved else _Progress()
        _train_mode(module)

        report = Report(out / "training", module, done.step, config.steps, config.batch_size, processes, talk=progress)
        with report:
            for parts in batches(
                example,
                collate,
                processes,
                steps=range(done.step, config.steps),
                batch_size=config.batch_size,
                micro_batch_size=config.micro_batch_size,
                workers=config.workers,
            ):
                torch.manual_seed(_step_seed(config.seed, done.step, processes.rank))
                sums, items = _gradients(wrapped, parts, counts, loss_weights, config, processes)
                norm = _update(optimizer, parameters, average, config, done.step)
                *sums, requested = total([*sums, float(interruption.requested)])
                done.count(dict(zip(loss_weights, zip(sums, items, strict=True), strict=True)))
                report.step(done.step)

                stop, last = requested > 0, done.step == config.steps
                if last or _due(config.log_every, done.step):
                    means = done.take_means()
                    loss = sum(mean * loss_weights[name] for name, mean in means.items())
                    report.losses(done.step, loss, means, learning_rate(config, done.step - 1), norm)
                if last or _due(config.validate_every if validate else config.save_every, done.step):
                    with _averaged(parameters, average):
                        done.metrics = _metrics(module, validate)
                        report.validation(done.step, done.metrics)
                        if done.is_best(config):
                            _save(module, save, out, done)
                if last or stop or _due(config.save_every, done.step):
                    with _averaged(parameters, average):
                        _save(module, save, out / "last", done)
                    save_state(out, done.step, changing(), dataclasses.asdict(done))
                if stop:
                    break
        if module is not given:
            given.load_state_dict(_weights(module))
    if done.step < config.steps:
        raise KeyboardInterrupt
    return TrainResult(done.step, done.best, done.best_step, done.metrics)


# ------------------------------------------------------------------------------------------------------------- one step


def _gradients(
    wrapped: nn.Module,
    parts: Sequence[Any],
    counts: Callable[[Any], Mapping[str, float]],
    loss_weights: Mapping[str, float],
    config: TrainConfig,
    processes: Processes,
) -> tuple[list[float], list[float]]:
    """Leave the gradient of the weighted losses, each a mean over the global batch, in the parameters.

    Args:
        parts: this process's micro-batches of the step.

    Returns:
        For each loss, in the order of ``loss_weights``: its sum over the items of this process, and the number of items
        in all processes.
    """
    items = [_ordered(counts(part), loss_weights, "counts") for part in parts]
    items_of_step = total([sum(column) for column in zip(*items, strict=True)])
    sums = torch.zeros(len(loss_weights), device=processes.device)
    for part, own in zip(parts, items, strict=True):
        # The exchange between processes takes the mean of their gradients where the sum is meant: hence their number.
        factors = [
            weight * processes.size * n / max(all_n, 1e-9)
            for weight, n, all_n in zip(loss_weights.values(), own, items_of_step, strict=True)
        ]
        with gradients_shared(wrapped, part is parts[-1]), _kernels(processes.device, config.precision):
            with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                losses = wrapped(moved(part, processes.device))
            means = torch.stack(_ordered(losses, loss_weights, "losses")).float()
            torch.dot(means, means.new_tensor(factors)).backward()
        sums += means.detach() * means.new_tensor(own)
    return sums.tolist(), items_of_step


def _kernels(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Which kernels to attend by, forward and backward, as gradient checkpointing goes forward again in between."""
    # In bfloat16 on a CPU, the fused attention goes backward several times slower than plain matrix products.
    plain = precision == "bfloat16" and device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def _update(
    optimizer: Optimizer,
    parameters: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    config: TrainConfig,
    step: int,
) -> float:
    """Move the parameters against their gradients, and the average after them; returns the norm of the gradients."""
    norm = float(whole(nn.utils.clip_grad_norm_(parameters.values(), config.clip_norm or math.inf)))
    if not math.isfinite(norm):
        raise AuralError(
            f"the gradients of step {step + 1} are not finite: train again with a lower learning_rate or clip_norm"
        )
    optimizer.step(learning_rate(config, step))
    with torch.no_grad():
        for name, mean in average.items():
            mean.lerp_(parameters[name], 1 - ema_decay(config, step))
    return norm


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one step in one process, unrelated to those of its neighbours."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest(), "big")


def _ordered(values: Mapping[str, Any], loss_weights: Mapping[str, float], what: str) -> list[Any]:
    """The values in the order of the weights. A misspelt name would otherwise switch off a loss in silence."""
    if values.keys() != loss_weights.keys():
        raise ValueError(f"the {what} are named {sorted(values)}, but loss_weights {sorted(loss_weights)}")
    return [values[name] for name in loss_weights]


# ---------------------------------------------------------------------------------------------------------------- state


@dataclass
class _Progress:
    """How far the training is: besides the tensors, all that its future depends on."""

    step: int = 0
    """Finished ones."""
    sums: dict[str, float] = field(default_factory=dict)
    """Each loss summed over all items since the last line of the log."""
    items: dict[str, float] = field(default_factory=dict)
    """How many those were."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""
    best: float | None = None
    best_step: int | None = None

    def count(self, sums_and_items: Mapping[str, tuple[float, float]]) -> None:
        """One more step is finished."""
        self.step += 1
        for name, (loss_sum, n) in sums_and_items.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss_sum
            self.items[name] = self.items.get(name, 0.0) + n

    def take_means(self) -> dict[str, float]:
        """Each loss's mean since the last call, as far as it had any items."""
        means = {name: self.sums[name] / n for name, n in self.items.items() if n}
        self.sums, self.items = {}, {}
        return means

    def is_best(self, config: TrainConfig) -> bool:
        """Whether the metrics of this step are the best so far; without any, the newest is the best."""
        if not self.metrics:
            return True
        if config.best not in self.metrics:
            raise ValueError(f"the metrics are {sorted(self.metrics)}, but the best model is chosen by {config.best!r}")
        value = self.metrics[config.best]
        if self.best is None or (value > self.best if config.best_is == "max" else value < self.best):
            self.best, self.best_step = value, self.step
        return self.best_step == self.step


def _tensors(
    module: nn.Module,
    optimizer: Optimizer,
    average: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """All tensors that training changes, by name and sharing memory with their users; frozen weights are left out."""
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items() if name not in frozen}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.tensors().items()}
    return tensors | {f"average.{name}": tensor for name, tensor in average.items()}


@contextmanager
def _averaged(parameters: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it the parameters hold their averages, and the averages the parameters."""

    def swap() -> None:
        with torch.no_grad():
            for name, mean in average.items():
                held = parameters[name].clone()
                parameters[name].copy_(mean)
                mean.copy_(held)

    swap()
    try:
        yield
    finally:
        swap()


def _train_mode(module: nn.Module) -> None:
    """Train mode, but for frozen parts, in which dropout would only disturb what listens to them."""
    module.train()
    for part in module.modules():
        flags = [parameter.requires_grad for parameter in part.parameters()]
        if flags and not any(flags):
            part.eval()


def _metrics(module: nn.Module, validate: Callable[[nn.Module], Mapping[str, float]] | None) -> dict[str, float]:
    if validate is None:
        return {}
    module.eval()
    with torch.no_grad(), assembled(module):
        metrics = dict(validate(module))
    _train_mode(module)
    return once(lambda: metrics)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: whole(tensor).cpu() for name, tensor in module.state_dict().items()}


def _save(module: nn.Module, save: Save, folder: Path, done: _Progress) -> None:
    weights = _weights(module)
    once(lambda: save(weights, folder, {"step": done.step, **done.metrics}))


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
