"""All there is to know about a scene in a few words that are always the same: what questions can be answered from.

Captions leave out what people leave out; here every number, pace, place and level that :mod:`questions` may ask about
is said, and in the order of the sounds. It is shorthand, for a language model to learn answering from, not for people.
"""

from aural.sound_phrases import SILENT, SOUNDS
from aural.soundscapes.questions import LONGER, thing
from aural.soundscapes.scene import Part, Scene
from aural.soundscapes.wording import NUMBERS


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
        said += joined + " ".join((thing(part.label), *_about(scene, part)))
    return said or SILENT[0]


def _about(scene: Scene, part: Part) -> list[str]:
    others = [other for other in scene.foreground if other is not part]
    longest = others and all(part.seconds >= LONGER * other.seconds for other in others)
    loud = {True: "loud", False: "soft", None: None}[scene.louder(part)]
    words = (
        None if part.count is None else NUMBERS[part.count],
        part.tempo,
        "far away" if part.distant else None,
        loud,
        "long" if longest and not part.background else None,
        "behind" if part.background else None,
    )
    return [word for word in words if word]
