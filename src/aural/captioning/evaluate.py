"""How often captions of labelled recordings name the right sound.

Which sounds a caption names is told by whole words (:func:`aural.sound_phrases.named_sounds`). It is *right* when all
the clip's labels are among them, and *exact* when nothing else is: a second sound invented beside the right one is
right, but not exact. A label without an entry in the table of sounds counts as named when all its own words are in the
caption; whether such a caption is exact cannot be told, and is not.

Every result carries the protocol it was measured by and a 95 % interval: clips of one recording are not independent,
so the interval resamples recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aural import __version__
from aural.captioning.caption import CaptioningModel, Method, caption_each, load
from aural.errors import AuralError, UsageError
from aural.manifest import Clip, read_manifest
from aural.sound_phrases import SOUNDS, named_sounds

RESAMPLES = 2000


@dataclass(frozen=True)
class Judged:
    """One clip and what was said of it."""

    clip: Clip
    caption: str

    @property
    def right(self) -> bool:
        """All that is heard is named."""
        named, words = named_sounds(self.caption), set(self.caption.lower().split())
        return all(
            label in named if label in SOUNDS else words >= set(label.lower().split()) for label in self.clip.labels
        )

    @property
    def exact(self) -> bool | None:
        """All that is heard is named, and nothing else; None where the table of sounds lacks a label."""
        if any(label not in SOUNDS for label in self.clip.labels):
            return None
        return named_sounds(self.caption) == set(self.clip.labels)


def evaluate(
    model: CaptioningModel,
    manifest: Path,
    *,
    split: str | None = None,
    method: Method = "hybrid",
    seed: int = 0,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Caption the clips of a manifest (or of one split) and count the right ones.

    Raises:
        UsageError: no labelled clip to judge.
    """
    clips = _labelled(manifest, split)
    judged = judge(model, clips, method=method, seed=seed, batch_size=batch_size)
    return score(judged) | {"protocol": _protocol(model.name, manifest, split, method, seed)}


def evaluate_held_out(
    models: Path,
    manifest: Path,
    *,
    method: Method = "hybrid",
    seed: int = 0,
    batch_size: int = 8,
    device: str = "auto",
) -> dict[str, Any]:
    """Leave one split out in turn: ``models/SPLIT`` was trained without SPLIT and is judged on it; all are pooled.

    Raises:
        UsageError: ``models`` holds no folder named after a split of the manifest.
    """
    splits = sorted({clip.split for clip in read_manifest(manifest) if clip.split and (models / clip.split).is_dir()})
    if not splits:
        raise UsageError(
            f"{models}: no folder named after a split of {manifest}; train with --hold-out SPLIT -o {models}/SPLIT"
        )
    judged: list[Judged] = []
    right_of_split = {}
    for split in splits:
        model = load(models / split, device=device)
        of_split = judge(model, _labelled(manifest, split), method=method, seed=seed, batch_size=batch_size)
        right_of_split[split] = _share([one.right for one in of_split])
        judged += of_split
    protocol = _protocol(str(models), manifest, "each held out in turn", method, seed)
    return score(judged) | {"right_of_split": right_of_split, "protocol": protocol}


def judge(
    model: CaptioningModel, clips: Sequence[Clip], *, method: Method = "hybrid", seed: int = 0, batch_size: int = 8
) -> list[Judged]:
    """Caption clips and compare the sounds named with their labels.

    Raises:
        AuralError: a recording cannot be read.
    """
    results = caption_each([clip.audio for clip in clips], model, method=method, seed=seed, batch_size=batch_size)
    judged = []
    for clip, (_, captions) in zip(clips, results, strict=True):
        if isinstance(captions, AuralError):
            raise captions
        judged.append(Judged(clip, captions[0].text))
    return judged


def score(judged: Sequence[Judged]) -> dict[str, Any]:
    """Shares of right and of exact captions with 95 % intervals, the first by label, and what was not exact."""
    labels = sorted({label for one in judged for label in one.clip.labels})
    known = [one for one in judged if one.exact is not None]
    by_label = {label: [one for one in judged if label in one.clip.labels] for label in labels}
    return {
        "right": _share([one.right for one in judged]),
        "right_interval_95": _interval(judged, [one.right for one in judged]),
        "exact": _share([bool(one.exact) for one in known]) if known else None,
        "exact_interval_95": _interval(known, [bool(one.exact) for one in known]) if known else None,
        "n_clips": len(judged),
        "n_recordings": len({_recording(one.clip) for one in judged}),
        "right_of_label": {label: _share([one.right for one in some]) for label, some in by_label.items()},
        "not_exact": [
            {"file": one.clip.audio.name, "labels": list(one.clip.labels), "caption": one.caption}
            for one in known
            if not one.exact
        ],
    }


def _labelled(manifest: Path, split: str | None) -> list[Clip]:
    clips = [clip for clip in read_manifest(manifest) if clip.labels and (split is None or clip.split == split)]
    if not clips:
        raise UsageError(f"{manifest}: no labelled clip to judge" + (f" in split {split}" if split else ""))
    return clips


def _recording(clip: Clip) -> str:
    return clip.source or str(clip.audio)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _interval(judged: Sequence[Judged], flags: Sequence[bool]) -> list[float]:
    """95 % bootstrap interval of the share of true flags, recordings drawn with replacement."""
    recordings: dict[str, list[bool]] = {}
    for one, flag in zip(judged, flags, strict=True):
        recordings.setdefault(_recording(one.clip), []).append(flag)
    true = np.array([sum(some) for some in recordings.values()])
    count = np.array([len(some) for some in recordings.values()])
    draws = np.random.default_rng(0).integers(len(true), size=(RESAMPLES, len(true)))
    return np.quantile(true[draws].sum(1) / count[draws].sum(1), [0.025, 0.975]).tolist()


def _protocol(model: str, manifest: Path, split: str | None, method: str, seed: int) -> dict[str, Any]:
    return {
        "measure": "sounds that the caption names by whole words of sound_phrases.py, compared with the labels",
        "interval": f"bootstrap over recordings, {RESAMPLES} resamples",
        "model": model,
        "manifest": manifest.name,
        "split": split,
        "method": method,
        "seed": seed,
        "aural": __version__,
    }
