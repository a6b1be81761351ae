"""A sound in another shape than it was given in: a part of it, or all bytes of what can be read only once."""

import io
import stat
from os import PathLike
from pathlib import Path
from typing import Any

from aural.audio import Sound, binary_file, read_mono


def part(sound: Sound, sample_rate: int, *, start: float = 0.0, duration: float | None = None) -> Sound:
    """A part of a sound as a sound of its own, mono at ``sample_rate``; where the part is all of it, the sound itself.

    Arguments and errors as for :func:`aural.audio.read_mono`.
    """
    if not start and duration is None:
        return sound
    return read_mono(sound, sample_rate, start=start, duration=duration), sample_rate


def rewindable(sound: Sound) -> Sound:
    """The sound itself; or, of one that can be read only once (a pipe, a stream), all its bytes, to be read again.

    For whoever reads a sound twice, for its length and then for its samples.

    Raises:
        AudioError: it cannot be opened, or is an empty stream.
    """
    if isinstance(sound, tuple) or not _reads_once(sound):
        return sound
    with binary_file(sound) as (file, name):
        return _Kept(file.read(), name)


class _Kept(io.BytesIO):
    """The bytes of a stream, under its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def _reads_once(sound: Any) -> bool:
    if isinstance(sound, (str, PathLike)):
        try:
            return stat.S_ISFIFO(Path(sound).stat().st_mode)
        except (OSError, ValueError):
            return False  # reading it says what is wrong
    return hasattr(sound, "read") and not isinstance(sound, io.TextIOBase) and not sound.seekable()
