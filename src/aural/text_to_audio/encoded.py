"""Training sounds as codes: computed once and kept in files, or anew in every step.

The files, in a folder of their own: ``codes.json`` says what they are of, ``00000.safetensors`` and so on hold up to
256 sounds each. Every file appears under its name when it is complete, so that encoding that was stopped goes on with
the files that are missing.

Shapes: K codebooks, T frames, N samples.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from rich.progress import track
from safetensors import SafetensorError
from torch import Tensor

from aural.checkpoint import write_whole
from aural.codec_folder import Codec
from aural.errors import CheckpointError, UsageError
from aural.processes import meet, once
from aural.text_to_audio.data import Sounds
from aural.turns import order

DESCRIPTION = "codes.json"
SHARD = 256
"""Sounds in one file."""
ENCODED_AT_ONCE = 8


@dataclass(frozen=True)
class Coded:
    """A sound as codes, and what is true of it."""

    codes: Tensor
    """(K, T), int16."""
    n_frames: int
    """How many are of the sound; they stand first."""
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """``pool(index)`` goes through sounds that are encoded already, in another order each turn."""

    coded: Sequence[Coded]
    seed: int

    def __call__(self, index: int) -> Coded:
        turn, place = divmod(index, len(self.coded))
        return self.coded[int(order(len(self.coded), seed=self.seed, stream=6, turn=turn)[place])]


def encoded_pool(
    sounds: Sounds,
    codec: Codec,
    n: int,
    folder: Path,
    *,
    of: Mapping[str, Any],
    seed: int,
    progress: bool,
    rank: int = 0,
    size: int = 1,
) -> Pool:
    """Sounds 0 .. n-1 as codes, out of ``folder`` as far as they are there, which is filled up with the others.

    The processes of a training share the work; each must call it.

    Args:
        sounds: all of one length.
        codec: encodes them.
        n: size of the pool.
        folder: is made where it does not exist.
        of: tells these sounds and this codec from others, as plain data.
        seed: of the order.
        progress: show a progress bar.
        rank: which process this is.
        size: how many there are.

    Raises:
        UsageError: the folder holds codes of other sounds, or of another codec.
        CheckpointError: one of its files is damaged.
    """
    description = json.dumps({**of, "sounds": n}, indent=2, sort_keys=True, default=str) + "\n"
    once(lambda: _described(folder, description))
    paths = [folder / f"{number:05d}.safetensors" for number in range(-(-n // SHARD))]
    for number in track(range(rank, len(paths), size), "encoding sounds", disable=not progress):
        if not paths[number].is_file():
            some = range(number * SHARD, min((number + 1) * SHARD, n))
            write_whole(paths[number], _to_bytes(_encoded(sounds, codec, some)))
    meet()
    return Pool([one for path in paths for one in _from_bytes(path.read_bytes(), path)], seed)


def _described(folder: Path, description: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / DESCRIPTION
    if known.is_file() and known.read_text(encoding="utf-8") != description:
        raise UsageError(
            f"{folder} holds codes of other sounds or of another codec: choose another folder, or empty it"
        )
    write_whole(known, description)


def _encoded(sounds: Sounds, codec: Codec, indices: range) -> list[Coded]:
    found: list[Coded] = []
    for first in range(indices.start, indices.stop, ENCODED_AT_ONCE):
        some = [sounds(index) for index in range(first, min(first + ENCODED_AT_ONCE, indices.stop))]
        codes = codec.encode(torch.from_numpy(np.stack([one.waveform for one in some]))).cpu()
        rows = zip(codes.to(torch.int16), some, strict=True)
        found += [Coded(row, -(-one.n_samples // codec.hop), one.texts) for row, one in rows]
    return found


def _to_bytes(coded: Sequence[Coded]) -> bytes:
    texts = json.dumps([one.texts for one in coded], ensure_ascii=False).encode()
    return safetensors.torch.save(
        {
            "codes": torch.stack([one.codes for one in coded]),
            "n_frames": torch.tensor([one.n_frames for one in coded]),
            "texts": torch.frombuffer(bytearray(texts), dtype=torch.uint8),
        }
    )


def _from_bytes(content: bytes, path: Path) -> list[Coded]:
    try:
        tensors = safetensors.torch.load(content)
        texts = json.loads(tensors["texts"].numpy().tobytes())
        rows = zip(tensors["codes"], tensors["n_frames"].tolist(), texts, strict=True)
        return [Coded(codes, n_frames, tuple(said)) for codes, n_frames, said in rows]
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: delete it, and it is made anew ({error})") from None
