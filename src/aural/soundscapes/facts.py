"""All there is to know about a scene in a few words that are always the same: what questions can be answered from.

Captions leave out what people leave out; here every number, pace, place and level that :mod:`questions` may ask about
is said, and in the order of the sounds. It is shorthand, for a language model to learn answering from, not for people.
"""

from aural.sound_phrases import SILENT, SOUNDS
from aural.soundscapes.questions import attributes, thing
from aural.soundscapes.scene import Scene


def facts(scene: Scene) -> str:
    """``a barking dog three fast soft then an engine far away loud long``; sounds at once are joined by "with".

    Empty where :data:`aural.sound_phrases.SOUNDS` has no words for one of the sounds.
    """
    if any(part.label not in SOUNDS for part in scene.parts):
        return ""
    said = ""
    for place, part in enumerate(scene.parts):
        before = scene.parts[place - 1]
        joined = "" if place == 0 else " then " if (before.label, part.label) in scene.order else " with "
        said += joined + " ".join((thing(part.label), *attributes(scene, part)))
    return said or SILENT[0]
