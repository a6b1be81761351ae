"""``aural encode``, ``aural decode`` and ``aural evaluate codec``, and what Python offers of them, over tiny codecs."""

import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_encodec import audiocraft_file
from torch import Tensor

from aural.__main__ import main
from aural.audio import read, read_mono, write
from aural.checkpoint import save_model
from aural.codec.encode import decode, encode
from aural.codec.evaluate import codebook_use
from aural.codec.files import EncodedSound, from_bytes, read_codes, to_bytes
from aural.codec.recipes import tiny
from aural.codec_folder import SYSTEM, load_codec
from aural.errors import AudioError, CheckpointError, UsageError
from aural.judge import load_judge
from aural.manifest import Clip, write_manifest
from aural.metrics.reconstruction import RANGE_DB, mel_distance, si_sdr
from aural.networks.encodec import Encodec, EncodecConfig
from aural.networks.residual_quantizer import QuantizerConfig

EXAMPLES = Path(__file__).parents[1] / "src" / "aural" / "examples"
RATE = 16000

Run = Callable[..., tuple[object, str, str]]


def codec(folder: Path, seed: int, **changes: object) -> Path:
    """A codec of the tiny recipe's size with random weights, and codebooks that fit them."""
    sizes = tiny().model
    config = EncodecConfig(
        n_filters=sizes.n_filters,
        dimension=sizes.dimension,
        lstm_layers=1,
        quantizer=QuantizerConfig(n_codebooks=3, codebook_size=20),
        **changes,  # type: ignore[arg-type]
    )
    torch.manual_seed(seed)
    network = Encodec(config)
    levels = torch.logspace(-3, 0, 4)[:, None, None]
    network(torch.randn(4, config.channels, RATE) * levels)  # codebooks start from what the encoder makes of this
    save_model(folder, system=SYSTEM, config=config, weights=network.state_dict(), card="")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return codec(tmp_path_factory.mktemp("codec") / "one", 0)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process -> exit status, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, arguments), "--quiet"])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


# ------------------------------------------------------------------------------------------------------- there and back


def test_a_sound_becomes_codes_and_a_sound_again(folder: Path, run: Run, tmp_path: Path) -> None:
    codes, sound = tmp_path / "new" / "dog.codes", tmp_path / "dog.wav"
    status, out, err = run("encode", EXAMPLES / "dog_bark.ogg", "-o", codes, "--model", folder)
    assert (status, err) == (0, "")
    assert out == f"{codes}\t5.00 s\t{codes.stat().st_size} bytes\n"
    waveform, _ = read(EXAMPLES / "dog_bark.ogg", RATE)
    n_frames = math.ceil(waveform.shape[1] / 320)
    assert codes.stat().st_size == 70 + math.ceil(3 * n_frames * 5 / 8)
    assert run("decode", codes, "-o", sound, "--model", folder) == (0, f"{sound}\t5.00 s\n", "")

    loaded = load_codec(folder, device="cpu")
    expected = loaded.decode(loaded.encode(torch.from_numpy(waveform)))[:, : waveform.shape[1]]
    assert len(loaded.encode(torch.from_numpy(waveform)).unique()) > 5  # or it would show nothing
    decoded, rate = read(sound)
    assert rate == RATE and decoded.shape == waveform.shape
    np.testing.assert_allclose(decoded, expected.clamp(-1, 1), atol=1e-4)
    from_python = encode(EXAMPLES / "dog_bark.ogg", model=loaded)
    assert torch.equal(from_python.codes, read_codes(codes).codes)
    torch.testing.assert_close(decode(from_python, model=loaded), expected)
    torch.testing.assert_close(decode(codes, model=folder), expected)


def test_channels_and_fewer_codebooks(folder: Path, run: Run, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32) * 0.1
    write(tmp_path / "two.wav", noise, RATE)
    assert (
        run("encode", tmp_path / "two.wav", "-o", tmp_path / "two.codes", "--model", folder, "--codebooks", 2)[0] == 0
    )
    encoded = read_codes(tmp_path / "two.codes")
    assert (encoded.channels, encoded.n_codebooks, encoded.n_samples) == (2, 2, 4000)
    sound = decode(encoded, model=folder)
    left, _ = read(tmp_path / "two.wav")
    alone = decode(encode((left[0], RATE), model=folder, n_codebooks=2), model=folder)
    torch.testing.assert_close(sound[:1], alone)
    assert run("encode", tmp_path / "two.wav", "-o", tmp_path / "x.codes", "--model", folder, "--codebooks", 4)[0] == 2


# -------------------------------------------------------------------------------------------------------------- batches


def test_folders_and_globs_and_a_bad_file_among_good_ones(folder: Path, run: Run, tmp_path: Path) -> None:
    sounds, codes, back = tmp_path / "sounds", tmp_path / "codes", tmp_path / "back"
    sounds.mkdir()
    for name in ("rain", "rooster"):
        shutil.copy(EXAMPLES / f"{name}.ogg", sounds)
    (sounds / "broken.wav").write_text("no sound")
    status, out, err = run("encode", sounds, "-o", codes, "--model", folder, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and "broken.wav" in lines[0]["error"] and "broken.wav" in err
    assert [line["out"] for line in lines[1:]] == [str(codes / f"{name}.codes") for name in ("rain", "rooster")]
    assert all(line["seconds"] == pytest.approx(5, abs=0.01) and line["bytes"] < 1000 for line in lines[1:])

    (codes / "rain.codes").write_bytes((codes / "rain.codes").read_bytes()[:-3])
    (codes / "notes.codes").write_text("nothing of the kind")
    status, out, err = run("decode", f"{codes}/*.codes", "-o", back, "--model", folder)
    assert status == 1
    assert [path.name for path in back.iterdir()] == ["rooster.wav"]
    assert out == f"{back / 'rooster.wav'}\t5.00 s\n"
    damaged, foreign = sorted(err.splitlines())[::-1]
    assert "rain.codes is damaged or cut short" in damaged and "notes.codes is no .codes file" in foreign
    assert run("decode", codes, "-o", back, "--model", folder)[1] == out  # the folder itself


def test_a_result_that_cannot_be_written_loses_no_other(folder: Path, run: Run, tmp_path: Path) -> None:
    sounds, codes, back = tmp_path / "sounds", tmp_path / "codes", tmp_path / "back"
    sounds.mkdir()
    for name in "abc":
        write(sounds / f"{name}.wav", 0.1 * np.random.default_rng(0).standard_normal(3000), RATE)
    (codes / "b.codes").mkdir(parents=True)
    (back / "c.wav").mkdir(parents=True)
    status, out, err = run("encode", sounds, "-o", codes, "--model", folder, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and err.count("\n") == 1 and f"{codes / 'b.codes'}: cannot be written" in err
    assert [("out" in row, "error" in row) for row in rows] == [(True, False), (False, True), (True, False)]
    assert sorted(path.name for path in codes.iterdir()) == ["a.codes", "b.codes", "c.codes"]
    status, out, err = run("decode", codes / "a.codes", codes / "c.codes", "-o", back, "--model", folder)
    assert status == 1 and err.count("\n") == 1 and str(back / "c.wav") in err
    assert sorted(path.name for path in back.iterdir()) == ["a.wav", "c.wav"]


def test_codes_of_one_entry_are_damaged() -> None:
    content = bytearray(to_bytes(EncodedSound(torch.zeros(3, 5, dtype=torch.long), 1600, RATE, 320, 1, 2, bytes(32))))
    content[14:18] = struct.pack("<I", 1)  # entries of a codebook
    body = bytes(content[:-6])  # without codes of three times five bits, and the checksum
    with pytest.raises(AudioError, match="damaged"):
        from_bytes(body + struct.pack("<I", zlib.crc32(body)))


def test_codes_of_another_codec(folder: Path, run: Run, tmp_path: Path) -> None:
    other = codec(tmp_path / "other", 1)
    for name, model in (("a", other), ("b", folder)):
        assert run("encode", EXAMPLES / "sneeze.ogg", "-o", tmp_path / f"{name}.codes", "--model", model)[0] == 0
    status, out, err = run("decode", tmp_path, "-o", tmp_path / "back", "--model", folder)
    assert status == 1 and out.startswith(str(tmp_path / "back" / "b.wav"))
    assert err == (
        f"aural: {tmp_path / 'a.codes'}: the codes were made with another codec: "
        "pass --model with the one they were made with\n"
    )


def test_usage(folder: Path, run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(EXAMPLES / "rain.ogg", tmp_path / name)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for arguments, says in [
        (
            ["encode", tmp_path / "a" / "rain.ogg", "-o", tmp_path / "x.mp3"],
            "unknown format '.mp3'; choose one of .codes",
        ),
        (["encode", tmp_path, "-o", tmp_path / "out"], "would both be written to"),
        (["encode", tmp_path, "-o", tmp_path / "file"], "is a file, and 2 are to be written"),
        (["decode", tmp_path / "empty", "-o", tmp_path / "out"], "no sounds in this folder (looked for .codes)"),
        (["decode", tmp_path / "x.codes", "-o", tmp_path / "x.txt"], "unknown format '.txt'; choose one of .wav"),
    ]:
        status, out, err = run(*arguments, "--model", folder)
        assert (status, out, err.count("\n")) == (2, "", 1) and says in err
    assert run("decode", tmp_path / "none.codes", "-o", tmp_path / "x.wav", "--model", folder)[0] == 1
    with pytest.raises(AudioError, match="cannot be read"):
        decode(tmp_path / "none.codes", model=folder)
    with pytest.raises(CheckpointError, match="of 2 channels: take one of one channel"):
        load_codec(codec(tmp_path / "stereo", 0, channels=2))
    with pytest.raises(UsageError, match="no model 'nothing'"):
        load_codec("nothing")


def test_a_released_codec_is_converted_and_used(run: Run, tmp_path: Path) -> None:
    released, own = audiocraft_file(tmp_path), tmp_path / "own"
    assert run("convert", released, "-o", own)[0] == 0
    status, _, err = run("encode", EXAMPLES / "rain.ogg", "-o", tmp_path / "rain.codes", "--model", own)
    assert (status, err) == (0, "") and read_codes(tmp_path / "rain.codes").sample_rate == 1500
    status, _, err = run("convert", released, "-o", own, "--beats", released)
    assert status == 2 and "is a codec, which has no parts" in err
    torch.save({"pretrained": "facebook/encodec_32khz", "exported": True}, tmp_path / "named.bin")
    status, _, err = run("convert", tmp_path / "named.bin", "-o", own)
    assert status == 2 and "only names the codec facebook/encodec_32khz" in err


# -------------------------------------------------------------------------------------------------------------- figures


def test_si_sdr_by_hand() -> None:
    times = torch.arange(1600) / RATE
    truth, noise = torch.sin(2 * math.pi * 100 * times), torch.cos(2 * math.pi * 100 * times)
    for share, decibel in ((0.1, 20.0), (1.0, 0.0), (10.0, -20.0)):
        assert si_sdr(3.0 * (truth + share * noise) + 0.5, truth - 0.2) == pytest.approx(decibel, abs=1e-3)
    assert si_sdr(truth, truth) > 100
    assert si_sdr(torch.zeros(1600), truth) == -math.inf
    with pytest.raises(ValueError, match="silent"):
        si_sdr(truth, torch.zeros(1600))
    with pytest.raises(ValueError, match="one length"):
        mel_distance(truth[1:], truth, RATE)


def test_mel_distance_by_hand() -> None:
    truth = torch.randn(RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    assert mel_distance(truth, truth, RATE) == 0.0
    assert mel_distance(truth / 10, truth, RATE) == pytest.approx(20.0, abs=0.01)
    assert mel_distance(10 * truth, truth, RATE) == pytest.approx(20.0, abs=0.01)
    far = mel_distance(torch.zeros(RATE), truth, RATE)
    assert RANGE_DB - 30 < far < RANGE_DB  # silence is as far away as the bands of the noise are loud


def test_use_of_codebooks_by_hand() -> None:
    counts = torch.tensor([[5.0, 5.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    torch.testing.assert_close(codebook_use(counts), torch.tensor([[0.5, 2.0], [1.0, 4.0]]))


def test_evaluate(folder: Path, run: Run, tmp_path: Path) -> None:
    write(tmp_path / "silence.wav", np.zeros(RATE, np.float32), RATE)
    names = {"dog_bark": "dog", "rain": "rain", "rooster": "rooster"}
    clips = [Clip(EXAMPLES / f"{name}.ogg", labels=(label,), split="fold1") for name, label in names.items()]
    write_manifest(tmp_path / "m.jsonl", [*clips, Clip(tmp_path / "silence.wav", split="fold2")])
    status, out, err = run("evaluate", "codec", "--manifest", tmp_path / "m.jsonl", "--model", folder)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert (result["n_clips"], result["n_recordings"], result["n_silent_clips"]) == (3, 3, 1)
    loaded = load_codec(folder, device="cpu")

    def through(name: str) -> tuple[Tensor, Tensor]:
        truth = torch.from_numpy(read_mono(EXAMPLES / f"{name}.ogg", RATE))
        return loaded.decode(loaded.encode(truth[None]))[0, : len(truth)], truth

    for measure, by_hand in (
        ("si_sdr", {label: si_sdr(*through(name)) for name, label in names.items()}),
        ("mel_distance", {label: mel_distance(*through(name), RATE) for name, label in names.items()}),
    ):
        assert result[f"{measure}_of_label"] == pytest.approx(by_hand, rel=1e-4)
        assert result[measure] == pytest.approx(sum(by_hand.values()) / 3, rel=1e-4)
        low, high = result[f"{measure}_interval_95"]
        assert min(by_hand.values()) - 1e-3 <= low <= result[measure] <= high <= max(by_hand.values()) + 1e-3
    assert len(result["codebooks"]) == 3
    assert all(0 < use["used"] <= 1 <= use["perplexity"] <= 20 for use in result["codebooks"])

    shutil.copytree(folder, tmp_path / "models" / "fold1")
    status, out, _ = run("evaluate", "codec", "--manifest", tmp_path / "m.jsonl", "--held-out", tmp_path / "models")
    held_out = json.loads(out)
    assert status == 0 and held_out["si_sdr"] == pytest.approx(result["si_sdr"]) and held_out["n_clips"] == 3
    silent = run("evaluate", "codec", "--manifest", tmp_path / "m.jsonl", "--model", folder, "--split", "fold2")
    assert silent[0] == 2 and "all clips to judge are silent" in silent[2]


def test_a_judge_says_what_is_still_heard(folder: Path, run: Run, tmp_path: Path) -> None:
    names = {"dog_bark": "dog bark", "rain": "rain", "rooster": "rooster"}
    clips = [Clip(EXAMPLES / f"{name}.ogg", labels=(label,)) for name, label in names.items()]
    write_manifest(tmp_path / "m.jsonl", clips)
    listener = EXAMPLES.parents[2] / "models" / "listening"
    evaluate = ("evaluate", "codec", "--manifest", tmp_path / "m.jsonl", "--model", folder, "--judge", listener)
    status, out, err = run(*evaluate)
    heard = json.loads(out)["heard"]
    assert (status, err, heard["n_judged"]) == (0, "", 3)
    loaded, (judge, _) = load_codec(folder, device="cpu"), load_judge(listener, clips)
    right = {"recorded": 0, "decoded": 0}
    for clip in clips:
        sound = read_mono(clip.audio, RATE)
        decoded = loaded.decode(loaded.encode(torch.from_numpy(sound)[None]))[0, : len(sound)].numpy()
        for name, waveform in (("recorded", sound), ("decoded", decoded)):
            right[name] += judge.best(judge.hear(waveform, RATE)[0], 1) == {clip.labels[0]}
    assert {name: heard[f"heard_{name}"] for name in right} == {name: n / 3 for name, n in right.items()}
    assert right["recorded"] == 3 > right["decoded"]  # it has heard these very clips; the codec has random weights
    refused = run("evaluate", "captioning", "--manifest", tmp_path / "m.jsonl", "--judge", listener)
    assert refused[0] == 2 and "--judge goes with text_to_audio" in refused[2]
    refused = run("evaluate", "captioning", "--manifest", tmp_path / "m.jsonl", "--best-of", 2)
    assert refused[0] == 2 and "--best-of goes with text_to_audio" in refused[2]
