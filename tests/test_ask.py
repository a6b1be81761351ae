"""Questions and labels: ``aural ask``, ``aural classify`` and what Python offers of them, over a tiny model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_answering_convert import GOLDEN
from tiny_models import answerer

import aural
from aural.__main__ import main
from aural.answering.answer import Answer, AnsweringModel, as_prompt, ask, ask_each, load, task_prompts
from aural.answering.classify import PROMPT, classify, classify_each, known_labels
from aural.answering.convert import HTSAT, NAMES, SYSTEM
from aural.answering.decoding import beam
from aural.answering.model import AnsweringConfig, AudioLanguageModel, Gpt2Config
from aural.answering.tokenizer import STOP
from aural.audio import Window, write
from aural.checkpoint import load_config, load_weights, save_model
from aural.errors import AudioError, UsageError
from aural.manifest import Clip, write_manifest
from aural.networks.htsat import HtsatConfig
from aural.sound_phrases import captions

RATE = 16000
QUESTION = "Is there a dog?"
ASKED = "question: is there a dog"
LABELS = ["dog", "rain", "a bell"]


def tone(seconds: float, hz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)


def clicks(seconds: float) -> np.ndarray:
    return np.where(np.arange(round(seconds * RATE)) % 8000 < 80, 0.5, 0.0).astype(np.float32)


SOUNDS = [(one, RATE) for one in (tone(2, 440), noise(1), clicks(2), tone(1.3, 80), noise(0.05), clicks(3.7))]
LONG = (np.concatenate([tone(3, 440), noise(3), clicks(3)]), RATE)
"""More than twice what the tiny model hears at once: three windows."""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for name, waveform in {"clicks": clicks(2), "noise": noise(1), "tone": tone(2, 440)}.items():
        write(folder / f"{name}.wav", waveform, RATE)
    return folder


@pytest.fixture(scope="module")
def manifest(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [
        Clip(path, captions=captions(label), labels=(label,))
        for path, label in zip(sorted(sounds.iterdir()), ("dog bark", "rain", "rooster"), strict=True)
    ]
    write_manifest(path := tmp_path_factory.mktemp("manifest") / "m.jsonl", clips)
    return path


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answerer(tmp_path_factory.mktemp("trained") / "tiny", manifest)


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with other weights behind its listener: four steps of training leave all answers alike."""
    config, weights = load_config(trained, AnsweringConfig, SYSTEM), load_weights(trained)
    generator = torch.Generator().manual_seed(2)
    alone = ("wpe.weight", "positions", "prefix_const")
    for name, weight in weights.items():
        if weight.dim() > 1 and not name.startswith("audio_encoder.") and not name.endswith(alone):
            weights[name] = 0.5 * torch.randn(weight.shape, generator=generator)
    features = config.conv_encoder.channels[-1]  # type: ignore[union-attr]
    weights["audio_rows.linear.weight"][:, :features] *= 60.0  # they differ little from sound to sound
    words = weights["gpt2.lm_head.weight"] = weights["gpt2.transformer.wte.weight"]
    tokenizer = (trained / "tokenizer.json").read_text(encoding="utf-8")
    for token, place in json.loads(tokenizer)["model"]["vocab"].items():
        if len(token) == 1 and place != config.stop_token_id:
            words[place] = 0.0  # single bytes make no text
    stop = words[config.stop_token_id]
    weights["gpt2.transformer.ln_f.bias"] = 2.0 * stop / stop.norm()
    out = tmp_path_factory.mktemp("model") / "talkative"
    save_model(out, system=SYSTEM, config=config, weights=weights, card="", files={"tokenizer.json": tokenizer})
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> AnsweringModel:
    loaded = aural.load(folder, device="cpu")
    assert isinstance(loaded, AnsweringModel)
    return loaded


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Run the command line in this process -> exit status, stdout, stderr."""

    def run(*arguments: str | Path) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*map(str, arguments), "--quiet"])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


Run = Callable[..., tuple[object, str, str]]


@torch.inference_mode()
def log_probabilities(model: AnsweringModel, window: Window, prompt: str, ids: Sequence[int]) -> torch.Tensor:
    """Of each token, by running the language model over all of them at once."""
    prefix = model.prefix(model.hear([window]), model.read([prompt]))
    states = model.model.states(prefix, torch.tensor([ids]))[0, prefix.shape[1] - 1 : -1]
    return model.model.gpt2.lm_head(states).log_softmax(dim=1)[torch.arange(len(ids)), torch.tensor(ids)]


# -------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_answers_do_not_depend_on_the_batch(model: AnsweringModel, method: str) -> None:
    options = {"model": model, "method": method, "seed": 3, "max_tokens": 12}
    sounds = [*SOUNDS, LONG]
    alone = [ask(sound, QUESTION, **options) for sound in sounds]
    assert len({one.text for one in alone}) > 2  # or it would show nothing
    for batch_size in (1, 4, 8):
        together = ask(sounds, QUESTION, batch_size=batch_size, **options)
        assert [one.text for one in together] == [one.text for one in alone]
        assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-4)


def test_the_seed_decides_what_is_drawn(model: AnsweringModel) -> None:
    drawn = [aural.ask(SOUNDS[0], QUESTION, model=model, method="sample", seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_windows_have_times_and_answers_of_their_own(model: AnsweringModel) -> None:
    answers = ask(LONG, QUESTION, model=model, windows=2.5)
    assert [(one.start, one.end) for one in answers] == [(0.0, 2.5), (2.5, 5.0), (5.0, 7.5), (7.5, 9.0)]
    for one in answers:
        stretch = LONG[0][round(one.start * RATE) : round(one.end * RATE)]
        alone = ask((stretch, RATE), QUESTION, model=model)
        assert (one.text, one.score) == (alone.text, pytest.approx(alone.score, abs=1e-4))
        assert (alone.start, alone.end) == (None, None)


def test_a_long_recording_has_the_answer_that_fits_its_windows_best(model: AnsweringModel) -> None:
    windows = list(model.windows(LONG))
    assert len(windows) == 3
    asked = model.read([ASKED])
    found = [beam(model.model, model.prefix(model.hear([one]), asked))[0][0].token_ids for one in windows]
    assert len(set(found)) > 1
    fits = {
        ids: float(torch.stack([log_probabilities(model, one, ASKED, ids).mean() for one in windows]).mean())
        for ids in found
    }
    best = max(fits, key=lambda ids: fits[ids])
    answer = ask(LONG, QUESTION, model=model)
    assert answer == Answer(model.tokenizers.text_of(best), pytest.approx(fits[best], abs=1e-4))


def test_text_to_go_on_from_is_part_of_what_is_read(model: AnsweringModel) -> None:
    answer = ask(SOUNDS[0], QUESTION, model=model, add_text="yes, a")
    prefix = model.prefix(model.hear([*model.windows(SOUNDS[0])]), model.read([ASKED]), "yes, a")
    assert prefix.shape[1] == 2 * model.model.config.prefix_length + len(model.tokenizers.ids("yes, a"))
    best = beam(model.model, prefix, max_tokens=30)[0][0]
    assert answer == Answer(model.tokenizers.text_of(best.token_ids), pytest.approx(best.score, abs=1e-5))


def test_what_a_person_writes_becomes_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("task,prompt,answer\nbirds,which bird is it?,{bird}\n")
    prompts = task_prompts(tmp_path / "mine.csv")
    assert as_prompt(" Is there a dog? ", prompts) == ASKED
    assert as_prompt(ASKED + "?", prompts) == ASKED
    assert as_prompt("generate audio caption", prompts) == "generate audio caption"
    assert as_prompt("which bird is it?", prompts) == "which bird is it?"
    assert as_prompt("which bird is it?", task_prompts()) == "question: which bird is it"
    with pytest.raises(UsageError, match="nothing is asked"):
        as_prompt(" ? ", prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 5.0}, "hears up to 4 s"),
        ({"windows": 0.0}, "hears up to 4 s"),
        ({"method": "guess"}, "beam, greedy, sample"),
        ({"beams": 0}, "0 beams"),
        ({"max_tokens": 0}, "0 tokens"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"add_text": "x" * 60}, "no room for an answer"),
    ],
)
def test_options_that_do_not_fit_are_refused(model: AnsweringModel, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(SOUNDS[0], QUESTION, model=model, **options)


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_are_weighed_by_their_likelihood(model: AnsweringModel) -> None:
    each = []
    for window in model.windows(LONG):
        ids = [model.tokenizers.ids(label + STOP)[:-1] for label in LABELS]
        scores = torch.stack([log_probabilities(model, window, PROMPT, one).sum() for one in ids])
        each.append((scores / model.model.config.label_temperature).softmax(0))
    expected = dict(zip(LABELS, torch.stack(each).mean(0).tolist(), strict=True))
    found = aural.classify(LONG, LABELS, model=model)
    assert found == pytest.approx(expected, abs=1e-5) and sum(found.values()) == pytest.approx(1.0)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert classify([LONG, SOUNDS[0]], LABELS, model=model)[0] == found


def test_several_labels_at_once_do_not_compete(model: AnsweringModel) -> None:
    together = classify(LONG, LABELS, model=model, multi=True)
    assert all(0 < probability < 1 for probability in together.values())
    for label in LABELS:
        (alone,) = classify(LONG, [label], model=model, multi=True).values()
        assert together[label] == pytest.approx(alone, abs=1e-4)
    windows = [(window.waveform, RATE) for window in model.windows(LONG)]
    apart = classify(windows, LABELS, model=model, multi=True)
    assert together == pytest.approx({label: max(one[label] for one in apart) for label in LABELS}, abs=1e-4)


def test_labels_are_compared_with_the_text_that_is_written(model: AnsweringModel) -> None:
    written = ask(SOUNDS[0], PROMPT, model=model).text
    found = classify(SOUNDS[0], [*LABELS, written], model=model, way="text")
    assert next(iter(found)) == written and sum(found.values()) == pytest.approx(1.0)
    assert classify(SOUNDS[0], [*LABELS, written], model=model, way="text", multi=True)[written] == pytest.approx(1.0)


def test_labels_of_the_listener_are_the_default(model: AnsweringModel) -> None:
    assert {"dog bark", "rain", "rooster", "beep"} <= set(known_labels(model))
    assert classify(SOUNDS[0], model=model).keys() == set(known_labels(model))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([], {}, "0 labels"),
        (["dog"], {}, "give two at least"),
        ([], {"multi": True}, "give one at least"),
        (["dog", "rain", "dog"], {}, "'dog' was given twice"),
        (["dog", " "], {}, "empty"),
        (["dog", "rain " * 60], {}, "shorten it"),
        (["dog", "rain"], {"way": "guess"}, "likelihood, text"),
    ],
)
def test_labels_that_are_none(
    model: AnsweringModel, labels: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        classify(SOUNDS[0], labels, model=model, **options)


def test_a_bad_file_gives_its_error_and_the_rest_goes_on(model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    (text := tmp_path / "text.wav").write_text("this is no sound")
    files = [text, sounds / "noise.wav", tmp_path / "missing.wav", sounds / "tone.wav"]
    answers = [found for _, found in ask_each(files, [ASKED, PROMPT], model, max_tokens=5, batch_size=3)]
    labelled = [found for _, found in classify_each(files, LABELS, model)]
    for found in (answers, labelled):
        assert [isinstance(one, AudioError) for one in found] == [True, False, True, False]
    assert all(len(one) == 2 for one in answers if not isinstance(one, AudioError))
    for ask_or_classify in (lambda: ask(text, QUESTION, model=model), lambda: classify(text, LABELS, model=model)):
        with pytest.raises(AudioError, match=r"text\.wav"):
            ask_or_classify()


# ----------------------------------------------------------------------------------------------------- the command line


def test_ask(run: Run, folder: Path, model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    status, out, err = run("ask", QUESTION, sounds / "tone.wav", "--model", folder)
    expected = ask(sounds / "tone.wav", QUESTION, model=model)
    assert (status, out, err) == (0, f"{expected.text}\n", "")
    status, out, err = run(
        *("ask", QUESTION, sounds, tmp_path / "missing.wav", "--model", folder, "--windows", "1.5", "--json")
    )
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and "missing.wav" in err and err.count("\n") == 1
    assert list(results[-1]) == ["file", "error"]
    assert all(list(one) == ["file", "start", "end", "prompt", "answer", "score"] for one in results[:-1])
    stretches = [(Path(one["file"]).stem, one["start"], one["end"]) for one in results[:-1]]
    assert stretches == [
        *(("clicks", 0.0, 1.5), ("clicks", 1.5, 2.0), ("noise", 0.0, 1.0), ("tone", 0.0, 1.5), ("tone", 1.5, 2.0))
    ]
    assert {one["prompt"] for one in results[:-1]} == {ASKED}
    status, out, _ = run("ask", PROMPT, sounds, "--model", folder, "--method", "sample", "--max-tokens", "3")
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(path) for path in sorted(sounds.iterdir())]


def test_classify(run: Run, folder: Path, model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\n\n rain \na bell\n")
    status, out, err = run("classify", sounds, "--model", folder, "--labels", tmp_path / "labels.txt", "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "") and [list(one) for one in results] == [["file", "labels"]] * 3
    for one in results:
        assert one["labels"] == pytest.approx(classify(one["file"], LABELS, model=model), abs=1e-5)
    status, out, err = run(
        *("classify", sounds / "tone.wav", tmp_path / "missing.wav", "--model", folder),
        *("--labels", "dog,rain, a bell", "--top", "2"),
    )
    assert status == 1 and "missing.wav" in err
    tones = results[-1]["labels"]
    assert out == "".join(f"{sounds / 'tone.wav'}\t{label}\t{tones[label]:.3f}\n" for label in list(tones)[:2])
    status, out, _ = run("classify", sounds / "tone.wav", "--model", folder, "--multi", "--way", "text")
    assert status == 0 and out.split("\t")[1] in known_labels(model)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ask", QUESTION], "PATH"),
        (["ask", "?", "noise.wav"], "nothing is asked"),
        (["ask", "noise.wav", QUESTION], "question comes first"),
        (["ask", QUESTION, "noise.wav", "--windows", "0"], "--windows"),
        (["ask", QUESTION, "noise.wav", "--temperature", "0"], "--temperature"),
        (["ask", QUESTION, "noise.wav", "--method", "guess"], "guess"),
        (["ask", QUESTION, "noise.wav", "--tasks", "no.csv"], "no.csv"),
        (["ask", QUESTION, "noise.wav", "--model", "../listener"], "'listening'"),
        (["classify", "noise.wav", "--labels", ""], "--labels"),
        (["classify", "noise.wav", "--labels", " , "], "--labels"),
        (["classify", "noise.wav", "--labels", "no.txt"], "no.txt"),
        (["classify", "noise.wav", "--labels", "noise.wav"], "noise.wav"),
        (["classify", "noise.wav", "--top", "0"], "--top"),
        (["classify", "noise.wav", "--model", "../listener", "--labels", "a,b"], "'listening'"),
        (["train", "answering", "--recipe", "tiny", "-o", "out", "--manifest", "m", "--mixups", "x"], "--mixups"),
        (["train", "listening", "--recipe", "tiny", "-o", "out", "--manifest", "m", "--tasks", "x"], "--tasks"),
        (["convert", "noise.wav", "-o", "out", "--text-tokenizer", "x"], "noise.wav"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_culprit(
    run: Run, arguments: list[str], named: str, sounds: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = trained.with_name(f"{trained.name}-listener")
    monkeypatch.chdir(sounds)
    status, out, err = run(*[str(listener) if one == "../listener" else one for one in arguments])
    assert (status, out) == (2, "")
    assert named in err and err.startswith("aural: ") and err.count("\n") == 1
    assert len(list(sounds.iterdir())) == 3


def test_training_from_the_command_line(run: Run, trained: Path, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text('task,prompt,answer\naudio captioning,what is heard,"heard: {caption}"\n')
    status, _, err = run(
        *("train", "answering", "--recipe", "tiny", "--manifest", manifest, "-o", tmp_path / "out", "--steps", "1"),
        *("--encoder", trained.with_name(f"{trained.name}-listener"), "--tasks", tmp_path / "mine.csv"),
    )
    assert (status, err) == (0, "")
    assert load(tmp_path / "out").model.config.htsat is None
    assert "heard" in (tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8")  # it was learned from


def test_a_released_file_is_converted_and_asked(run: Run, sounds: Path, tmp_path: Path) -> None:
    """A file of Pengi in small; what its tensors do not show is as published."""
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
    status, out, err = run("ask", PROMPT, sounds, "--model", tmp_path / "pengi", "--json", "--max-tokens", "4")
    assert (status, err, out.count("\n")) == (0, "", 3)
    status, out, err = run("classify", sounds / "tone.wav", "--model", tmp_path / "pengi")
    assert (status, out) == (2, "") and "--labels" in err
