"""How well a listener knows recordings it has never heard: by its labels, and by the words for them.

Every clip with one label is judged in four ways, all but one among the labels that occur in what is judged:

- ``labels``: the most likely label of the classifier head;
- ``all_labels``: the same among all labels that the listener knows, from which a caption chooses;
- ``words``: the label whose phrases (:mod:`aural.sound_phrases`) lie closest in the space of the sentence encoder;
- ``unseen_words``: the same, where each label is put by words that no caption of the training holds, such as a puppy.

Of a clip that is a part of a recording (``start``, ``duration``) that part is heard; one that cannot be read is left
out. Intervals resample recordings, as clips of one recording are not independent.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aural import __version__
from aural.audio import Sound
from aural.embedding import ListeningModel, load
from aural.errors import AuralError, UsageError
from aural.features import SAMPLE_RATE
from aural.found_of_clips import count_unreadable, found_of_clips, splits_held_out
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.networks.listener import Heard
from aural.sound_phrases import SOUNDS

UNSEEN_WORDS = {
    "dog bark": ("a puppy", "a hound"),
    "rain": ("a drizzle", "a downpour"),
    "sea waves": ("the beach", "the ocean shore"),
    "baby cry": ("a newborn", "a toddler weeping"),
    "clock tick": ("a wristwatch", "a timepiece"),
    "person sneeze": ("achoo", "someone with a cold"),
    "helicopter": ("a chopper", "an aircraft"),
    "chainsaw": ("a power saw", "a lumberjack cutting wood"),
    "rooster": ("a cockerel", "a chicken on a farm"),
    "fire crackling": ("a campfire", "burning logs"),
}
"""Two ways to name each of ESC-10's sounds in words that no caption of a training says."""


def evaluate(model: ListeningModel, manifest: Path, *, split: str | None = None) -> dict[str, Any]:
    """Judge a listener on the clips of a manifest, or of one split.

    Raises:
        UsageError: no clip with a single label to judge, or none that can be read.
    """
    clips = _judged(manifest, split)
    rows = judge(model, clips)
    n_unreadable = count_unreadable(manifest, clips, rows)
    return score(rows) | {"protocol": _protocol(model.name, manifest, split, n_unreadable)}


def evaluate_held_out(models: Path, manifest: Path, *, device: str = "auto", offline: bool = False) -> dict[str, Any]:
    """Leave one split out in turn: ``models/SPLIT`` was trained without SPLIT and is judged on it; all are pooled.

    Raises:
        UsageError: ``models`` holds no folder named after a split of the manifest, or no clip can be read.
    """
    splits = splits_held_out(models, manifest)
    clips: list[Clip] = []
    rows, by_split = [], {}
    for split in splits:
        clips += (clips_of_split := _judged(manifest, split))
        of_split = judge(load(models / split, device=device, offline=offline), clips_of_split)
        ways = of_split[0].keys() & WAYS if of_split else ()
        by_split[split] = {way: sum(row[way] for row in of_split) / len(of_split) for way in WAYS if way in ways}
        rows += of_split
    n_unreadable = count_unreadable(manifest, clips, rows)
    protocol = _protocol(str(models), manifest, "each held out in turn", n_unreadable)
    return score(rows) | {"of_split": by_split, "protocol": protocol}


WAYS = ("labels", "all_labels", "words", "unseen_words")


def judge(model: ListeningModel, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """A row for each clip that can be read: its label and recording, and for each way whether it was right."""
    labels, all_labels = sorted({clip.labels[0] for clip in clips}), model.listener.config.labels
    ways: dict[str, Callable[[Tensor, Tensor], str]] = {}
    if set(labels) <= set(all_labels):
        columns = [all_labels.index(label) for label in labels]
        ways["labels"] = lambda logits, _: labels[int(logits[columns].argmax())]
        ways["all_labels"] = lambda logits, _: all_labels[int(logits.argmax())]
    known_words: dict[str, tuple[str, ...]] = {label: SOUNDS[label].participle for label in labels if label in SOUNDS}
    unseen: dict[str, tuple[str, ...]] = {label: UNSEEN_WORDS[label] for label in labels if label in UNSEEN_WORDS}
    for way, words in (("words", known_words), ("unseen_words", unseen)):
        if set(words) == set(labels):
            ways[way] = _closest(model, words)

    def hear_each(sounds: Iterator[Sound]) -> Iterator[tuple[Sound, list[Heard] | AuralError]]:
        for sound in sounds:
            try:
                yield sound, list(model.hear(sound))
            except AuralError as error:
                yield sound, error

    rows = []
    for clip, heard in found_of_clips(clips, SAMPLE_RATE, hear_each):
        with torch.inference_mode():
            logits = torch.stack([model.listener.classify(one)[0] for one in heard]).amax(0)
            embedding = torch.stack([model.listener.embed(one)[0] for one in heard]).mean(0)
        row: dict[str, Any] = {"file": clip.audio.name, "label": clip.labels[0], "recording": clip.source or clip.audio}
        rows.append(row | {way: name(logits, embedding) == clip.labels[0] for way, name in ways.items()})
    return rows


def _closest(model: ListeningModel, words: dict[str, tuple[str, ...]]) -> Callable[[Tensor, Tensor], str]:
    labels = list(words)
    table = torch.stack([model.embed_text(list(words[label])).mean(0) for label in labels]).to(model.device)
    return lambda _, embedding: labels[int((table @ embedding).argmax())]


def score(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies with 95 % intervals, the first by label."""
    result: dict[str, Any] = {}
    for way in WAYS:
        if way in rows[0]:
            right = [float(row[way]) for row in rows]
            result[way] = sum(right) / len(right)
            result[f"{way}_interval_95"] = interval(right, [row["recording"] for row in rows])
    labels = sorted({row["label"] for row in rows})
    first = next(way for way in WAYS if way in rows[0])
    result["of_label"] = {
        label: sum(row[first] for row in rows if row["label"] == label) / sum(row["label"] == label for row in rows)
        for label in labels
    }
    return result | {"n_clips": len(rows), "n_recordings": len({row["recording"] for row in rows})}


def _judged(manifest: Path, split: str | None) -> list[Clip]:
    clips = [c for c in read_manifest(manifest) if len(c.labels) == 1 and (split is None or c.split == split)]
    if not clips:
        raise UsageError(f"{manifest}: no clip with a single label to judge" + (f" in split {split}" if split else ""))
    return clips


def _protocol(model: str, manifest: Path, split: str | None, n_unreadable: int) -> dict[str, Any]:
    return {
        "measure": "share of clips whose one label is found, among the labels that occur, or all",
        "unseen_words": {label: list(words) for label, words in UNSEEN_WORDS.items()},
        "interval": f"bootstrap over recordings, {RESAMPLES} resamples",
        "model": model,
        "manifest": manifest.name,
        "split": split,
        "n_unreadable": n_unreadable,
        "aural": __version__,
    }
