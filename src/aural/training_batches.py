"""From an endless row of examples to the batches of one process, on its device."""

import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aural.errors import AuralError, UsageError
from aural.processes import Processes


def batches(
    example: Callable[[int], Any],
    collate: Callable[[list[Any]], Any],
    processes: Processes,
    *,
    steps: range,
    batch_size: int,
    micro_batch_size: int | None,
    workers: int,
) -> Iterator[list[Any]]:
    """This process's micro-batches of each step.

    Args:
        example: the example of an index.
        collate: joins examples to a batch.
        processes: this one among its siblings.
        steps: which steps are to come.
        batch_size: examples a step, over all processes and micro-batches.
        micro_batch_size: examples in one batch; ``None``: all that this process has in a step.
        workers: processes that prepare batches ahead of time; 0: this one does it when asked.

    Raises:
        UsageError: ``batch_size`` cannot be shared evenly.
        AuralError: whatever ``example`` and ``collate`` raise.
    """
    share, rest = divmod(batch_size, processes.size)
    if rest:
        raise UsageError(f"batch_size {batch_size} cannot be shared evenly among {processes.size} processes")
    size = min(micro_batch_size or share, share)
    begins = (step * batch_size + processes.rank * share for step in steps)
    slices = (range(first, min(first + size, b + share)) for b in begins for first in range(b, b + share, size))
    examples = _Examples(example, collate)
    on_gpu = processes.device.type == "cuda"
    loader = DataLoader(
        examples,
        batch_size=None,
        sampler=slices,
        num_workers=workers,
        worker_init_fn=_leave_interruptions_to_the_parent,
        pin_memory=on_gpu,
    )
    received = iter(loader)
    try:
        while parts := list(islice(received, math.ceil(share / size))):
            for part in parts:
                if isinstance(part, AuralError):
                    raise part
            yield parts
    finally:
        del received  # ends the workers now; held by an exception's traceback they would linger


class _Examples(Dataset[Any]):
    """Batches by the indices of their examples. A user's error is handed on, not raised, so that it remains one line
    when it comes from a worker process."""

    def __init__(self, example: Callable[[int], Any], collate: Callable[[list[Any]], Any]) -> None:
        self._example, self._collate = example, collate

    def __getitem__(self, indices: Any) -> Any:
        try:
            return self._collate([self._example(index) for index in indices])
        except AuralError as error:
            return error


def _leave_interruptions_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to them all


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with all its tensors on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **moved(fields, device))
    if isinstance(batch, dict):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        values = [moved(value, device) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch
