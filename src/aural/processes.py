"""The processes of one training: a single one, or several started by ``torchrun``.

``torchrun --nproc-per-node 4 -m aural train ...`` starts the same program four times and numbers the copies through
environment variables (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``). Everything here also works, and costs nothing, when
the program runs alone.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from aural.device import choose_device
from aural.errors import AuralError, UsageError

Result = TypeVar("Result")
Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Processes:
    """This process among its siblings."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process does what must be done once: write files, talk to the user."""
        return self.rank == 0


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[Processes]:
    """Meet the sibling processes, if torchrun started any, and choose the device of this one.

    Args:
        device: ``None`` or ``"auto"`` for the fastest there is; ``"cuda"`` becomes this process's own GPU.
    """
    rank, size, local_rank = (int(os.environ.get(name, default)) for name, default in _TORCHRUN)
    if device is None or device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if size == 1 and torch.mps.is_available() else "cpu"
    device = choose_device(str(device))
    if device.type == "cuda" and size > 1:
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"process {local_rank} has no GPU of its own: start at most {torch.cuda.device_count()} a machine "
                "(--nproc-per-node), or pass --device cpu"
            )
        device = torch.device("cuda", local_rank)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)  # set_device wants a number
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():  # once: a second meeting would find the addresses left by the first
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    try:
        yield Processes(rank, size, device)
    except Exception as error:
        if size > 1:
            error.add_note(f"in process {rank} of {size}")
            atexit.unregister(_leave)  # the siblings wait in vain, until torchrun ends them
        raise


def _leave() -> None:
    """Part from the sibling processes, and see the group's threads end while there is an interpreter.

    What was wrapped for several processes refers to the group, and to itself. Left to the interpreter's own end, the
    group's threads would outlive it, and one that lets go of a tensor then aborts the process.
    """
    dist.destroy_process_group()
    gc.collect()


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def spread(
    module: nn.Module,
    processes: Processes,
    parallel: Parallel,
    blocks: Callable[[nn.Module], Sequence[nn.Module]] | None,
) -> nn.Module:
    """Wrap ``module`` so that its gradients are averaged over the processes; weights start as those of the first.

    Args:
        module: on its device already.
        processes: from :func:`joined`; with a single one the module itself comes back.
        parallel: ``"ddp"`` keeps a whole copy in each process; ``"fsdp"`` (FSDP2) cuts weights, gradients and optimizer
            state into one piece per process and assembles them block by block when needed.
        blocks: the parts assembled one at a time under ``"fsdp"``, such as the layers of a transformer.
    """
    if processes.size == 1:
        return module
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor.detach(), 0)
    if parallel == "ddp":
        return DistributedDataParallel(module)
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    atexit.register(mesh._pg_registry.clear)  # before _leave; PyTorch remembers meshes, and with them their groups
    for block in blocks(module) if blocks else ():
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def gradients_shared(spread_module: nn.Module, shared: bool) -> AbstractContextManager[Any]:
    """Within it, a backward pass exchanges gradients only if ``shared``: once a step, not once a micro-batch."""
    if isinstance(spread_module, FSDPModule):
        spread_module.set_requires_gradient_sync(shared)
    elif isinstance(spread_module, DistributedDataParallel) and not shared:
        return spread_module.no_sync()
    return nullcontext()


@contextmanager
def assembled(module: nn.Module) -> Iterator[None]:
    """Within it every process holds all the weights, so that any method may be called and none waits for a sibling."""
    shards = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in shards:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in shards:
            part.set_reshard_after_forward(part is not module, recurse=False)
            part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be cut into shards, as one tensor in every process. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def total(values: Sequence[float]) -> list[float]:
    """Sum each of ``values`` over the processes."""
    if not dist.is_initialized():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


def meet() -> None:
    """Wait until all processes have come here."""
    total([0.0])  # an empty sum would not wait


def once(action: Callable[[], Result]) -> Result:
    """Run ``action`` in the first process only; its result, or the user's error it met, is that of all processes."""
    if not dist.is_initialized():
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except AuralError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, 0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


class Interruption:
    """Context in which Ctrl-C and a polite kill do not interrupt: they set ``requested``, and a state can be saved.

    A second Ctrl-C interrupts at once. (torchrun passes the first one on to processes that have had it already, so
    what arrives within two seconds counts as the same.)
    """

    def __init__(self, *, talk: bool) -> None:
        self.requested = False
        self._talk = talk
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and time.monotonic() - self._since > 2:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._since = True, time.monotonic()
            if self._talk:
                print("stopping after this step; once more to stop without saving", file=sys.stderr)
