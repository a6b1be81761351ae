"""Sounds made from nothing but numbers, of which everything is known.

Each function draws one occurrence of a sound from a generator and returns (time,) float32 at 16 kHz, of any level.
"""

import math
from collections.abc import Callable

import numpy as np

from aural.features import SAMPLE_RATE
from aural.soundscapes.acoustics import NoiseColour, Waveform, change_speed, faded, low_pass, noise

TWO_PI = np.float32(2 * math.pi)


def _times(seconds: float) -> Waveform:
    return np.arange(round(seconds * SAMPLE_RATE), dtype=np.float32) / np.float32(SAMPLE_RATE)


def _log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    return low * (high / low) ** generator.random()


def _partials(times: Waveform, hz: np.ndarray, gains: np.ndarray, decays: np.ndarray) -> Waveform:
    """Sum of decaying sines; ``decays`` in 1/s. Partials above the Nyquist frequency are left out."""
    total = np.zeros_like(times)
    for frequency, gain, decay in zip(hz, gains, decays, strict=True):
        if frequency < SAMPLE_RATE / 2:
            total += (
                np.float32(gain) * np.exp(-np.float32(decay) * times) * np.sin(TWO_PI * np.float32(frequency) * times)
            )
    return total


def beep(generator: np.random.Generator) -> Waveform:
    """A short steady tone with hard edges, as of an appliance."""
    times = _times(generator.uniform(0.09, 0.35))
    hz = _log_uniform(generator, 500, 3200)
    harmonics = np.arange(1, 6)
    gains = generator.choice([0.0, 0.3, 0.7]) ** (harmonics - 1)  # 0 ** 0 is 1: a pure sine
    return faded(_partials(times, hz * harmonics, gains, np.zeros(5)), 0.006)


def steady_tone(generator: np.random.Generator) -> Waveform:
    """A tone that holds its pitch for 1.2 to 4 s."""
    times = _times(generator.uniform(1.2, 4.0))
    hz = _log_uniform(generator, 120, 1800)
    harmonics = np.arange(1, 7)
    gains = generator.uniform(0.0, 0.6) ** (harmonics - 1)
    return faded(_partials(times, hz * harmonics, gains, np.zeros(6)), 0.05)


def _glide(generator: np.random.Generator, rising: bool) -> Waveform:
    times = _times(generator.uniform(0.7, 3.0))
    low = _log_uniform(generator, 150, 900)
    octaves = generator.uniform(1.0, 2.6)
    share = times / times[-1]
    hz = low * 2 ** (octaves * (share if rising else 1 - share))
    phase = TWO_PI * np.cumsum(hz / SAMPLE_RATE).astype(np.float32)
    second = generator.uniform(0.0, 0.4)
    return faded((np.sin(phase) + second * np.sin(2 * phase)).astype(np.float32), 0.02)


def rising_tone(generator: np.random.Generator) -> Waveform:
    """A tone that climbs by 1 to 2.6 octaves."""
    return _glide(generator, rising=True)


def falling_tone(generator: np.random.Generator) -> Waveform:
    """A tone that falls by 1 to 2.6 octaves."""
    return _glide(generator, rising=False)


def steady_noise(generator: np.random.Generator) -> Waveform:
    """Noise of one colour for 1.5 to 4 s, sometimes dulled."""
    return noise_of(round(generator.uniform(1.5, 4.0) * SAMPLE_RATE), generator)


def noise_of(n_samples: int, generator: np.random.Generator) -> Waveform:
    """(n_samples,) of noise of a colour that is drawn, with its high frequencies or without."""
    colours: tuple[NoiseColour, ...] = ("white", "pink", "brown")
    made = noise(n_samples, colours[int(generator.integers(3))], generator)
    if generator.random() < 0.25:
        made = low_pass(made, _log_uniform(generator, 2000, 6000))
    return faded(made, 0.02)


def alarm(generator: np.random.Generator) -> Waveform:
    """Two tones in turn, or a wail up and down, for 2 to 4.5 s."""
    times = _times(generator.uniform(2.0, 4.5))
    low, ratio = _log_uniform(generator, 450, 1100), generator.uniform(1.2, 1.7)
    swings = np.sin(TWO_PI * np.float32(generator.uniform(0.8, 3.5)) * times)
    if generator.random() < 0.5:
        swings = np.sign(swings)
    hz = low * ratio ** (0.5 + 0.5 * swings)
    phase = TWO_PI * np.cumsum(hz / SAMPLE_RATE).astype(np.float32)
    return faded((np.sin(phase) + 0.4 * np.sin(3 * phase)).astype(np.float32), 0.02)


def click(generator: np.random.Generator) -> Waveform:
    """A dry click of a resonance between 1.2 and 5 kHz, over in a few milliseconds."""
    times = _times(0.05)
    hz, decay = _log_uniform(generator, 1200, 5000), _log_uniform(generator, 200, 900)
    rough = generator.standard_normal(len(times), dtype=np.float32) * np.exp(-np.float32(2 * decay) * times)
    return _partials(times, np.array([hz]), np.ones(1), np.array([decay])) + 0.5 * rough


def plucked_note(generator: np.random.Generator) -> Waveform:
    """A string plucked near one end: harmonics that die the sooner the higher they are."""
    times = _times(generator.uniform(0.5, 1.1))
    hz, harmonics = _log_uniform(generator, 90, 700), np.arange(1, 25)
    place = generator.uniform(0.1, 0.3)
    gains = np.sin(np.pi * harmonics * place) / harmonics
    decays = generator.uniform(2.0, 5.0) * (1 + 0.25 * harmonics)
    return faded(_partials(times, hz * harmonics * np.sqrt(1 + 2e-4 * harmonics**2), gains, decays), 0.003)


def bell(generator: np.random.Generator) -> Waveform:
    """A struck bell: partials at the ratios of a church bell, more or less, that ring for about a second."""
    times = _times(generator.uniform(0.9, 1.8))
    hz = _log_uniform(generator, 350, 1400)
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.6, 3.0, 4.2, 5.4]) * generator.uniform(0.98, 1.02, 9)
    gains = generator.uniform(0.3, 1.0, 9) / (1 + 0.3 * np.arange(9))
    decays = generator.uniform(1.5, 3.5) * (0.5 + 0.35 * np.arange(9))
    return faded(_partials(times, hz * ratios, gains, decays), 0.002)


def engine(generator: np.random.Generator) -> Waveform:
    """A running engine: a pulse train of 25 to 90 Hz whose speed and strength waver, for 2 to 5 s."""
    times = _times(generator.uniform(2.0, 5.0))
    hz = _log_uniform(generator, 25, 90)
    waver = 1 + generator.uniform(0.01, 0.05) * np.sin(TWO_PI * np.float32(generator.uniform(0.2, 1.5)) * times)
    phase = TWO_PI * np.cumsum(hz * waver / SAMPLE_RATE).astype(np.float32)
    total = np.zeros_like(times)
    for harmonic in range(1, 16):
        gain, offset = generator.uniform(0.3, 1.0) / harmonic**0.7, generator.uniform(0, 6.28)
        total += np.float32(gain) * np.sin(harmonic * phase + np.float32(offset))
    strokes = 1 + 0.5 * np.sin(0.5 * phase)
    rattle = low_pass(generator.standard_normal(len(times), dtype=np.float32), 1500) * np.float32(0.4)
    return faded(((total + rattle) * strokes).astype(np.float32), 0.05)


SYNTHESISED: dict[str, Callable[[np.random.Generator], Waveform]] = {
    "beep": beep,
    "steady tone": steady_tone,
    "rising tone": rising_tone,
    "falling tone": falling_tone,
    "noise": steady_noise,
    "alarm": alarm,
    "click": click,
    "plucked string": plucked_note,
    "bell": bell,
    "engine": engine,
}
"""What can be made, by label; the words for each are in :mod:`aural.sound_phrases`."""


def varied(occurrence: Waveform, generator: np.random.Generator) -> Waveform:
    """The same sound once more, by a hand that is not quite steady: up to a semitone and 2 dB away."""
    gain = np.float32(10 ** (generator.uniform(-2, 2) / 20))
    return change_speed(occurrence, float(2 ** generator.uniform(-1 / 12, 1 / 12))) * gain
