"""Sounds as codes, and codes as sounds: what ``aural encode`` and ``aural decode`` do, for Python as well."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from aural.audio import Sound, read
from aural.codec.files import EncodedSound, decode_sound, encode_sound, read_codes
from aural.codec_folder import Codec, load_codec
from aural.errors import AuralError, UsageError

ModelName = Codec | str | os.PathLike[str] | None
AnySound = TypeVar("AnySound")


def encode(sound: Sound, *, model: ModelName = None, n_codebooks: int | None = None) -> EncodedSound:
    """A sound as codes, each of its channels on its own; :func:`aural.codec.files.write_codes` writes them.

    Args:
        sound: a path, a binary file object, or an array or tensor with its sample rate.
        model: a loaded codec, or what :func:`aural.codec_folder.load_codec` takes.
        n_codebooks: how many, the first ones; None = all. Fewer are fewer bits and a rougher sound.

    Raises:
        AuralError: the sound cannot be read, or there are not as many codebooks.
    """
    codec = _loaded(model)
    waveform, _ = read(sound, codec.sample_rate)
    return encode_sound(codec.network, torch.from_numpy(waveform).to(codec.device), n_codebooks)


def decode(encoded: EncodedSound | str | os.PathLike[str], *, model: ModelName = None) -> Tensor:
    """Codes as a sound (channels, N) at the sample rate of the codec, as long as the one encoded, not cut to -1..1.

    Args:
        encoded: what :func:`encode` gave, or a ``.codes`` file.
        model: the codec that the codes were made with, loaded or what :func:`aural.codec_folder.load_codec` takes.

    Raises:
        AuralError: the file cannot be read, or the codes are another codec's.
    """
    codec = _loaded(model)
    codes = encoded if isinstance(encoded, EncodedSound) else read_codes(encoded)
    try:
        return decode_sound(codec.network, codes).cpu()
    except UsageError as error:
        raise UsageError(f"{encoded}: {error}" if codes is not encoded else str(error)) from None


def encode_each(
    sounds: Iterable[AnySound], codec: Codec, *, n_codebooks: int | None = None
) -> Iterator[tuple[AnySound, EncodedSound | AuralError]]:
    """:func:`encode` for many: each sound with its codes, or with the error that only it met.

    Raises:
        UsageError: there are not as many codebooks.
    """
    if n_codebooks is not None and not 1 <= n_codebooks <= codec.n_codebooks:
        raise UsageError(f"the codec has {codec.n_codebooks} codebooks: ask for 1 to as many, not {n_codebooks}")
    for sound in sounds:
        try:
            yield sound, encode(sound, model=codec, n_codebooks=n_codebooks)  # type: ignore[arg-type]
        except AuralError as error:
            yield sound, error


def decode_each(files: Iterable[Path], codec: Codec) -> Iterator[tuple[Path, Tensor | AuralError]]:
    """:func:`decode` for many files: each with its sound, or with the error that only it met."""
    for file in files:
        try:
            yield file, decode(file, model=codec)
        except AuralError as error:
            yield file, error


def _loaded(model: ModelName) -> Codec:
    return model if isinstance(model, Codec) else load_codec(model)
