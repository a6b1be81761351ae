"""The token language model: what a step sees, padding of texts and clips, losses, dropped texts, random weights."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from aural.config import config_from_dict, config_to_dict
from aural.text_to_audio.delay_pattern import delay
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel, codebook_losses, sinusoids
from aural.text_to_audio.representation_regularization import RegularizationConfig, representation_loss
from aural.text_to_audio.text_encoder import T5Config, T5Text, make_t5

CONFIG = GenerationConfig(
    width=12, layers=2, heads=3, ffn_dim=20, codebook_size=10, delays=(0, 1, 2), text_width=7, t5=None
)


def language_model(config: GenerationConfig = CONFIG, seed: int = 0) -> TokenLanguageModel:
    model = TokenLanguageModel(config)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()


def batch(items: int = 3, frames: int = 6, tokens: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, states of texts, and their mask; the first text is the longest."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, CONFIG.codebook_size, (items, CONFIG.codebooks, frames), generator=generator)
    states = torch.randn(items, tokens, CONFIG.text_width, generator=generator)
    return codes, states, torch.arange(tokens) < torch.tensor([tokens, *range(1, items)])[:, None]


@torch.no_grad()
def test_a_step_sees_itself_and_those_before_it() -> None:
    model, (codes, states, mask) = language_model(), batch()
    memory = model.condition(states, mask)
    sequence, _ = delay(codes, CONFIG.delays, CONFIG.special)
    before = model(sequence, memory, mask)
    changed = sequence.clone()
    changed[:, 2, 4] = (changed[:, 2, 4] + 1) % CONFIG.codebook_size
    after = model(changed, memory, mask)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert bool(((after - before).abs().amax(dim=2)[:, 4:] > 1e-4).all())


def test_positions_are_cosines_then_sines_down_to_a_frequency_of_one_ten_thousandth() -> None:
    rows = sinusoids(8, 6, torch.device("cpu"))[5:]
    for row, position in zip(rows.tolist(), (5, 6, 7), strict=True):
        angles = [position, position / 100, position / 10000]
        assert row == pytest.approx([*map(math.cos, angles), *map(math.sin, angles)], abs=1e-6)


@torch.no_grad()
def test_padding_of_texts_by_both_rules() -> None:
    codes, states, mask = batch()
    sequence, _ = delay(codes, CONFIG.delays, CONFIG.special)
    padded = (
        torch.cat((states, 50.0 * torch.ones_like(states)), dim=1),
        torch.cat((mask, torch.zeros_like(mask)), dim=1),
    )
    found = {}
    for rule in ("mask", "none"):
        model = language_model(replace(CONFIG, cross_mask=rule))  # type: ignore[arg-type]
        found[rule] = model(sequence, model.condition(states, mask), mask)
        longer = model(sequence, model.condition(*padded), padded[1])
        assert torch.allclose(longer, found[rule], atol=1e-5) == (rule == "mask")
        silent = torch.zeros_like(mask)
        without = model(sequence, model.condition(states, silent), silent)
        torch.testing.assert_close(without, model(sequence))
        assert not torch.allclose(without, found[rule], atol=1e-3)
    torch.testing.assert_close(found["mask"][0], found["none"][0])  # a text without padding
    assert not torch.allclose(found["mask"][1:], found["none"][1:], atol=1e-3)


@torch.no_grad()
def test_losses_one_place_at_a_time() -> None:
    """The valid form says of codebook k all but the last k frames; padding is read as the special token."""
    model, (codes, states, mask) = language_model(), batch()
    n_frames, frames = codes.shape[2], torch.tensor([6, 4, 1])
    sequence = torch.full((3, 3, 1 + n_frames), CONFIG.special)
    for b in range(3):
        for k in range(3):
            for t in range(n_frames - k):
                if t < frames[b]:
                    sequence[b, k, 1 + t + k] = codes[b, k, t]
    log_probs = model.logits(model(sequence, model.condition(states, mask), mask)).log_softmax(dim=3)
    means = []
    for k in range(3):
        said = [
            -float(log_probs[b, k, t + k, codes[b, k, t]])
            for b in range(3)
            for t in range(n_frames - k)
            if t < frames[b]
        ]
        means.append(sum(said) / len(said))
    losses = model.losses(codes, states, mask, frames=frames)
    assert losses["cross_entropy"].item() == pytest.approx(sum(means) / 3, rel=1e-5)
    assert losses["representation_regularization"] == 0
    nowhere = torch.zeros_like(codes, dtype=torch.bool)
    assert codebook_losses(torch.zeros(*codes.shape, 10), codes, nowhere).tolist() == [0.0] * 3


@pytest.mark.parametrize("text", ["encoder", "projected"])
def test_dropped_texts_are_regularised_and_leave_cross_attention_alone(text: str) -> None:
    regularization = RegularizationConfig(pooling="mean", text=text)  # type: ignore[arg-type]
    model, (codes, states, mask) = language_model(replace(CONFIG, regularization=regularization)), batch()
    everyone, frames = torch.ones(3, dtype=torch.bool), torch.tensor([6, 4, 1])
    losses = model.losses(codes, states, mask, dropped=everyone, frames=frames)
    assert losses.keys() == model.loss_weights.keys() and model.loss_weights["representation_regularization"] == 3.0
    losses["cross_entropy"].backward(retain_graph=True)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # as distributed training demands
        idle = any(part in name for part in ("cross_attention", "norm_cross", "text_projection"))
        assert bool(parameter.grad.any()) != idle, name
    model.zero_grad()
    losses["representation_regularization"].backward()
    assert bool(model.text_projection.weight.grad.any()) == (text == "projected")  # type: ignore[union-attr]
    assert not any(head.weight.grad is not None for head in model.linears)


@torch.no_grad()
def test_texts_dropped_one_by_one_are_compared_among_themselves() -> None:
    model, (codes, states, mask) = language_model(), batch()
    dropped = torch.tensor([True, False, True])
    losses = model.losses(codes, states, mask, dropped=dropped)
    sequence, _ = delay(codes, CONFIG.delays, CONFIG.special)
    shown = mask & ~dropped[:, None]
    heard = model(sequence, model.condition(states, shown), shown)
    expected = representation_loss(states[dropped], heard[dropped], mask[dropped])
    torch.testing.assert_close(losses["representation_regularization"], expected)
    assert expected > 0
    for too_few in (torch.tensor([False, True, False]), torch.zeros(3, dtype=torch.bool)):
        assert model.losses(codes, states, mask, dropped=too_few)["representation_regularization"] == 0


@torch.no_grad()
def test_random_weights_are_those_of_the_reference() -> None:
    config = replace(CONFIG, width=64, heads=4, ffn_dim=128, layers=3, codebook_size=40)
    model = language_model(config)
    deviation = 64**-0.5
    expected = {"emb.0.weight": deviation, "linears.2.weight": deviation}
    for i in range(3):
        depth = math.sqrt(2 * (i + 1))
        for name, inputs in (
            ("self_attn.out_proj", 64),
            ("cross_attention.out_proj", 64),
            ("linear1", 64),
            ("linear2", 128),
        ):
            expected[f"transformer.layers.{i}.{name}.weight"] = inputs**-0.5 / depth
    for name, wanted in expected.items():
        weight = model.get_parameter(name)
        assert float(weight.std()) == pytest.approx(0.987 * wanted, rel=0.05), name  # cut at 3 deviations
        assert 2.5 * wanted < float(weight.abs().max()) <= 3 * wanted * (1 + 1e-6), name
    for i in range(3):
        for part in ("self_attn", "cross_attention"):
            packed = model.get_parameter(f"transformer.layers.{i}.{part}.in_proj_weight")
            assert float(packed.abs().max()) <= deviation and float(packed.std()) == pytest.approx(
                deviation / 3**0.5, rel=0.05
            )
    again, other = language_model(config), language_model(config, seed=1)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.emb[0].weight, other.emb[0].weight)


def test_the_published_size_is_420_million_and_survives_its_file() -> None:
    with torch.device("meta"):
        model = TokenLanguageModel(GenerationConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(420e6, rel=0.005)
    config = GenerationConfig()
    assert config.codebooks == 4 and config.special == 2048 and config.window_frames == 500
    assert config_from_dict(GenerationConfig, config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 5}, "multiple of the 5 heads"),
        ({"delays": (1, 2)}, "least of them 0"),
        ({"t5": T5Config()}, "width 768"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_texts_are_read_whatever_their_company(tmp_path: Path) -> None:
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "dog": 4, "barks": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    reader = T5Text(make_t5(T5Config(vocab_size=6, width=8, layers=2, heads=2, head_width=4, ffn_dim=10)), tokenizer)
    token_ids, mask = reader.tokens(["a dog barks", "dog", " "])
    assert token_ids.tolist() == [[3, 4, 5, 1], [4, 1, 0, 0], [1, 0, 0, 0]]
    assert mask.sum(dim=1).tolist() == [4, 2, 0]  # an empty text says nothing, not even that it ends
    states, _ = reader(["a dog barks", "dog", " "])
    alone, _ = reader(["dog"])
    torch.testing.assert_close(states[1:2, :2], alone)
    assert not states.requires_grad
