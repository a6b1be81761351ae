"""ESC-50 (Piczak 2015): two thousand five-second recordings of fifty everyday sounds, cut from Freesound.

Reads the folder as published: ``meta/esc50.csv`` (``filename,fold,target,category,esc10,src_file,take``), ``audio/``.
The five folds become the splits "fold1" ... "fold5"; all clips of one source recording lie in one fold.
"""

import os

from aural.corpora.esc10 import SAME_TAKE
from aural.corpora.folder import captions_of, corpus_folder, present, read_table
from aural.manifest import Clip

COLUMNS = ("filename", "fold", "category", "src_file")
ESC10_LABELS = {
    "dog": "dog bark",
    "crying baby": "baby cry",
    "sneezing": "person sneeze",
    "crackling fire": "fire crackling",
}
"""Categories that ESC-10, a selection of ESC-50, calls otherwise here; the other six are called the same."""


def prepare(folder: str | os.PathLike[str]) -> list[Clip]:
    """The clips of ESC-50, captioned with what is true of their class.

    Raises:
        UsageError: no such folder, no ``meta/esc50.csv`` in it, or none of the sounds is there.
    """
    root = corpus_folder(folder)
    clips = []
    for row in read_table(root / "meta" / "esc50.csv", COLUMNS):
        category = row["category"].replace("_", " ")
        label = ESC10_LABELS.get(category, category)
        clips.append(
            Clip(
                root / "audio" / row["filename"],
                captions=captions_of([label]),
                labels=(label,),
                split=f"fold{row['fold']}",
                source=SAME_TAKE.get(row["src_file"], row["src_file"]),
            )
        )
    return present(clips, root / "meta" / "esc50.csv")
