"""All there is to know about a scene in a few words that are always the same: what questions can be answered from.

Captions leave out what people leave out; here every number, pace, place and level that :mod:`questions` may ask about
is said, and in the order of the sounds. It is shorthand, for a language model to learn answering from, not for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aural.sound_phrases import SILENT, SOUNDS
from aural.soundscapes.questions import attributes, bare, thing
from aural.soundscapes.scene import Scene
from aural.soundscapes.wording import NUMBERS

THEN, WITH = "then", "with"
"""How a sound follows the one before it: when that is over, or not."""
FIELDS = (
    (THEN, WITH),
    NUMBERS,
    ("slow", "fast"),
    ("far away",),
    ("loud", "soft"),
    ("long",),
    ("behind",),
)
"""What may be said of a sound, besides its name; each has a place of its own."""
PLACES = 1 + len(FIELDS)
"""Of a sound."""
MOST_SOUNDS = 3
"""The facts of a scene speak of so many sounds, and there are no more in any."""


def facts(scene: Scene) -> str:
    """``a barking dog three fast soft then an engine far away loud long``; sounds at once are joined by "with".

    Empty where :data:`aural.sound_phrases.SOUNDS` has no words for one of the sounds.
    """
    if any(part.label not in SOUNDS for part in scene.parts):
        return ""
    said = ""
    for place, part in enumerate(scene.parts):
        joined = " ".join(("", *_joined(scene, place), "")) if place else ""
        said += joined + " ".join((thing(part.label), *attributes(scene, part)))
    return said or SILENT[0]


@dataclass(frozen=True)
class FactSheet:
    """The facts of a scene with a place for each, so that what is said of a sound is always said at the same place."""

    places: tuple[tuple[str, ...], ...]
    """:data:`PLACES` for each of :data:`MOST_SOUNDS` sounds: its name alone, then its name with what one of
    :data:`FIELDS` says of it, or its name alone again. No words where there is no such sound."""
    known: tuple[bool, ...]
    """Which places are known."""


def fact_sheet(scene: Scene) -> FactSheet | None:
    """The facts of a scene; None where there are no words for one of the sounds."""
    if any(part.label not in SOUNDS for part in scene.parts):
        return None
    places: list[tuple[str, ...]] = []
    for place, part in enumerate(scene.parts[:MOST_SOUNDS]):
        said = (*_joined(scene, place), *attributes(scene, part))
        name = bare(part.label)
        places += [(name,), *((name, *(word for word in said if word in field)) for field in FIELDS)]
    if not scene.parts:
        places = [(SILENT[0],)]
    n = MOST_SOUNDS * PLACES
    return FactSheet((*places, *(((),) * (n - len(places)))), (True,) * n)


def sheet_of_labels(labels: Sequence[str]) -> FactSheet | None:
    """All that a label says of a recording: what is heard first. None for several labels, whose order is not known."""
    if len(labels) != 1 or labels[0] not in SOUNDS:
        return None
    unknown = MOST_SOUNDS * PLACES - 1
    return FactSheet(((bare(labels[0]),), *(((),) * unknown)), (True, *((False,) * unknown)))


def _joined(scene: Scene, place: int) -> tuple[str, ...]:
    if place == 0:
        return ()
    before, part = scene.parts[place - 1 : place + 1]
    return (THEN if (before.label, part.label) in scene.order else WITH,)
