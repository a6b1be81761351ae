"""Mix-up captions: two recordings played together, and one sentence that is true of both.

Wu et al. 2023 (arXiv 2309.17352), section 2.3. The paper joins the two captions with a language model; here a small
grammar does it, which is exact where the labels of the sounds are known (:mod:`aural.sound_phrases`).

Levels are relative levels in dB: that of the first sound over that of the second.
"""

import numpy as np
from numpy.typing import NDArray

from aural.sound_phrases import SOUNDS

RMS_FRAME, RMS_HOP = 2048, 512
"""Samples; the frames over which the released code measures the energy of a clip."""

CONNECTIVES = (" while ", " and ", " as ")

Waveform = NDArray[np.float32]


def energy(waveform: Waveform) -> float:
    """Mean over centred frames of the mean square of (time,): the ends count half, as in the released code."""
    padded = np.pad(waveform, RMS_FRAME // 2)
    n_frames = 1 + (len(padded) - RMS_FRAME) // RMS_HOP
    sums = np.concatenate([[0.0], np.cumsum(padded.astype(np.float64) ** 2)])
    starts = np.arange(n_frames) * RMS_HOP
    return float(np.mean((sums[starts + RMS_FRAME] - sums[starts]) / RMS_FRAME))


def mix(first: Waveform, second: Waveform, level_db: float, offset: float) -> Waveform:
    """Add the shorter clip to the longer one, so that the first is ``level_db`` above the second, whichever is longer.

    The released code scales the shorter clip by the factor meant for the second one, which is wrong when the shorter is
    the first; this is the relation the paper describes.

    Args:
        first: (time,).
        second: (time,).
        level_db: relative level in dB; the paper draws it from -5 .. 5.
        offset: 0..1, where in the longer clip the shorter one begins, as a share of the room there is.

    Returns:
        (time,) of the longer clip's length; not clipped. Silence has no level: a silent clip is added as it is.
    """
    energy_first, energy_second = energy(first), energy(second)
    scale = 1.0
    if energy_first > 0 and energy_second > 0:
        scale = float(np.sqrt(energy_first / (10 ** (level_db / 10) * energy_second)))
    if len(second) <= len(first):
        longer, shorter = first, second * np.float32(scale)
    else:
        longer, shorter = second, first * np.float32(1 / scale)
    mixed = longer.copy()
    start = round(offset * (len(longer) - len(shorter)))
    mixed[start : start + len(shorter)] += shorter
    return mixed


def join_captions(
    first: str, second: str, labels: tuple[str | None, str | None], generator: np.random.Generator
) -> str:
    """One sentence for two sounds that are heard together.

    Args:
        first: a caption of the first sound, used when its label is not in the table of sounds.
        second: the same of the second.
        labels: what the two sounds are, if known.
        generator: chooses among the forms that say the same.
    """
    if generator.random() < 0.5:
        first, second, labels = second, first, (labels[1], labels[0])
    sounds = [SOUNDS.get(label) if label is not None else None for label in labels]
    if sounds[0] is None or sounds[1] is None or generator.random() < 0.2:
        return f"{first} and {second}"
    form = generator.integers(3)
    if form == 0:
        return (
            f"{_pick(sounds[0].finite, generator)}{_pick(CONNECTIVES, generator)}{_pick(sounds[1].finite, generator)}"
        )
    if form == 1:
        return f"{_pick(sounds[0].noun_phrases, generator)} and {_pick(sounds[1].noun_phrases, generator)}"
    return f"{_pick(sounds[0].participle, generator)} while {_pick(sounds[1].finite, generator)}"


def _pick(options: tuple[str, ...], generator: np.random.Generator) -> str:
    return options[int(generator.integers(len(options)))]
