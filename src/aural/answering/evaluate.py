"""How well questions are answered, kind by kind, and how well recordings are told apart.

An answer is *right* when it is the expected one, word for word (case and spaces aside); where reasons are given, "a dog
later, so no", what it comes to is judged, the no. It is *in form* when it is at least an answer of the kind that was
asked for: yes or no, a number, a sound that there is a word for, ... An answer out of form has drifted into unrelated
text. Manifests of ``aural prepare soundscapes`` say of each question of which kind it is. Clips with one label and no
question are classified among the labels that occur in what is judged; the expected calibration error (Guo et al. 2017,
arXiv 1706.04599) compares how sure the model is with how often it is right.

Of a clip that is a part of a recording (``start``, ``duration``) that part is heard; one that cannot be read is left
out, with all that is asked of it. Intervals resample recordings, as what is asked of one recording is not independent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aural import __version__
from aural.answering.answer import AnsweringModel, Method, answer_each, as_prompt, load
from aural.answering.classify import WAYS, Way, classify_each
from aural.errors import UsageError
from aural.found_of_clips import count_unreadable, found_of_clips, splits_held_out
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.sound_phrases import SILENT, SOUNDS
from aural.soundscapes.questions import NOT_THERE, thing, verdict
from aural.soundscapes.wording import NUMBERS

BINS = 10
"""Of the expected calibration error, of equal width."""
YES_NO = frozenset({"yes", "no"})
PAIRS = (YES_NO, frozenset({"fast", "slow"}), frozenset({"near", "far away"}), frozenset(NUMBERS))
"""Answers that only one of the same set can take the place of."""


@dataclass(frozen=True)
class Answered:
    """A question about a clip, and what was answered."""

    clip: Clip
    answer: str

    @property
    def kind(self) -> str:
        """Of the question."""
        return self.clip.about.get("kind", "question")

    @property
    def recording(self) -> str:
        """What questions share that are not independent of one another."""
        return self.clip.source or str(self.clip.audio)

    @property
    def right(self) -> bool:
        """Word for word, reasons aside."""
        return _plain(self.answer) == _plain(self.clip.answer or "")

    @property
    def in_form(self) -> bool:
        """An answer to such a question, right or wrong."""
        said, expected = _plain(self.answer), _plain(self.clip.answer or "")
        for answers in PAIRS:
            if expected in answers:
                return said in answers
        if expected.startswith(_plain(NOT_THERE.split("{", maxsplit=1)[0])):
            return said.startswith(_plain(NOT_THERE.split("{", maxsplit=1)[0])) or said in SAYABLE
        if self.kind == "manner":
            return set(said.split()) <= ATTRIBUTES
        return all(part in SAYABLE for part in said.split(" and "))


def _plain(text: str) -> str:
    return verdict(" ".join(text.lower().split()))


SAYABLE = {*(thing(label) for label in SOUNDS), *SILENT, *NUMBERS, *YES_NO, "near", "far away", "fast", "slow"}
"""Everything that a question about a soundscape is answered with, refusals aside."""
ATTRIBUTES = {*NUMBERS, "fast", "slow", "far", "away", "loud", "soft", "long", "behind"}
"""Words of an answer to what a sound is like."""


def evaluate(
    model: AnsweringModel,
    manifest: Path,
    *,
    split: str | None = None,
    method: Method | None = None,
    seed: int = 0,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Ask the questions of a manifest (or of one split), or classify its clips, and judge the answers.

    Args:
        model: from :func:`aural.answering.answer.load`.
        manifest: clips with questions and answers, or with one label.
        split: only its clips.
        method: how answers are searched for; None: as the model's config says.
        seed: of ``method`` "sample".
        batch_size: of the search.

    Raises:
        UsageError: neither questions with answers, nor clips with one label, or none that can be read.
    """
    clips = _clips(manifest, split)
    if clips[0].question:
        answered = ask(model, clips, method=method, seed=seed, batch_size=batch_size)
        n_unreadable = count_unreadable(manifest, clips, answered)
        found = score(answered)
    else:
        rows = {way: classify(model, clips, way) for way in WAYS}
        n_unreadable = count_unreadable(manifest, clips, rows[WAYS[0]])
        found = {way: score_labels(some) for way, some in rows.items()}
    how = method or model.model.config.search
    return found | {"protocol": _protocol(model.name, manifest, split, how, seed, n_unreadable)}


def evaluate_held_out(
    models: Path,
    manifest: Path,
    *,
    method: Method | None = None,
    seed: int = 0,
    batch_size: int = 8,
    device: str = "auto",
    offline: bool = False,
) -> dict[str, Any]:
    """Leave one split out in turn: ``models/SPLIT`` was trained without SPLIT and is judged on it; all are pooled.

    Raises:
        UsageError: ``models`` holds no folder named after a split of the manifest, or no clip can be read.
    """
    splits = splits_held_out(models, manifest)
    asks = any(clip.question for clip in _clips(manifest, None))
    judged: list[Clip] = []
    answered: list[Answered] = []
    methods: set[str] = set()
    rows: dict[Way, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for split in splits:
        model, clips = load(models / split, device=device, offline=offline), _clips(manifest, split)
        judged += clips
        methods.add(method or model.model.config.search)
        if asks:
            answered += ask(model, clips, method=method, seed=seed, batch_size=batch_size)
        else:
            for way in WAYS:
                rows[way] += classify(model, clips, way)
    n_unreadable = count_unreadable(manifest, judged, answered if asks else rows[WAYS[0]])
    found = score(answered) if asks else {way: score_labels(some) for way, some in rows.items()}
    how = ", ".join(sorted(methods))
    return found | {"protocol": _protocol(str(models), manifest, "each held out in turn", how, seed, n_unreadable)}


def _clips(manifest: Path, split: str | None) -> list[Clip]:
    """Those with questions if there are any, else those with one label."""
    own = [clip for clip in read_manifest(manifest) if split is None or clip.split == split]
    clips = [clip for clip in own if clip.question and clip.answer] or [clip for clip in own if len(clip.labels) == 1]
    if not clips:
        where = f" in split {split}" if split else ""
        raise UsageError(f"{manifest}: neither questions with answers nor clips with one label to judge{where}")
    return clips


# ------------------------------------------------------------------------------------------------------------ questions


def ask(
    model: AnsweringModel,
    clips: Sequence[Clip],
    *,
    method: Method | None = None,
    seed: int = 0,
    batch_size: int = 8,
) -> list[Answered]:
    """Ask each clip that can be read its question; a clip is heard once, whatever is asked of it."""
    of_sound: dict[tuple[Path, float, float | None], list[Clip]] = {}
    for clip in clips:
        of_sound.setdefault((clip.audio, clip.start, clip.duration), []).append(clip)
    answered = []
    for asked in of_sound.values():
        prompts = [as_prompt(clip.question or "", ()) for clip in asked]
        find = partial(answer_each, prompts=prompts, model=model, method=method, seed=seed, batch_size=batch_size)
        for _, answers in found_of_clips(asked[:1], model.model.config.sample_rate, find):
            answered += [Answered(clip, one[0].text) for clip, one in zip(asked, answers, strict=True)]
    return answered


def score(answered: Sequence[Answered]) -> dict[str, Any]:
    """Accuracy over all and of each kind, with intervals; of yes-or-no questions, of each answer besides."""
    result: dict[str, Any] = {
        "right": _share(one.right for one in answered),
        "in_form": _share(one.in_form for one in answered),
        "n_questions": len(answered),
        "n_recordings": len({one.recording for one in answered}),
    }
    of_kind = {}
    for kind in sorted({one.kind for one in answered}):
        some = [one for one in answered if one.kind == kind]
        of_kind[kind] = {
            "right": _share(one.right for one in some),
            "interval_95": interval([float(one.right) for one in some], [one.recording for one in some]),
            "in_form": _share(one.in_form for one in some),
            "n": len(some),
        }
        for said in sorted({_plain(one.clip.answer or "") for one in some} & YES_NO):
            of_kind[kind][f"right_of_{said}"] = _share(
                one.right for one in some if _plain(one.clip.answer or "") == said
            )
    wrong = [
        {"file": one.clip.audio.name, "question": one.clip.question, "expected": one.clip.answer, "answer": one.answer}
        for one in answered
        if not one.right
    ]
    return result | {"of_kind": of_kind, "wrong": wrong}


def _share(values: Iterable[bool]) -> float:
    values = list(values)
    return sum(values) / len(values)


# --------------------------------------------------------------------------------------------------------------- labels


def classify(model: AnsweringModel, clips: Sequence[Clip], way: Way) -> list[dict[str, Any]]:
    """A row for each clip that can be read: its label and recording, the label found, and its probability."""
    find = partial(classify_each, labels=sorted({clip.labels[0] for clip in clips}), model=model, way=way)
    rows = []
    for clip, found in found_of_clips(clips, model.model.config.sample_rate, find):
        recording = clip.source or str(clip.audio)
        rows.append({"label": clip.labels[0], "found": found.label, "probability": found.score, "recording": recording})
    return rows


def score_labels(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with its interval, of each label, and the expected calibration error."""
    right = [float(row["label"] == row["found"]) for row in rows]
    labels = sorted({row["label"] for row in rows})
    return {
        "accuracy": sum(right) / len(right),
        "accuracy_interval_95": interval(right, [row["recording"] for row in rows]),
        "of_label": {label: _share(row["found"] == label for row in rows if row["label"] == label) for label in labels},
        "expected_calibration_error": calibration_error([row["probability"] for row in rows], right),
        "chance": 1 / len(labels),
        "n_clips": len(rows),
        "n_recordings": len({row["recording"] for row in rows}),
    }


def calibration_error(probabilities: Sequence[float], right: Sequence[float], n_bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of confidence, weighted by how many items each holds."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for probability, one in zip(probabilities, right, strict=True):
        bins.setdefault(min(n_bins - 1, int(probability * n_bins)), []).append((probability, one))
    gaps = [abs(sum(p for p, _ in some) - sum(r for _, r in some)) for some in bins.values()]
    return sum(gaps) / len(probabilities)


def _protocol(
    model: str, manifest: Path, split: str | None, method: str, seed: int, n_unreadable: int
) -> dict[str, Any]:
    return {
        "right": "the answer is the expected one, word for word, reasons aside",
        "interval": f"bootstrap over recordings, {RESAMPLES} resamples",
        "model": model,
        "manifest": manifest.name,
        "split": split,
        "method": method,
        "seed": seed,
        "n_unreadable": n_unreadable,
        "aural": __version__,
    }
