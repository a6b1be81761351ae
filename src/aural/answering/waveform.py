"""From a sound to the windows that an audio language model hears, each exactly as long as its picture of a sound.

A sound that is longer is covered by the fewest windows of that length, spread evenly, all of them real sound; a shorter
one is repeated until it fills the window. Channels are mixed down, and the same sound gives the same windows.

The released code does otherwise, and :func:`released_window` does as it did: it lays channels end to end (of a stereo
file it hears the left one, then the right one), resamples by a windowed sinc of its own, and of a longer sound hears
one window at random. It is here for comparison with its numbers.
"""

import math
import random
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aural import audio
from aural.audio import SHORTEST_WINDOW, Sound, Window

ZERO_CROSSINGS, ROLL_OFF = 6, 0.99
"""Of the released code's resampler: half its length, and the end of its pass band over the lower Nyquist rate."""


def windows(
    sound: Sound, sample_rate: int, seconds: float, *, released: bool = False, seed: int = 0
) -> Iterator[Window]:
    """Windows of a sound, mono, each of ``round(seconds * sample_rate)`` samples, in the order of time.

    Less than :data:`aural.audio.SHORTEST_WINDOW` beyond a window makes no other one and stays unheard.

    Args:
        sound: see :data:`aural.audio.Sound`.
        sample_rate: in Hz, of the windows.
        seconds: length of a window.
        released: the one window of :func:`released_window` instead.
        seed: of that window.

    Yields:
        Where a window starts and ends in the sound, in seconds, and its samples; the end of a window that was filled by
        repeating is that of the sound.

    Raises:
        AudioError: the sound is missing, empty or unreadable.
    """
    if released:
        yield released_window(sound, sample_rate, seconds, seed=seed)
        return
    size, beyond = round(seconds * sample_rate), max(0.0, audio.seconds(sound) - seconds)
    if beyond < SHORTEST_WINDOW:
        waveform = audio.read_mono(sound, sample_rate)[:size]
        yield Window(0.0, len(waveform) / sample_rate, repeated(waveform, size))
        return
    # Steps in whole samples, rounded down: what is left over lengthens the last window, whose front is cut off.
    step = math.floor(beyond / math.ceil(beyond / seconds) * sample_rate)
    for window in audio.windows(sound, sample_rate, seconds, step / sample_rate):
        waveform = window.waveform[-size:]
        yield Window(window.end - len(waveform) / sample_rate, window.end, repeated(waveform, size))


def repeated(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """A waveform (time,), from its beginning again and again, cut at ``n_samples``."""
    return np.tile(waveform, math.ceil(n_samples / len(waveform)))[:n_samples]


def released_window(sound: Sound, sample_rate: int, seconds: float, *, seed: int = 0) -> Window:
    """What the released code hears of a sound; the seed is that of its draw, by Python's ``random``.

    Start and end are times in the channels laid end to end.
    """
    waveform, own_rate = audio.read(sound)
    flat = resampled(torch.from_numpy(waveform), own_rate, sample_rate).flatten().numpy()
    size = round(seconds * sample_rate)
    if len(flat) <= size:
        return Window(0.0, len(flat) / sample_rate, repeated(flat, size))
    start = random.Random(seed).randrange(len(flat) - size)
    return Window(start / sample_rate, (start + size) / sample_rate, flat[start : start + size])


def resampled(waveform: Tensor, own_rate: int, sample_rate: int) -> Tensor:
    """Windowed-sinc resampling with torchaudio's defaults, as the released code uses it.

    The kernel is a sinc under a squared cosine, one phase for each place of an output sample between input samples.

    Args:
        waveform: (channels, time).
        own_rate: its sample rate, in Hz.
        sample_rate: the one wanted.

    Returns:
        (channels, ceil(time * sample_rate / own_rate)).
    """
    if own_rate == sample_rate:
        return waveform
    divisor = math.gcd(own_rate, sample_rate)
    old, new = own_rate // divisor, sample_rate // divisor
    band = ROLL_OFF * min(old, new)
    width = math.ceil(ZERO_CROSSINGS * old / band)
    taps = torch.arange(-width, width + old, dtype=torch.float64) / old
    phases = torch.arange(new, dtype=torch.float64)[:, None] / new
    times = (band * (taps - phases)).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    kernel = band / old * torch.sinc(times) * (math.pi * times / (2 * ZERO_CROSSINGS)).cos().square()
    padded = F.pad(waveform, (width, width + old))[:, None]
    phased = F.conv1d(padded, kernel.to(waveform.dtype)[:, None], stride=old)  # (channels, new, time / old)
    return phased.transpose(1, 2).flatten(1)[:, : math.ceil(new * waveform.shape[1] / old)]
