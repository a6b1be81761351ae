"""Released files of Pengi to model folders, and the tokenizers in them."""

from pathlib import Path
from typing import Any

import parity_pengi
import pytest
import torch
import transformers
from parity import read_json
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch import Tensor

from aural.__main__ import main
from aural.answering.convert import HTSAT, NAMES, convert_pengi, inferred_config, is_pengi, load_model, our_weights
from aural.answering.decoding import greedy
from aural.answering.model import AnsweringConfig, AudioLanguageModel, Gpt2Config
from aural.answering.tokenizer import find_clip, find_gpt2
from aural.audio import write
from aural.checkpoint import read_foreign
from aural.errors import CheckpointError
from aural.networks.htsat import HtsatConfig, official_constants

GOLDEN = Path(__file__).parent / "golden" / "pengi"
TOKENIZERS: dict[str, Any] = {
    "tokenizer": GOLDEN / "tokenizer_gpt2",
    "text_tokenizer": GOLDEN / "tokenizer_clip-text",
}
VARIANTS = {"base": GOLDEN, "base_no_text_enc": GOLDEN / "no_text_enc"}


def released(variant: str) -> tuple[dict[str, Tensor], AnsweringConfig]:
    """The weights of a released file with all its constants, and its settings."""
    config = parity_pengi.golden_config(read_json(VARIANTS[variant] / "config.json"))
    weights = load_file(VARIANTS[variant] / "weights.safetensors")
    weights |= {HTSAT + name: tensor for name, tensor in official_constants(config.htsat).items()}
    weights |= {f"{HTSAT}head.weight": torch.zeros(3, 3), f"{HTSAT}head.bias": torch.zeros(3)}
    if config.text_encoder is not None:
        weights["caption_encoder.base.embeddings.position_ids"] = torch.arange(22)[None]
    for layer in range(config.gpt2.layers):
        attention = f"caption_decoder.gpt.transformer.h.{layer}.attn"
        weights[f"{attention}.bias"] = torch.ones(1, 1, 40, 40, dtype=torch.bool).tril()
        weights[f"{attention}.masked_bias"] = torch.tensor(-1e4)
    return weights, config


def saved(folder: Path, weights: dict[str, Tensor], prefix: str = "module.") -> Path:
    file = folder / "base.pth"
    model = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save({"epoch": 3, "model": model, "optimizer": {"state": {}}}, file)
    return file


@pytest.mark.parametrize(("variant", "prefix"), [("base", "module."), ("base_no_text_enc", "")])
def test_a_released_file_becomes_a_model_that_answers(variant: str, prefix: str, tmp_path: Path) -> None:
    weights, config = released(variant)
    notes = convert_pengi(saved(tmp_path, weights, prefix), tmp_path / "out", **TOKENIZERS, published=config)
    assert len(notes) == 1 and "published" in notes[0]
    model, tokenizers = load_model(tmp_path / "out")
    assert model.config == config and not model.training
    io = load_file(VARIANTS[variant] / "io.safetensors")
    content = read_json(VARIANTS[variant] / "config.json")
    ids = tokenizers.prompts(content["prompts"])
    assert torch.equal(ids, io["enc_input_ids"])
    with torch.no_grad():
        prefix_rows = model.prefix(torch.as_tensor(io["audio_embed_normalized"]), ids, normalize_prompt=False)
    torch.testing.assert_close(prefix_rows, io["prefix_wrapper"], atol=1e-5, rtol=1e-5)
    answers = greedy(model, prefix_rows, max_tokens=10)
    expected = io["beam1.tokens"][:, 0].tolist()
    assert [list(answer.token_ids) for answer in answers] == [[i for i in row if i >= 0] for row in expected]
    assert tokenizers.text_of(tokenizers.ids("a dog <|endoftext|>"[:5])) == "a"
    for part in ("gpt2.lm_head.weight", "gpt2.transformer.wte.weight"):
        assert model.get_parameter(part) is model.gpt2.lm_head.weight


@pytest.mark.parametrize("text_tower", [True, False])
def test_the_published_file_is_recognised_by_its_shapes_alone(text_tower: bool) -> None:
    config = AnsweringConfig() if text_tower else AnsweringConfig(text_encoder=None)
    with torch.device("meta"):
        state = AudioLanguageModel(config).state_dict()
    starts = {**NAMES, HTSAT: "audio_encoder."}
    names = {ours: theirs for theirs, ours in starts.items()}
    weights = {}
    for name, tensor in state.items():
        start = next(start for start in names if name.startswith(start))
        weights[names[start] + name.removeprefix(start)] = tensor
    assert is_pengi({"model": weights}) and not is_pengi({"model": {}}) and not is_pengi(weights)
    assert inferred_config(weights) == config
    assert our_weights(weights, config).keys() == state.keys()


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    weights, config = released("base")

    def message(weights: dict[str, Tensor], **changes: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            convert_pengi(saved(tmp_path, weights), tmp_path / "out", **{**TOKENIZERS, "published": config, **changes})
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
        return str(caught.value)

    head = "audio_encoder.projection.linear2.weight"
    assert "audio_projection.linear2.weight" in message({n: t for n, t in weights.items() if n != head})
    assert "of the wrong shape" in message({**weights, head: torch.zeros(3, 3)})
    another = {**weights, "caption_decoder.lstm.weight": torch.zeros(1)}
    assert "none of Pengi's: caption_decoder.lstm.weight" in message(another)
    constants = [name for name in weights if name.endswith("prefix_const")]
    assert "audio_project.prefix_const" in message({n: t for n, t in weights.items() if n not in constants})
    assert "conv_real" in message({**weights, f"{HTSAT}spectrogram_extractor.stft.conv_real.weight": torch.zeros(1)})
    assert "--tokenizer" in message(weights, tokenizer=None)
    assert "--text-tokenizer" in message(weights, text_tokenizer=None)
    assert "514 tokens and the model 257" in message(weights, tokenizer=GOLDEN / "tokenizer_clip-text")
    assert "neither tokenizer.json" in message(weights, text_tokenizer=tmp_path)
    assert "no <|startoftext|>" in message(weights, text_tokenizer=GOLDEN / "tokenizer_gpt2")
    torch.save({"cfg": {}, "model": {}}, tmp_path / "beats.pt")
    with pytest.raises(CheckpointError, match="no file of Pengi"):
        convert_pengi(tmp_path / "beats.pt", tmp_path / "out")
    assert is_pengi(read_foreign(saved(tmp_path, weights)))


def test_a_released_file_is_converted_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of Pengi in small; what its tensors do not show is as published."""

    def run(*arguments: str | Path) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, arguments), "--quiet"])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    htsat = HtsatConfig(embed_dim=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), num_classes=0)
    gpt2 = Gpt2Config(vocab_size=257, width=24, layers=1, max_positions=128)
    torch.manual_seed(0)
    made = AudioLanguageModel(
        AnsweringConfig(htsat=htsat, text_encoder=None, gpt2=gpt2, joint_width=8, mapper_layers=1)
    )
    theirs = {ours: released for released, ours in {**NAMES, HTSAT: "audio_encoder."}.items()}
    weights = {}
    for name, tensor in made.state_dict().items():
        start = next(start for start in theirs if name.startswith(start))
        weights[theirs[start] + name.removeprefix(start)] = tensor
    torch.save({"model": weights}, tmp_path / "base.pth")
    options = ("convert", tmp_path / "base.pth", "-o", tmp_path / "pengi")
    status, _, err = run(*options)
    assert status == 2 and "--tokenizer" in err
    assert run(*options, "--tokenizer", GOLDEN / "tokenizer_gpt2", "--beats", "x")[0] == 2
    assert run(*options, "--tokenizer", GOLDEN / "tokenizer_gpt2") == (0, "", "")
    write(tmp_path / "noise.wav", 0.1 * torch.randn(16000).numpy(), 16000)
    asked = ("--question", "this is a sound of", "--json", "--max-tokens", "4")
    status, out, err = run("ask", tmp_path / "noise.wav", "--model", tmp_path / "pengi", *asked)
    assert (status, err, out.count("\n")) == (0, "", 1)
    status, out, err = run("classify", tmp_path / "noise.wav", "--model", tmp_path / "pengi")
    assert (status, out) == (2, "") and "--labels" in err


# ---------------------------------------------------------------------------------------------------------- tokenizers


def merged(folder: Path, source: Path, merges: list[tuple[str, str]]) -> Path:
    """The byte-level stand-in with merges, and tokens for them in front of its special ones."""
    vocabulary = read_json(source / "vocab.json")
    special = {token: id_ for token, id_ in vocabulary.items() if token.startswith("<|")}
    plain = [token for token in vocabulary if token not in special] + ["".join(pair) for pair in merges]
    model = models.BPE({token: i for i, token in enumerate([*plain, *special])}, merges)
    folder.mkdir()
    model.save(str(folder))
    return folder


def test_texts_are_read_as_by_the_tokenizers_of_transformers(tmp_path: Path) -> None:
    texts = ["A dog's BARK, 3 times!!", "l'été\n\n naïve  <|endoftext|> ", "it's 'll they'll", "x"]
    folder = merged(tmp_path / "gpt2", GOLDEN / "tokenizer_gpt2", [("d", "o"), ("Ġ", "do"), ("!", "!"), ("Ġ", "t")])
    gpt2 = find_gpt2(folder)
    theirs = transformers.GPT2Tokenizer.from_pretrained(folder)
    assert [gpt2.encode(text).ids for text in texts] == [theirs.encode(text) for text in texts]
    assert [gpt2.decode(gpt2.encode(text).ids, skip_special_tokens=False) for text in texts] == texts

    folder = merged(tmp_path / "clip", GOLDEN / "tokenizer_clip-text", [("o", "g</w>"), ("d", "og</w>"), ("t", "i")])
    clip = find_clip(folder)
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    assert [clip.encode(text).ids for text in texts] == [theirs.encode(text) for text in texts]
    (tmp_path / "whole").mkdir()
    clip.enable_truncation(2)
    clip.save(str(tmp_path / "whole" / "tokenizer.json"))
    again = find_clip(tmp_path / "whole")
    clip.no_truncation()
    assert isinstance(again, Tokenizer) and again.encode(texts[0]).ids == clip.encode(texts[0]).ids
