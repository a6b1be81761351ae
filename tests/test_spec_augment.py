"""SpecAugment: what is drawn, from which range, and what applying it does. Parity is in parity_captioner.py."""

import math
from dataclasses import replace

import pytest
import torch

from aural.features import FBANK_STD, N_MELS
from aural.spec_augment import Draws, SpecAugmentConfig, apply, draw, frequency_response, time_warp

CONFIG = SpecAugmentConfig()


def test_masks_blank_their_band_and_span_only() -> None:
    fbank = torch.arange(1.0, 1 + 2 * 6 * 5).view(2, 6, 5)
    draws = Draws(
        None,
        freq_widths=torch.tensor([[2], [0]]),
        freq_starts=torch.tensor([[1], [3]]),
        time_widths=torch.tensor([[1, 1], [0, 3]]),
        time_starts=torch.tensor([[0, 5], [2, 4]]),  # the last one runs over the end
    )
    out = apply(fbank, draws)
    blank = torch.zeros(2, 6, 5, dtype=torch.bool)
    blank[0, :, 1:3] = True
    blank[0, [0, 5]] = True
    blank[1, 4:] = True
    assert torch.equal(out == 0, blank)
    assert torch.equal(out[~blank], fbank[~blank])


def test_time_warp_keeps_length_and_a_still_centre_changes_nothing() -> None:
    fbank = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(time_warp(fbank, 12, 12), fbank, atol=1e-6)
    warped = time_warp(fbank, 12, 9)
    assert warped.shape == fbank.shape
    assert not torch.allclose(warped, fbank)
    assert torch.allclose(time_warp(torch.ones(1, 30, 4), 12, 15), torch.ones(1, 30, 4), atol=1e-6)


def test_draws_cover_their_ranges_and_no_more() -> None:
    n_frames, n_mels, generator = 40, 16, torch.Generator().manual_seed(1)
    config = replace(CONFIG, max_freq_width=4)
    many = [draw(config, 3, n_frames, n_mels, generator) for _ in range(600)]
    warps = [each.warp for each in many if each.warp is not None]
    assert len(warps) == len(many)
    assert {centre for centre, _ in warps} == set(range(5, n_frames - 5))
    assert {position - centre for centre, position in warps} == set(range(-4, 6))
    assert {int(w) for each in many for w in each.freq_widths.flatten()} == set(range(4))
    assert {int(w) for each in many for w in each.time_widths.flatten()} == set(range(int(0.12 * n_frames)))
    for each in many:
        assert each.freq_widths.shape == (3, 2) and each.time_starts.shape == (3, 5)
        assert each.freq_starts.max() < max(1, n_mels - each.freq_widths.max())
        assert each.time_starts.max() < max(1, n_frames - each.time_widths.max())
        assert min(each.freq_starts.min(), each.time_starts.min()) >= 0


def test_same_generator_same_draws() -> None:
    fbank = torch.randn(2, 50, 128, generator=torch.Generator().manual_seed(0))
    first, second = (apply(fbank, draw(CONFIG, 2, 50, 128, torch.Generator().manual_seed(7))) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, fbank)


@pytest.mark.parametrize("n_frames", [1, 8, 10])
def test_short_clips_are_not_warped(n_frames: int) -> None:
    draws = draw(CONFIG, 2, n_frames, 128, torch.Generator().manual_seed(0))
    assert draws.warp is None
    assert apply(torch.ones(2, n_frames, 128), draws).shape == (2, n_frames, 128)


def test_everything_off_changes_nothing() -> None:
    off = SpecAugmentConfig(time_warp_window=0, n_freq_masks=0, n_time_masks=0)
    fbank = torch.randn(2, 50, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(apply(fbank, draw(off, 2, 50, 128)), fbank)
    zero_widths = SpecAugmentConfig(time_warp_window=0, max_freq_width=0, max_time_width_ratio=0.0)
    assert torch.equal(apply(fbank, draw(zero_widths, 2, 50, 128)), fbank)


def test_every_clip_has_a_frequency_response_of_its_own() -> None:
    added = frequency_response(4000, N_MELS, 4.0, torch.Generator().manual_seed(0))
    assert added.shape == (4000, 1, N_MELS)
    decibels = added * 2 * FBANK_STD * 10 / math.log(10)
    ends = decibels[:, 0, :: (N_MELS - 1)]
    assert ends.std(0).tolist() == pytest.approx([4.0, 4.0], rel=0.05) and ends.mean().abs() < 0.2
    assert torch.corrcoef(ends.T)[0, 1].abs() < 0.05  # far from each other they are independent, near they are not
    assert torch.corrcoef(decibels[:, 0, :2].T)[0, 1] > 0.99
