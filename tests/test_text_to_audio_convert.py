"""Published token language models to model folders: both layouts, and what is refused."""

from pathlib import Path
from typing import Any

import parity_generation
import pytest
import torch
import transformers
from parity import read_json
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import Tensor

from aural.checkpoint import read_foreign
from aural.errors import CheckpointError
from aural.text_to_audio.convert import audiocraft_config, convert_generation, is_generation, load_model
from aural.text_to_audio.decoding import DecodingConfig, Text, generate
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel
from aural.text_to_audio.published_names import TEXT, from_audiocraft, to_audiocraft, to_transformers

GOLDEN = Path(__file__).parent / "golden" / "audiogen"
T5 = read_json(GOLDEN / "config.json")["t5"]
GREEDY = DecodingConfig(temperature=0.0)


@pytest.fixture
def tokenizer() -> str:
    words = {"<pad>": 0, "</s>": 1, **{f"word{i}": i for i in range(2, T5["vocab_size"])}}
    return Tokenizer(models.WordLevel(words, unk_token="word2")).to_str()


def settings(**lm: Any) -> str:
    """A part of ``xp.cfg`` as it is written by audiocraft; JSON is YAML."""
    sizes = {"dim": 20, "num_heads": 2, "n_q": 3, "norm_first": True, "positional_embedding": "sin"} | lm
    return (
        "conditioners:\n  args: {merge_text_conditions_p: 0.25}\n  description:\n    model: t5\n"
        "    t5: {name: t5-large, word_dropout: 0.3}\n"
        "codebooks_pattern:\n  modeling: delay\n  delay: {delays: [0, 2, 1], flatten_first: 0}\n"
        "dataset: {segment_duration: 10, batch_size: 64}\nsample_rate: 16000\nsolver: ${oc.env:SOLVER}\n"
        f"transformer_lm: {sizes}\n".replace("True", "true").replace("'", '"')
    )


def text_encoder(folder: Path, tokenizer: str | None) -> Path:
    folder.mkdir()
    their = transformers.T5EncoderModel(transformers.T5Config(**{**T5, "num_decoder_layers": 1}))
    their.save_pretrained(folder)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer)
    return folder


def test_stereo_of_audiocraft_is_seen_in_its_settings() -> None:
    config = GenerationConfig(width=20, layers=1, heads=2, ffn_dim=8, delays=(0, 0, 1, 1), text_width=6, t5=None)
    weights = TokenLanguageModel(config).state_dict()
    pattern, pairs = "delays: [0, 2, 1]", "sample_rate: 16000\ninterleave_stereo_codebooks: {use: true}"
    stereo = settings(n_q=4).replace("sample_rate: 16000", pairs).replace(pattern, "delays: [0, 0, 1, 1]")
    for text in (stereo, stereo.replace("delays: [0, 0, 1, 1]", "delays: null")):
        found, _ = audiocraft_config(text, weights)
        assert (found.channels, found.delays) == (2, (0, 0, 1, 1))
    assert audiocraft_config(stereo.replace("use: true", "use: false"), weights)[0].channels == 1
    with pytest.raises(CheckpointError, match="per_timestep=True"):
        audiocraft_config(stereo.replace("use: true", "use: true, per_timestep: true"), weights)
    with pytest.raises(ValueError, match="3 codebooks do not go with 2"):
        GenerationConfig(delays=(0, 0, 1), channels=2)


def audiocraft_file(folder: Path, **others: Any) -> Path:
    weights = {name: tensor.half() for name, tensor in load_file(GOLDEN / "weights_audiocraft.safetensors").items()}
    torch.save({"best_state": weights, "xp.cfg": settings(), "version": "1", "exported": True} | others, folder / "it")
    return folder / "it"


def test_a_file_of_audiocraft_becomes_a_model(tmp_path: Path, tokenizer: str) -> None:
    file = audiocraft_file(tmp_path)
    assert is_generation(read_foreign(file))
    words = text_encoder(tmp_path / "t5", tokenizer)
    assert convert_generation(file, tmp_path / "out", text_encoder=words) == []
    model, reader = load_model(tmp_path / "out")
    config = model.config
    assert (config.heads, config.delays, config.seconds, config.sample_rate) == (2, (0, 2, 1), 10.0, 16000)
    assert config.cross_mask == "none" and config.t5 is not None and config.t5.width == T5["d_model"]
    assert not model.training and reader is not None
    expected = from_audiocraft(load_file(GOLDEN / "weights_audiocraft.safetensors"))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-3)
    states, mask = reader(["word7", ""])
    their = transformers.T5EncoderModel.from_pretrained(words).eval()
    with torch.no_grad():
        torch.testing.assert_close(states[0], their(torch.tensor([[7, 1]])).last_hidden_state[0])
    assert mask.tolist() == [[True, True], [False, False]]
    assert generate(model, Text(model.condition(states, mask).detach(), mask), 3, seeds=[0, 1]).shape == (2, 3, 3)


def musicgen(d_model: int, channels: int = 1) -> Any:
    """A tiny one of the transformers library, with a codec of its smallest sizes."""
    torch.manual_seed(0)
    config = transformers.MusicgenConfig(
        text_encoder={**T5, "d_model": d_model, "model_type": "t5"},
        audio_encoder={"model_type": "encodec", "num_filters": 2, "hidden_size": 4, "codebook_size": 16,
                       "codebook_dim": 4, "upsampling_ratios": [4, 2], "sampling_rate": 400,
                       "target_bandwidths": [0.8], "num_lstm_layers": 1},
        decoder={"model_type": "musicgen_decoder", "vocab_size": 16, "num_hidden_layers": 2, "ffn_dim": 24,
                 "num_attention_heads": 3, "hidden_size": 12, "num_codebooks": 4 * channels, "pad_token_id": 16,
                 "audio_channels": channels, "bos_token_id": 16, "dropout": 0.0},
    )  # fmt: skip
    model = transformers.MusicgenForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape)
    with torch.no_grad():  # codebooks lie where the encoder's vectors do, or all codes would be one
        latent = model.audio_encoder.encoder(torch.randn(1, 1, 400))
        for place, layer in enumerate(model.audio_encoder.quantizer.layers):
            entries = torch.randn(16, 4) * latent.std(2) * 0.5**place
            layer.codebook.embed.copy_(entries + latent.mean(2) if place == 0 else entries)
    return model


@pytest.mark.parametrize("d_model", [12, 8])
def test_a_musicgen_of_the_transformers_library_becomes_a_model_that_writes_the_same(
    d_model: int, tmp_path: Path, tokenizer: str
) -> None:
    their, folder = musicgen(d_model), tmp_path / "musicgen"
    assert hasattr(their, "enc_to_dec_proj") == (d_model != 12)
    their.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer)
    assert convert_generation(folder, tmp_path / "out") == []
    model, reader = load_model(tmp_path / "out")
    assert model.config.frame_rate == 50 and model.config.delays == (0, 1, 2, 3) and reader is not None
    token_ids = torch.tensor([[5, 9, 20, 1], [7, 1, 0, 0]])
    mask = token_ids != 0
    start = torch.full((2 * 4, 1), 16)
    with torch.no_grad():
        sounds = their.generate(
            input_ids=token_ids, attention_mask=mask.long(), decoder_input_ids=start, do_sample=False,
            guidance_scale=3.0, max_new_tokens=6 + 3, return_dict_in_generate=False,
        )  # fmt: skip
        states = reader.encoder(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state
        ours = generate(model, Text(model.condition(states, mask), mask), 6, GREEDY, seeds=[0, 1])
        decoded = their.audio_encoder.decode(ours[None], [None]).audio_values
    torch.testing.assert_close(sounds, decoded)
    stored = {name: tensor for name, tensor in their.state_dict().items() if name.startswith(("decoder", "enc_to_dec"))}
    back = to_transformers(model.state_dict())
    wanted = {name for name in stored if "embed_positions" not in name}
    assert back.keys() == wanted and all(torch.equal(back[name], stored[name]) for name in wanted)


def test_weights_alone_are_read_with_published_settings(tmp_path: Path, tokenizer: str) -> None:
    weights = golden_weights()
    file = tmp_path / "weights.safetensors"
    save_file(weights, file)
    notes = convert_generation(file, tmp_path / "out", text_encoder=text_encoder(tmp_path / "t5", tokenizer))
    assert len(notes) == 1 and "xp.cfg" in notes[0]
    assert load_model(tmp_path / "out")[0].config.delays == (0, 1, 2)


def test_the_published_sizes_are_seen_in_the_tensors() -> None:
    from aural.text_to_audio.convert import inferred_config

    config = GenerationConfig(width=1536, layers=48, heads=24, ffn_dim=6144, text_width=1024, t5=None)
    with torch.device("meta"):
        weights = TokenLanguageModel(config).state_dict()
    assert inferred_config(weights) == config
    assert from_audiocraft(to_audiocraft(weights)).keys() == weights.keys()
    older = {name.replace("self_attn.", "self_attn.mha."): tensor for name, tensor in to_audiocraft(weights).items()}
    assert from_audiocraft(older).keys() == weights.keys()


def test_what_cannot_be_converted_is_refused(tmp_path: Path, tokenizer: str) -> None:
    out = tmp_path / "out"

    def refused(file: Path, message: str, **arguments: Any) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            convert_generation(file, out, **arguments)
        assert "\n" not in str(caught.value) and not out.exists()

    file = audiocraft_file(tmp_path)
    refused(file, "pass --text-encoder FOLDER with t5-large")
    refused(file, "has no tokenizer.json", text_encoder=text_encoder(tmp_path / "wordless", None))
    words = text_encoder(tmp_path / "t5", tokenizer)
    refused(audiocraft_file(tmp_path, best_state={"a": torch.zeros(1)}), "holds no token language model")
    refused(audiocraft_file(tmp_path, **{"xp.cfg": settings(bias_ff=True)}), "bias_ff=True", text_encoder=words)
    refused(audiocraft_file(tmp_path, **{"xp.cfg": "a: 1"}), "xp.cfg are none", text_encoder=words)
    melody = settings().replace("description:", "self_wav: {model: chroma_stem}\n  description:")
    refused(audiocraft_file(tmp_path, **{"xp.cfg": melody}), "self_wav", text_encoder=words)
    lacking = {name: tensor for name, tensor in golden_weights().items() if "layers.1.linear2" not in name}
    refused(audiocraft_file(tmp_path, best_state=lacking), "1 missing", text_encoder=words)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "holds no weights")


def golden_weights() -> dict[str, Tensor]:
    return load_file(GOLDEN / "weights_audiocraft.safetensors")


def test_a_projection_that_musicgen_has_no_place_for_is_not_exported() -> None:
    config = parity_generation.golden_config(read_json(GOLDEN / "config.json"))
    square = TokenLanguageModel(GenerationConfig(width=12, layers=1, heads=2, ffn_dim=8, text_width=12, t5=None))
    with pytest.raises(CheckpointError, match="both 12 wide"):
        to_transformers(square.state_dict())
    assert not any(name.startswith(TEXT) for name in to_transformers(TokenLanguageModel(config).state_dict()))
