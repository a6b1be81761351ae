"""Any folder of sounds, with whatever says what they are. The first of these that is there is used, and it alone:

1. tables (csv, tsv, json, jsonl): ``metadata.*`` in the folder and in those below it, else every one in the folder that
   names sounds of it, and one beside the folder under its name (``sounds.csv`` beside ``sounds/``). Their columns are
   ``file``, as seen from the table; ``caption``, ``captions`` or ``caption_1`` ... ``caption_5``; ``label`` or
   ``labels`` (several are separated by ";"); and, if wanted, ``split`` or ``fold``, ``source``, ``start``,
   ``duration``, ``question`` and ``answer``. Several rows may describe one file. A JSON file is a list of such rows, or
   an object of file names and their captions;
2. text files beside the sounds: ``dog.txt`` holds captions of ``dog.wav``, one a line;
3. the names of the folders they lie in: ``train/dog_bark/1.wav`` is labelled "dog bark", in the split "train";
4. the words of their file names: ``dog_barking_03.wav`` is captioned "dog barking".

Labels without captions are put into words by :mod:`aural.sound_phrases`, or, if it does not know them, stand for
themselves. What is missing or left out is counted in the log ``aural``.
"""

import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aural.errors import UsageError
from aural.find_sounds import find_sounds
from aural.manifest import LONGEST, Clip
from aural.sound_phrases import SOUNDS, captions

Row = Mapping[str, Any]

FILE = ("file", "file_name", "filename", "fname", "audio", "path")
LABEL = ("label", "labels", "category", "class", "tags")
CAPTION = re.compile(r"captions?(_?\d+)?|text|description")
SPLIT = ("split", "subset", "fold")
SOURCE = ("source", "source_id")
TABLES = (".csv", ".tsv", ".json", ".jsonl")
SPLIT_FOLDER = re.compile(r"train(ing)?|val(id(ation)?)?|dev(elopment)?|test(ing)?|eval(uation)?|fold[ _-]?\d+", re.I)

logger = logging.getLogger("aural")


def prepare(folder: str | os.PathLike[str]) -> list[Clip]:
    """Describe the sounds of a folder; see the top of this file for where the words come from.

    Raises:
        UsageError: no such folder, no sounds in it, nothing that describes any of them, or a table that cannot be read.
    """
    root = corpus_folder(folder)
    sounds = find_sounds([root])
    clips = _from_tables(root, sounds) or _from_texts(sounds) or _from_names(root, sounds)
    if not clips:
        raise UsageError(
            f"{root}: nothing says what its {len(sounds)} sounds are; add a metadata.csv with the columns file,caption"
        )
    left_out = len(set(sounds) - {clip.audio for clip in clips})
    if left_out:
        logger.warning("%s: %d of %d sounds are left out: nothing says what they are", root, left_out, len(sounds))
    return clips


# ------------------------------------------------------------------------------------------------------- for any corpus


def corpus_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder as an absolute path.

    Raises:
        UsageError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: there is no such folder; pass the one that the corpus was unpacked to")
    return Path(os.path.abspath(folder))  # noqa: PTH100 (resolve would follow links)


def read_table(path: Path, required: Iterable[str] = (), *, or_encoding: str | None = None) -> list[dict[str, Any]]:
    """The rows of a csv, tsv, json or jsonl file; column names in lower case, with "_" for spaces.

    Args:
        path: the table, in UTF-8.
        required: columns it must have.
        or_encoding: what it is written in if not in UTF-8.

    Raises:
        UsageError: the file is missing, not what its suffix says, or lacks a ``required`` column, if in one row only.
    """
    try:
        text = _decoded(path.read_bytes(), or_encoding)
        rows = _json_rows(path, text) if path.suffix.lower() in (".json", ".jsonl") else _csv_rows(path, text)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such table; is this the folder of that corpus?") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None
    rows = [{str(name).strip().lower().replace(" ", "_"): value for name, value in row.items()} for row in rows]
    required = sorted(required)
    if lacking := [name for name in required if not any(name in row for row in rows)]:
        raise UsageError(f"{path}: has no column {', '.join(lacking)}; is this the folder of that corpus?")
    for number, row in enumerate(rows, start=1):
        if lacking := [name for name in required if row.get(name) is None]:  # as in a line that was cut off
            raise UsageError(f"{path}: row {number} has no {', '.join(lacking)}; mend or remove it")
    return rows


def present(clips: Sequence[Clip], where: Path) -> list[Clip]:
    """The clips whose sounds are there; how many are not is logged, by split.

    Raises:
        UsageError: none is there.
    """
    found = [clip for clip in clips if clip.audio.is_file()]
    if not found:
        raise UsageError(f"{where}: names {len(clips)} sounds, and none of them is there; unpack the audio beside it")
    if len(found) < len(clips):
        missing, named = len(clips) - len(found), len(clips)
        logger.warning("%s: %d of its %d sounds are missing%s", where, missing, named, _coverage(found, clips))
    else:
        logger.info("%s: all of its %d sounds are there%s", where, len(clips), _coverage(found, clips))
    return found


def _coverage(found: Sequence[Clip], named: Sequence[Clip]) -> str:
    """What is there of each split, in words; nothing where there are no splits."""
    here, all_of_it = (Counter(clip.split for clip in clips if clip.split) for clips in (found, named))
    parts = [f"{split} {here[split]} of {total}" for split, total in all_of_it.items()]
    return f" (there are: {', '.join(parts)})" if parts else ""


def captions_of(labels: Sequence[str]) -> tuple[str, ...]:
    """What can be said of a sound of which only the labels are known."""
    if len(labels) == 1 and labels[0] in SOUNDS:
        return captions(labels[0])
    words = [SOUNDS[label].noun_phrases[0] if label in SOUNDS else label.lower() for label in labels]
    return (" and ".join(words),) if words else ()


# --------------------------------------------------------------------------------------------------------------- tables


def _decoded(content: bytes, or_encoding: str | None) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if or_encoding is None:
            raise
        text = content.decode(or_encoding)
    return text.replace("\r\n", "\n")


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    header = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise ValueError(f"row {number} has more fields than the header; put texts with {delimiter!r} in quotes")
    return rows


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        rows: Any = [json.loads(line) for line in text.split("\n") if line.strip()]
    else:
        rows = json.loads(text)
    if isinstance(rows, dict):
        rows = [
            {"file": name, **(said if isinstance(said, dict) else {"captions": said})} for name, said in rows.items()
        ]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it should be a list of objects, or an object of file names and captions")
    return rows


def _from_tables(root: Path, sounds: Sequence[Path]) -> list[Clip]:
    tables = sorted(filter(_is_table, root.iterdir()))
    # Not .jsonl: that may be the manifest that was made of this folder, and would freeze what it knows.
    beside = [path for suffix in (".csv", ".tsv", ".json") if (path := root.with_name(root.name + suffix)).is_file()]
    named = [path for path in sorted(root.rglob("*")) if path.stem.lower() == "metadata" and _is_table(path)]
    by_name: dict[str, list[Path]] = {}
    for sound in sounds:
        by_name.setdefault(sound.name, []).append(sound)
    rows: list[Clip] = []
    for path in named or [*tables, *beside]:
        try:
            rows += _described(path, root, by_name)
        except UsageError:
            if named:
                raise
            logger.debug("%s: is no table of these sounds", path)
    # Rows that differ in their words only are one clip with all of them.
    clips: dict[Clip, Clip] = {}
    for row in rows:
        part = replace(row, captions=(), labels=())
        clip = clips.setdefault(part, part)
        clips[part] = replace(
            clip, captions=_once(clip.captions + row.captions), labels=_once(clip.labels + row.labels)
        )
    return [replace(clip, captions=clip.captions or captions_of(clip.labels)) for clip in clips.values()]


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES and not path.name.startswith(".")


def _described(path: Path, root: Path, by_name: Mapping[str, Sequence[Path]]) -> list[Clip]:
    """The rows that name a sound that is there and say something about it."""
    folder = path.parent if path.is_relative_to(root) else root  # that the files are named from
    split = _split_of(folder.relative_to(root).parts)
    clips = []
    for number, row in enumerate(read_table(path), start=1):
        try:
            clip = _row_clip(row, folder, by_name)
        except ValueError as error:
            raise UsageError(f"{path}: row {number}: {error}") from None
        if clip and (clip.captions or clip.labels or clip.answer):
            clips.append(replace(clip, split=clip.split or split))
    if not clips:
        raise UsageError(f"{path}: no row has both a file and a caption or label; name its columns file,caption")
    return present(clips, path)


def _row_clip(row: Row, folder: Path, by_name: Mapping[str, Sequence[Path]]) -> Clip | None:
    file = _cell(row, *FILE)
    if file is None:
        return None
    audio = Path(os.path.normpath(folder / file))
    elsewhere = by_name.get(Path(file).name, ())
    if not audio.is_file() and len(elsewhere) == 1:
        audio = elsewhere[0]
    split = _cell(row, *SPLIT)
    start, duration = float(_cell(row, "start") or 0.0), float(_cell(row, "duration") or 0.0)
    if not (0.0 <= start <= LONGEST and 0.0 <= duration <= LONGEST):
        raise ValueError("start and duration should be seconds, 0 or more")
    return Clip(
        audio,
        start=start,
        duration=duration or None,
        captions=_once(text for name in row if CAPTION.fullmatch(name) for text in _texts(row[name])),
        labels=_once(text for name in LABEL for text in _texts(row.get(name), separator=";")),
        question=_cell(row, "question"),
        answer=_cell(row, "answer"),
        split=f"fold{split}" if split and split.isdigit() else split,
        source=_cell(row, *SOURCE),
    )


def _cell(row: Row, *names: str) -> str | None:
    """The first of these columns that holds something."""
    return next((text for name in names for text in _texts(row.get(name))), None)


def _texts(value: Any, separator: str | None = None) -> list[str]:
    """What is in a cell: nothing, a text, or several."""
    parts = value if isinstance(value, list) else [] if value is None else str(value).split(separator or "\0")
    return [text for part in parts if (text := str(part).strip())]


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


# ------------------------------------------------------------------------------------------------------ texts and names


def _from_texts(sounds: Sequence[Path]) -> list[Clip]:
    clips = []
    for sound in sounds:
        try:
            lines = sound.with_suffix(".txt").read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise UsageError(f"{sound.with_suffix('.txt')}: is not UTF-8 text; save it as UTF-8") from None
        said = _once(line.strip() for line in lines if line.strip())
        clips += [Clip(sound, captions=said)] if said else []
    return clips


def _from_names(root: Path, sounds: Sequence[Path]) -> list[Clip]:
    """Labels from the innermost folder that is not a split; where there is none, captions from file names."""
    clips = []
    for sound in sounds:
        above = sound.relative_to(root).parts[:-1]
        split = _split_of(above)
        label = next((label for name in reversed(above) if (label := _label(name))), None)
        words = " ".join(re.findall(r"[^\W\d_]+", sound.stem)).lower()
        if label:
            clips.append(Clip(sound, captions=captions_of([label]), labels=(label,), split=split))
        elif words:
            clips.append(Clip(sound, captions=(words,), split=split))
    return clips


def _split_of(folders: Iterable[str]) -> str | None:
    """The outermost folder that is named as splits are."""
    return next((name.lower() for name in folders if SPLIT_FOLDER.fullmatch(name)), None)


def _label(name: str) -> str | None:
    """``001 - Dog bark`` as "dog bark"; None for the name of a split, or of no words."""
    words = " ".join(re.sub(r"^\d+[\s._-]+", "", name).replace("_", " ").split())
    if SPLIT_FOLDER.fullmatch(name) or not re.search(r"[^\W\d_]", words):
        return None
    return next((known for known in SOUNDS if known.lower() == words.lower()), words.lower())
