"""Mixing two clips at a relative level, and one sentence for both."""

import numpy as np
import pytest

from aural.captioning.caption_mixup import RMS_FRAME, RMS_HOP, energy, join_captions, mix
from aural.sound_phrases import SOUNDS, named_sounds


def noise(n: int, seed: int, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * level).astype(np.float32)


def test_energy_equals_the_mean_of_framed_squared_rms() -> None:
    waveform = noise(5000, 0)
    padded = np.pad(waveform, RMS_FRAME // 2)
    frames = [padded[i : i + RMS_FRAME] for i in range(0, len(padded) - RMS_FRAME + 1, RMS_HOP)]
    assert energy(waveform) == pytest.approx(np.mean([np.mean(f.astype(np.float64) ** 2) for f in frames]), rel=1e-9)


@pytest.mark.parametrize(("n_first", "n_second"), [(16000, 9000), (9000, 16000), (16000, 16000)])
@pytest.mark.parametrize("level_db", [-5.0, 0.0, 3.0])
def test_the_first_is_level_db_above_the_second_whichever_is_longer(
    n_first: int, n_second: int, level_db: float
) -> None:
    first, second = noise(n_first, 1, 0.02), noise(n_second, 2, 0.4)
    mixed = mix(first, second, level_db, offset=0.0)
    assert len(mixed) == max(n_first, n_second)
    # the longer clip is kept as it is, so that what is left is the scaled shorter one
    if n_second <= n_first:
        left = (mixed - first)[:n_second]
        ratio = energy(first) / energy(left)
    else:
        left = (mixed - second)[:n_first]
        ratio = energy(left) / energy(second)
    assert 10 * np.log10(ratio) == pytest.approx(level_db, abs=0.01)


def test_offset_places_the_shorter_clip() -> None:
    longer, shorter = np.zeros(100, np.float32), np.ones(10, np.float32)
    for offset, start in ((0.0, 0), (0.5, 45), (1.0, 90)):
        assert np.flatnonzero(mix(longer, shorter, 0.0, offset)).tolist() == list(range(start, start + 10))


def test_joined_captions_name_exactly_the_two_sounds() -> None:
    generator = np.random.default_rng(0)
    labels = sorted(SOUNDS)
    forms = set()
    for _ in range(3000):
        a, b = (labels[i] for i in generator.choice(len(labels), 2, replace=False))
        captions = [SOUNDS[label].finite[0] for label in (a, b)]
        text = join_captions(captions[0], captions[1], (a, b), generator)
        assert named_sounds(text) == {a, b}, text
        forms.add(text)
    assert len(forms) > 2500


def test_captions_of_unknown_sounds_are_joined_as_they_are() -> None:
    text = join_captions("a lute is played", "a yak grunts", ("lute", None), np.random.default_rng(0))
    assert text in {"a lute is played and a yak grunts", "a yak grunts and a lute is played"}
