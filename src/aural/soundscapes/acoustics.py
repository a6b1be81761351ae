"""What happens to a sound on its way to the microphone: level, distance, noise, and the edges of cuts.

Waveforms are (time,) float32 at 16 kHz.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from aural.features import SAMPLE_RATE

Waveform = NDArray[np.float32]
NoiseColour = Literal["white", "pink", "brown"]

SLOPES: dict[NoiseColour, float] = {"white": 0.0, "pink": -0.5, "brown": -1.0}
"""Exponent of frequency in the amplitude of each colour of noise."""

ACTIVE_FRAME = 320
"""Samples (20 ms) over which :func:`active_rms` looks at the level."""

ACTIVE_DB = -25.0
"""Frames this far below the loudest one do not count as active."""


def frame_rms(waveform: Waveform) -> Waveform:
    """(time,) -> (time // ACTIVE_FRAME,): root mean square of each 20 ms; of all there is, if that is less."""
    if len(waveform) < ACTIVE_FRAME:
        return np.sqrt(np.mean(np.square(waveform), keepdims=True)) if len(waveform) else np.zeros(1, np.float32)
    frames = waveform[: len(waveform) // ACTIVE_FRAME * ACTIVE_FRAME].reshape(-1, ACTIVE_FRAME)
    return np.sqrt(np.einsum("fs,fs->f", frames, frames) / ACTIVE_FRAME)


def active_rms(waveform: Waveform) -> float:
    """Root mean square over the parts where something sounds, so that pauses do not make a sound louder."""
    rms = frame_rms(waveform)
    active = rms[rms > rms.max() * 10 ** (ACTIVE_DB / 20)]
    return float(np.sqrt(np.mean(active**2))) if len(active) else 0.0


def at_level(waveform: Waveform, rms: float) -> Waveform:
    """Scaled so that what sounds in it has this root mean square; silence stays silence."""
    return waveform * np.float32(rms / (active_rms(waveform) + 1e-9))


def faded(waveform: Waveform, seconds: float = 0.008) -> Waveform:
    """With a short ramp at both ends, so that a cut does not click."""
    n = min(round(seconds * SAMPLE_RATE), len(waveform) // 2)
    if n == 0:
        return waveform
    result = waveform.copy()
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    result[:n] *= ramp
    result[len(result) - n :] *= ramp[::-1]
    return result


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play faster by ``factor``, as a tape would: linear interpolation, good enough to learn from."""
    times = np.arange(int(len(waveform) / factor)) * factor
    return np.interp(times, np.arange(len(waveform)), waveform).astype(np.float32)


def _spectrum(waveform: Waveform, size: int) -> torch.Tensor:
    """Of (time,) followed by silence up to ``size``; in single precision, which is twice as fast as NumPy's."""
    return torch.fft.rfft(torch.from_numpy(waveform), size)


def _waveform(spectrum: torch.Tensor, size: int) -> Waveform:
    return torch.fft.irfft(spectrum, size).numpy()


def _size(n_samples: int) -> int:
    """The next length that a fast Fourier transform takes quickly: 2, 3 or 5 times a power of two."""
    return min(factor << max(0, ((n_samples - 1) // factor).bit_length()) for factor in (2, 3, 5))


def _low_pass_gain(size: int, cutoff_hz: float) -> torch.Tensor:
    """Gain of each frequency: 1 up to the cutoff, then down to 0 over a fifth of it."""
    frequencies = torch.arange(size // 2 + 1) * (SAMPLE_RATE / size)
    return ((cutoff_hz * 1.2 - frequencies) / (0.2 * cutoff_hz)).clamp(0, 1)


def low_pass(waveform: Waveform, cutoff_hz: float) -> Waveform:
    """Remove what lies above ``cutoff_hz``, with a smooth edge of a fifth of it."""
    size = _size(len(waveform))
    return _waveform(_spectrum(waveform, size) * _low_pass_gain(size, cutoff_hz), size)[: len(waveform)]


def from_afar(waveform: Waveform, generator: np.random.Generator) -> Waveform:
    """As heard from a distance: dull, and more reverberation than sound. The length stays.

    Air and obstacles take what is above 1 to 2.5 kHz; the room is a decaying noise that falls by 60 dB in 0.8 to 1.8 s.
    """
    cutoff_hz = float(generator.uniform(1000, 2500))
    n_room = round(float(generator.uniform(0.8, 1.8)) * SAMPLE_RATE)
    room = generator.standard_normal(n_room, dtype=np.float32)
    room *= np.exp(np.linspace(0, np.log(1e-3), n_room, dtype=np.float32))
    room *= 1.5 / np.float32(np.sqrt(np.sum(room**2)))
    room[0] += 1.0  # the direct sound, which carries less energy than the room
    size = _size(len(waveform) + n_room)
    spectrum = _spectrum(waveform, size) * _spectrum(room, size) * _low_pass_gain(size, cutoff_hz)
    return _waveform(spectrum, size)[: len(waveform)]


def noise(n_samples: int, colour: NoiseColour, generator: np.random.Generator) -> Waveform:
    """(n_samples,) of unit root mean square; equal power per Hz (white), per octave (pink), or falling at 6 dB more.

    Coloured noise is a cut of a minute that was made once; what is longer goes round.
    """
    if colour == "white":
        return generator.standard_normal(n_samples, dtype=np.float32)
    minute = _coloured_minute(colour)
    start = int(generator.integers(len(minute)))
    return np.take(minute, np.arange(start, start + n_samples), mode="wrap")


@lru_cache
def _coloured_minute(colour: NoiseColour) -> Waveform:
    """(2 ** 20,) that joins on to itself without a seam."""
    size = 1 << 20
    spectrum = _spectrum(np.random.default_rng(0).standard_normal(size, dtype=np.float32), size)
    frequencies = (torch.arange(size // 2 + 1) * (SAMPLE_RATE / size)).clamp_min(20.0)
    coloured = _waveform(spectrum * frequencies ** SLOPES[colour], size)
    return coloured / np.float32(np.sqrt(np.mean(coloured**2)))
