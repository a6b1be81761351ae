"""A process that is told to be the second of two, each with a GPU, on a machine that need not have any."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


class SeenError(Exception):
    """What was looked for has come; the rest would need the GPU."""


class Devices:
    """In place of what computes on a ``device``: notes which one, and ends there."""

    def __init__(self) -> None:
        self.seen: list[torch.device] = []

    def __call__(self, *_: Any, device: torch.device, **__: Any) -> None:
        self.seen.append(device)
        raise SeenError


@contextmanager
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    """Within it the process has met its sibling already."""
    with monkeypatch.context() as patched:
        for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
            patched.setenv(name, value)
        patched.setattr("aural.processes.choose_device", torch.device)
        patched.setattr(torch.cuda, "device_count", lambda: 2)
        patched.setattr(torch.cuda, "set_device", lambda device: None)
        patched.setattr("aural.processes.dist.is_initialized", lambda: True)
        patched.setattr(torch.nn.Module, "to", lambda module, *_: module)
        yield Devices()
