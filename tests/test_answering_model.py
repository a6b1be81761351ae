"""The audio language model: what learns and what does not, prefixes, the loss, mappers of any size; windows."""

import numpy as np
import pengi_models
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aural.answering.mapping import MappingNetwork
from aural.answering.model import AnsweringConfig, AudioLanguageModel, Gpt2Config
from aural.answering.waveform import resampled, windows
from aural.audio import read_mono
from aural.networks.htsat import official_constants

VARIANTS = {"text tower": {}, "token rows": {"text_encoder": None, "gpt2": Gpt2Config(300, 24, 3, 3, 60)}}


def batch(model: AudioLanguageModel, n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Waveforms, prompts and targets."""
    generator = torch.Generator().manual_seed(5)
    waveform = 0.1 * torch.randn(n, model.config.n_samples, generator=generator)
    prompts = torch.randint(1, 59, (n, model.config.prompt_length), generator=generator)
    prompts[:, -2:] = 59
    targets = torch.randint(1, 300, (n, 6), generator=generator)
    targets[0, 3:] = 0
    return waveform, prompts, targets


@pytest.mark.parametrize("variant", VARIANTS)
def test_bridge_and_audio_encoder_learn_and_the_frozen_parts_do_not(variant: str) -> None:
    torch.manual_seed(0)
    model = pengi_models.model(**VARIANTS[variant]).train()
    frozen = [model.gpt2, *([] if model.text_encoder is None else [model.text_encoder.text_model])]
    assert model.training and not any(module.training for part in frozen for module in part.modules())
    model(*batch(model), generator=torch.Generator().manual_seed(0))["cross_entropy"].backward()
    held = {id(parameter) for part in frozen for parameter in part.parameters()}
    for name, parameter in model.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learns == parameter.requires_grad == (id(parameter) not in held), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_is_that_of_whole_sequences_by_hand(variant: str) -> None:
    model = pengi_models.model(**VARIANTS[variant])
    waveform, prompts, targets = batch(model)
    with torch.no_grad():
        prefix = model.prefix(model.embed_audio(waveform), prompts)
        loss = model(waveform, prompts, targets)["cross_entropy"]
        summed = []
        for row, ids in zip(prefix, targets.tolist(), strict=True):
            for n in range(len(ids)):
                if ids[n] != 0:
                    so_far = torch.cat((row, model.gpt2.transformer.wte(torch.tensor(ids[:n], dtype=torch.long))))
                    summed.append(model.gpt2(inputs_embeds=so_far[None]).logits[0, -1].log_softmax(0)[ids[n]])
    assert float(loss) == pytest.approx(-float(torch.stack(summed).mean()), abs=1e-5)


def test_prefixes_hold_audio_then_prompt_then_what_is_added() -> None:
    model = pengi_models.model()
    waveform, prompts, targets = batch(model)
    with torch.no_grad():
        embedding = model.embed_audio(waveform)
        prefix = model.prefix(embedding, prompts, targets, normalize_prompt=False)
        raw = model.embed_prompt(prompts)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
        parts = model.audio_mapper(embedding), model.prompt_mapper(raw), model.gpt2.transformer.wte(targets)
        torch.testing.assert_close(prefix, torch.cat(parts, dim=1))
        normalised = model.prompt_mapper(F.normalize(raw, dim=1))
        torch.testing.assert_close(model.prefix(embedding, prompts)[:, 3:], normalised)
        # What follows the end of a prompt is nothing to the text tower.
        prompts[:, 3] = 59
        changed = prompts.clone()
        changed[:, 4:] = 7
        torch.testing.assert_close(model.embed_prompt(prompts), model.embed_prompt(changed))
        assert not torch.allclose(model.embed_prompt(prompts), raw)
        with pytest.raises(ValueError, match="positions"):
            model.states(prefix, targets.repeat(1, 9))


def test_mappers_return_their_constants_transformed_whatever_the_order_of_rows() -> None:
    torch.manual_seed(0)
    for width, rows, length, heads in ((12, 5, 3, 4), (10, 1, 7, 1)):
        tokens = MappingNetwork(width, length, layers=2, heads=heads, mlp_ratio=1.5)
        given = torch.randn(2, rows, width)
        assert tokens(given).shape == (2, length, width)
        torch.testing.assert_close(tokens(given), tokens(given.flip(1)), atol=1e-5, rtol=1e-5)
        vectors = MappingNetwork(width, length, layers=2, heads=heads, mlp_ratio=1.5, vector_width=6, vector_rows=rows)
        vectors.load_state_dict(tokens.state_dict(), strict=False)
        vector = torch.randn(2, 6)
        as_rows = vectors.linear(vector).view(2, rows, width)
        torch.testing.assert_close(vectors(vector), tokens(as_rows))
    with pytest.raises(ValueError, match="heads"):
        MappingNetwork(10, 3, layers=1, heads=3)


def test_the_published_sizes() -> None:
    config = AnsweringConfig()
    with torch.device("meta"):
        model = AudioLanguageModel(config)

    def millions(*parts: torch.nn.Module) -> float:
        return sum(parameter.numel() for part in parts for parameter in part.parameters()) / 1e6

    # What the original counts and we compute or never use: DFT kernels, mel filters, and a head.
    constants = official_constants(config.htsat)
    unused = 527 * 528 / 1e6
    kernels = (sum(t.numel() for name, t in constants.items() if "stft" in name) + 513 * 64) / 1e6
    audio = millions(model.audio_encoder, model.audio_projection) + unused + kernels
    text = millions(model.text_encoder, model.prompt_projection)
    assert [round(n, 1) for n in (audio, text, millions(model.gpt2))] == [33.2, 65.0, 124.4]
    assert [round(millions(mapper), 1) for mapper in (model.audio_mapper, model.prompt_mapper)] == [50.4, 50.4]
    assert round(millions(model) + unused + kernels, 1) == 323.4
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) / 1e6
    assert round(trainable + unused, 1) == 134.8
    assert config.n_samples == 308700


# ------------------------------------------------------------------------------------------------------------- windows


def ramp(n_samples: int) -> np.ndarray:
    """Each sample says where it stands."""
    return (np.arange(n_samples) / 2**17).astype(np.float32)


@pytest.mark.parametrize("n_samples", [1, 900, 3999, 4000, 4399, 4401, 8001, 31111])
def test_windows_are_equally_long_even_and_leave_nothing_out(n_samples: int) -> None:
    rate, size = 4000, 4000
    found = list(windows((ramp(n_samples), rate), rate, 1.0))
    assert [len(window.waveform) for window in found] == [size] * len(found)
    if n_samples <= size + 0.1 * rate:  # what is left beyond a window is too little for another one
        (window,) = found
        np.testing.assert_array_equal(window.waveform, np.resize(ramp(min(n_samples, size)), size))
        assert (window.start, window.end) == (0.0, min(n_samples, size) / rate)
        return
    starts = [round(float(window.waveform[0]) * 2**17) for window in found]
    assert starts == [round(window.start * rate) for window in found]
    assert starts[0] == 0 and starts[-1] + size == n_samples and len(found) == -(-n_samples // size)
    steps = np.diff(starts)
    assert steps.max() <= size and steps.max() - steps.min() <= len(found)
    for window, start in zip(found, starts, strict=True):
        np.testing.assert_array_equal(window.waveform, ramp(n_samples)[start : start + size])


def test_channels_are_mixed_down_and_rates_changed() -> None:
    stereo = np.stack([ramp(9000), -ramp(9000)])
    assert all(not window.waveform.any() for window in windows((stereo, 8000), 4000, 1.0))
    (window,) = windows((ramp(4000), 8000), 4000, 1.0)
    mono = read_mono((ramp(4000), 8000), 4000)
    np.testing.assert_array_equal(window.waveform, np.tile(mono, 2))


def test_the_released_way_lays_channels_end_to_end_and_draws_a_window() -> None:
    stereo = np.stack([ramp(900), ramp(900) + 0.5])
    (window,) = windows((stereo, 4000), 4000, 0.5, released=True)
    np.testing.assert_array_equal(window.waveform, np.resize(stereo.ravel(), 2000))
    drawn = [next(windows((ramp(9000), 4000), 4000, 1.0, released=True, seed=seed)) for seed in range(6)]
    again = next(windows((ramp(9000), 4000), 4000, 1.0, released=True, seed=3))
    np.testing.assert_array_equal(again.waveform, drawn[3].waveform)
    assert len({window.start for window in drawn}) > 3
    for window in drawn:
        start = round(window.start * 4000)
        np.testing.assert_array_equal(window.waveform, ramp(9000)[start : start + 4000])


@pytest.mark.parametrize(("own_rate", "sample_rate"), [(16000, 44100), (44100, 16000), (8000, 12000)])
def test_the_released_resampler_keeps_a_tone(own_rate: int, sample_rate: int) -> None:
    def tone(rate: int) -> Tensor:
        return (2 * torch.pi * 440 * torch.arange(rate // 2, dtype=torch.float64) / rate).sin().float()[None]

    found = resampled(tone(own_rate), own_rate, sample_rate)
    assert found.shape == (1, sample_rate // 2)
    torch.testing.assert_close(found[:, 200:-200], tone(sample_rate)[:, 200:-200], atol=5e-3, rtol=0.0)
