"""``aural generate`` and what Python offers of it, and how it is judged, over a tiny model."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from text_to_audio_models import RATE, codec, generator, many_recordings, recordings
from tiny_models import listener

import aural
from aural.__main__ import main
from aural.audio import read, read_mono, write
from aural.checkpoint import load_config, load_weights, save_model
from aural.errors import AudioError, CheckpointError, UsageError
from aural.metrics.frechet_distance import frechet_distance
from aural.text_to_audio.convert import SYSTEM
from aural.text_to_audio.evaluate import evaluate, pair_prompt, prompts
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
from aural.text_to_audio.model import GenerationConfig
from aural.text_to_audio.reranking import candidates

PROMPTS = ["a dog barks", "rain", "a rooster crows while rain falls", "a dog barks"]
HOP = 320


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def manifest(sounds: Path) -> Path:
    return recordings(sounds)


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return codec(tmp_path_factory.mktemp("codec") / "codec")


@pytest.fixture(scope="module")
def folder(manifest: Path, over: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights, so that it makes a difference what it is asked for."""
    trained = generator(tmp_path_factory.mktemp("trained") / "tiny", manifest, over)
    weights = {name: 3.0 * tensor for name, tensor in load_weights(trained).items()}
    out = tmp_path_factory.mktemp("model") / "loud"
    save_model(out, system=SYSTEM, config=load_config(trained, GenerationConfig, SYSTEM), weights=weights, card="")
    return out


@pytest.fixture(scope="module")
def model(folder: Path, over: Path) -> GenerationModel:
    return load(folder, codec=over, device="cpu")


@pytest.fixture
def run(folder: Path, over: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Run ``aural generate`` in this process -> exit status, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["generate", "--model", str(folder), "--codec", str(over), "--quiet", *map(str, arguments)])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


def requests() -> list[Request]:
    return [Request(prompt, seed) for seed, prompt in enumerate(PROMPTS)]


def test_a_sound_does_not_depend_on_its_company(model: GenerationModel) -> None:
    settings = Settings(duration=0.5)
    alone, together = (list(generate_each(requests(), model, settings, batch_size=size)) for size in (1, 4))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.waveform, other.waveform) and torch.equal(one.codes, other.codes)
        assert one.waveform.shape == (1, RATE // 2) and one.codes.shape == (4, 25) and one.took > 0
    assert not torch.equal(alone[0].codes, alone[3].codes)  # another seed
    dog, rain = (generate_audio(prompt, model=model, duration=0.5) for prompt in ("a dog barks", "rain falls"))
    assert np.array_equal(dog.waveform, alone[0].waveform) and not torch.equal(dog.codes, rain.codes)


@pytest.mark.parametrize("duration", [0.03, 0.5, 1.37, 2.5])
def test_pieces_are_the_whole(model: GenerationModel, duration: float) -> None:
    """Also of less than a frame, of a part of one at the end, and of several windows."""
    settings = Settings(duration=duration)
    told: list[tuple[int, int]] = []
    pieces = list(stream(requests()[0], model, settings, progress=lambda *one: told.append(one)))
    whole = next(generate_each(requests()[:1], model, settings))
    assert whole.waveform.shape[1] == round(duration * RATE)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole.waveform, atol=1e-5)
    frames = -(-round(duration * RATE) // HOP)
    assert told == [(done, frames) for done in range(1, frames + 1)] and (duration < 1 or len(pieces) > 2)


def test_longer_begins_as_shorter(model: GenerationModel) -> None:
    short, long = (next(generate_each(requests()[:1], model, Settings(duration=s))) for s in (0.6, 0.9))
    assert torch.equal(short.codes[:, :-4], long.codes[:, : short.codes.shape[1] - 4])


@pytest.mark.parametrize("seconds", [0.5, 1.21])
def test_what_is_given_is_kept(model: GenerationModel, sounds: Path, tmp_path: Path, seconds: float) -> None:
    """Of a sound shorter and longer than a window; its codes are those of all its whole frames."""
    waveform = 0.1 * np.random.default_rng(5).standard_normal(round(seconds * RATE)).astype(np.float32)
    write(tmp_path / "start.wav", waveform, RATE)
    settings = Settings(duration=2.0)
    given = model.given(tmp_path / "start.wav", settings)
    whole = len(waveform) // HOP
    heard = torch.from_numpy(read_mono(tmp_path / "start.wav", RATE)[None, : whole * HOP])
    assert given.shape == (1, 4, whole) and torch.equal(given, model.codec.encode(heard))
    told: list[tuple[int, int]] = []
    made = generate_each(
        requests(), model, settings, continue_from=tmp_path / "start.wav", progress=lambda *one: told.append(one)
    )
    for one in made:
        assert torch.equal(one.codes[:, :whole], given[0]) and one.codes.shape == (4, 100)
    assert told[-1] == (4 * (100 - whole), 4 * (100 - whole))
    pieces = stream(requests()[0], model, settings, continue_from=tmp_path / "start.wav")
    again = generate_audio(PROMPTS[0], model=model, duration=2.0, continue_from=tmp_path / "start.wav")
    np.testing.assert_allclose(np.concatenate(list(pieces), axis=1), again.waveform, atol=1e-5)
    with pytest.raises(UsageError, match="give a longer duration"):
        model.given(tmp_path / "start.wav", Settings(duration=whole * HOP / RATE))
    with pytest.raises(UsageError, match="at least a frame"):
        model.given((waveform[: HOP - 1], RATE), settings)


def test_it_can_be_cancelled(model: GenerationModel) -> None:
    class EnoughError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise EnoughError

    with pytest.raises(EnoughError):
        list(generate_each(requests(), model, Settings(duration=0.5), batch_size=2, progress=stop))
    pieces = stream(requests()[0], model, Settings(duration=100000.0))
    assert next(pieces).shape[0] == 1  # long before the end
    pieces.close()


def test_guidance_and_negative_prompts_matter(model: GenerationModel) -> None:
    changed = [{}, {"cfg_scale": 1.0}, {"negative_prompt": "rain"}, {"top_k": 1}, {"top_p": 0.7}, {"temperature": 0.5}]
    made = [generate_audio("a dog barks", model=model, duration=1.0, **settings).codes for settings in changed]
    assert len({tuple(codes.flatten().tolist()) for codes in made}) == len(changed)
    greedy = [generate_audio("rain", model=model, duration=0.3, temperature=0.0, seed=seed).codes for seed in (0, 1)]
    assert torch.equal(*greedy)


def test_the_candidate_nearest_to_its_prompt_is_kept(model: GenerationModel) -> None:
    settings = Settings(duration=0.5, best_of=3)
    told: list[tuple[int, int]] = []
    alone, together = (
        list(generate_each(requests(), model, settings, batch_size=size, progress=lambda *one: told.append(one)))
        for size in (1, 5)
    )
    assert told[-1] == (4 * 3 * 25, 4 * 3 * 25)
    words = model.listener.embed_text(PROMPTS)
    for one, other, request, meant in zip(alone, together, requests(), words, strict=True):
        assert np.array_equal(one.waveform, other.waveform) and (one.seed, one.prompt) == (request.seed, request.prompt)
        drawn = candidates(request, 3)
        assert drawn[0] == request and len({each.seed for each in drawn}) == 3
        each = list(generate_each(drawn, model, Settings(duration=0.5)))
        cosines = [float(model.listener.embed_audio((one.waveform, RATE)) @ meant) for one in each]
        best = each[int(np.argmax(cosines))]
        assert np.array_equal(best.waveform, one.waveform) and best.drawn_by == one.drawn_by == best.seed
    assert {one.drawn_by for one in alone} - {request.seed for request in requests()}  # not the first in all cases
    with pytest.raises(UsageError, match="other candidates"):
        stream(requests()[0], model, settings)
    config = model.model.config
    model.model.config = replace(config, best_of=3)
    try:
        assert [one.drawn_by for one in generate_each(requests(), model, Settings(duration=0.5))] == [
            one.drawn_by for one in alone
        ]
    finally:
        model.model.config = config


def test_where_nothing_is_drawn_there_is_one_candidate(model: GenerationModel) -> None:
    config = model.model.config
    model.model.config = replace(config, best_of=3)
    try:
        assert [model.best_of(one) for one in (Settings(), Settings(temperature=0.0), Settings(top_k=1))] == [3, 1, 1]
        assert model.best_of(Settings(top_k=1, top_p=0.5)) == 3
    finally:
        model.model.config = config
    for sure in ({"temperature": 0.0}, {"top_k": 1}):
        with pytest.raises(UsageError, match="nothing is drawn"):
            Settings(best_of=2, **sure)  # type: ignore[arg-type]


def test_each_text_may_have_its_seed(model: GenerationModel) -> None:
    both = generate_audio(["rain", "a dog barks"], model=model, seed=[4, 9], duration=0.4)
    alone = [
        generate_audio(text, model=model, seed=seed, duration=0.4) for text, seed in (("rain", 4), ("a dog barks", 9))
    ]
    assert [one.seed for one in both] == [4, 9]
    assert all(np.array_equal(one.waveform, other.waveform) for one, other in zip(both, alone, strict=True))
    with pytest.raises(UsageError, match="2 seeds for 1 texts"):
        generate_audio(["rain"], model=model, seed=[1, 2])


def test_a_model_is_loaded_with_the_codec_it_needs(folder: Path, over: Path) -> None:
    loaded = aural.load(folder, device="cpu", codec=over, weights="float32")
    assert isinstance(loaded, GenerationModel) and loaded.codec.name == str(over)


def test_nothing_reaches_full_scale_and_what_is_soft_stays() -> None:
    waveform = torch.tensor([[-3.0, -0.9, -0.5, 0.0, 0.3, 0.95, 1.0, 20.0]])
    result = bent(waveform)
    assert result.abs().max() <= 1.0 and torch.equal(result[:, 1:5], waveform[:, 1:5])
    assert (result.diff() > 0).all() and 0.9 < result[0, 5] < 0.95


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"duration": 0.0}, "duration of 0 s"),
        ({"duration": float("nan")}, "duration of nan"),
        ({"cfg_scale": -1.0}, "guidance"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"best_of": 0}, "best of 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"negative_prompt": "rain", "cfg_scale": 1.0}, "negative prompt"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**wrong)  # type: ignore[arg-type]


def test_another_codec_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pass --codec with the one it was trained over"):
        load(folder, codec=codec(tmp_path / "codec", seed=1), device="cpu")


def test_prompts_are_read_as_keywords_where_training_did(model: GenerationModel) -> None:
    config = replace(model.model.config, keywords=True)
    model.model.config = config
    try:
        one, other = (model.texts([text]).memory for text in ("the dogs were barking", "dog bark"))
    finally:
        model.model.config = replace(config, keywords=False)
    assert torch.equal(one, other)


# ---------------------------------------------------------------------------------------------------------- the command

Run = Callable[..., tuple[object, str, str]]


def test_a_sound_and_how_it_was_made(run: Run, model: GenerationModel, tmp_path: Path) -> None:
    status, out, _ = run("a dog barks", "-o", tmp_path / "a.flac", "--duration", 0.4, "--seed", 3, "--cfg-scale", 2)
    assert (status, out) == (0, f"{tmp_path / 'a.flac'}\ta dog barks\n")
    told = json.loads((tmp_path / "a.json").read_text())
    expected = {"prompt": "a dog barks", "seed": 3, "duration": 0.4, "cfg_scale": 2.0, "temperature": 1.0, "top_k": 250}
    expected |= {"top_p": None, "negative_prompt": None, "continue_from": None, "sample_rate": RATE}
    assert expected.items() <= told.items() and told["codec_digest"] == model.model.config.codec
    assert {"model", "codec", "aural", "torch"} <= told.keys() and told["weights"] == "float32"
    assert (told["best_of"], told["drawn_by"]) == (1, 3)
    made = generate_audio("a dog barks", model=model, seed=3, duration=0.4, cfg_scale=2.0)
    np.testing.assert_allclose(read(tmp_path / "a.flac")[0], made.waveform, atol=1 / 32768)


def test_the_best_of_several(run: Run, model: GenerationModel, tmp_path: Path) -> None:
    status, _, _ = run("rain", "-o", tmp_path / "a.wav", "--duration", 0.4, "--seed", 2, "--best-of", 4)
    told = json.loads((tmp_path / "a.json").read_text())
    made = generate_audio("rain", model=model, seed=2, duration=0.4, best_of=4)
    assert status == 0 and (told["seed"], told["best_of"], told["drawn_by"]) == (2, 4, made.drawn_by)
    again = generate_audio("rain", model=model, seed=made.drawn_by, duration=0.4)
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], again.waveform, atol=1 / 32000)


def test_int8_is_short_for_its_weights(run: Run, tmp_path: Path) -> None:
    made = [run("rain", "-o", tmp_path / f"{len(how)}.wav", "--duration", 0.2, *how)[0]
            for how in (["--int8"], ["--weights", "int8"])]  # fmt: skip
    told = [json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2)]
    assert made == [0, 0] and told[0] == told[1] and told[0]["weights"] == "int8"
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()


def test_a_sound_that_cannot_be_written_loses_no_other(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rain_1.wav").mkdir()
    status, out, err = run("rain", "--n", 3, "-o", tmp_path, "--duration", 0.1, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and err.count("\n") == 1 and "rain_1.wav" in err
    assert ["error" in row for row in rows] == [False, True, False]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("rain_0.json", "rain_0.wav", "rain_1.wav", "rain_2.json", "rain_2.wav")
    }


def test_several_sounds_are_named_after_prompt_and_seed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Rain, falling!\n\nrain falling\n")
    status, out, _ = run(
        *("a dog barks", "--prompts-file", tmp_path / "p.txt", "-o", tmp_path / "out", "--duration", 0.1),
        *("--n", 2, "--batch-size", 3, "--seed", 7, "--json"),
    )
    rows = [json.loads(line) for line in out.splitlines()]
    names = [
        "a_dog_barks_7",
        "a_dog_barks_8",
        "rain_falling_7",
        "rain_falling_8",
        "rain_falling_7_2",
        "rain_falling_8_2",
    ]
    assert status == 0 and [Path(row["file"]).stem for row in rows] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("json", "wav")
    )
    fields = {"prompt", "file", "seconds", "sample_rate", "seed", "frames_per_second", "real_time_factor"}
    assert all(row.keys() == fields and row["seconds"] == 0.1 for row in rows)


def test_a_pipe_gets_the_same_wav(folder: Path, over: Path, model: GenerationModel) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "aural", "generate", "a dog barks", "-o", "-", "--duration", "0.7", "--quiet"),
            *("--model", str(folder), "--codec", str(over), "--device", "cpu"),
        ],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])},
    )
    assert done.returncode == 0, done.stderr
    waveform, rate = read(io.BytesIO(done.stdout))
    assert rate == RATE and len(done.stdout) == 44 + 2 * round(0.7 * RATE)
    np.testing.assert_allclose(
        waveform, generate_audio("a dog barks", model=model, duration=0.7).waveform, atol=1 / 32000
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-o", "a.wav"], 2, "give a prompt"),
        (["rain"], 2, "-o out.wav"),
        (["rain", "dogs", "-o", "a.wav"], 2, "one file for 2 sounds"),
        (["rain", "-o", "a.txt"], 2, "'.txt'"),
        (["rain", "--n", "2", "-o", "-"], 2, "stdout takes one sound"),
        (["rain", "--best-of", "2", "-o", "-"], 2, "no other candidates"),
        (["rain", "--int8", "--weights", "int4", "-o", "a.wav"], 2, "--int8 and --weights int4"),
        (["rain", "-o", "a.wav", "--seed", "-1"], 2, "--seed"),
        (["  ", "-o", "a.wav"], 2, "a prompt is empty"),
        (["rain", "-o", "a.wav", "--duration", "-1"], 2, "duration of -1 s"),
        (["rain", "-o", "a.wav", "--prompts-file", "no.txt"], 2, "no.txt"),
        (["rain", "-o", "a.wav", "--continue-from", "no.wav"], 1, "no.wav"),
        (["rain", "-o", "-", "--continue-from", "no.wav"], 1, "no.wav"),
    ],
)
def test_errors_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (status, "") and message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_python_is_offered(folder: Path, over: Path, model: GenerationModel) -> None:
    both = aural.generate_audio(["rain", "a dog barks"], model=model, duration=0.1)
    assert [one.prompt for one in both] == ["rain", "a dog barks"]
    with pytest.raises(AudioError):
        aural.generate_audio("rain", model=model, continue_from="no.wav")
    with pytest.raises(UsageError, match="nothing to generate"):
        aural.generate_audio([], model=model)


# ---------------------------------------------------------------------------------------------------------- the measure


def test_distance_of_normal_sets() -> None:
    """By hand: along one axis it is the difference of means, squared, plus that of deviations, squared."""
    some = torch.linspace(-1, 1, 50)[:, None] * torch.tensor([[1.0, 0.0]])
    others = 3 * some + torch.tensor([[5.0, 2.0]])
    deviation = float(some[:, 0].std())
    assert frechet_distance(some, others) == pytest.approx(29 + 4 * deviation**2, rel=1e-6)
    assert frechet_distance(some, some) == pytest.approx(0, abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, 5, generator=generator), torch.randn(300, 5, generator=generator) @ torch.randn(5, 5)
    first, second = (torch.cov(one.T.double()) for one in (a, b))
    root = torch.linalg.eigvals(first @ second).sqrt().sum().real
    expected = (a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * root
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-4)
    with pytest.raises(ValueError, match="32 vectors"):
        frechet_distance(some[:31], others)


def test_generated_sounds_are_judged_beside_real_ones(model: GenerationModel, manifest: Path, tmp_path: Path) -> None:
    judge, many = listener(tmp_path / "judge", manifest), many_recordings(tmp_path)
    settings = Settings(duration=0.1)
    common = {"settings": settings, "pairs": 4, "batch_size": 16}
    result = evaluate(model, judge, many, n=11, **common)
    for name in ("generated", "real", "codec"):
        scores = result[name]
        assert scores["of_label"].keys() == {"dog bark", "rain", "rooster"}
        mean = sum(scores["of_label"].values()) / 3
        assert scores["class_heard"] == pytest.approx(mean) and 0 <= scores["both_heard"] <= 1
        low, high = scores["similarity_interval_95"]
        assert low <= scores["similarity"] <= high
    assert result["frechet_distance"]["n_of_set"] == 33
    assert result["frechet_distance"]["real_to_real"] > 0
    with pytest.raises(UsageError, match="larger --n"):
        evaluate(model, judge, many, n=3, **common)
    with pytest.raises(UsageError, match="larger --n"):
        evaluate(model, judge, manifest, n=20, **common)


def test_prompts_of_labels() -> None:
    assert prompts("dog bark") == ("a dog barks", "the sound of a dog barking", "a barking dog")
    assert pair_prompt(("dog bark", "rain")) == "a dog barks while rain falls"
