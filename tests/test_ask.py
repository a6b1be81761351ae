"""Questions and labels: ``aural ask``, ``aural classify`` and what Python offers of them, over a tiny model."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import piped_sounds
import pytest
import torch
from tiny_models import answerer, talkative

import aural
from aural.__main__ import main
from aural.answering.answer import (
    CANDIDATES,
    Answer,
    AnsweringModel,
    answer,
    answer_each,
    as_prompt,
    combined,
    load,
    task_prompts,
)
from aural.answering.classify import (
    PROMPT,
    TEMPERATURES,
    Labels,
    classify,
    classify_each,
    fit_label_temperature,
    known_labels,
    usual_way,
)
from aural.answering.decoding import beam
from aural.answering.describe import PROMPTS, describe
from aural.answering.language import trained_before
from aural.answering.model import AnsweringConfig, SentencesConfig
from aural.answering.recipes import default, paper
from aural.answering.tokenizer import STOP
from aural.audio import Window, read_mono, write
from aural.beam_search import Hypothesis
from aural.checkpoint import load_config, load_weights
from aural.demo import EXAMPLES, LABELS as LABELS_OF_EXAMPLES
from aural.errors import AudioError, CheckpointError, UsageError
from aural.manifest import VALIDATION, Clip, read_manifest, write_manifest
from aural.sound_phrases import captions

RATE = 16000
QUESTION = "Is there a dog?"
ASKED = "question: is there a dog"
ASK = ("--question", QUESTION)
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
HOW: list[dict[str, Any]] = [{"method": method, "seed": 3, "max_tokens": 12} for method in ("beam", "greedy", "sample")]


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
    def varied(folder: Path) -> bool:
        model = aural.load(folder, device="cpu")
        said = [{answer(sound, QUESTION, model=model, **how).text for sound in [*SOUNDS, LONG]} for how in HOW]
        return min(map(len, said)) > 2

    return talkative(tmp_path_factory.mktemp("model") / "talkative", trained, varied)


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


@pytest.mark.parametrize("how", HOW, ids=[how["method"] for how in HOW])
def test_answers_do_not_depend_on_the_batch(model: AnsweringModel, how: dict[str, Any]) -> None:
    options = {"model": model, **how}
    sounds = [*SOUNDS, LONG]
    alone = [answer(sound, QUESTION, **options) for sound in sounds]
    assert len({one.text for one in alone}) > 2  # or it would show nothing
    for batch_size in (1, 4, 8):
        together = answer(sounds, QUESTION, batch_size=batch_size, **options)
        assert [one.text for one in together] == [one.text for one in alone]
        assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-4)


def test_the_seed_decides_what_is_drawn(model: AnsweringModel) -> None:
    drawn = [aural.answer(SOUNDS[0], QUESTION, model=model, method="sample", seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


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
    assert answer(LONG, QUESTION, model=model) == Answer(
        model.tokenizers.text_of(best), pytest.approx(fits[best], abs=1e-4)
    )


def test_what_can_be_read_only_once_is_heard_whole(model: AnsweringModel, tmp_path: Path) -> None:
    write(tmp_path / "long.wav", *LONG)
    content = (tmp_path / "long.wav").read_bytes()
    for options in ({}, {"windows": 2.5}):
        expected = answer(tmp_path / "long.wav", QUESTION, model=model, **options)
        with piped_sounds.named(tmp_path / "pipe", content) as pipe:
            assert answer(pipe, QUESTION, model=model, **options) == expected
        with piped_sounds.streamed(content) as stream:
            assert answer(piped_sounds.by_number(stream), QUESTION, model=model, **options) == expected
        with piped_sounds.streamed(content) as stream:
            assert answer(stream, QUESTION, model=model, **options) == expected


def test_few_candidates_of_many_windows_are_weighed(model: AnsweringModel) -> None:
    (window,) = model.windows(SOUNDS[0])
    prefix = model.prefix(model.hear([window]), model.read([ASKED]))[0]
    best = beam(model.model, prefix[None])[0][0]
    fits = log_probabilities(model, window, ASKED, best.token_ids).mean()
    others = [Hypothesis((place, place), 0.0, 0.0) for place in range(2, 2 + CANDIDATES)]
    assert all(log_probabilities(model, window, ASKED, one.token_ids).mean() < fits for one in others)

    def weighed(found: Sequence[Hypothesis]) -> Answer:
        return combined(model, [prefix] * len(found), found)

    chosen = Answer(model.tokenizers.text_of(best.token_ids), pytest.approx(float(fits), abs=1e-4))
    assert weighed([*others[1:], best]) == chosen  # sixteen
    assert weighed([*others, best, best]) == chosen  # the answer of most windows
    assert weighed([best, *others, *others]).text != chosen.text  # the others have more windows each
    assert weighed([*others, best]).text != chosen.text  # one too many, and the latest
    assert weighed([best, *others]) == chosen  # among equals, those of earlier windows


def test_text_to_go_on_from_is_part_of_what_is_read(model: AnsweringModel) -> None:
    answered = answer(SOUNDS[0], QUESTION, model=model, add_text="yes, a")
    prefix = model.prefix(model.hear([*model.windows(SOUNDS[0])]), model.read([ASKED]), "yes, a")
    config = model.model.config
    assert prefix.shape[1] == config.prefix_length + config.prompt_length + len(model.tokenizers.ids("yes, a"))
    best = beam(model.model, prefix, max_tokens=model.room("yes, a"))[0][0]
    assert answered == Answer(model.tokenizers.text_of(best.token_ids), pytest.approx(best.score, abs=1e-5))


def test_an_answer_may_take_all_positions_that_the_prefix_leaves(model: AnsweringModel) -> None:
    config = model.model.config
    assert config.sentences is not None and config.prompt_length != config.prefix_length
    assert model.room() == config.gpt2.max_positions - config.prefix_length - config.prompt_length
    for added in (None, "x" * 10):  # more is asked for than there is room for, and nothing breaks
        assert isinstance(answer(SOUNDS[0], QUESTION, model=model, add_text=added, max_tokens=999), Answer)
    label = "x" * (model.room() - 1)  # a token each, and the stop token
    assert aural.classify(SOUNDS[0], [label, "rain"], model=model, way="likelihood").label


def test_answers_are_searched_for_as_the_config_says(folder: Path, model: AnsweringModel, tmp_path: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["config"]["search"] == "beam"
    names = {path.name: path.read_bytes() for path in folder.iterdir()}
    for search in ("greedy", None):  # None: a config of before there was a choice
        document = json.loads(names["config.json"])
        document["config"] |= {"search": search}
        if search is None:
            del document["config"]["search"]
        (other := tmp_path / str(search)).mkdir()
        for name, content in {**names, "config.json": json.dumps(document).encode()}.items():
            (other / name).write_bytes(content)
        loaded, method = load(other, device="cpu"), search or "beam"
        as_asked = [answer(SOUNDS, PROMPT, model=model, method=method), answer(SOUNDS, QUESTION, model=model)]
        assert [answer(SOUNDS, PROMPT, model=loaded), answer(SOUNDS, QUESTION, model=loaded, method="beam")] == as_asked
    assert answer(SOUNDS, PROMPT, model=model, method="greedy") != answer(SOUNDS, PROMPT, model=model)
    assert default().model.search == "greedy" and paper().model.search == "beam"


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
        ({"windows": 0.0}, "windows of 0 s"),
        ({"method": "guess"}, "beam, greedy, sample"),
        ({"beams": 0}, "0 beams"),
        ({"max_tokens": 0}, "0 tokens"),
        ({"temperature": 0.0}, "temperature 0"),
        ({"add_text": "x" * 60}, "no room for an answer"),
    ],
)
def test_options_that_do_not_fit_are_refused(model: AnsweringModel, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        answer(SOUNDS[0], QUESTION, model=model, **options)


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_are_weighed_by_their_likelihood(model: AnsweringModel) -> None:
    each = []
    for window in model.windows(LONG):
        ids = [model.tokenizers.ids(label + STOP)[:-1] for label in LABELS]
        scores = torch.stack([log_probabilities(model, window, PROMPT, one).sum() for one in ids])
        each.append((scores / model.model.config.label_temperature).softmax(0))
    expected = dict(zip(LABELS, torch.stack(each).mean(0).tolist(), strict=True))
    found = aural.classify(LONG, LABELS, model=model, way="likelihood")
    assert found.scores == pytest.approx(expected, abs=1e-5) and sum(found.scores.values()) == pytest.approx(1.0)
    assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)
    assert (found.label, found.score) == next(iter(found.scores.items()))
    assert classify([LONG, SOUNDS[0]], LABELS, model=model, way="likelihood")[0] == found


def test_labels_that_were_not_learned_are_compared_with_what_is_written(model: AnsweringModel) -> None:
    known = known_labels(model)[:2]
    for labels, multi, way in ((known, False, "likelihood"), (LABELS, False, "text"), (LABELS, True, "likelihood")):
        assert usual_way(labels, model, multi=multi) == way
        found, said = (classify(LONG, labels, model=model, multi=multi, **how) for how in ({}, {"way": way}))
        assert found == said
    joined = [label.replace(" ", "_") for label in known_labels(model)]
    assert any("_" in label for label in joined) and usual_way(joined, model) == "likelihood"
    plain, found = (classify(LONG, labels, model=model) for labels in (None, joined))
    assert [label.replace(" ", "_") for label in plain.scores] == list(found.scores)


def test_labels_do_not_depend_on_the_batch(model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    files = [*sorted(sounds.iterdir()), tmp_path / "missing.wav", LONG]
    one, many = ([found for _, found in classify_each(files, LABELS, model, batch_size=size)] for size in (1, 5))
    assert [str(found) for found in one] == [str(found) for found in many] and isinstance(one[3], AudioError)
    assert len([*model.windows(LONG)]) > 1 and isinstance(one[4], Labels)
    with pytest.raises(UsageError, match="labels are a list"):
        classify(SOUNDS[0], "dog,rain", model=model)


def test_several_labels_at_once_do_not_compete(model: AnsweringModel) -> None:
    together = classify(LONG, LABELS, model=model, multi=True).scores
    assert all(0 < probability < 1 for probability in together.values())
    for label in LABELS:
        alone = classify(LONG, [label], model=model, multi=True).score
        assert together[label] == pytest.approx(alone, abs=1e-4)
    windows = [(window.waveform, RATE) for window in model.windows(LONG)]
    apart = classify(windows, LABELS, model=model, multi=True)
    assert together == pytest.approx({label: max(one.scores[label] for one in apart) for label in LABELS}, abs=1e-4)


def test_labels_are_compared_with_the_text_that_is_written(model: AnsweringModel) -> None:
    written = answer(SOUNDS[0], PROMPT, model=model).text
    found = classify(SOUNDS[0], [*LABELS, written], model=model, way="text")
    assert found.label == written and sum(found.scores.values()) == pytest.approx(1.0)
    apart = classify(SOUNDS[0], [*LABELS, written], model=model, way="text", multi=True)
    assert (apart.label, apart.score) == (written, pytest.approx(1.0))


def test_the_label_temperature_makes_right_labels_most_probable(folder: Path, sounds: Path, tmp_path: Path) -> None:
    write(tmp_path / "long.wav", *LONG)
    loaded = load(folder, device="cpu")
    files = [*sorted(sounds.iterdir()), tmp_path / "long.wav"]
    ranked = [list(one.scores) for one in classify(files, LABELS, model=loaded, way="likelihood")]
    ranked[-1].reverse()  # the others are to be right, this one wrong
    clips = [Clip(file, labels=(names[0],)) for file, names in zip(files, ranked, strict=True)]
    labels = sorted({clip.labels[0] for clip in clips})
    fitted = fit_label_temperature(loaded, clips)

    def loss(temperature: float) -> float:
        loaded.model.config = replace(loaded.model.config, label_temperature=temperature)
        found = classify([clip.audio for clip in clips], labels, model=loaded, way="likelihood")
        return -sum(np.log(one.scores[clip.labels[0]]) for one, clip in zip(found, clips, strict=True))

    assert min((fitted / 1.1, fitted, fitted * 1.1), key=loss) == fitted
    assert TEMPERATURES[0] < fitted < TEMPERATURES[-1]
    heard = [read_mono(file, RATE) for file in files]
    write(tmp_path / "joined.wav", np.concatenate(heard), RATE)
    ends = np.cumsum([len(one) / RATE for one in heard])
    parts = [
        Clip(tmp_path / "joined.wav", float(end) - len(one) / RATE, len(one) / RATE, labels=clip.labels)
        for clip, one, end in zip(clips, heard, ends, strict=True)
    ]
    assert fit_label_temperature(loaded, parts) == fitted  # each is heard where it is
    more = [Clip(tmp_path / "missing.wav", labels=clips[0].labels), replace(clips[0], labels=(labels[0], "x"))]
    too_long = replace(clips[0], labels=("rain " * 60,))
    assert fit_label_temperature(loaded, [*clips, *more, too_long]) == fitted  # whatever temperature it has
    loaded.model.config = replace(loaded.model.config, label_temperature=1.5)
    assert fit_label_temperature(loaded, clips[:1]) == 1.5


def test_clips_that_are_known_by_heart_say_nothing_of_how_sure_to_be() -> None:
    in_the_box = load(device="cpu")  # it learned from the clips of the tour
    clips = [Clip(file, labels=(LABELS_OF_EXAMPLES[file.stem],)) for file in sorted(EXAMPLES.glob("*.ogg"))]
    labels = sorted({clip.labels[0] for clip in clips})
    found = classify([clip.audio for clip in clips], labels, model=in_the_box)
    assert [one.label for one in found] == [clip.labels[0] for clip in clips]
    in_the_box.model.config = replace(in_the_box.model.config, label_temperature=1.5)
    assert fit_label_temperature(in_the_box, clips) == 1.5


def test_labels_of_the_listener_are_the_default(model: AnsweringModel) -> None:
    assert {"dog bark", "rain", "rooster", "beep"} <= set(known_labels(model))
    assert classify(SOUNDS[0], model=model).scores.keys() == set(known_labels(model))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([], {}, "too few labels"),
        (["dog"], {}, "give two at least"),
        ([], {"multi": True}, "give one at least"),
        (["dog", "rain", "dog"], {}, "'dog' was given twice"),
        (["dog", " "], {}, "empty"),
        (["dog", "rain " * 60], {"way": "likelihood"}, "shorten it"),
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
    answers = [found for _, found in answer_each(files, [ASKED, PROMPT], model, max_tokens=5, batch_size=3)]
    labelled = [found for _, found in classify_each(files, LABELS, model)]
    for found in (answers, labelled):
        assert [isinstance(one, AudioError) for one in found] == [True, False, True, False]
    assert all(len(one) == 2 for one in answers if not isinstance(one, AudioError))
    for answer_or_classify in (
        lambda: answer(text, QUESTION, model=model),
        lambda: classify(text, LABELS, model=model),
    ):
        with pytest.raises(AudioError, match=r"text\.wav"):
            answer_or_classify()


# ----------------------------------------------------------------------------------------------------- the command line


def test_ask(run: Run, folder: Path, model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    status, out, err = run("ask", sounds / "tone.wav", "--question", QUESTION, "--model", folder)
    expected = answer(sounds / "tone.wav", QUESTION, model=model)
    assert (status, out, err) == (0, f"{expected.text}\n", "")
    files = (tmp_path / "missing.wav", sounds)
    status, out, err = run("ask", *files, "--question", QUESTION, "--model", folder, "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and "missing.wav" in err and err.count("\n") == 1
    assert [list(one) for one in results] == [["file", "error"], *[["file", "question", "answer", "score"]] * 3]
    tones = {"file": str(sounds / "tone.wav"), "question": QUESTION, "answer": expected.text}
    assert results[-1] == {**tones, "score": pytest.approx(expected.score, abs=1e-5)}
    status, out, _ = run("ask", sounds, "--question", PROMPT, "--model", folder, "--windows", "1.5", "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and {tuple(one) for one in results} == {("file", "start", "end", "question", "answer", "score")}
    stretches = [(Path(one["file"]).stem, one["start"], one["end"], one["question"]) for one in results]
    assert stretches == [
        *(("clicks", 0.0, 1.5, PROMPT), ("clicks", 1.5, 2.0, PROMPT), ("noise", 0.0, 1.0, PROMPT)),
        *(("tone", 0.0, 1.5, PROMPT), ("tone", 1.5, 2.0, PROMPT)),
    ]
    status, out, _ = run("ask", sounds, "--question", PROMPT, "--model", folder, "--method", "sample")
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(path) for path in sorted(sounds.iterdir())]


def test_ask_several_questions(run: Run, folder: Path, model: AnsweringModel, sounds: Path) -> None:
    both = ("--question", QUESTION, "--question", PROMPT)
    status, out, err = run("ask", sounds / "tone.wav", *both, "--model", folder)
    expected = [answer(sounds / "tone.wav", text, model=model).text for text in (QUESTION, PROMPT)]
    assert (status, err) == (0, "") and expected[0] != expected[1]
    assert out.splitlines() == [f"{text}\t{said}" for text, said in zip((QUESTION, PROMPT), expected, strict=True)]
    status, out, _ = run("ask", sounds, *both, "--model", folder, "--windows", "1", "--json")
    asked = [(Path(one["file"]).stem, one["question"], one["start"]) for one in map(json.loads, out.splitlines())]
    assert status == 0 and asked == [
        *(("clicks", text, start) for text in (QUESTION, PROMPT) for start in (0.0, 1.0)),
        *(("noise", text, 0.0) for text in (QUESTION, PROMPT)),
        *(("tone", text, start) for text in (QUESTION, PROMPT) for start in (0.0, 1.0)),
    ]


def test_ask_for_a_description(run: Run, folder: Path, model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    status, out, err = run("ask", sounds, tmp_path / "missing.wav", "--describe", "--model", folder, "--json")
    *results, failed = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and err.count("\n") == 1 and list(failed) == ["file", "error"]
    files = [Path(one["file"]) for one in results]
    parts = list(zip(*(answer(files, prompt, model=model) for prompt in PROMPTS), strict=True))
    assert any(caption.text != named.text for caption, _, named in parts)  # or their order would not show
    expected = [f"{a.text} {b.text} this audio contains sound events: {c.text}." for a, b, c in parts]
    assert [one["answer"] for one in results] == expected
    assert [one.text for one in describe(files, model=model)] == expected
    scores = [sum(part.score for part in three) / 3 for three in parts]
    assert [one["score"] for one in results] == pytest.approx(scores, abs=1e-5)
    assert {tuple(one) for one in results} == {("file", "answer", "score")} and len(results) == 3
    status, out, _ = run("ask", sounds / "tone.wav", "--describe", "--model", folder, "--windows", "1", "--json")
    assert [tuple(json.loads(line)) for line in out.splitlines()] == [("file", "start", "end", "answer", "score")] * 2


def test_classify(run: Run, folder: Path, model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("dog\n\n rain \na bell\n")
    status, out, err = run("classify", sounds, "--model", folder, "--labels-file", tmp_path / "labels.txt", "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "") and [list(one) for one in results] == [["file", "label", "score", "scores"]] * 3
    for one in results:
        expected = classify(one["file"], LABELS, model=model)
        assert (one["label"], one["score"]) == (expected.label, one["scores"][expected.label])
        assert one["scores"] == pytest.approx(expected.scores, abs=1e-5)
        assert list(one["scores"]) == list(expected.scores) and sum(one["scores"].values()) == pytest.approx(1.0)
    status, out, err = run(
        *("classify", tmp_path / "missing.wav", sounds / "tone.wav", "--model", folder),
        *("--labels", "dog,rain, a bell", "--top", "2"),
    )
    assert status == 1 and "missing.wav" in err and err.count("\n") == 1
    tones = results[-1]["scores"]
    assert out == "".join(f"{sounds / 'tone.wav'}\t{label}\t{tones[label]:.3f}\n" for label in list(tones)[:2])
    status, out, _ = run("classify", sounds / "tone.wav", "--model", folder, "--multi", "--way", "text")
    assert status == 0 and out.split("\t")[1] in known_labels(model)
    status, out, _ = run("classify", sounds, "--model", folder, "--multi", "--labels", "labels.txt", "--json")
    assert status == 0 and all(list(json.loads(line)["scores"]) == ["labels.txt"] for line in out.splitlines())


def test_evaluate(run: Run, folder: Path, model: AnsweringModel, sounds: Path, tmp_path: Path) -> None:
    asked = [Clip(path, question="Is there a dog?", answer="yes", split="one") for path in sorted(sounds.iterdir())]
    asked = [asked[0], *[replace(clip, split="two") for clip in asked[1:]]]
    write_manifest(tmp_path / "q.jsonl", asked)
    texts = [one.text for one in answer([clip.audio for clip in asked], QUESTION, model=model)]
    evaluate = ("evaluate", "answering", "--manifest", tmp_path / "q.jsonl")
    for options, n, method in (
        (("--model", folder), 3, "beam"),
        (("--model", folder, "--split", "two", "--method", "greedy"), 2, "greedy"),
        (("--held-out", tmp_path / "held_out"), 2, "beam"),
    ):
        if "--held-out" in options:
            shutil.copytree(folder, tmp_path / "held_out" / "two")
        status, out, err = run(*evaluate, *options)
        found = json.loads(out)
        assert (status, err, found["n_questions"], found["protocol"]["method"]) == (0, "", n, method)
        if method == "beam":
            assert [one["answer"] for one in found["wrong"]] == texts[-n:]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ask", *ASK], "PATH"),
        (["ask", "noise.wav"], "--question"),
        (["ask", "noise.wav", "--question", "?"], "nothing is asked"),
        (["ask", "noise.wav", *ASK, "--describe"], "--describe"),
        (["ask", "noise.wav", "--describe", "--add-text", "a"], "--add-text"),
        (["ask", "noise.wav", *ASK, "--windows", "0"], "--windows"),
        (["ask", "noise.wav", *ASK, "--temperature", "0"], "--temperature"),
        (["ask", "noise.wav", *ASK, "--method", "guess"], "guess"),
        (["ask", "noise.wav", *ASK, "--tasks", "no.csv"], "no.csv"),
        (["ask", "noise.wav", *ASK, "--model", "../listener"], "'listening'"),
        (["classify", "noise.wav", "--labels", ""], "--labels"),
        (["classify", "noise.wav", "--labels", " , "], "--labels"),
        (["classify", "noise.wav", "--labels", "a,b", "--labels-file", "noise.wav"], "--labels-file"),
        (["classify", "noise.wav", "--labels-file", "no.txt"], "no.txt"),
        (["classify", "noise.wav", "--labels-file", "noise.wav"], "noise.wav"),
        (["evaluate", "answering", "--manifest", "m", "--method", "hybrid"], "beam, greedy or sample"),
        (["evaluate", "captioning", "--manifest", "m", "--method", "sample"], "nucleus"),
        (["evaluate", "listening", "--manifest", "m", "--method", "beam"], "leave it out"),
        (["evaluate", "answering", "--manifest", "no.jsonl", "--held-out", "."], "no.jsonl"),
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
    clips = read_manifest(manifest)
    unheard = [replace(clip, captions=(), split=VALIDATION) for clip in clips[:2]]
    write_manifest(manifest := tmp_path / "more.jsonl", [*clips, *unheard])
    status, _, err = run(
        *("train", "answering", "--recipe", "tiny", "--manifest", manifest, "-o", tmp_path / "out", "--steps", "1"),
        *("--encoder", trained.with_name(f"{trained.name}-listener"), "--tasks", tmp_path / "mine.csv"),
    )
    assert (status, err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"language", "facts"}
    loaded = load(tmp_path / "out")
    assert loaded.model.config.htsat is None
    assert loaded.model.config.label_temperature == pytest.approx(fit_label_temperature(loaded, unheard))
    assert "fitted on 2 clips left for validation" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "fitted on 3 clips of those it learned from" in (trained / "README.md").read_text(encoding="utf-8")
    assert "heard" in (tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8")  # it was learned from


def test_a_language_model_serves_again(run: Run, trained: Path, manifest: Path, tmp_path: Path) -> None:
    spoken = trained / "language"
    status, _, err = run(
        *("train", "answering", "--recipe", "tiny", "--manifest", manifest, "-o", tmp_path / "out", "--steps", "1"),
        *("--encoder", trained.with_name(f"{trained.name}-listener"), "--gpt2", spoken, "--seed", "1"),
    )
    assert (status, err) == (0, "")
    assert not (tmp_path / "out" / "language").exists()
    assert (tmp_path / "out" / "tokenizer.json").read_text() == (trained / "tokenizer.json").read_text()
    ours, theirs = (load_weights(folder) for folder in (tmp_path / "out", spoken))
    assert {name.split(".")[0] for name in theirs} == {"gpt2", "prompt_rows"}
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items() if name.startswith("gpt2."))
    with pytest.raises(CheckpointError, match="its sizes or the answers it learned are not those"):
        trained_before(spoken, replace(AnsweringConfig(), sentences=SentencesConfig(), text_encoder=None))


def test_a_language_model_of_other_answers_is_refused(trained: Path, tmp_path: Path) -> None:
    spoken = shutil.copytree(trained / "language", tmp_path / "language")
    config = load_config(trained, AnsweringConfig, "answering")
    trained_before(spoken, config)
    known = json.loads((spoken / "config.json").read_text())
    del known["config"]["form"]  # as before there were others
    (spoken / "config.json").write_text(json.dumps(known))
    with pytest.raises(CheckpointError, match="the answers it learned are not those"):
        trained_before(spoken, config)
