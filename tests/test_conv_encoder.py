"""The convolutional encoder: padding changes nothing, level changes nothing, lengths add up."""

import pytest
import torch

from aural.networks.conv_encoder import (
    HIGHEST_COUNT,
    MIN_SAMPLES,
    ConvEncoder,
    ConvEncoderConfig,
    counts_so_far,
    said_of,
)


def network() -> ConvEncoder:
    torch.manual_seed(0)
    encoder = ConvEncoder(ConvEncoderConfig(channels=(4, 4, 8, 8, 16))).eval()
    for module in encoder.modules():  # statistics other than 0 and 1, so that a slip shows
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
    return encoder


@torch.no_grad()
def test_a_clip_in_a_padded_batch_gives_what_it_gives_alone() -> None:
    encoder = network()
    lengths = [32000, 21007, 12345, 5603, 900]
    clips = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.1 for n in lengths]
    waveform = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = torch.arange(waveform.shape[1]) < torch.tensor(lengths)[:, None]
    padded = encoder(waveform, mask)
    for i, clip in enumerate(clips):
        alone = encoder(clip[None])
        n_steps = alone.hidden.shape[1]
        assert int(padded.mask[i].sum()) == n_steps
        torch.testing.assert_close(padded.hidden[i, :n_steps], alone.hidden[0], atol=1e-5, rtol=1e-5)
        assert padded.hidden[i, n_steps:].abs().max() == 0 if n_steps < padded.hidden.shape[1] else True


@torch.no_grad()
def test_a_quieter_copy_sounds_the_same() -> None:
    encoder = network()
    waveform = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.3
    torch.testing.assert_close(encoder(waveform * 0.1).hidden, encoder(waveform).hidden, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_silence_does_not_become_noise() -> None:
    encoder = network()
    hiss = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    levels = [encoder.fbank(hiss * 10 ** (db / 20))[0].mean().item() for db in (-20, -60, -85)]
    assert levels[1] == pytest.approx(levels[0], abs=0.02)  # brought to the common level
    assert levels[2] < levels[0] - 0.1  # left below it


@torch.no_grad()
def test_short_clips_and_silence_give_finite_steps() -> None:
    encoder = network()
    for waveform in (torch.zeros(1, 800), torch.zeros(2, 16000), torch.randn(1, 10)):
        output = encoder(waveform)
        assert output.hidden.isfinite().all()
        assert output.mask.any(dim=1).all()


@torch.no_grad()
def test_max_samples_is_the_longest_clip_of_so_many_steps() -> None:
    encoder = network()
    for n_steps in (1, 2, 7):
        n_samples = encoder.max_samples(n_steps)
        assert n_samples >= MIN_SAMPLES
        assert encoder(torch.randn(1, n_samples)).hidden.shape[1] == n_steps
        assert encoder(torch.randn(1, n_samples + 2 * 16 * 160)).hidden.shape[1] > n_steps


def test_every_parameter_learns() -> None:
    encoder = network().train()
    encoder(torch.randn(2, 16000)).hidden.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@torch.no_grad()
def test_counts_so_far_by_hand() -> None:
    sounding = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.35, 1.0, 0.0, 1.0])[None, :, None]
    expected = torch.tensor([0, 1, 1, 1, 1.5, 2, 2, 3])
    torch.testing.assert_close(counts_so_far(sounding).flatten(), expected)
    torch.testing.assert_close(counts_so_far(0.4 * sounding).flatten(), expected)  # to its own peak, if not sure
    assert counts_so_far(0.05 * sounding).abs().max() == 0  # but not out of nothing


@torch.no_grad()
def test_numbers_are_rows_of_yes_and_no() -> None:
    logits = torch.full((1, 12, 2), -9.0)
    logits[0, 1:10:2, 0] = 9.0  # five times
    logits[0, 4:6, 1] = 9.0  # once
    said = said_of(logits, torch.ones(1, 12, dtype=torch.bool))[0, 0]
    at_least = said[6:].unflatten(0, (3, HIGHEST_COUNT)).round()
    assert at_least.sum(1).tolist() == [5, 1, 4]  # of any: the third and the one of the other label are one


@torch.no_grad()
def test_labels_of_steps_are_handed_on_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(ConvEncoderConfig(channels=(4, 4, 8, 8, 16), labels=("dog", "rain"))).eval()
    assert encoder.config.width == 16 + 3 * (2 + HIGHEST_COUNT)
    waveform = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    alone = encoder(waveform)
    assert alone.hidden.shape[2] == encoder.config.width
    assert torch.equal(alone.hidden[..., :16], alone.features)
    logits = encoder.step_classifier(alone.features)  # type: ignore[misc]
    torch.testing.assert_close(alone.hidden[..., 16:18], logits.sigmoid())
    torch.testing.assert_close(alone.hidden[..., 18], 1 - (1 - logits.sigmoid()).prod(2))
    assert torch.equal(alone.hidden[:, 0, 22:], alone.hidden[:, -1, 22:])  # the count in all, from the first step on
    padded = encoder(torch.nn.functional.pad(waveform, (0, 8000)), torch.arange(24000)[None] < 16000)
    n_steps = alone.hidden.shape[1]
    torch.testing.assert_close(padded.hidden[:, :n_steps], alone.hidden, atol=1e-5, rtol=1e-5)
    assert padded.hidden[:, n_steps:].abs().max() == 0
