"""How true captions are: which sounds they name, in which order, how many; and how near they come to references.

What a caption says is read by :mod:`aural.soundscapes.reading`, by the whole words of :mod:`aural.sound_phrases`. It is
*right* when all the clip's labels are among the sounds it names, and *exact* when nothing else is: a second sound
invented beside the right one is right, but not exact. A label without an entry in the table of sounds counts as named
when all its own words are in the caption; whether such a caption is exact cannot be told, and is not.

Clips with events (soundscapes) are judged on order and number as well, clips with reference captions on BLEU, ROUGE-L
and CIDEr-D, with labels or without, and all captions on their grammar. Of a clip that is a part of a recording
(``start``, ``duration``) that part is heard; one that cannot be read is left out. Every result carries its protocol and
95 % intervals; clips of one recording are not independent, so the intervals resample recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from aural import __version__
from aural.captioning.caption import CaptioningModel, Method, caption_each, load
from aural.captioning.model import SAMPLE_RATE
from aural.errors import UsageError
from aural.fluency_rules import errors as grammar_errors
from aural.found_of_clips import count_unreadable, found_of_clips, splits_held_out
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.metrics.caption_scores import caption_scores
from aural.metrics.events import Reading, counts_right, label_scores, order_right
from aural.sound_phrases import SILENCE, SOUNDS
from aural.soundscapes.reading import read

KNOWN = {*SOUNDS, SILENCE}


@dataclass(frozen=True)
class Judged:
    """One clip and what was said of it."""

    clip: Clip
    caption: str

    @cached_property
    def reading(self) -> Reading:
        """What the caption says of its sounds."""
        return read(self.caption)

    @property
    def recording(self) -> str:
        """What clips share that are not independent of one another."""
        return self.clip.source or str(self.clip.audio)

    @property
    def right(self) -> bool:
        """All that is heard is named."""
        words = set(self.caption.lower().split())
        return all(
            label in self.reading.labels if label in KNOWN else words >= set(label.lower().split())
            for label in self.clip.labels
        )

    @property
    def exact(self) -> bool | None:
        """All that is heard is named, and nothing else; None where the table of sounds lacks a label."""
        if any(label not in KNOWN for label in self.clip.labels):
            return None
        return self.reading.labels == set(self.clip.labels)


def evaluate(
    model: CaptioningModel,
    manifest: Path,
    *,
    split: str | None = None,
    method: Method = "hybrid",
    seed: int = 0,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Caption the clips of a manifest (or of one split) and judge what is said.

    Raises:
        UsageError: no clip with labels or captions to judge, or none that can be read.
    """
    clips = _clips(manifest, split)
    judged = judge(model, clips, method=method, seed=seed, batch_size=batch_size)
    n_unreadable = count_unreadable(manifest, clips, judged)
    return score(judged) | {"protocol": _protocol(model.name, manifest, split, method, seed, n_unreadable)}


def evaluate_held_out(
    models: Path,
    manifest: Path,
    *,
    method: Method = "hybrid",
    seed: int = 0,
    batch_size: int = 8,
    device: str = "auto",
    offline: bool = False,
    text_encoder: str | None = None,
) -> dict[str, Any]:
    """Leave one split out in turn: ``models/SPLIT`` was trained without SPLIT and is judged on it; all are pooled.

    Raises:
        UsageError: ``models`` holds no folder named after a split of the manifest, or no clip can be read.
    """
    splits = splits_held_out(models, manifest)
    clips: list[Clip] = []
    judged: list[Judged] = []
    right_of_split = {}
    for split in splits:
        model = load(models / split, device=device, offline=offline, text_encoder=text_encoder)
        clips += (clips_of_split := _clips(manifest, split))
        of_split = judge(model, clips_of_split, method=method, seed=seed, batch_size=batch_size)
        right_of_split[split] = _share([one.right for one in of_split if one.clip.labels])
        judged += of_split
    n_unreadable = count_unreadable(manifest, clips, judged)
    protocol = _protocol(str(models), manifest, "each held out in turn", method, seed, n_unreadable)
    return score(judged) | {"right_of_split": right_of_split, "protocol": protocol}


def judge(
    model: CaptioningModel, clips: Sequence[Clip], *, method: Method = "hybrid", seed: int = 0, batch_size: int = 8
) -> list[Judged]:
    """Caption clips, as far as they can be read, to be compared with what is known of them."""
    find = partial(caption_each, model=model, method=method, seed=seed, batch_size=batch_size)
    return [Judged(clip, captions[0].text) for clip, captions in found_of_clips(clips, SAMPLE_RATE, find)]


def score(judged: Sequence[Judged]) -> dict[str, Any]:
    """All measures that the clips allow, each with how many it is over; and the captions that were not exact.

    What is right and exact is told by labels; without any, it is None. Reference captions are compared with as far as
    there are some, one being enough: how many it were is in the protocol of ``caption_scores``.
    """
    labelled = [one for one in judged if one.clip.labels]
    known = [one for one in labelled if one.exact is not None]
    labels = sorted({label for one in labelled for label in one.clip.labels})
    by_label = {label: [one for one in labelled if label in one.clip.labels] for label in labels}
    result: dict[str, Any] = {
        "right": _share([one.right for one in labelled]),
        "right_interval_95": _interval(labelled, [one.right for one in labelled]),
        "exact": _share([bool(one.exact) for one in known]),
        "exact_interval_95": _interval(known, [bool(one.exact) for one in known]),
        "n_clips": len(judged),
        "n_labelled": len(labelled),
        "n_recordings": len({one.recording for one in judged}),
        "right_of_label": {label: _share([one.right for one in some]) for label, some in by_label.items()},
        "fluent": _share([not grammar_errors(one.caption) for one in judged]),
    }
    result |= {"events": _events(known)} if known else {}
    result |= _order_and_counts([one for one in known if one.clip.events])
    referenced = [one for one in judged if one.clip.captions]
    if len(referenced) > 1:  # as CIDEr-D needs: it weighs words over the clips
        scores = caption_scores(
            [one.caption for one in referenced],
            [list(one.clip.captions) for one in referenced],
            groups=[one.recording for one in referenced],
        )
        scores.pop("per_item", None)
        result["caption_scores"] = scores
    return result | {
        "not_exact": [
            {"file": one.clip.audio.name, "labels": list(one.clip.labels), "caption": one.caption}
            for one in known
            if not one.exact
        ]
    }


def _events(judged: Sequence[Judged]) -> dict[str, Any]:
    """Precision, recall and F1 of the sounds named, over all clips together."""
    scores = label_scores([one.reading for one in judged], [one.clip.labels for one in judged])
    return {name: scores[name] for name in ("precision", "recall", "f1")} | {
        "f1_interval_95": interval(
            [2 * hits for hits, _, _ in scores["counts"]],
            [one.recording for one in judged],
            weights=[named + there for _, named, there in scores["counts"]],
        )
    }


def _order_and_counts(judged: Sequence[Judged]) -> dict[str, Any]:
    """Order of two sounds and number of single events, where the truth has such.

    ``accuracy`` is over all such clips; ``where_named`` over those whose caption names the sounds in question, which is
    how well order and number are heard, apart from what the sounds are.
    """
    result: dict[str, Any] = {}
    ordered = [(one, right) for one in judged if (right := order_right(one.reading, one.clip.events)) is not None]
    if ordered:
        named = [one.right for one, _ in ordered]
        result["order"] = _accuracy([one for one, _ in ordered], [right for _, right in ordered], named)
    counted = [
        (one, label, number, right)
        for one in judged
        for label, (number, right) in counts_right(one.reading, one.clip.events).items()
        if 1 <= number <= 4
    ]
    if counted:
        flags = [right for _, _, _, right in counted]
        named = [label in one.reading.labels for one, label, _, _ in counted]
        result["count"] = _accuracy([one for one, *_ in counted], flags, named) | {
            "of_number": {
                number: _share([right for _, _, truth, right in counted if truth == number])
                for number in sorted({truth for _, _, truth, _ in counted})
            }
        }
    return result


def _accuracy(judged: Sequence[Judged], right: Sequence[bool], named: Sequence[bool]) -> dict[str, Any]:
    """Share of right ones over all, and over those where the sounds are named."""
    some = [(one, flag) for one, flag, is_named in zip(judged, right, named, strict=True) if is_named]
    found: dict[str, Any] = {"accuracy": _share(right), "interval_95": _interval(judged, right), "n": len(right)}
    if some:
        flags = [flag for _, flag in some]
        found |= {
            "where_named": _share(flags),
            "where_named_interval_95": _interval([one for one, _ in some], flags),
            "n_named": len(flags),
        }
    return found


def _clips(manifest: Path, split: str | None) -> list[Clip]:
    own = [clip for clip in read_manifest(manifest) if split is None or clip.split == split]
    clips = [clip for clip in own if clip.labels or clip.captions]
    if not clips:
        where = f" in split {split}" if split else ""
        raise UsageError(f"{manifest}: no clip with labels or captions to judge{where}")
    return clips


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _interval(judged: Sequence[Judged], flags: Sequence[bool]) -> list[float] | None:
    return interval([float(flag) for flag in flags], [one.recording for one in judged]) if flags else None


def _protocol(
    model: str, manifest: Path, split: str | None, method: str, seed: int, n_unreadable: int
) -> dict[str, Any]:
    return {
        "measure": "sounds, order and numbers that captions state, by the words of sound_phrases.py, against the truth",
        "fluent": "share of captions in which fluency.py finds no error",
        "interval": f"bootstrap over recordings, {RESAMPLES} resamples",
        "model": model,
        "manifest": manifest.name,
        "split": split,
        "method": method,
        "seed": seed,
        "n_unreadable": n_unreadable,
        "aural": __version__,
    }
