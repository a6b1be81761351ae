"""Drums, tabla, bells, guitar and single sounds: CC0 samples that come with Sonic Pi.

Reads a folder with ``metadata.csv`` (columns ``file,label,phrase,source_name``) and the clips it names. There are no
splits; near copies, such as hard and soft strokes of one drum, share a ``source`` and belong on one side of any split.
"""

import os
import re

from aural.corpora.folder import corpus_folder, present, read_table
from aural.manifest import Clip
from aural.sound_phrases import captions

COLUMNS = ("file", "label", "phrase", "source_name")
STROKE = re.compile(r"_(hard|soft)$|(?<=^tabla_)(?P<tabla>[a-z]+?)(\d+|_[a-z])$")
"""What tells apart the takes of one drum stroke: ``drum_snare_hard``, ``tabla_tun2``, ``tabla_na_o``."""


def prepare(folder: str | os.PathLike[str]) -> list[Clip]:
    """The clips of the instruments set, captioned with their own phrase and all that are true of their class.

    Raises:
        UsageError: no such folder, no such table in it, a label without words, or none of the sounds is there.
    """
    root = corpus_folder(folder)
    clips = []
    for row in read_table(root / "metadata.csv", COLUMNS):
        phrase = row["phrase"].lower().replace("-", " ")  # as in sound_phrases.py
        label = "beep" if "beep" in phrase.split() else row["label"]  # one blip of the set is what others call a beep
        clips.append(
            Clip(
                root / row["file"],
                captions=tuple(dict.fromkeys((phrase, f"{phrase} can be heard", *captions(label)))),
                labels=(label,),
                source=STROKE.sub(lambda match: match["tabla"] or "", row["source_name"]),
            )
        )
    return present(clips, root / "metadata.csv")
