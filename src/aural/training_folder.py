"""What a training leaves on disk beside its models, so that it can go on after whatever ended it.

``OUT/training/`` holds:

- ``config.json``: the :class:`aural.training.TrainConfig` it was started with;
- ``of.json``: what it learns from, by name, such as clips and borrowed weights; whatever is long, as a digest;
- ``step-00000100/``: all that is needed to go on after step 100, written by torch.distributed.checkpoint (so any number
  of processes can read what any other number wrote), with ``progress.json`` beside the tensors. It is made under a
  temporary name and renamed when complete; the newest two are kept;
- ``log.jsonl`` and ``loss.png``, see :mod:`aural.training_report`.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from aural.checkpoint import CONFIG as MODEL_CONFIG, write_whole
from aural.errors import UsageError
from aural.processes import once
from aural.training_report import truncate_log

CONFIG, OF, PROGRESS = "config.json", "of.json", "progress.json"
KEPT = 2
"""How many states."""
FREE_FIELDS = ("steps", "workers", "parallel")
"""What may differ when a training goes on: the rest changes what has been learnt (and ``steps`` may only grow)."""


LONGEST_TOLD = 64
"""Characters of what a training is of that are kept as they are: as many as a digest has."""


def open_training(
    out: Path, config: Mapping[str, Any], resume: bool, of: Mapping[str, Any] | None = None
) -> Path | None:
    """Make ``out/training``, or check that the training in it can go on.

    Args:
        out: the folder of the training.
        config: fields of the :class:`~aural.training.TrainConfig`.
        resume: whether to go on with what is there; where nothing is, a new training starts.
        of: what it learns from, by name, as plain data. Trainings that do not say it, as those of before it was kept,
            are taken to be of the same.

    Returns:
        The newest state, or ``None`` to start from the beginning.

    Raises:
        UsageError: ``out`` holds a training and ``resume`` is false, or one with another config, or of something else,
            or a foreign model.
    """
    folder = out / "training"
    of = {name: _told(value) for name, value in (of or {}).items()}
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    if (folder / CONFIG).is_file():
        if not resume:
            raise UsageError(f"{out} already holds a training: add --resume to go on with it, or choose another folder")
        _check_unchanged(out, json.loads((folder / CONFIG).read_text(encoding="utf-8")), config)
        if (folder / OF).is_file():
            _check_same(out, json.loads((folder / OF).read_text(encoding="utf-8")), of)
    elif (out / MODEL_CONFIG).exists():
        raise UsageError(f"{out} holds a model but no training to go on with: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*"):
        shutil.rmtree(leftover)
    states = _states(folder)
    truncate_log(folder / "log.jsonl", _step(states[-1]) if states else -1)
    if of:
        write_whole(folder / OF, json.dumps(of, indent=2) + "\n")
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")  # last: with it there is a training
    return states[-1] if states else None


def save_state(out: Path, step: int, tensors: dict[str, Tensor], progress: Mapping[str, Any]) -> None:
    """Write a state; all processes must call it.

    Args:
        out: the folder of the training.
        step: how many steps are done.
        tensors: weights, optimizer and average, possibly sharded.
        progress: the rest, in a form that JSON can hold; that of the first process is written.
    """
    folder = out / "training"
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    once(lambda: shutil.rmtree(temporary, ignore_errors=True))
    with _alone_is_fine():
        dcp.save(tensors, checkpoint_id=temporary, no_dist=not dist.is_initialized())

    def finish() -> None:
        write_whole(temporary / PROGRESS, json.dumps(progress))
        temporary.rename(final)
        for old in _states(folder)[:-KEPT]:
            shutil.rmtree(old.rename(folder / f".{old.name}.tmp"))  # lest half a state looks like a whole one

    once(finish)


def load_state(state: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Read a state into ``tensors``, in place, and return its progress; all processes must call it."""
    with _alone_is_fine():
        dcp.load(tensors, checkpoint_id=state, no_dist=not dist.is_initialized())
    return json.loads((state / PROGRESS).read_text(encoding="utf-8"))


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """torch warns that it saves in a single process, even when told to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def _check_unchanged(out: Path, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    differing = [
        f"{name} was {earlier.get(name)} and is now {config.get(name)}"
        for name in {**earlier, **config}
        if earlier.get(name) != config.get(name) and name not in FREE_FIELDS
    ]
    if config["steps"] < earlier["steps"]:
        differing.append(f"steps were {earlier['steps']} and are now only {config['steps']}")
    if differing:
        raise UsageError(f"{out} was trained otherwise: {', '.join(differing)}: keep these, or choose another folder")


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_TOLD else hashlib.sha256(text.encode()).hexdigest()


def _check_same(out: Path, earlier: Mapping[str, str], of: Mapping[str, str]) -> None:
    others = [f"another {name}" for name, value in of.items() if earlier.get(name, value) != value]
    if others:
        raise UsageError(
            f"{out} was begun with {' and '.join(others)}: go on with what it was begun with, or choose another folder"
        )


def _states(folder: Path) -> list[Path]:
    """Complete states, oldest first."""
    return sorted(path for path in folder.glob("step-*"))


def _step(state: Path) -> int:
    return int(state.name.removeprefix("step-"))
