"""AudioCaps (Kim et al., NAACL 2019): ten-second clips of AudioSet with a caption each, five in val and test.

Reads a folder with ``train.csv``, ``val.csv``, ``test.csv`` (``audiocap_id,youtube_id,start_time,caption``), whichever
are there, in it or in one folder below. The sounds were gathered by everybody in their own way; wherever they lie in
the folder, these names are known, whatever the suffix: ``ID``, ``ID_30``, ``ID_30_40``, ``ID_30.000_40.000``,
``ID_30000_40000`` (milliseconds), ``ID_000030``, all of them also with the letter Y before, and the audiocap_id.
Many videos are gone; what is there is used.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aural.corpora.folder import corpus_folder, present, read_table
from aural.errors import UsageError
from aural.find_sounds import find_sounds
from aural.manifest import VALIDATION, Clip

SPLITS = ("train", "val", "test")
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
START_AND_END = re.compile(r"(?P<start>Y?[\w-]{11}_\d+)(?:\.\d+)?(?:_\d+(?:\.\d+)?)?")
"""The end of a clip is where it starts plus ten seconds, or where the video ended: it tells nothing."""


def prepare(folder: str | os.PathLike[str]) -> list[Clip]:
    """The clips of AudioCaps whose sounds are there; all captions of a clip are together.

    Raises:
        UsageError: no such folder, no table in it, a table that cannot be read, or no sounds.
    """
    root = corpus_folder(folder)
    tables = {
        split: path
        for split in SPLITS
        for path in (root / f"{split}.csv", *sorted(root.glob(f"*/{split}.csv")))[::-1]
        if path.is_file()
    }
    if not tables:
        raise UsageError(f"{root}: has no {SPLITS[0]}.csv, val.csv or test.csv; is this the folder of AudioCaps?")
    sounds = find_sounds([root])
    clips = []
    for split, table in tables.items():
        of_split = [path for path in sounds if split in path.relative_to(root).parts]
        paths = _by_name([*of_split, *sounds])
        rows_of: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for number, row in enumerate(read_table(table, COLUMNS), start=1):
            try:
                rows_of.setdefault((row["youtube_id"], int(float(row["start_time"]))), []).append(row)
            except ValueError:
                raise UsageError(f"{table}: row {number}: start_time should be a number of seconds") from None
        for (video, start), rows in rows_of.items():
            names = _names(video, start, [row["audiocap_id"] for row in rows])
            clips.append(
                Clip(
                    next((paths[name] for name in names if name in paths), root / split / f"{video}_{start}.wav"),
                    captions=tuple(dict.fromkeys(text for row in rows if (text := row["caption"].strip()))),
                    split=VALIDATION if split == "val" else split,
                    source=video,
                )
            )
    return present(clips, root)


def _by_name(sounds: Sequence[Path]) -> dict[str, Path]:
    """Name without suffix, and without where the clip ends, -> file; the first of several."""
    paths: dict[str, Path] = {}
    for path in sounds:
        paths.setdefault(path.stem, path)
    for path in sounds:
        if match := START_AND_END.fullmatch(path.stem):
            paths.setdefault(match["start"], path)
    return paths


def _names(video: str, start: int, ids: Sequence[str]) -> Iterator[str]:
    """What the file of a clip may be called, the most certain first."""
    for begun in (f"_{start}", f"_{1000 * start}", f"_{start:06d}", ""):
        yield from (f"{video}{begun}", f"Y{video}{begun}")
    yield from ids
