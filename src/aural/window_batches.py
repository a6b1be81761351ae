"""Windows of many sounds, a few at a time: what is computed together may be parts of several sounds.

A sound is given as stretches, each of which has one result, and a stretch as the windows that are heard at once: a
whole sound as a single one, or one for every few seconds of it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from aural.audio import SHORTEST_WINDOW, Sound, Window, seconds, windows as windows_of
from aural.errors import AuralError
from aural.sound_source import rewindable


@dataclass(frozen=True)
class Stretch:
    """From when to when in its sound, in seconds; None where it is the whole sound."""

    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Piece:
    """A window of a sound; or, without one, the end of a stretch; or, without either, that of a sound."""

    sound: Sound
    number: int
    """Of the window in its sound, from 0 on."""
    window: Window | None = None
    stretch: Stretch | None = None
    """That has ended."""
    error: AuralError | None = None
    """That ended the reading of the sound, if any."""

    @property
    def ends_sound(self) -> bool:
        return self.window is None and self.stretch is None


def stretches(
    sound: Sound,
    sample_rate: int,
    length: float | None,
    *,
    longest: float,
    whole: Callable[[Sound], Iterator[Window]],
) -> Iterator[tuple[Stretch, Iterator[Window]]]:
    """A whole sound, or every ``length`` seconds of it, with the windows of each.

    A stretch that is heard at once is a window; a longer one is a sound of its own, with the windows that it would have
    if it had been given alone. One stretch is in memory at a time.

    Args:
        sound: see :data:`aural.audio.Sound`.
        sample_rate: in Hz, of the windows.
        length: in seconds; None: of all of it.
        longest: how many seconds are heard at once.
        whole: the windows of a sound that is to have one result.
    """
    if length is None:
        yield Stretch(), whole(sound)
        return
    for stretch in windows_of(sound, sample_rate, length):
        windows = iter([stretch]) if length <= longest else whole((stretch.waveform, sample_rate))
        yield Stretch(stretch.start, stretch.end), windows
        del stretch, windows  # or it would be kept while the next one is read


def even_windows(sound: Sound, sample_rate: int, longest: float) -> Iterator[Window]:
    """As few windows as cover a sound, all of one length, none of more than ``longest`` seconds and a sliver."""
    sound = rewindable(sound)  # its length comes first
    whole = seconds(sound)
    # a millisecond more, so that rounding does not leave a sliver at the end
    length = whole / ceil(max(whole, SHORTEST_WINDOW) / longest) + 0.001
    yield from windows_of(sound, sample_rate, length)


def pieces(
    sounds: Iterable[Sound], stretches: Callable[[Sound], Iterator[tuple[Stretch, Iterator[Window]]]]
) -> Iterator[Piece]:
    """The windows of each sound in turn, read as they are needed, with the ends of stretches and sounds among them.

    Args:
        sounds: any number.
        stretches: those of a sound; an :class:`AuralError` of theirs ends the sound, and the next one follows.
    """
    for sound in sounds:
        error, number = None, 0
        try:
            for stretch, windows in stretches(sound):
                for window in windows:
                    yield Piece(sound, number, window)
                    number += 1
                    del window
                del windows
                yield Piece(sound, -1, stretch=stretch)
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
        if count == n_windows and piece.ends_sound:
            yield batch
            batch, count = [], 0
        elif count > n_windows:
            yield batch[:-1]
            batch, count = [piece], 1
    if batch:
        yield batch
