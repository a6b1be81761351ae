"""Questions about a scene whose answers are known, from presence to comparison, and questions with a wrong premise.

Yes and no are balanced within each kind: for every scene that allows it, one of each is drawn with equal chance. A kind
is asked only where the truth is beyond doubt: loudness where the difference is 8 dB or more, length where one sound
lasts at least half as long again as the other, order where the sounds do not overlap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from aural.sound_phrases import SILENT, SOUNDS
from aural.soundscapes.scene import CONTRAST_DB, Part, Scene
from aural.soundscapes.wording import NUMBERS

QuestionKind = Literal[
    "what", "presence", "count", "order", "loudness", "duration", "tempo", "comparison", "distance", "premise"
]
KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)

LONGER = 1.5
"""From this ratio of durations on, one sound may be called longer than another."""


@dataclass(frozen=True)
class Question:
    """A question about a scene, and its answer."""

    kind: QuestionKind
    question: str
    answer: str


PRESENCE = (
    "is there {a}",
    "can you hear {a}",
    "does the recording contain {a}",
    "is {a} audible",
    "do you hear {a} in this recording",
    "is {a} part of this sound",
)
COUNT = (
    "how many {many} are there",
    "how many {many} can be heard",
    "how many {many} do you hear",
    "what is the number of {many}",
    "count the {many}",
)
WHAT = ("what can be heard", "what is this sound", "which sounds are there", "what do you hear", "name the sounds")
FIRST = ("which sound comes first", "what is heard first", "what is the first sound", "which sound do you hear first")
LAST = ("which sound comes last", "what is heard last", "what is the last sound", "which sound do you hear last")
BEFORE = (
    "does {a} come before {b}",
    "is {a} heard before {b}",
    "do you hear {a} earlier than {b}",
    "is {a} followed by {b}",
)
AT_ONCE = ("do {a} and {b} overlap", "are {a} and {b} heard at the same time", "do you hear {a} and {b} at once")
LOUDER = ("which sound is louder", "what is the loudest sound", "which sound is the loudest")
IS_LOUDER = ("is {a} louder than {b}", "does {a} sound louder than {b}")
LONGEST = ("which sound lasts longer", "which sound goes on for longer", "what is the longest sound")
TEMPO = ("are the {many} fast or slow", "is the pace of the {many} fast or slow", "do the {many} come fast or slow")
DISTANCE = ("is {a} near or far away", "is {a} close by or in the distance", "how far away is {a}")
MORE = (
    "are there more {many} than {others}",
    "do you hear more {many} than {others}",
    "are the {many} more than the {others}",
)
PREMISE = (
    "is {a} loud or soft",
    "does {a} come first or last",
    "how long does {a} last",
    "where is {a}",
)
NOT_THERE = "there is no {thing}"
"""Answer to a question about something that is not there."""


def questions(scene: Scene, generator: np.random.Generator) -> tuple[Question, ...]:
    """One question of each kind that the scene allows."""
    return tuple(_drawn(scene, generator))


def _drawn(scene: Scene, generator: np.random.Generator) -> Iterator[Question]:
    def pick(options: tuple[str, ...]) -> str:
        return options[int(generator.integers(len(options)))]

    def yes() -> bool:
        return bool(generator.random() < 0.5)

    parts, front = scene.parts, scene.foreground
    absent = [label for label in SOUNDS if label not in scene.labels]
    missing = absent[int(generator.integers(len(absent)))]

    yield Question("what", pick(WHAT), " and ".join(thing(part.label) for part in parts) or SILENT[0])
    if parts and yes():
        there = parts[int(generator.integers(len(parts)))]
        yield Question("presence", pick(PRESENCE).format(a=thing(there.label)), "yes")
    else:
        yield Question("presence", pick(PRESENCE).format(a=thing(missing)), "no")
    words = SOUNDS[missing].one_and_many
    premise = pick(COUNT).format(many=words[1]) if words and yes() else pick(PREMISE).format(a=thing(missing))
    yield Question("premise", premise, NOT_THERE.format(thing=_bare(missing)))

    counted = [part for part in front if part.count is not None]
    if counted:
        part = counted[int(generator.integers(len(counted)))]
        assert part.count is not None
        yield Question("count", pick(COUNT).format(many=_many(part)), NUMBERS[part.count])
    if len(counted) == 2 and counted[0].count != counted[1].count:
        a, b = counted if yes() else counted[::-1]
        more = a.count is not None and b.count is not None and a.count > b.count
        yield Question("comparison", pick(MORE).format(many=_many(a), others=_many(b)), _yes(more))

    if len(front) >= 2:
        in_turn = len(scene.order) == len(front) * (len(front) - 1) // 2
        first, last = front[0], front[-1]
        if in_turn:
            if yes():
                asked_first = yes()
                said = thing((first if asked_first else last).label)
                yield Question("order", pick(FIRST if asked_first else LAST), said)
            else:
                a, b = (first, last) if yes() else (last, first)
                asked = pick(BEFORE).format(a=thing(a.label), b=thing(b.label))
                yield Question("order", asked, _yes(a is first))
        if len(front) == 2:
            yield from _compared(front[0], front[1], in_turn, pick, yes)

    for part in front:
        if part.tempo is not None:
            yield Question("tempo", pick(TEMPO).format(many=_many(part)), part.tempo)
            break
    afar = [part for part in front if part.distant]
    near = [part for part in front if not part.distant and part.label != "noise"]
    asked_of = afar if afar else near if generator.random() < 0.25 else []
    if asked_of:
        part = asked_of[int(generator.integers(len(asked_of)))]
        asked = pick(DISTANCE).format(a=thing(part.label))
        yield Question("distance", asked, "far away" if part.distant else "near")


def _compared(
    a: Part, b: Part, in_turn: bool, pick: Callable[[tuple[str, ...]], str], yes: Callable[[], bool]
) -> Iterator[Question]:
    """Questions about two sounds: which is louder, which lasts longer, are they heard at once."""
    if yes():
        a, b = b, a
    if not in_turn and a.start < b.end and b.start < a.end:
        yield Question("order", pick(AT_ONCE).format(a=thing(a.label), b=thing(b.label)), "yes")
    elif yes():
        yield Question("order", pick(AT_ONCE).format(a=thing(a.label), b=thing(b.label)), "no")
    if abs(a.level_db - b.level_db) >= CONTRAST_DB:
        louder = a if a.level_db > b.level_db else b
        if yes():
            yield Question("loudness", pick(LOUDER), thing(louder.label))
        else:
            asked = pick(IS_LOUDER).format(a=thing(a.label), b=thing(b.label))
            yield Question("loudness", asked, _yes(a is louder))
    shorter, longer = sorted((a, b), key=lambda part: part.end - part.start)
    if len(a.times) == len(b.times) == 1 and longer.seconds >= LONGER * shorter.seconds:
        yield Question("duration", pick(LONGEST), thing(longer.label))


def thing(label: str) -> str:
    """A sound as a thing that can be there: ``a barking dog``."""
    return SOUNDS[label].noun_phrases[0]


def _bare(label: str) -> str:
    """The same without its article: ``barking dog``."""
    return thing(label).removeprefix("a ").removeprefix("an ")


def _many(part: Part) -> str:
    words = SOUNDS[part.label].one_and_many
    assert words is not None
    return words[1]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
