"""Files in the layout of the released captioner and of BEATs, written by the test, become folders that load."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from aural.captioning.convert import convert, find_tokenizer, official_config
from aural.captioning.model import Captioner, CaptionerConfig, paper
from aural.captioning.tokenizer import load_tokenizer, train_tokenizer
from aural.checkpoint import load_config, load_into, load_weights
from aural.errors import CheckpointError
from aural.networks.beats import BEATs
from aural.spec_augment import SpecAugmentConfig

MODEL: dict[str, Any] = {
    "d_model": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 20,
    "vocab_size": 300,
    "max_position_embeddings": 30,
    "max_cross_position_embeddings": 40,
    "embed_predictor_ffn_dim": 12,
    "embed_predictor_out_dim": 6,
    "encoder_repr_layer_idx": 1,
    "lsm_weight": 0.2,
    "use_conv_downsample": True,
    "spec_aug": {"freq_mask_width_range": [0, 20], "num_freq_mask": 3},
    "transformers_version": "4.22.2",  # as many others in such a file, it does not concern the network
}
CONFORMER: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_depthwise_kernel_size": 3,
    "hidden_act": "swish",
    "position_embeddings_type": "relative",
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
CFG: dict[str, Any] = {
    "input_patch_size": 16,
    "embed_dim": 8,
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 20,
    "encoder_attention_heads": 2,
    "deep_norm": True,
    "conv_pos": 4,
    "conv_pos_groups": 2,
    "relative_position_embedding": True,
    "num_buckets": 16,
    "max_distance": 40,
    "gru_rel_pos": True,
    "finetuned_model": True,
    "predictor_class": 3,
}
WAVEFORM = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder with pytorch_model.bin alone."""
    folder = tmp_path / "released"
    folder.mkdir()
    torch.save(state(), folder / "pytorch_model.bin")
    return folder


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Captioner(official_config(MODEL, CONFORMER, CFG)).state_dict()


def write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def loaded(folder: Path) -> Captioner:
    captioner = Captioner(load_config(folder, CaptionerConfig, "captioning"))
    load_into(captioner, load_weights(folder))
    return captioner.eval()


def test_captioner_with_its_settings_in_one_file(released: Path, tmp_path: Path) -> None:
    write_json(released / "config.json", {"model": MODEL, "conformer": CONFORMER, "beats": CFG})
    tokenizer = train_tokenizer(["a dog barks", "a cat meows", "rain falls on a roof"], 290)
    (released / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    notes = convert(released / "pytorch_model.bin", tmp_path / "out")
    assert notes == [f"settings from {released / 'config.json'}"]
    captioner = loaded(tmp_path / "out")
    assert captioner.state_dict().keys() == state().keys()
    for name, tensor in captioner.state_dict().items():
        assert torch.equal(tensor, state()[name]), name
    assert captioner.config.decoder.layers == 1
    assert captioner.config.label_smoothing == 0.2
    assert captioner.config.spec_augment == SpecAugmentConfig(n_freq_masks=3, max_freq_width=20)
    assert captioner.config.conformer.keep_unused_pos_conv
    assert captioner.encode(WAVEFORM).embedding.shape == (1, 6)
    assert load_tokenizer(tmp_path / "out").encode("a dog").ids == tokenizer.encode("a dog").ids
    assert "pytorch_model.bin" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_captioner_with_settings_from_three_places(released: Path, tmp_path: Path) -> None:
    write_json(released / "config.json", {name: value for name, value in MODEL.items() if name != "spec_aug"})
    write_json(tmp_path / "conformer.json", CONFORMER)
    torch.save({"cfg": CFG, "model": {}}, tmp_path / "beats.pt")
    file, out = released / "pytorch_model.bin", tmp_path / "out"
    notes = convert(file, out, beats=tmp_path / "beats.pt", conformer=tmp_path / "conformer.json")
    assert loaded(out).config.spec_augment is None
    assert len(notes) == 2 and "--tokenizer" in notes[1]


def test_published_settings_where_none_are_given(released: Path, tmp_path: Path) -> None:
    """The tiny weights do not fit them; the error lists what does not, and says which settings were assumed."""
    with pytest.raises(CheckpointError) as caught:
        convert(released / "pytorch_model.bin", tmp_path / "out")
    message = str(caught.value)
    assert "missing: encoder.encoder.layers.2" in message
    assert "final_logits_bias (1, 300) instead of (1, 50265)" in message
    assert "settings of model, conformer, beats were not given" in message
    assert not (tmp_path / "out").exists()


def test_missing_and_unexpected_tensors_are_listed(released: Path, tmp_path: Path) -> None:
    write_json(released / "config.json", {"model": MODEL, "conformer": CONFORMER, "beats": CFG})
    weights = state()
    del weights["downsample_conv.bias"]
    torch.save(weights | {"keyword_head.weight": torch.zeros(2)}, released / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"missing: downsample_conv\.bias; 1 unexpected: keyword_head\.weight"):
        convert(released / "pytorch_model.bin", tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model", {"use_conv_downsample": False}, "use_conv_downsample=False"),
        ("model", {"activation_function": "silu"}, "activation"),
        ("model", {"vocab_size": "many"}, "vocab_size"),
        ("model", {"spec_aug": {"freq_mask_width_range": [2, 20]}}, "begin at 0"),
        ("conformer", {"position_embeddings_type": "rotary"}, "rotary"),
        ("beats", {"activation_fn": "snake"}, "activation_fn"),
    ],
)
def test_settings_that_no_network_here_has(part: str, change: dict[str, Any], message: str) -> None:
    settings = {"model": MODEL, "conformer": CONFORMER, "beats": CFG}
    with pytest.raises(CheckpointError, match=message):
        official_config(**settings | {part: settings[part] | change})


def test_published_settings_are_the_papers() -> None:
    config = official_config()
    assert config.conformer.keep_unused_pos_conv and not paper().conformer.keep_unused_pos_conv
    with torch.device("meta"):
        weights = Captioner(config).state_dict(keep_vars=True)
    assert len(weights) == 503
    distinct = {
        id(tensor): tensor.numel() for tensor in weights.values()
    }  # tied ones are one tensor under several names
    assert sum(distinct.values()) == 217_351_515


def test_beats_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    labels = {0: "/m/dog", 1: "/m/cat", 2: "/m/rain"}
    source = BEATs(official_config(beats=CFG).beats).eval()  # type: ignore[arg-type]
    torch.save({"cfg": CFG, "model": source.state_dict(), "label_dict": labels}, tmp_path / "beats.pt")
    assert convert(tmp_path / "beats.pt", tmp_path / "out") == []
    beats = BEATs.from_checkpoint(tmp_path / "out")
    assert beats.config.labels == tuple(labels.values())
    with torch.no_grad():
        assert torch.equal(beats.classify(WAVEFORM), source.classify(WAVEFORM))


def test_a_file_that_is_neither(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match="begins with weight"):
        convert(tmp_path / "other.bin", tmp_path / "out")


def test_beats_option_must_name_a_beats_file(released: Path, tmp_path: Path) -> None:
    file = released / "pytorch_model.bin"
    with pytest.raises(CheckpointError, match="is no BEATs file"):
        convert(file, tmp_path / "out", beats=file)


def test_a_tokenizer_folder_without_a_tokenizer(released: Path, tmp_path: Path) -> None:
    write_json(released / "config.json", {"model": MODEL, "conformer": CONFORMER, "beats": CFG})
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor"):
        convert(released / "pytorch_model.bin", tmp_path / "out", tokenizer=tmp_path)


def test_tokenizer_from_vocabulary_and_merges(tmp_path: Path) -> None:
    original = train_tokenizer(["a dog barks, and a cat meows", "rain falls on a roof"], 300)
    original.model.save(str(tmp_path))
    content = find_tokenizer(tmp_path)
    assert content is not None
    made = Tokenizer.from_str(content)
    for text in ("a dog barks", "schließlich: 3 cats!"):
        assert made.encode(text).ids == original.encode(text).ids
        assert made.decode(made.encode(text).ids) == text
    assert made.decode([2, *made.encode("a dog").ids, 2]) == "a dog"
