"""Windows of many sounds, a few at a time: what is computed together may be parts of several sounds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from aural.audio import Sound, Window
from aural.errors import AuralError


@dataclass(frozen=True)
class Piece:
    """A window of a sound; the last piece of each sound has none, but the error that ended the reading, if any."""

    sound: Sound
    number: int
    """Of the window in its sound, from 0 on."""
    window: Window | None = None
    error: AuralError | None = None


def pieces(sounds: Iterable[Sound], windows: Callable[[Sound], Iterator[Window]]) -> Iterator[Piece]:
    """The windows of each sound in turn, read as they are needed.

    Args:
        sounds: any number.
        windows: those of a sound; an :class:`AuralError` of theirs ends the sound, and the next one follows.
    """
    for sound in sounds:
        error = None
        try:
            for number, window in enumerate(windows(sound)):
                yield Piece(sound, number, window)
        except AuralError as caught:
            error = caught
        yield Piece(sound, -1, error=error)


def batches(pieces: Iterable[Piece], n_windows: int) -> Iterator[list[Piece]]:
    """Pieces in lists that hold ``n_windows`` windows each, the last one what is left."""
    batch: list[Piece] = []
    count = 0
    for piece in pieces:
        batch.append(piece)
        count += piece.window is not None
        if count == n_windows and piece.window is None:
            yield batch
            batch, count = [], 0
        elif count > n_windows:
            yield batch[:-1]
            batch, count = [piece], 1
    if batch:
        yield batch
