"""Recordings as material for soundscapes: what is silent is cut away, and single occurrences are found.

A recording of a dog may hold one bark or ten, and its label does not say. How many there are is known only where
silence separates them: :func:`bursts` takes a recording apart, and a soundscape repeats one occurrence a known number
of times.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from aural.audio import read_mono
from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.soundscapes.acoustics import ACTIVE_FRAME, Waveform, faded, frame_rms

CACHED_CLIPS = 4096
"""Decoded recordings kept in memory, the least recently used go first (10 s take 0.6 MB)."""

PAUSES = {"rooster": 0.5, "person sneeze": 0.5, "cash register": 0.6, "burp": 0.3, "crow": 0.3}
"""Longest silence, in seconds, inside one occurrence of a sound."""

PAUSE = 0.12
"""The same for all other sounds."""

QUIET_DB = -24.0
"""What lies this far below the loudest 20 ms of a recording separates occurrences."""

WEAK_DB = -10.0
"""What stays this far below the strongest occurrence of a recording is none."""

LONGEST_OCCURRENCE = 2.6
"""Seconds; what lasts longer is several occurrences that run into one another, or no single event."""

SHORTEST_OCCURRENCE = 0.04
"""Seconds; what is shorter is a glitch."""


@lru_cache(maxsize=CACHED_CLIPS)
def trimmed(path: Path, start: float, duration: float | None) -> Waveform:
    """A recording at 16 kHz without the silence at its ends (50 dB below its loudest 20 ms)."""
    waveform = read_mono(path, SAMPLE_RATE, start=start, duration=duration)
    rms = frame_rms(waveform)
    heard = np.flatnonzero(rms > rms.max() * 10 ** (-50 / 20))
    if len(heard) == 0:
        return waveform
    return waveform[heard[0] * ACTIVE_FRAME : (heard[-1] + 1) * ACTIVE_FRAME]


def read(clip: Clip) -> Waveform:
    """The sounding part of a clip, (time,) at 16 kHz; decoded once."""
    return trimmed(clip.audio, clip.start, clip.duration)


def bursts(
    waveform: Waveform, pause: float = PAUSE, quiet_db: float = QUIET_DB, weak_db: float = WEAK_DB
) -> list[tuple[int, int]]:
    """Occurrences in a recording, as (first sample, sample after the last).

    Stretches of 20 ms frames that are within ``quiet_db`` of the loudest, joined across pauses of up to ``pause``
    seconds; 40 ms are kept after each for its decay. Ones at the very end of the recording may be cut off and do not
    count, nor do ones longer than ``LONGEST_OCCURRENCE`` or weaker than the strongest by ``weak_db``.
    """
    rms = frame_rms(waveform)
    loud = np.flatnonzero(rms > rms.max() * 10 ** (quiet_db / 20))
    if len(loud) == 0 or rms.max() == 0:
        return []
    gap = round(pause * SAMPLE_RATE / ACTIVE_FRAME)
    breaks = np.flatnonzero(np.diff(loud) > gap + 1)
    firsts, lasts = loud[np.r_[0, breaks + 1]], loud[np.r_[breaks, len(loud) - 1]]
    found = []
    for first, last in zip(firsts, lasts, strict=True):
        start, end = max(0, (first - 1) * ACTIVE_FRAME), min(len(waveform), (last + 3) * ACTIVE_FRAME)
        seconds = (end - start) / SAMPLE_RATE
        strong = rms[first : last + 1].max() > rms.max() * 10 ** (weak_db / 20)
        cut_off = last >= len(rms) - 1 and rms[-1] > rms.max() * 10 ** (quiet_db / 20)
        if strong and not cut_off and SHORTEST_OCCURRENCE <= seconds <= LONGEST_OCCURRENCE:
            found.append((int(start), int(end)))
    return found


def pause_of(label: str) -> float:
    """Longest silence, in seconds, inside one occurrence of a sound."""
    return PAUSES.get(label, PAUSE)


def clear_bursts(waveform: Waveform, label: str) -> list[tuple[int, int]] | None:
    """All occurrences in (time,), if there can be no doubt how many there are: a strict and a lax look agree."""
    strict = bursts(waveform, pause_of(label), -20.0)
    lax = bursts(waveform, pause_of(label), -32.0, weak_db=-32.0)
    return strict if strict and len(strict) == len(lax) else None


@lru_cache(maxsize=CACHED_CLIPS)
def occurrences(clip: Clip) -> tuple[Waveform, ...]:
    """Single occurrences of the sound of a clip with one label, (time,) each; none where they run together."""
    waveform = read(clip)
    return tuple(faded(waveform[start:end]) for start, end in bursts(waveform, pause_of(clip.labels[0])))


def looped(waveform: Waveform, n_samples: int, generator: np.random.Generator, overlap: float = 0.25) -> Waveform:
    """(n_samples,) of a sound that goes on: a cut of it, or copies that fade into one another over ``overlap`` s."""
    if len(waveform) >= n_samples:
        start = int(generator.integers(len(waveform) - n_samples + 1))
        return waveform[start : start + n_samples].copy()
    n_fade = min(round(overlap * SAMPLE_RATE), len(waveform) // 3)
    ramp = np.sqrt(np.linspace(0, 1, n_fade, dtype=np.float32))  # equal power: the copies are not in phase
    piece = waveform.copy()
    piece[:n_fade] *= ramp
    piece[len(piece) - n_fade :] *= ramp[::-1]
    step = max(1, len(waveform) - n_fade)
    result = np.zeros(n_samples + 2 * len(waveform), np.float32)
    for start in range(0, n_samples + n_fade, step):
        result[start : start + len(piece)] += piece
    return result[n_fade : n_fade + n_samples]


def with_single_labels(clips: Sequence[Clip]) -> list[Clip]:
    """The clips that hold one sound, by their labels."""
    return [clip for clip in clips if len(clip.labels) == 1]
