"""Filterbanks: the anchors that can be worked out by hand, another library, and what batches and padding do."""

import math
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aural.features import (
    FBANK_MEAN,
    FBANK_STD,
    beats_fbank,
    frame_count,
    kaldi_fbank,
    kaldi_mel_filters,
    log_mel,
    slaney_mel_filters,
)

SILENCE = math.log(torch.finfo(torch.float32).eps)


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, n, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_silence_is_the_floor_everywhere() -> None:
    assert kaldi_fbank(torch.zeros(1, 16000)).unique().tolist() == pytest.approx([-15.942385], abs=1e-5)
    assert beats_fbank(torch.zeros(1, 16000)).unique().tolist() == pytest.approx([-2.391693], abs=1e-5)
    assert pytest.approx(-2.391693, abs=1e-5) == (SILENCE - FBANK_MEAN) / (2 * FBANK_STD)


def test_exactly_one_filter_is_empty_and_its_band_is_silent() -> None:
    filters = kaldi_mel_filters(128, 512, 16000, 20.0, 8000.0)
    empty = [band for band in range(128) if float(filters[:, band].sum()) == 0]
    assert empty == [3]
    assert kaldi_fbank(noise(16000))[..., 3].unique().tolist() == pytest.approx([SILENCE], abs=1e-5)
    assert [round(float(filters[:, band].sum()), 3) for band in (1, 5, 7)] == [0.031, 0.048, 0.075]


def test_equals_kaldi_native_fbank() -> None:
    waveform = noise(24000)
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 128
    options.energy_floor = 0.0
    peer = kaldi_native_fbank.OnlineFbank(options)
    peer.accept_waveform(16000, (waveform[0] * 32768).numpy())
    peer.input_finished()
    theirs = np.stack([peer.get_frame(i) for i in range(peer.num_frames_ready)])
    np.testing.assert_allclose(kaldi_fbank(waveform)[0].numpy(), theirs, atol=1e-2)
    np.testing.assert_allclose(kaldi_fbank(waveform)[0].numpy(), theirs, atol=1e-3 * 2 * FBANK_STD)


@pytest.mark.parametrize(("n_samples", "n_frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (160000, 998)])
def test_frame_count(n_samples: int, n_frames: int) -> None:
    assert frame_count(n_samples) == n_frames
    assert frame_count(torch.tensor([n_samples])).tolist() == [n_frames]
    assert kaldi_fbank(torch.zeros(2, n_samples)).shape == (2, n_frames, 128)


def test_a_clip_in_a_batch_gives_what_it_gives_alone_and_padding_only_what_follows() -> None:
    clips = [noise(n, n)[0] for n in (16000, 9000, 20011)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    together = kaldi_fbank(batch)
    for row, clip in zip(together, clips, strict=True):
        alone = kaldi_fbank(clip[None])[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=2e-3, rtol=0)


def test_louder_is_a_constant_more() -> None:
    waveform = noise(8000)
    more = kaldi_fbank(waveform * 2) - kaldi_fbank(waveform)
    filled = [band for band in range(128) if band != 3]
    torch.testing.assert_close(
        more[..., filled], torch.full_like(more[..., filled], 2 * math.log(2)), atol=2e-3, rtol=0
    )


def test_gradients_flow() -> None:
    waveform = noise(4000).requires_grad_()
    beats_fbank(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()


def test_log_mel_of_a_tone_peaks_in_its_band_and_is_centred() -> None:
    hz = 2000.0
    waveform = 0.5 * torch.sin(2 * math.pi * hz * torch.arange(64000) / 32000)[None]
    mel = log_mel(waveform)
    assert mel.shape == (1, 1 + 64000 // 320, 64)
    filters = slaney_mel_filters(64, 1024, 32000, 50.0, 14000.0)
    assert int(mel[0, 100].argmax()) == int(filters[round(hz * 1024 / 32000)].argmax())


def test_log_mel_by_the_definition() -> None:
    waveform = noise(6400, 3)
    spectrum = torch.stft(
        waveform, 1024, 320, window=torch.hann_window(1024), center=True, pad_mode="reflect", return_complex=True
    )
    power = spectrum.abs().square().transpose(1, 2)
    expected = 10 * (power @ slaney_mel_filters(64, 1024, 32000, 50.0, 14000.0).float()).clamp_min(1e-10).log10()
    torch.testing.assert_close(log_mel(waveform), expected, atol=1e-3, rtol=1e-4)
    assert log_mel(torch.zeros(1, 6400)).unique().tolist() == pytest.approx([-100.0], abs=1e-4)


def test_log_mel_equals_the_original() -> None:
    golden = load_file(Path(__file__).parent / "golden" / "log_mel" / "slice.safetensors")
    filters = torch.zeros(513, 64, dtype=torch.float64)
    filters[golden["mel_places"].long().unbind(1)] = golden["mel_weights"].double()
    ours = slaney_mel_filters(64, 1024, 32000, 50.0, 14000.0)
    torch.testing.assert_close(ours, filters, atol=1e-7, rtol=0)
    waveform = golden["wave_int16"][None].float() / 32768
    expected = golden["logmel"]
    for given in (None, filters):
        actual = log_mel(waveform, mel_filters=given)[0, : len(expected)]
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=0)
