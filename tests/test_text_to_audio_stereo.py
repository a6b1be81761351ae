"""Stereo: a MusicGen of two channels of the transformers library, converted, loaded and heard on both sides."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_text_to_audio_convert import T5, musicgen
from tokenizers import Tokenizer, models

from aural.__main__ import main
from aural.audio import read
from aural.checkpoint import save_model
from aural.codec.convert import convert_codec
from aural.errors import CheckpointError
from aural.networks.encodec import Encodec
from aural.networks.residual_quantizer import QuantizerConfig
from aural.text_to_audio.convert import convert_generation
from aural.text_to_audio.generate import (
    GenerationModel,
    Request,
    Settings,
    bent,
    generate_audio,
    generate_each,
    load,
    stream,
)

RATE, HOP = 400, 8


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as its authors release it."""
    folder = tmp_path_factory.mktemp("released") / "musicgen-stereo"
    musicgen(8, channels=2).save_pretrained(folder)
    words = {"<pad>": 0, "</s>": 1, **{f"word{i}": i for i in range(2, T5["vocab_size"])}}
    (folder / "tokenizer.json").write_text(Tokenizer(models.WordLevel(words, unk_token="word2")).to_str())
    return folder


@pytest.fixture(scope="module")
def folder(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as ours: the language model, and ``codec`` in it."""
    out = tmp_path_factory.mktemp("ours") / "stereo"
    convert_generation(released, out)
    convert_codec(released / "model.safetensors", out / "codec")
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> GenerationModel:
    return load(folder, codec=folder / "codec", device="cpu")


def test_both_channels_are_those_of_the_transformers_library(model: GenerationModel) -> None:
    config = model.model.config
    assert (config.channels, config.delays, model.codec.n_codebooks) == (2, (0, 0, 1, 1, 2, 2, 3, 3), 4)
    with torch.no_grad():
        expected = musicgen(8, channels=2).generate(
            input_ids=torch.tensor([[7, 1]]), attention_mask=torch.ones(1, 2, dtype=torch.long), do_sample=False,
            guidance_scale=3.0, max_new_tokens=6 + 3, return_dict_in_generate=False,
        )[0]  # fmt: skip
    made = generate_audio("word7", model=model, duration=6 * HOP / RATE, temperature=0.0)
    assert made.waveform.shape == expected.shape == (2, 6 * HOP) and made.codes.shape == (8, 6)
    np.testing.assert_allclose(made.waveform, bent(expected), atol=1e-5)
    assert np.abs(made.waveform[0] - made.waveform[1]).max() > 0.003 and made.seconds == 6 * HOP / RATE


def test_pieces_are_the_whole(model: GenerationModel) -> None:
    settings = Settings(duration=1.01)
    (whole,) = generate_each([Request("word5", 3)], model, settings)
    pieces = list(stream(Request("word5", 3), model, settings))
    assert len(pieces) > 2 and whole.waveform.shape == (2, 404)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole.waveform, atol=1e-5)


def test_what_is_given_keeps_its_channels(model: GenerationModel) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal((3, 100)).astype(np.float32)
    settings = Settings(duration=0.5)
    both = model.given((noise[:2], RATE), settings)
    assert both.shape == (1, 8, 12)
    for side in (0, 1):
        alone = model.codec.encode(torch.from_numpy(noise[side : side + 1, : 12 * HOP]))
        assert torch.equal(both[:, side::2], alone)
    assert not torch.equal(both[:, 0::2], both[:, 1::2])
    mono, several = (model.given((sound, RATE), settings) for sound in (noise[0], noise))
    assert torch.equal(mono[:, 0::2], both[:, 0::2]) and torch.equal(mono[:, 1::2], both[:, 0::2])
    assert torch.equal(several[:, 0::2], several[:, 1::2])
    made = generate_audio("word5", model=model, duration=0.5, continue_from=(noise[:2], RATE))
    assert torch.equal(made.codes[:, :12], both[0]) and made.waveform.shape == (2, 200)


def test_the_listener_chooses_among_stereo_sounds(model: GenerationModel) -> None:
    made = generate_audio("word5", model=model, duration=0.3, best_of=2)
    assert made.waveform.shape == (2, 120)


def test_files_and_pipes_have_two_channels(
    folder: Path, model: GenerationModel, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    common = ["generate", "word5", "--model", folder, "--codec", folder / "codec", "--device", "cpu", "--quiet"]

    def run(out: object) -> bytes:
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, common), "--duration", "0.7", "-o", str(out)])
        captured = capsysbinary.readouterr()
        assert exit_.value.code == 0, captured.err
        return captured.out

    whole = generate_audio("word5", model=model, duration=0.7).waveform
    piped = run("-")
    assert len(piped) == 44 + 2 * 2 * 280
    waveform, rate = read(io.BytesIO(piped))
    assert rate == RATE
    np.testing.assert_allclose(waveform, whole, atol=1 / 32000)
    run(tmp_path / "a.wav")
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], whole, atol=1 / 32000)


def test_a_codec_of_as_many_codebooks_as_both_channels_is_another_one(
    folder: Path, model: GenerationModel, tmp_path: Path
) -> None:
    config = replace(model.codec.network.config, quantizer=QuantizerConfig(n_codebooks=8, codebook_size=16))
    save_model(tmp_path / "codec", system="codec", config=config, weights=Encodec(config).state_dict(), card="")
    with pytest.raises(CheckpointError, match="pass --codec"):
        load(folder, codec=tmp_path / "codec", device="cpu")
