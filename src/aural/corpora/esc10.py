"""ESC-10 (Piczak 2015): five-second recordings of ten everyday sounds, cut from Freesound.

Reads a folder with ``metadata.csv`` (columns ``file,fold,label,phrase,source_id,licence``) and the clips it names.
The folds of the corpus become the splits "fold1", "fold2", ...; all clips of one source recording lie in one fold.
"""

import os

from aural.corpora.folder import corpus_folder, present, read_table
from aural.manifest import Clip
from aural.sound_phrases import captions

COLUMNS = ("file", "fold", "label", "phrase", "source_id", "licence")
SAME_TAKE = {"30322": "28314"}
"""Recordings published twice: what counts as the source of each."""


def prepare(folder: str | os.PathLike[str], *, include_sampling_plus: bool = False) -> list[Clip]:
    """The clips of ESC-10, captioned with every phrase that is true of their class.

    Args:
        folder: holds metadata.csv.
        include_sampling_plus: also take the clips whose licence, Sampling+, forbids use in advertising; weights that
            are to be given to anybody should do without.

    Raises:
        UsageError: no such folder, no such table in it, a label without words, or none of the sounds is there.
    """
    root = corpus_folder(folder)
    clips = [
        Clip(
            root / row["file"],
            captions=tuple(dict.fromkeys((row["phrase"], *captions(row["label"])))),
            labels=(row["label"],),
            split=f"fold{row['fold']}",
            source=SAME_TAKE.get(row["source_id"], row["source_id"]),
        )
        for row in read_table(root / "metadata.csv", COLUMNS)
        if include_sampling_plus or "Sampling+" not in row["licence"]
    ]
    return present(clips, root / "metadata.csv")
