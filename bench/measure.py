"""What every benchmark here needs: time in turns, the machine's limits, counted work, peak memory, the table of it."""

import gc
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Repeated timings of one thing."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]  # of this process, all threads
    foreign: tuple[float, ...]  # cores that other processes kept busy meanwhile; nan where that is not known

    @property
    def median(self) -> float:
        """Median in seconds."""
        return median(self.seconds)

    @property
    def minimum(self) -> float:
        """Best in seconds."""
        return min(self.seconds)


def in_turns(runs: Mapping[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True) -> dict[str, Samples]:
    """Time several things A B A B ..., so that what else the machine does falls on all of them alike."""
    if warm_up:
        for run in runs.values():
            run()
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            gc.collect()
            busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
            run()
            elapsed, worked = time.perf_counter() - start, time.process_time() - own
            taken[name].append((elapsed, worked, max(0.0, (_busy_seconds() - busy - worked) / elapsed)))
    return {name: Samples(*zip(*pairs, strict=True)) for name, pairs in taken.items()}


def _busy_seconds() -> float:
    """Processor seconds that the whole machine has worked since it started; nan outside Linux."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return float("nan")
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def machine() -> str:
    """Processor, cores, threads in use, PyTorch."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def peak_flops(size: int = 2048, repeats: int = 10) -> float:
    """Best float32 matrix product of this size, in FLOP/s."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = in_turns({"sgemm": lambda: a @ b}, repeats)["sgemm"].minimum
    return 2 * size**3 / best


def read_bandwidth(megabytes: int = 1024, repeats: int = 5) -> float:
    """Best sum over so much memory, in bytes/s."""
    numbers = torch.ones(megabytes * 2**20 // 4)
    best = in_turns({"sum": lambda: numbers.sum()}, repeats)["sum"].minimum
    return numbers.numel() * 4 / best


def count_flops(run: Callable[[], Any]) -> int:
    """Multiplications and additions of matrix products, convolutions and attention in one run."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count  # here, as it imports a good deal

    def attention(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}  # the counter lacks it
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        run()
    return counter.get_total_flops()


def n_bytes(*tensors: Tensor) -> int:
    """Bytes of distinct tensors, tied ones counted once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB.

    Linux keeps ``ru_maxrss`` across exec, so that a child would report its parent's: there VmHWM is read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Row:
    """One line of the table of times."""

    what: str
    ours: Samples
    peer_name: str = ""
    peer: Samples | None = None
    flops: int = 0
    bytes_read: int = 0

    def cells(self, flops_per_second: float, bytes_per_second: float) -> list[str]:
        """The line, given the limits of the machine."""
        floor = max(self.flops / flops_per_second, self.bytes_read / bytes_per_second)
        foreign = [*self.ours.foreign, *(self.peer.foreign if self.peer else ())]
        return [
            self.what,
            shown(self.ours),
            self.peer_name,
            shown(self.peer) if self.peer else "",
            f"{self.peer.median / self.ours.median:.2f}" if self.peer else "",
            f"{median(self.peer.cpu_seconds) / median(self.ours.cpu_seconds):.2f}" if self.peer else "",
            f"{floor:.3g}",
            f"{self.ours.median / floor:.1f}",
            f"{self.flops / self.ours.median / flops_per_second:.0%}",
            f"{sum(foreign) / len(foreign):.2f}",
        ]


HEADER = [
    "what",
    "ours: median (min) s",
    "peer",
    "peer: median (min) s",
    "peer / ours",
    "in CPU seconds",
    "floor s",
    "ours / floor",
    "of peak FLOP/s",
    "foreign cores",
]


def shown(samples: Samples) -> str:
    """Median and minimum."""
    return f"{samples.median:.3g} ({samples.minimum:.3g}), n={len(samples.seconds)}"


def print_table(header: list[str], rows: Iterable[list[str]]) -> None:
    """Markdown, each row as soon as it is there."""
    for cells in chain([header, ["---"] * len(header)], rows):
        print(f"| {' | '.join(cells)} |", flush=True)


def expect_close(what: str, ours: Tensor, peer: Tensor, tolerance: float = 1e-3) -> None:
    """Stop unless the two agree relative to the largest value."""
    error = float((ours - peer).abs().max() / peer.abs().max())
    if not error < tolerance:
        sys.exit(f"{what}: ours and the peer differ by {error:.1e}; nothing is timed")
