"""How well pictures show what was said or heard, judged by which of the training's pictures they look most like.

The likeness is a fixed descriptor of colours and edges (:mod:`aural.audio_to_image.likeness`), chosen because it needs
no download and has learnt nothing from what it judges. It tells glyphs apart; for photographs it is no measure.

- ``pictures``: of 100 names of what can be heard, the share whose picture looks most like one with that name, among all
  pictures;
- ``sounds``: of recordings with one label, the share whose picture looks most like one of that label's: among the
  pictures of all labels that are judged (``of_class``), and among all pictures whatsoever (``of_all``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from aural import __version__
from aural.audio_to_image.data import pairs
from aural.audio_to_image.glyph_words import sound_names
from aural.audio_to_image.imagine import ImaginationModel, imagine_each, load
from aural.audio_to_image.likeness import SIDE, Gallery, gallery
from aural.audio_to_image.painter import Painter, paint, painted_at_once, painting
from aural.audio_to_image.picture_files import as_image, as_tensor, read_picture, sheet
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.found_of_clips import splits_held_out
from aural.manifest import Clip, read_manifest
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.sound_source import part

N_NAMES = 100
PROMPT = "a photo of {}"
SHEET_COLUMNS, SHEET_SIDE = 8, 96
MEASURE = "share of pictures whose nearest, by a fixed descriptor of colours and edges, is one of the right ones"


def evaluate_pictures(
    painter: Painter, manifest: Path, *, seed: int = 0, batch_size: int = 8, n_names: int = N_NAMES
) -> tuple[dict[str, Any], Image]:
    """Judge a picture model by names of what can be heard, evenly taken from all that have a picture.

    Args:
        painter: the model.
        manifest: the pictures it learnt from.
        seed: of the pictures.
        batch_size: pictures painted at a time.
        n_names: how many names.

    Returns:
        The figures, and all that was painted on a sheet.

    Raises:
        UsageError: the manifest has no picture of a name.
    """
    clips = read_manifest(manifest, required="image")
    known = _gallery(clips)
    shown = {name for clip in clips for name in clip.captions}
    all_names = [name for name in sound_names() if name in shown]
    if not all_names:
        raise UsageError(f"{manifest}: no picture has the name of anything that can be heard, such as 'dog'")
    count = min(n_names, len(all_names))
    names = [all_names[place * len(all_names) // count] for place in range(count)]
    painted = []
    at_once = painted_at_once(painter, batch_size)
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]
        with torch.inference_mode():
            states, mask = painter.words.states([PROMPT.format(name) for name in some])
        painted += list(paint(painter, states, mask, [seed] * len(some), painting(painter)))
    nearest = known.nearest(torch.stack(painted)).tolist()
    right = [name in clips[place].captions for name, place in zip(names, nearest, strict=True)]
    chance = sum(sum(name in clip.captions for clip in clips) for name in names) / len(names) / len(clips)
    result = {
        "pictures": sum(right) / len(right),
        "pictures_interval_95": interval([float(one) for one in right], names),
        "chance": chance,
        "wrong": {
            name: clips[place].captions[0]
            for name, place, is_right in zip(names, nearest, right, strict=True)
            if not is_right
        },
        "n_names": len(names),
        "n_pictures": len(clips),
    }
    tiles = [as_image(picture, SHEET_SIDE).resize((SHEET_SIDE, SHEET_SIDE)) for picture in painted]
    rows = [tiles[first : first + SHEET_COLUMNS] for first in range(0, len(tiles), SHEET_COLUMNS)]
    firsts = [names[first] for first in range(0, len(names), SHEET_COLUMNS)]
    return result | {"protocol": _protocol(painter.name, manifest, None, seed)}, sheet(rows, firsts)


def evaluate(
    model: ImaginationModel,
    manifest: Path,
    pictures: Path,
    *,
    split: str | None = None,
    seed: int = 0,
    batch_size: int = 8,
) -> tuple[dict[str, Any], Image]:
    """Judge an audio token on the recordings of a manifest, or of one split.

    Args:
        model: from :func:`aural.audio_to_image.imagine.load`.
        manifest: recordings with one label each.
        pictures: a manifest of pictures with labels.
        split: only the recordings of this one.
        seed: of the pictures.
        batch_size: pictures painted at a time.

    Returns:
        The figures, and a sheet with up to eight pictures of each label.

    Raises:
        UsageError: no recording has a picture, or none a label that a picture has.
    """
    shown = read_manifest(pictures, required="image")
    rows = judge(model, _judged(manifest, split, shown), shown, seed=seed, batch_size=batch_size)
    return score(rows) | {"protocol": _protocol(model.name, manifest, split, seed)}, contact_sheet(rows)


def evaluate_held_out(
    models: Path,
    manifest: Path,
    pictures: Path,
    *,
    painter: str | None = None,
    device: str = "auto",
    offline: bool = False,
    seed: int = 0,
    batch_size: int = 8,
) -> tuple[dict[str, Any], Image]:
    """Leave one split out in turn: ``models/SPLIT`` was trained without SPLIT and is judged on it; all are pooled.

    Raises:
        UsageError: ``models`` holds no folder named after a split of the manifest, or a split has no sound to judge.
    """
    splits = splits_held_out(models, manifest)
    shown = read_manifest(pictures, required="image")
    rows = []
    for split in splits:
        model = load(models / split, painter=painter, device=device, offline=offline)
        rows += judge(model, _judged(manifest, split, shown), shown, seed=seed, batch_size=batch_size)
    protocol = _protocol(str(models), manifest, "each held out in turn", seed)
    return score(rows) | {"protocol": protocol}, contact_sheet(rows)


def judge(
    model: ImaginationModel, clips: Sequence[Clip], shown: Sequence[Clip], *, seed: int, batch_size: int
) -> list[dict[str, Any]]:
    """A row for each recording: its label, the picture of it, and whether that is right, both ways.

    Raises:
        AuralError: a recording cannot be read.
    """
    known = _gallery(shown)
    labels = {clip.labels[0] for clip in clips}
    of_class = torch.tensor([place for place, picture in enumerate(shown) if labels & set(picture.labels)])
    rows = []
    sounds = (part(clip.audio, SAMPLE_RATE, start=clip.start, duration=clip.duration) for clip in clips)
    painted = imagine_each(sounds, model, seed=seed, batch_size=batch_size)
    for clip, (_, found) in zip(clips, painted, strict=True):
        if isinstance(found, Exception):
            raise found
        label, picture = clip.labels[0], as_tensor(found[0].image)[None]
        near, nearest = int(known.nearest(picture, of_class)), int(known.nearest(picture))
        rows.append(
            {
                "label": label,
                "recording": clip.source or str(clip.audio),
                "image": found[0].image,
                "of_class": label in shown[near].labels,
                "of_all": label in shown[nearest].labels,
                "looks_like": shown[nearest].captions[0] if shown[nearest].captions else "",
                "chance": sum(label in shown[place].labels for place in of_class.tolist()) / len(of_class),
            }
        )
    return rows


def score(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares with 95 % intervals, which resample recordings; the first also by label."""
    result: dict[str, Any] = {}
    for way in ("of_class", "of_all"):
        right = [float(row[way]) for row in rows]
        result[way] = sum(right) / len(right)
        result[f"{way}_interval_95"] = interval(right, [row["recording"] for row in rows])
    labels = sorted({row["label"] for row in rows})
    of_label = {label: [row for row in rows if row["label"] == label] for label in labels}
    result["chance_of_class"] = sum(row["chance"] for row in rows) / len(rows)
    result["of_label"] = {label: sum(row["of_class"] for row in some) / len(some) for label, some in of_label.items()}
    return result | {"n_clips": len(rows), "n_recordings": len({row["recording"] for row in rows})}


def contact_sheet(rows: Sequence[dict[str, Any]]) -> Image:
    """Up to eight pictures of each label, a row each."""
    labels = sorted({row["label"] for row in rows})
    tiles = [
        [row["image"].resize((SHEET_SIDE, SHEET_SIDE)) for row in rows if row["label"] == label][:SHEET_COLUMNS]
        for label in labels
    ]
    return sheet(tiles, labels)


def _gallery(clips: Sequence[Clip]) -> Gallery:
    images = [clip.image for clip in clips if clip.image is not None]
    return gallery(torch.stack([_small(image) for image in images]))


def _small(image: Path) -> Tensor:
    return read_picture(image, (SIDE, SIDE))


def _judged(manifest: Path, split: str | None, shown: Sequence[Clip]) -> list[Clip]:
    clips = [clip for clip in read_manifest(manifest) if split is None or clip.split == split]
    labels = {label for picture in shown for label in picture.labels}
    judged = [pair.clip for pair in pairs(clips, shown) if pair.clip.labels and pair.clip.labels[0] in labels]
    if not judged:
        where = f"{manifest}, split {split}" if split else str(manifest)
        raise UsageError(f"{where}: no sound has a label that a picture has; pass --pictures with theirs")
    return judged


def _protocol(model: str, manifest: Path, split: str | None, seed: int) -> dict[str, Any]:
    return {
        "measure": MEASURE,
        "interval": f"bootstrap, {RESAMPLES} resamples",
        "model": model,
        "manifest": manifest.name,
        "split": split,
        "seed": seed,
        "aural": __version__,
    }
