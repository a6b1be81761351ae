"""``aural convert`` as it is called: what it makes of files and folders, and what it leaves alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from test_text_to_audio_convert import T5, musicgen
from tokenizers import Tokenizer, models
from transformers import EncodecConfig as PeerConfig, EncodecModel

from aural.__main__ import main
from aural.answering.convert import convert_pengi
from aural.audio import read
from aural.audio_to_image.convert import convert_audio_token
from aural.captioning.convert import convert as convert_captioner
from aural.checkpoint import HUB_FILES, load_weights
from aural.codec.convert import convert_codec
from aural.codec_folder import load_codec
from aural.errors import UsageError
from aural.text_to_audio.convert import convert_generation
from aural.text_to_audio.generate import load

Run = Callable[..., tuple[object, str]]
SIZES = {"hidden_size": 8, "num_filters": 4, "codebook_size": 32, "num_lstm_layers": 1}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process -> exit status, stderr."""

    def run(*arguments: object) -> tuple[object, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, arguments)])
        return exit_.value.code, capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of MusicGen as its authors release it, in several files."""
    folder = tmp_path_factory.mktemp("released") / "musicgen"
    musicgen(8).save_pretrained(folder, max_shard_size="20KB")
    assert len([*folder.glob("*.safetensors")]) > 1
    words = {"<pad>": 0, "</s>": 1, **{f"word{i}": i for i in range(2, T5["vocab_size"])}}
    (folder / "tokenizer.json").write_text(Tokenizer(models.WordLevel(words, unk_token="word2")).to_str())
    return folder


@pytest.mark.parametrize("of", ["folder", "file"])
def test_a_musicgen_is_used_with_the_codec_that_came_with_it(of: str, released: Path, run: Run, tmp_path: Path) -> None:
    source = released
    if of == "file":
        (tmp_path / "one").mkdir()
        for name in ("config.json", "tokenizer.json"):
            (tmp_path / "one" / name).write_bytes((released / name).read_bytes())
        source = tmp_path / "one" / "model.safetensors"
        save_file({name: x for part in released.glob("*.safetensors") for name, x in load_file(part).items()}, source)
    out = tmp_path / "m"
    status, told = run("convert", source, "-o", out)
    assert status == 0 and f"`--codec {out / 'codec'}`" in told and f"wrote {out}" in told
    model = load(out, device="cpu")
    assert model.codec.name == str(out / "codec") and model.codec.sample_rate == 400
    entries = musicgen(8).audio_encoder.quantizer.layers[1].codebook.embed
    assert torch.equal(load_weights(out / "codec")["quantizer.layers.1.codebook.embed"], entries)
    status, told = run("generate", "word5", "--model", out, "-o", tmp_path / "y.wav", "--duration", 0.5, "--quiet")
    assert (status, told) == (0, "") and read(tmp_path / "y.wav")[0].shape == (1, 200)
    assert json.loads((tmp_path / "y.json").read_text())["codec"] == str(out / "codec")
    status, told = run("generate", "word5", "--model", out, "--codec", "codec", "-o", tmp_path / "z.wav")
    assert status != 0 and "pass --codec" in told  # the one in the box is still to be had by its name


def test_a_codec_that_lies_in_the_model_is_fetched_from_the_hub_with_it() -> None:
    files = ["config.json", "model.safetensors", "codec/config.json", "codec/model.safetensors", "codec/README.md"]
    assert {*files[:4]} <= {*filter_repo_objects(files, allow_patterns=HUB_FILES)}


def test_a_folder_with_an_encodec_becomes_a_codec(run: Run, tmp_path: Path) -> None:
    EncodecModel(PeerConfig(target_bandwidths=[1.125], **SIZES)).save_pretrained(tmp_path / "peer")
    status, told = run("convert", tmp_path / "peer", "-o", tmp_path / "ours")
    assert status == 0 and f"settings from {tmp_path / 'peer' / 'config.json'}" in told
    config = load_codec(tmp_path / "ours").network.config
    assert (config.sample_rate, config.causal, config.pad_mode) == (24000, True, "reflect")
    status, told = run("convert", tmp_path / "peer", "-o", tmp_path / "ours", "--text-encoder", tmp_path)
    assert status == 2 and "is a codec, which has no parts" in told


@pytest.mark.parametrize("of", ["folder", "file", "file alone"])
def test_an_encodec_at_48_khz_is_refused_for_its_normalisation(of: str, run: Run, tmp_path: Path) -> None:
    settings = {"normalize": True, "chunk_length_s": 1.0, "overlap": 0.01, "norm_type": "time_group_norm"}
    config = PeerConfig(sampling_rate=48000, audio_channels=2, use_causal_conv=False, **settings, **SIZES)
    EncodecModel(config).save_pretrained(tmp_path / "peer")
    file = tmp_path / "peer" / "model.safetensors"
    if of == "file alone":
        file = file.rename(tmp_path / "encodec_48khz.safetensors")
    status, told = run("convert", tmp_path / "peer" if of == "folder" else file, "-o", tmp_path / "ours")
    assert status == 2 and "norm_type='time_group_norm', which aural lacks" in told
    assert of == "file alone" or "normalize=True" in told
    assert told.count("\n") == 1 and not (tmp_path / "ours").exists()


def test_a_folder_of_other_things_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, told = run("convert", tmp_path / "empty", "-o", tmp_path / "out")
    assert status == 2 and "holds no weights" in told
    save_file({"weight": torch.zeros(2)}, tmp_path / "empty" / "model.safetensors")
    status, told = run("convert", tmp_path / "empty", "-o", tmp_path / "out")
    assert status == 2 and "holds no token language model" in told and not (tmp_path / "out").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_other_people_stay_as_they_are(released: Path, run: Run, tmp_path: Path) -> None:
    """Of the source itself, and of whatever else lies where the model is to go; for the codec in it, too."""
    before = contents(released)
    other = tmp_path / "other"
    (other / "codec").mkdir(parents=True)
    (other / "codec" / "config.json").write_text('{"model_type": "encodec"}')
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    (tmp_path / "file").touch()
    for out, says in [
        (released, "is the folder of what is to be converted"),
        (other / "codec", "holds config.json of another project"),
        (other, f"{other / 'codec'} holds config.json of another project"),
        (tmp_path / "notes", "holds README.md of another project"),
        (tmp_path / "file", "is a file"),
    ]:
        there = contents(tmp_path)
        status, told = run("convert", released, "-o", out)
        assert status == 2 and says in told and told.count("\n") == 1
        assert contents(tmp_path) == there and contents(released) == before
    assert run("convert", released, "-o", tmp_path / "ours")[0] == 0
    assert run("convert", released, "-o", tmp_path / "ours")[0] == 0  # our own folder may be written anew
    for source in (tmp_path / "ours", tmp_path / "ours" / "codec", tmp_path / "ours" / "codec" / "model.safetensors"):
        status, told = run("convert", source, "-o", tmp_path / "again")
        assert status == 2 and "is a model folder already" in told and not (tmp_path / "again").exists()


def test_every_converter_looks_first(tmp_path: Path) -> None:
    """Whatever is in the file: an empty one is refused for where it is to go, before it is read."""
    file = tmp_path / "pytorch_model.bin"
    file.touch()
    for convert in (convert_captioner, convert_pengi, convert_audio_token, convert_codec, convert_generation):
        with pytest.raises(UsageError, match="is the folder of what is to be converted"):
            convert(file, tmp_path)
    assert [*tmp_path.iterdir()] == [file]
