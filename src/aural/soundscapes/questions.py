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
    "what",
    "presence",
    "count",
    "order",
    "loudness",
    "duration",
    "tempo",
    "comparison",
    "distance",
    "manner",
    "premise",
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


@dataclass(frozen=True)
class Wording:
    """The ways to put each question."""

    presence: tuple[str, ...]
    count: tuple[str, ...]
    what: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    before: tuple[str, ...]
    at_once: tuple[str, ...]
    louder: tuple[str, ...]
    is_louder: tuple[str, ...]
    longest: tuple[str, ...]
    tempo: tuple[str, ...]
    distance: tuple[str, ...]
    more: tuple[str, ...]
    manner: tuple[str, ...]
    premise: tuple[str, ...]


SEEN = Wording(
    presence=(
        "is there {a}",
        "can you hear {a}",
        "does the recording contain {a}",
        "is {a} audible",
        "do you hear {a} in this recording",
        "is {a} part of this sound",
        "is this {a}",
        "does {a} appear in the clip",
        "is there any sign of {a}",
        "do you think there is {a}",
        "tell me if there is {a}",
        "does this sound like {a}",
        "might there be {a} in here",
        "would you call this {a}",
        "have you heard {a}",
        "is {a} present",
        "does anything sound like {a}",
    ),
    count=(
        "how many {many} are there",
        "how many {many} can be heard",
        "how many {many} do you hear",
        "what is the number of {many}",
        "count the {many}",
        "how many {many} does the recording hold",
        "how many {many} in all",
        "say how many {many} there are",
        "can you count the {many}",
        "i want to know the number of {many}",
        "what count of {many} do you get",
        "how many times are there {many}",
    ),
    what=(
        "what can be heard",
        "what is this sound",
        "which sounds are there",
        "what do you hear",
        "name the sounds",
        "what is in this recording",
        "tell me what you hear",
        "list the sounds",
        "which sounds can you make out",
        "what happens here",
        "describe what can be heard",
        "which noises are there",
        "describe the scene",
        "what are you hearing in the clip",
        "what makes these noises",
        "say what this is",
    ),
    first=(
        "which sound comes first",
        "what is heard first",
        "what is the first sound",
        "which sound do you hear first",
        "what comes first",
        "which sound opens the clip",
        "what is heard at the beginning",
        "which one is first",
        "what does the recording begin with",
        "name the sound at the start",
    ),
    last=(
        "which sound comes last",
        "what is heard last",
        "what is the last sound",
        "which sound do you hear last",
        "what comes last",
        "which sound closes the clip",
        "what is heard at the end",
        "which one is last",
        "what does the recording close with",
        "name the sound at the finish",
    ),
    before=(
        "does {a} come before {b}",
        "is {a} heard before {b}",
        "do you hear {a} earlier than {b}",
        "is {a} followed by {b}",
        "does {b} follow {a}",
        "do you hear {a} first and then {b}",
        "is {b} heard later than {a}",
        "does {a} precede {b}",
        "is {b} after {a}",
    ),
    at_once=(
        "do {a} and {b} overlap",
        "are {a} and {b} heard at the same time",
        "do you hear {a} and {b} at once",
        "do {a} and {b} sound together",
        "is {a} heard during {b}",
        "is there {a} while there is {b}",
    ),
    louder=(
        "which sound is louder",
        "what is the loudest sound",
        "which sound is the loudest",
        "what is louder",
        "which one is loudest",
        "which sound has the highest volume",
    ),
    is_louder=(
        "is {a} louder than {b}",
        "does {a} sound louder than {b}",
        "is {b} quieter than {a}",
        "is the volume of {a} higher than that of {b}",
    ),
    longest=(
        "which sound lasts longer",
        "which sound goes on for longer",
        "what is the longest sound",
        "what lasts the longest",
        "which one is longer",
        "what is heard for the longest time",
    ),
    tempo=(
        "are the {many} fast or slow",
        "is the pace of the {many} fast or slow",
        "do the {many} come fast or slow",
        "what is the pace of the {many}",
        "are the {many} rapid or slow",
    ),
    distance=(
        "is {a} near or far away",
        "is {a} close by or in the distance",
        "how far away is {a}",
        "does {a} sound near or far",
        "how close is {a}",
    ),
    more=(
        "are there more {many} than {others}",
        "do you hear more {many} than {others}",
        "are the {many} more than the {others}",
        "do you count more {many} than {others}",
        "are {many} more frequent than {others}",
        "is there a larger number of {many} than of {others}",
    ),
    manner=(
        "how does {a} sound",
        "what is {a} like",
        "what can be said of {a}",
        "tell me about {a}",
        "what is known of {a}",
        "describe {a}",
    ),
    premise=(
        "is {a} loud or soft",
        "does {a} come first or last",
        "how long does {a} last",
        "where is {a}",
        "how loud is {a}",
        "is {a} at the start or at the end",
        "when is {a} heard",
        "is {a} quiet",
        "at which second is {a}",
        "from which side does {a} come",
        "what is {a} doing",
    ),
)
"""What training asks."""

HELD_OUT = Wording(
    presence=("could that be {a}", "would you say there is {a} here", "does {a} occur in it"),
    count=("tell me how many {many} you notice", "how often do {many} occur", "give the number of {many} in the clip"),
    what=("describe what is sounding", "what is going on in this clip", "which noises do you notice"),
    first=("what starts the recording", "which of the sounds is the earliest", "with which sound does it begin"),
    last=("what ends the recording", "which of the sounds is the latest", "with which sound does it end"),
    before=("is {a} earlier than {b}", "does {a} happen ahead of {b}", "does {b} come after {a}"),
    at_once=("do {a} and {b} happen together", "are {a} and {b} simultaneous"),
    louder=("which of them has more volume", "what stands out as loudest"),
    is_louder=("has {a} more volume than {b}", "is {b} softer than {a}"),
    longest=("which of them takes the most time", "what keeps on sounding the longest"),
    tempo=("at what speed do the {many} follow each other", "are the {many} quick or slow"),
    distance=("does {a} seem close or distant", "at what distance is {a}"),
    more=("do {many} outnumber {others}", "is the number of {many} higher than that of {others}"),
    manner=("what kind of sound is {a}", "give details of {a}"),
    premise=("at what volume is {a} heard", "when does {a} begin", "what place does {a} come from"),
)
"""Paraphrases that no training asks: what is understood beyond the words it was learned from."""

SO = ", so "
"""Between a reason and what follows from it. Where two sounds are compared, the answer first says of which it is asked
and what is known of that one: a bare yes or no, which follows from both at once, is hardly ever learned."""
NOT_THERE = "there is no {thing}"
"""Answer to a question about something that is not there."""


def questions(scene: Scene, generator: np.random.Generator, wording: Wording = SEEN) -> tuple[Question, ...]:
    """One question of each kind that the scene allows; none about sounds that :data:`SOUNDS` has no words for."""
    return tuple(_drawn(scene, generator, wording)) if all(part.label in SOUNDS for part in scene.parts) else ()


def _drawn(scene: Scene, generator: np.random.Generator, wording: Wording) -> Iterator[Question]:
    def pick(options: tuple[str, ...]) -> str:
        return options[int(generator.integers(len(options)))]

    def yes() -> bool:
        return bool(generator.random() < 0.5)

    parts, front = scene.parts, scene.foreground
    absent = [label for label in SOUNDS if label not in scene.labels]
    missing = absent[int(generator.integers(len(absent)))]

    yield Question("what", pick(wording.what), " and ".join(thing(part.label) for part in parts) or SILENT[0])
    if parts and yes():
        there = parts[int(generator.integers(len(parts)))]
        yield Question("presence", pick(wording.presence).format(a=thing(there.label)), "yes")
    else:
        yield Question("presence", pick(wording.presence).format(a=thing(missing)), "no")
    words = SOUNDS[missing].one_and_many
    if words and yes():
        premise = pick(wording.count).format(many=words[1])
    else:
        premise = pick((*wording.premise, *wording.manner)).format(a=thing(missing))
    yield Question("premise", premise, NOT_THERE.format(thing=bare(missing)))

    known = [(part, " ".join(attributes(scene, part))) for part in parts]
    known = [(part, said) for part, said in known if said]
    if known:
        part, said = known[int(generator.integers(len(known)))]
        yield Question("manner", pick(wording.manner).format(a=thing(part.label)), said)

    counted = [part for part in front if part.count is not None]
    if counted:
        part = counted[int(generator.integers(len(counted)))]
        assert part.count is not None
        yield Question("count", pick(wording.count).format(many=_many(part)), NUMBERS[part.count])
    if len(counted) == 2 and counted[0].count != counted[1].count:
        a, b = counted if yes() else counted[::-1]
        assert a.count is not None and b.count is not None
        numbers = ", ".join(f"{bare(part.label)} {NUMBERS[n]}" for part, n in ((a, a.count), (b, b.count)))
        asked = pick(wording.more).format(many=_many(a), others=_many(b))
        yield Question("comparison", asked, numbers + SO + _yes(a.count > b.count))

    if len(front) >= 2:
        in_turn = len(scene.order) == len(front) * (len(front) - 1) // 2
        first, last = front[0], front[-1]
        if in_turn:
            if yes():
                asked_first = yes()
                said = thing((first if asked_first else last).label)
                yield Question("order", pick(wording.first if asked_first else wording.last), said)
            else:
                a, b = (first, last) if yes() else (last, first)
                asked = pick(wording.before).format(a=thing(a.label), b=thing(b.label))
                yield Question("order", asked, _reasoned(a, a is first, "first", "later"))
        if len(front) == 2:
            yield from _compared(front[0], front[1], in_turn, wording, pick, yes)

    for part in front:
        if part.tempo is not None:
            yield Question("tempo", pick(wording.tempo).format(many=_many(part)), part.tempo)
            break
    afar = [part for part in front if part.distant]
    near = [part for part in front if not part.distant and part.label != "noise"]
    asked_of = afar if afar else near if generator.random() < 0.25 else []
    if asked_of:
        part = asked_of[int(generator.integers(len(asked_of)))]
        asked = pick(wording.distance).format(a=thing(part.label))
        yield Question("distance", asked, "far away" if part.distant else "near")


def _compared(
    a: Part,
    b: Part,
    in_turn: bool,
    wording: Wording,
    pick: Callable[[tuple[str, ...]], str],
    yes: Callable[[], bool],
) -> Iterator[Question]:
    """Questions about two sounds: which is louder, which lasts longer, are they heard at once."""
    if yes():
        a, b = b, a
    if not in_turn and a.start < b.end and b.start < a.end:
        yield Question("order", pick(wording.at_once).format(a=thing(a.label), b=thing(b.label)), "yes")
    elif yes():
        yield Question("order", pick(wording.at_once).format(a=thing(a.label), b=thing(b.label)), "no")
    if abs(a.level_db - b.level_db) >= CONTRAST_DB:
        louder = a if a.level_db > b.level_db else b
        if yes():
            yield Question("loudness", pick(wording.louder), thing(louder.label))
        else:
            asked = pick(wording.is_louder).format(a=thing(a.label), b=thing(b.label))
            yield Question("loudness", asked, _reasoned(a, a is louder, "louder", "quieter"))
    shorter, longer = sorted((a, b), key=lambda part: part.end - part.start)
    if len(a.times) == len(b.times) == 1 and longer.seconds >= LONGER * shorter.seconds:
        yield Question("duration", pick(wording.longest), thing(longer.label))


def attributes(scene: Scene, part: Part) -> tuple[str, ...]:
    """What there is to say of one sound, in words that are always the same: ``("three", "fast", "loud")``."""
    others = [other for other in scene.foreground if other is not part]
    longest = others and all(part.seconds >= LONGER * other.seconds for other in others)
    words = (
        None if part.count is None else NUMBERS[part.count],
        part.tempo,
        "far away" if part.distant else None,
        {True: "loud", False: "soft", None: None}[scene.louder(part)],
        "long" if longest and not part.background else None,
        "behind" if part.background else None,
    )
    return tuple(word for word in words if word)


def verdict(answer: str) -> str:
    """What an answer comes to, reasons aside: "a barking dog first, so yes" is a yes."""
    return answer.rsplit(SO, 1)[-1]


def thing(label: str) -> str:
    """A sound as a thing that can be there: ``a barking dog``."""
    return SOUNDS[label].noun_phrases[0]


def bare(label: str) -> str:
    """The same without its article: ``barking dog``."""
    return thing(label).removeprefix("a ").removeprefix("an ")


def _many(part: Part) -> str:
    words = SOUNDS[part.label].one_and_many
    assert words is not None
    return words[1]


def _reasoned(asked: Part, truth: bool, where_yes: str, where_no: str) -> str:
    """``a barking dog later, so no``: the sound that it is asked of, whatever the words, and what is known of that."""
    return f"{thing(asked.label)} {where_yes if truth else where_no}{SO}{_yes(truth)}"


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
