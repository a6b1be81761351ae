"""The delay pattern: by hand, there and back, and what predictions are about."""

import pytest
import torch

from aural.text_to_audio.delay_pattern import delay, undelay, usual_delays

S = 9  # the special token of the cases by hand


def test_the_example_of_the_sheet() -> None:
    codes = torch.tensor([[[1, 2, 3, 4]] * 3])
    full = [[S, 1, 2, 3, 4, S, S], [S, S, 1, 2, 3, 4, S], [S, S, S, 1, 2, 3, 4]]
    sequence, mask = delay(codes, (0, 1, 2), S, full=True)
    assert sequence.tolist() == [full] and torch.equal(mask, sequence[0] != S)
    sequence, mask = delay(codes, (0, 1, 2), S)
    assert sequence.tolist() == [[row[:5] for row in full]] and torch.equal(mask, sequence[0] != S)


def test_stereo_delays_both_channels_of_a_codebook_alike() -> None:
    assert usual_delays(4) == (0, 1, 2, 3) and usual_delays(8, stereo=True) == (0, 0, 1, 1, 2, 2, 3, 3)
    sequence, _ = delay(torch.tensor([[[1, 2], [3, 4], [5, 6], [7, 8]]]), usual_delays(4, stereo=True), S, full=True)
    assert sequence.tolist() == [[[S, 1, 2, S], [S, 3, 4, S], [S, S, 5, 6], [S, S, 7, 8]]]
    with pytest.raises(ValueError, match="3 is odd"):
        usual_delays(3, stereo=True)


@pytest.mark.parametrize("delays", [(0,), (0, 1, 2, 3), (0, 0, 1, 1), (0, 3, 1), (2, 0)])
@pytest.mark.parametrize("n_frames", [1, 2, 7])
def test_there_and_back(delays: tuple[int, ...], n_frames: int) -> None:
    codes = torch.randint(0, 50, (2, len(delays), n_frames), generator=torch.Generator().manual_seed(0))
    sequence, mask = delay(codes, delays, 50, full=True)
    assert sequence.shape == (2, len(delays), 1 + n_frames + max(delays))
    assert mask.sum(dim=1).tolist() == [n_frames] * len(delays) and bool((sequence[:, ~mask] == 50).all())
    back, whole = undelay(sequence[:, :, 1:], delays, n_frames)
    assert torch.equal(back, codes) and bool(whole.all())

    sequence, mask = delay(codes, delays, 50)
    back, there = undelay(sequence[:, :, 1:], delays, n_frames)
    assert there.sum(dim=1).tolist() == [max(0, n_frames - late) for late in delays] == mask.sum(dim=1).tolist()
    assert torch.equal(back, codes.masked_fill(~there, 0))


def test_a_prediction_is_about_the_step_after_its_own() -> None:
    """Output s of codebook k is marked (k, s); it must come back at frame s - delay, as the step s + 1 holds it."""
    delays, n_frames = (0, 1, 2), 5
    outputs = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(1 + n_frames), indexing="ij"), dim=2)[None]
    frames, mask = undelay(outputs[:, :, :-1], delays, n_frames)
    for k, late in enumerate(delays):
        for t in range(n_frames):
            assert bool(mask[k, t]) == (t + late < n_frames)
            assert frames[0, k, t].tolist() == ([k, t + late] if mask[k, t] else [0, 0])


@pytest.mark.parametrize("shape", [(1, 2, 4), (1, 3, 0)])
def test_codes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not go with 3 delays"):
        delay(torch.zeros(shape, dtype=torch.long), (0, 1, 2), S)
