"""AudioToken beyond the goldens: what is heard, pooling with padding, both rules of dropout, losses, conversion."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parity import read_json
from safetensors.torch import load_file, save_file
from torch import Tensor

from aural.__main__ import main
from aural.audio_to_image.audio_token import AttentivePooling, AudioToken, AudioTokenConfig, layer_features
from aural.audio_to_image.convert import RELEASED_BEATS, convert_audio_token, is_audio_token, load_model
from aural.audio_to_image.losses import (
    LossConfig,
    add_noise,
    classification,
    diffusion_target,
    draw_latents,
    l1,
    label_embeddings,
    loss_weights,
    losses,
    signal_levels,
    squared_l2,
)
from aural.checkpoint import read_foreign, save_model
from aural.errors import CheckpointError
from aural.networks.beats import BASE, BEATs, BeatsConfig

GOLDEN = Path(__file__).parent / "golden" / "audiotoken"
BEATS = replace(
    BASE,
    embed_dim=16,
    encoder_layers=5,
    encoder_embed_dim=10,
    encoder_ffn_embed_dim=12,
    encoder_attention_heads=2,
    conv_pos=8,
    conv_pos_groups=2,
    num_buckets=32,
    max_distance=40,
    predictor_class=3,
)
HEARD = AudioTokenConfig(
    beats=replace(BEATS, finetuned_model=False), layers=(1, 2, 4), encoder_width=10, token_width=12
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def beats(config: BeatsConfig = BEATS) -> BEATs:
    torch.manual_seed(0)
    return BEATs(config).eval()


def pooling(rule: str = "training") -> AttentivePooling:
    torch.manual_seed(0)
    return AttentivePooling(12, 0.5, rule).eval()  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- the bridge


def test_layers_stand_side_by_side_and_no_more_are_run_than_are_heard() -> None:
    encoder, waveform = beats(), 0.1 * noise(2, 9000)
    mask = torch.arange(9000) < torch.tensor([9000, 5000])[:, None]
    features, real = layer_features(encoder, waveform, mask, layers=(4, 1, 2))
    for place, layer in enumerate((4, 1, 2)):
        output = encoder(waveform, mask, tapped_layer=layer)
        torch.testing.assert_close(features[real][:, 10 * place : 10 * place + 10], output.hidden[real])
    assert real.sum(dim=1).tolist() == [3 * 8, 1 * 8] and not features.requires_grad
    torch.nn.init.constant_(encoder.encoder.layers[4].fc1.weight, torch.nan)
    assert layer_features(encoder, waveform, layers=(4,))[0].isfinite().all()
    with pytest.raises(ValueError, match=r"0\.\.5"):
        layer_features(encoder, waveform, layers=(4, 6))


def test_the_sizes_are_the_released_ones() -> None:
    for width, n_parameters in ((768, 8_853_507), (1024, 10_820_867)):
        with torch.device("meta"):
            bridge = AudioToken(AudioTokenConfig(token_width=width))
        assert sum(parameter.numel() for parameter in bridge.parameters()) == n_parameters


def test_what_does_not_fit_together_is_refused() -> None:
    for wrong, what in (
        ({"layers": ()}, "at least one"),
        ({"layers": (0, 1)}, "from 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"beats": BEATS}, "768"),
        ({"beats": BEATS, "encoder_width": 10}, "5 layers"),
    ):
        with pytest.raises(ValueError, match=what):
            AudioTokenConfig(**wrong)
    with pytest.raises(ValueError, match="no encoder"):
        AudioToken(AudioTokenConfig(encoder_width=2, token_width=3)).features(noise(1, 4000))


def test_the_self_potential_is_the_mean_over_a_table_of_cosines() -> None:
    pool, tokens = pooling(), noise(2, 7, 12)
    left, right = pool.self_left(tokens), pool.self_right(tokens)
    table = torch.cosine_similarity(left[:, :, None], right[:, None], dim=3)
    pooled = pool(tokens)
    torch.testing.assert_close(pooled.self_potential, table.mean(dim=2))
    own, shared = pool.fusion.weight[0]
    torch.testing.assert_close(pooled.logits, own * pooled.local_potential + shared * pooled.self_potential)
    torch.testing.assert_close(pooled.embedding, (pooled.logits.softmax(dim=1)[:, :, None] * tokens).sum(dim=1))


def test_a_padded_clip_has_the_token_that_it_has_alone() -> None:
    pool, tokens = pooling(), noise(2, 9, 12)
    mask = torch.arange(9) < torch.tensor([9, 4])[:, None]
    tokens[1, 4:] = 1e3
    padded = pool(tokens, mask)
    torch.testing.assert_close(padded.embedding[1:], pool(tokens[1:, :4]).embedding)
    torch.testing.assert_close(padded.embedding[:1], pool(tokens[:1]).embedding)
    assert (padded.attention[1, 4:] == 0).all()


def test_dropout_ends_with_training_or_never() -> None:
    usual, released, tokens = pooling(), pooling("always"), noise(2, 7, 12)

    def local(pool: AttentivePooling, seed: int) -> Tensor:
        return pool(tokens, generator=torch.Generator().manual_seed(seed)).local_potential

    assert torch.equal(local(usual, 0), local(usual, 1))
    assert not torch.equal(local(released, 0), local(released, 1))
    assert torch.equal(local(released, 0), local(released, 0))
    assert torch.equal(local(usual.train(), 0), local(released.train(), 0))
    mean = torch.stack([local(released, seed) for seed in range(600)]).mean(dim=0)
    torch.testing.assert_close(mean, local(usual.eval(), 0), rtol=0.0, atol=0.06)  # what is left counts twice


def test_only_the_bridge_learns() -> None:
    torch.manual_seed(0)
    model = AudioToken(HEARD).train()
    assert model.encoder is not None and not model.encoder.training and model.pooling.training
    features, mask = model.features(0.1 * noise(2, 9000))
    model(features, mask, generator=torch.Generator().manual_seed(0)).square().sum().backward()
    still = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert still == {name for name, _ in model.named_parameters() if name.startswith("encoder.")}


# --------------------------------------------------------------------------------------------------------------- losses


def test_the_schedule_is_that_of_stable_diffusion() -> None:
    levels = signal_levels()
    assert len(levels) == 1000 and bool((levels.diff() < 0).all())
    assert float(levels[0]) == pytest.approx(1 - 0.00085) and float(levels[-1]) == pytest.approx(0.00466, abs=1e-5)


def test_from_noise_and_from_velocity_the_picture_comes_back() -> None:
    latents, drawn = noise(3, 4, 2, 5), noise(3, 4, 2, 5, seed=1)
    levels = torch.tensor([1.0, 0.64, 0.0])
    noisy = add_noise(latents, drawn, levels)
    torch.testing.assert_close(noisy[1], 0.8 * latents[1] + 0.6 * drawn[1])
    assert torch.equal(noisy[0], latents[0]) and torch.equal(noisy[2], drawn[2])
    assert torch.equal(diffusion_target(latents, drawn, levels, "epsilon"), drawn)
    velocity = diffusion_target(latents, drawn, levels, "v_prediction")
    signal, spread = levels.sqrt()[:, None, None, None], (1 - levels).sqrt()[:, None, None, None]
    torch.testing.assert_close(signal * noisy - spread * velocity, latents)
    torch.testing.assert_close(spread * noisy + signal * velocity, drawn)


def test_variances_of_latents_are_bounded_on_both_sides() -> None:
    moments = torch.tensor([1.0, 2.0, 3.0, math.log(4), -90.0, 90.0]).reshape(1, 6, 1, 1)
    drawn = draw_latents(moments, torch.ones(1, 3, 1, 1), scale=0.5).flatten()
    torch.testing.assert_close(drawn, 0.5 * torch.tensor([3.0, 2.0 + math.exp(-15), 3.0 + math.exp(10)]))


def test_regularisers_by_hand() -> None:
    tokens = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    assert l1(tokens) == 2.0 and squared_l2(tokens) == 13.0
    labels = torch.tensor([[-4.0, -3.0], [0.0, 5.0]])  # cosines 0 and 1
    assert classification(tokens, labels) == pytest.approx(0.25)
    assert classification(tokens[:1], labels[:1]) == pytest.approx(1.0)  # not a mean over items: 1 and 0 make no 0.25
    rows = torch.tensor([[9.0, 9.0], [1.0, 3.0], [3.0, 5.0]])
    ids, mask = torch.tensor([[1, 2], [2, -1]]), torch.tensor([[True, True], [True, False]])
    assert label_embeddings(rows, ids, mask).tolist() == [[2.0, 4.0], [3.0, 5.0]]


@pytest.mark.parametrize("labels", [None, noise(2, 3)])
def test_each_term_has_a_weight(labels: Tensor | None) -> None:
    terms = losses(noise(2, 4, 2, 2).half(), noise(2, 4, 2, 2, seed=1), noise(2, 3, seed=2), labels)
    assert terms.keys() == loss_weights(LossConfig(), labels=labels is not None).keys()
    assert terms["diffusion"].dtype == torch.float32


# ----------------------------------------------------------------------------------------------------------- conversion


def released_file(folder: Path, **others: Tensor) -> Path:
    """The goldens' bridge, as it is released: a pickled state dict without anything else."""
    content = load_file(GOLDEN / "weights.safetensors")
    bridge = {name: tensor for name, tensor in content.items() if name.startswith(("fc", "fga."))}
    torch.save(bridge | others, folder / "embedder_learned_embeds.bin")
    return folder / "embedder_learned_embeds.bin"


def beats_folder(folder: Path, config: BeatsConfig) -> Path:
    save_model(folder, system="beats", config=config, weights=beats(config).state_dict(), card="")
    return folder


def test_the_released_bridge_becomes_a_model(tmp_path: Path) -> None:
    file = released_file(tmp_path)
    assert is_audio_token(read_foreign(file))
    encoder = beats_folder(tmp_path / "beats", replace(BEATS, encoder_layers=12))
    (note,) = convert_audio_token(file, tmp_path / "model", beats=encoder)
    assert "24 wide" in note
    model, _ = load_model(tmp_path / "model")
    io = load_file(GOLDEN / "io.safetensors")
    torch.testing.assert_close(model(io["features.concat"]), io["audio_token"])
    assert read_json(tmp_path / "model" / "config.json")["system"] == "audio_to_image"
    waveform = 0.1 * noise(1, 9000)
    features, mask = model.features(waveform)
    original, _ = layer_features(BEATs.from_checkpoint(encoder), waveform)
    assert torch.equal(features, original) and model(features, mask).shape == (1, 24)
    assert not any(name.startswith("encoder.predictor") for name in model.state_dict())
    with pytest.raises(SystemExit) as status:
        main(["convert", str(file), "-o", str(tmp_path / "again"), "--beats", str(encoder)])
    assert status.value.code == 0
    again, _ = load_model(tmp_path / "again")
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())


def test_a_beats_that_was_not_fine_tuned_is_taken_with_a_warning(tmp_path: Path) -> None:
    plain = beats_folder(tmp_path / "beats", replace(BEATS, encoder_layers=12, finetuned_model=False))
    *_, note = convert_audio_token(released_file(tmp_path), tmp_path / "model", beats=plain)
    assert "not fine-tuned" in note and RELEASED_BEATS in note


def test_the_bridge_of_another_width_is_read_off_its_tensors(tmp_path: Path) -> None:
    file = released_file(tmp_path)
    three = beats_folder(tmp_path / "beats", BEATS)
    published = AudioTokenConfig(layers=(1, 3, 5), dropout_rule="always")
    convert_audio_token(file, tmp_path / "model", beats=three, published=published)
    config = load_model(tmp_path / "model")[0].config
    assert (config.layers, config.encoder_width, config.token_width) == ((1, 3, 5), 10, 24)
    assert config.dropout_rule == "always"


def test_what_is_no_bridge_or_has_another_encoder_is_refused(tmp_path: Path) -> None:
    file, out = released_file(tmp_path), tmp_path / "model"
    short = beats_folder(tmp_path / "short", BEATS)
    wide = beats_folder(tmp_path / "wide", replace(BEATS, encoder_layers=12, encoder_embed_dim=12))
    save_file({"some.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="--beats FILE"):
        convert_audio_token(file, out)
    with pytest.raises(CheckpointError, match=r"not the BEATs.*5 layers"):
        convert_audio_token(file, out, beats=short)
    with pytest.raises(CheckpointError, match=r"not the BEATs.*12"):
        convert_audio_token(file, out, beats=wide)
    with pytest.raises(CheckpointError, match=r"no bridge of AudioToken.*some\.weight"):
        convert_audio_token(tmp_path / "other.safetensors", out, beats=short)
    with pytest.raises(CheckpointError, match=r"1 tensors are none of AudioToken's: fga\.prior"):
        convert_audio_token(released_file(tmp_path, **{"fga.prior": torch.zeros(1)}), out, beats=short)
    with pytest.raises(CheckpointError, match=r"wrong shape: fc1\.bias"):
        convert_audio_token(released_file(tmp_path, **{"fc1.bias": torch.zeros(7)}), out, beats=short)
    assert not out.exists()
