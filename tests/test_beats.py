"""BEATs beyond the goldens: padding, taps, variants, training, and the authors' file layout."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from aural.checkpoint import load_into, load_weights, save_model
from aural.errors import CheckpointError
from aural.networks.beats import BASE, BEATs, BeatsConfig, relative_bucket

SMALL = replace(
    BASE,
    embed_dim=16,
    encoder_layers=3,
    encoder_embed_dim=24,
    encoder_ffn_embed_dim=32,
    encoder_attention_heads=4,
    conv_pos=16,
    conv_pos_groups=4,
    num_buckets=32,
    max_distance=40,
    predictor_class=5,
    encoder_layerdrop=0.0,
)
PRE_NORM = replace(
    SMALL,
    layer_norm_first=True,
    deep_norm=False,
    gru_rel_pos=False,
    finetuned_model=False,
    conv_bias=True,
    embed_dim=24,
    conv_pos=9,
)
NO_BIAS = replace(SMALL, relative_position_embedding=False, gru_rel_pos=False)
VARIANTS = {
    "released": SMALL,
    "pre-norm": PRE_NORM,
    "no relative bias": NO_BIAS,
    "gated swish": replace(SMALL, activation_fn="glu"),
    "relu": replace(SMALL, activation_fn="relu"),
}


def model(config: BeatsConfig = SMALL) -> BEATs:
    torch.manual_seed(0)
    beats = BEATs(config)
    for parameter in beats.parameters():  # far from the initial values, so that every part matters
        torch.nn.init.normal_(parameter, std=0.2)
    return beats.eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.1


@torch.inference_mode()
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_clip_in_a_padded_batch_gives_what_it_gives_alone(config: BeatsConfig) -> None:
    beats = model(config)
    lengths = [20800, 15000, 9011, 3000, 1000]
    clips = [noise(n) for n in lengths]
    waveform = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = torch.arange(waveform.shape[1]) < torch.tensor(lengths)[:, None]
    padded = beats(waveform, mask)
    for i, clip in enumerate(clips):
        alone = beats(clip[None])
        n_tokens = alone.hidden.shape[1]
        assert int(padded.mask[i].sum()) == n_tokens
        torch.testing.assert_close(padded.hidden[i, :n_tokens], alone.hidden[0], atol=2e-4, rtol=1e-3)
    if config.finetuned_model:
        alone = torch.cat([beats.classify(clip[None]) for clip in clips])
        torch.testing.assert_close(beats.classify(waveform, mask), alone, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("config", [SMALL, PRE_NORM], ids=["released", "pre-norm"])
def test_a_tap_is_the_state_of_that_layer(config: BeatsConfig) -> None:
    beats = model(config)
    states = beats(noise(2, 16000), hidden_states=True).hidden_states
    assert states is not None
    assert len(states) == config.encoder_layers + 1
    for layer, state in enumerate(states):
        torch.testing.assert_close(beats(noise(2, 16000), tapped_layer=layer).hidden, state)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        beats(noise(1, 16000), tapped_layer=4)


def test_every_parameter_learns_and_layerdrop_skips() -> None:
    beats = model(SMALL).train()
    beats.classify(noise(2, 16000)).sum().backward()
    assert [name for name, p in beats.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    always = model(replace(SMALL, encoder_layerdrop=1.0)).train()
    states = always(noise(1, 16000), hidden_states=True).hidden_states
    assert states is not None
    assert all(torch.equal(state, states[0]) for state in states)


def test_gradients_shrink_on_their_way_down() -> None:
    gradients = []
    for ratio in (1.0, 0.5):
        beats = model(replace(SMALL, layer_wise_gradient_decay_ratio=ratio))
        beats(noise(1, 8000)).hidden.square().sum().backward()
        assert beats.layer_norm.weight.grad is not None
        gradients.append(beats.layer_norm.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0] * 0.5**SMALL.encoder_layers)


def test_one_table_of_biases_is_stored_under_every_layer() -> None:
    beats = model()
    names = [f"encoder.layers.{i}.self_attn.relative_attention_bias.weight" for i in range(SMALL.encoder_layers)]
    state = beats.state_dict()
    assert len({state[name].data_ptr() for name in names}) == 1
    assert {"encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.weight_v"} <= state.keys()


def test_buckets_by_hand() -> None:
    distances = torch.tensor([-1000, -9, -8, -1, 0, 1, 7, 8, 1000])
    # 32 buckets: 16 a side, of which the first 8 are exact and the rest logarithmic up to the distance 40
    assert relative_bucket(distances, 32, 40).tolist() == [15, 8, 8, 1, 0, 17, 23, 24, 31]


def test_the_authors_file_and_our_folder_give_the_same_model(tmp_path: Path) -> None:
    beats = model()
    cfg = {key: value for key, value in asdict(SMALL).items() if key not in {"labels", "released_padding"}}
    label_dict = {i: f"/m/{i}" for i in range(SMALL.predictor_class)}
    torch.save({"cfg": cfg, "model": beats.state_dict(), "label_dict": label_dict}, tmp_path / "beats.pt")
    loaded = BEATs.from_checkpoint(tmp_path / "beats.pt")
    assert loaded.config.labels == tuple(label_dict.values())
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval().classify(noise(1, 8000)), beats.classify(noise(1, 8000)))

    save_model(tmp_path / "folder", system="beats", config=SMALL, weights=beats.state_dict(), card="")
    again = BEATs.from_checkpoint(tmp_path / "folder")
    load_into(again, load_weights(tmp_path / "folder"))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), beats.state_dict().values(), strict=True))


def test_files_that_are_not_beats_are_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt"):
        BEATs.from_checkpoint(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="input_patch_size"):
        BeatsConfig()
    with pytest.raises(ValueError, match="exclude"):
        replace(SMALL, layer_norm_first=True)


@torch.inference_mode()
def test_short_clips_and_silence_are_finite() -> None:
    for waveform in (torch.zeros(1, 16000), noise(1, 100), torch.zeros(1, 1)):
        assert model()(waveform).hidden.isfinite().all()
