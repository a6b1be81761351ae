"""Clotho 2.1 (Drossos et al., arXiv 1910.09387): recordings of 15 to 30 s from Freesound, five captions each.

Reads the folder that the published archives were unpacked to: ``clotho_captions_SPLIT.csv``
(``file_name,caption_1,...,caption_5``) and the sounds in ``SPLIT/``, for development, validation and evaluation,
whichever are there. ``clotho_metadata_SPLIT.csv``, if there, tells which recording each clip was cut from. Its keywords
are left out: they are what uploaders wrote, not what is heard.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from aural.corpora.folder import corpus_folder, present, read_table
from aural.errors import UsageError
from aural.find_sounds import find_sounds
from aural.manifest import Clip

Value = TypeVar("Value")

SPLITS = ("development", "validation", "evaluation")
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
METADATA_ENCODING = "latin-1"
"""The published tables of metadata are not in UTF-8; those of captions are."""


def prepare(folder: str | os.PathLike[str]) -> list[Clip]:
    """The clips of Clotho, the three splits or those that are there, with their five captions.

    Clips of one Freesound recording have one ``source``; where the metadata do not know it, the file is its own.

    Raises:
        UsageError: no such folder, no table of captions in it, a table that cannot be read, or no sounds.
    """
    root = corpus_folder(folder)
    tables = {split: found for split in SPLITS if (found := _table(root, f"clotho_captions_{split}.csv"))}
    if not tables:
        raise UsageError(f"{root}: has no clotho_captions_{SPLITS[0]}.csv; is this the folder of Clotho?")
    sounds = find_sounds([root])
    clips = []
    for split, table in tables.items():
        of_split = [path for path in sounds if split in path.relative_to(root).parts]
        audio_of = _by_any_spelling({path.name: path for path in of_split or sounds})
        source_of = _by_any_spelling(_sources(root, split))
        for row in read_table(table, ("file_name", *CAPTIONS)):
            name = row["file_name"]
            clips.append(
                Clip(
                    audio_of(name) or root / split / name,
                    captions=tuple(dict.fromkeys(text for column in CAPTIONS if (text := row[column].strip()))),
                    split=split,
                    source=source_of(name) or Path(name).stem,
                )
            )
    return present(clips, root)


def _table(root: Path, name: str) -> Path | None:
    """In the folder or one below it: people keep the tables by themselves."""
    return next((path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()), None)


def _sources(root: Path, split: str) -> Mapping[str, str]:
    """Name of a file -> number of its Freesound recording; of some the table says "Not found"."""
    table = _table(root, f"clotho_metadata_{split}.csv")
    rows = read_table(table, ("file_name", "sound_id"), or_encoding=METADATA_ENCODING) if table else []
    return {row["file_name"]: number for row in rows if (number := row["sound_id"].strip()).isdigit()}


def _by_any_spelling(named: Mapping[str, Value]) -> Callable[[str], Value | None]:
    """Look-up by the name of a file, or else by its ASCII letters and digits alone, if they are nobody else's.

    That much survives archives, file systems and encodings; the tables do not agree on the rest.
    """

    def key(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).lower())

    alike = Counter(map(key, named))
    by_key = {key(name): value for name, value in named.items() if alike[key(name)] == 1}
    return lambda name: named.get(name, by_key.get(key(name)))
