"""VGGSound (Chen et al., ICASSP 2020): ten-second clips of YouTube videos, of one class of sound each, which is seen.

Reads the folder that AudioToken is trained on: ``video/`` and ``audio/``, with a file of one name (but for its suffix)
in both, which begins with the eleven characters of the video's id; and ``vggsound.csv``, as published
(``ytid,start,label,split`` without a header) or with a header that names ``ytid``, ``class`` and ``set``, as
AudioToken's does. In the folder, or in ``constants/`` below it, there may also be

- lists of ids that training is better off without (``unmatch*``, where sound and picture disagree, and
  ``low_quality*``; ``.pkl``, ``.json`` or ``.txt``): they are left out of the split "train", and of no other;
- ``best_frames.json``: name -> [[numbers of frames that show what sounds]]. They are kept in ``about`` as text, as
  whatever else is known of a clip: ``{"best_frames": "3 17 40"}``.

A pickle is never unpickled, which would run whatever it says: the texts in it are listed.
"""

import csv
import io
import json
import logging
import os
import pickletools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aural.corpora.folder import captions_of, corpus_folder, present
from aural.errors import UsageError
from aural.find_sounds import find_sounds
from aural.manifest import VIDEO_SUFFIXES, Clip

ID = re.compile(r"[\w-]{11}", re.ASCII)
"""What YouTube calls a video; names of files begin with it."""
PUBLISHED = ("ytid", "start", "label", "split")
"""Columns of the published table, which does not name them."""
FILTERS = re.compile(r"(unmatch|low_quality).*\.(pkl|json|txt)")
FILTERED = "train"
BEST_FRAMES = "best_frames.json"

logger = logging.getLogger("aural")


def prepare(folder: str | os.PathLike[str]) -> list[Clip]:
    """The clips of VGGSound of which both sound and video are there; ``image`` is the video.

    Raises:
        UsageError: no such folder, no ``vggsound.csv`` in it, a table or list that cannot be read, or no clips.
    """
    root = corpus_folder(folder)
    known = _classes(root / "vggsound.csv")
    pairs = _pairs(root)
    places = (root, root / "constants")
    best = _best_frames(next((path for place in places if (path := place / BEST_FRAMES).is_file()), None))
    unwanted: set[str] = set()
    for path in sorted(path for place in places for path in place.glob("*") if FILTERS.fullmatch(path.name)):
        listed = _listed(path)
        left_out = sum(known.get(name[:11], ("", ""))[1] == FILTERED for name in pairs if name[:11] in listed)
        logger.warning("%s: %d clips of the split %s are left out", path, left_out, FILTERED)
        unwanted |= listed
    if unknown := sum(name[:11] not in known for name in pairs):
        logger.warning("%s: %d clips are left out: vggsound.csv does not name them", root, unknown)
    names_of: dict[str, list[str]] = {}
    for name in pairs:
        names_of.setdefault(name[:11], []).append(name)
    clips = []
    for video_id, (label, split) in known.items():
        if split == FILTERED and video_id in unwanted:
            continue
        of_class = Clip(captions=captions_of([label]), labels=(label,), split=split, source=video_id)
        for name in names_of.get(video_id, ()):
            sound, video = pairs[name]
            about = {"best_frames": best[name]} if name in best else {}
            clips.append(replace(of_class, audio=sound, image=video, about=about))
        if video_id not in names_of:
            clips.append(replace(of_class, audio=root / "audio" / video_id))  # is no file, and counted as missing
    return present(clips, root)


def _classes(table: Path) -> dict[str, tuple[str, str]]:
    """Id -> class and split; as in AudioToken, of several rows with an id the first counts."""
    try:
        rows = [row for row in csv.reader(io.StringIO(_text(table), newline=""), strict=True) if row]
    except csv.Error as error:
        raise UsageError(f"{table}: cannot be read as csv: {error}") from None
    columns = list(PUBLISHED)
    if rows and "ytid" in (header := [name.strip().lower() for name in rows[0]]):
        columns = [{"class": "label", "set": "split"}.get(name, name) for name in header]
        rows = rows[1:]
    if lacking := sorted({"ytid", "label", "split"} - set(columns)):
        raise UsageError(f"{table}: has no column {', '.join(lacking)}; is this the folder of that corpus?")
    known: dict[str, tuple[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise UsageError(
                f"{table}: clip {number} should be {','.join(columns)}; is this the folder of that corpus?"
            )
        named = dict(zip(columns, map(str.strip, row), strict=True))
        if named["label"] and named["split"]:
            known.setdefault(named["ytid"], (named["label"], named["split"]))
    return known


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Name -> sound and video."""
    sounds = {path.stem: path for path in find_sounds([root / "audio"])}
    videos = {path.stem: path for path in find_sounds([root / "video"], suffixes=VIDEO_SUFFIXES)}
    return {name: (sound, videos[name]) for name, sound in sorted(sounds.items()) if name in videos}


def _listed(path: Path) -> set[str]:
    """The ids in a list of them, or of names that begin with one."""
    texts: Iterable[Any]
    if path.suffix == ".pkl":
        try:
            texts = [argument for _, argument, _ in pickletools.genops(path.read_bytes())]
        except ValueError as error:
            raise UsageError(f"{path}: is no whole pickle ({error}); get it again, or save it as JSON") from None
    elif path.suffix == ".json":
        texts = _json(path)
    else:
        texts = _text(path).split()
    ids = {text[:11] for text in texts if isinstance(text, str) and ID.match(text)}
    if not ids:
        raise UsageError(f"{path}: lists no ids of YouTube, of 11 characters; save it as a list of them in JSON")
    return ids


def _best_frames(path: Path | None) -> Mapping[str, str]:
    """Name -> numbers of frames, as text. As in the released code, entries of another form count for nothing."""
    entries = {} if path is None else _json(path)
    if not isinstance(entries, dict):
        raise UsageError(f"{path}: should be an object of names and [[numbers of frames]]")
    best = {}
    for name, lists in entries.items():
        numbers = lists[0] if isinstance(lists, list) and lists else None
        if isinstance(numbers, list) and numbers and all(type(one) is int and one >= 0 for one in numbers):
            best[name] = " ".join(map(str, numbers))
    return best


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read as json: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such table; is this the folder of that corpus?") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
