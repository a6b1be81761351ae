"""Sentences that are true of a scene: many that say the same, put together from the words for its sounds.

How a sentence says it: sounds at once are joined by "while", "as", "and", "with"; sounds in turn by "then", "followed
by", "before", "after". The number of a counted sound is always said ("once", "three times", "two beeps"). Loud and
soft, far away, slow and quick are said where the difference is clear, and not every time. The form is that of
:mod:`aural.sound_phrases`: lower case, no punctuation. :mod:`aural.soundscapes.reading` reads it back.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from aural.sound_phrases import SILENT, SOUNDS
from aural.soundscapes.scene import Part, Scene

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

SAID = 0.5
"""Share of sentences that mention loudness, distance or tempo where there is something to mention."""


def captions(scene: Scene, n: int, generator: np.random.Generator) -> tuple[str, ...]:
    """Up to ``n`` different sentences about a scene; fewer where so many are not found."""
    found: dict[str, None] = {}
    for _ in range(4 * n):
        found[caption(scene, generator)] = None
        if len(found) == n:
            break
    return tuple(found)


def caption(scene: Scene, generator: np.random.Generator) -> str:
    """One sentence about a scene, drawn from all there are."""
    pick = partial(_pick, generator=generator)
    if not scene.parts:
        return pick(SILENT)
    front, behind = scene.foreground, [part for part in scene.parts if part.background]
    say = _Clauses(scene, generator)
    if not front:
        return _alone(say, behind[0], pick)
    if not behind:
        return _alone(say, front[0], pick) if len(front) == 1 else _together(say, scene, front, pick)
    if len(front) > 1:
        first, second = map(say.finite, front)
        return f"{say.finite(behind[0])} while {first} {pick(('and then', 'then', 'before'))} {second}"
    form = int(generator.integers(4))
    if form == 0:
        return f"{say.finite(behind[0])} while {say.finite(front[0])}"
    if form == 1:
        return f"{say.finite(front[0])} with {say.noun_phrase(behind[0])} in the background"
    if form == 2:
        return f"{say.finite(front[0])} {pick(('while', 'as'))} {say.finite(behind[0])}"
    return f"{say.noun_phrase(front[0])} with {say.noun_phrase(behind[0])} in the background"


def brief(scene: Scene, generator: np.random.Generator) -> str:
    """What is heard and in which order, without number, level or place: few sentences, so that they come back."""
    pick = partial(_pick, generator=generator)
    if not scene.parts:
        return SILENT[0]
    said = [SOUNDS[part.label].finite[0] for part in scene.parts]
    if len(said) == 1:
        sound = SOUNDS[scene.parts[0].label]
        return pick((sound.finite[0], sound.participle[0], sound.noun_phrases[0]))
    return (" and then " if len(scene.order) == len(said) * (len(said) - 1) // 2 else " and ").join(said)


def _alone(say: "_Clauses", part: Part, pick: Callable[[tuple[str, ...]], str]) -> str:
    match pick(("finite", "finite", "participle", "the sound of", "can be heard")):
        case "finite":
            return say.finite(part)
        case "participle":
            return say.participle(part)
        case "the sound of":
            return f"the sound of {say.participle(part)}"
        case _:
            return f"{say.noun_phrase(part)} can be heard"


def _together(say: "_Clauses", scene: Scene, parts: tuple[Part, ...], pick: Callable[[tuple[str, ...]], str]) -> str:
    """Two or three sounds, in turn where they follow one another and else at once."""
    if len(scene.order) < len(parts) * (len(parts) - 1) // 2:
        first, second = parts if pick(("as they come", "turned")) == "as they come" else parts[::-1]
        match pick(("finite", "finite", "participle", "noun phrases")):
            case "finite":
                return f"{say.finite(first)} {pick(('while', 'as', 'and'))} {say.finite(second)}"
            case "participle":
                return f"{say.participle(first)} while {say.finite(second)}"
            case _:
                return f"{say.noun_phrase(first)} {pick(('and', 'with'))} {say.noun_phrase(second)}"
    if len(parts) == 3:
        if pick(("finite", "noun phrases")) == "finite":
            one, two, three = map(say.finite, parts)
            return f"{one} then {two} and {pick(('then', 'finally'))} {three}"
        one, two, three = map(say.noun_phrase, parts)
        return f"{one} followed by {two} and then {three}"
    first, second = parts
    # people name sounds as they come, and only now and then the later one first
    match pick((*("and then", "then", "followed by", "before", "participle") * 2, "after")):
        case "followed by":
            return f"{say.noun_phrase(first)} followed by {say.noun_phrase(second)}"
        case "after":
            return f"{say.finite(second)} after {say.finite(first)}"
        case "participle":
            return f"{say.participle(first)} followed by {say.participle(second)}"
        case connective:
            return f"{say.finite(first)} {connective} {say.finite(second)}"


class _Clauses:
    """The ways to say one part of a scene."""

    def __init__(self, scene: Scene, generator: np.random.Generator) -> None:
        self.scene = scene
        self.generator = generator

    def finite(self, part: Part) -> str:
        """``a dog barks twice in the distance``"""
        sound = SOUNDS[part.label]
        if part.count is None:
            return _pick(sound.finite, self.generator) + self._manner(part)
        assert sound.one_and_many is not None
        if part.count > 1 and self.generator.random() < 0.2:
            return f"{NUMBERS[part.count]} {sound.one_and_many[1]} can be heard" + self._manner(part, adverbs=False)
        return f"{sound.finite[0]} {times(part.count)}" + self._manner(part)

    def participle(self, part: Part) -> str:
        """``a dog barking twice in the distance``"""
        sound = SOUNDS[part.label]
        if part.count is None:
            return _pick(sound.participle, self.generator) + self._manner(part)
        return f"{sound.participle[0]} {times(part.count)}" + self._manner(part)

    def noun_phrase(self, part: Part) -> str:
        """``two barks of a dog in the distance``"""
        sound = SOUNDS[part.label]
        manner = self._manner(part, adverbs=False)
        if part.count is None:
            return _pick(sound.noun_phrases, self.generator) + manner
        assert sound.one_and_many is not None
        one, many = sound.one_and_many
        if part.count == 1:
            return f"{_pick(('a single', 'one'), self.generator)} {one}{manner}"
        return f"{NUMBERS[part.count]} {many}{manner}"

    def _manner(self, part: Part, *, adverbs: bool = True) -> str:
        """How and where, or nothing."""
        said = []
        if adverbs and part.tempo is not None and self.generator.random() < SAID:
            said.append("in quick succession" if part.tempo == "fast" else "at a slow pace")
        louder = self.scene.louder(part)
        if adverbs and not said and louder is not None and self.generator.random() < SAID:
            said.append("loudly" if louder else "softly")
        if part.distant and self.generator.random() < SAID:
            said.append(_pick(("in the distance", "far away"), self.generator))
        return "".join(f" {words}" for words in said)


def times(count: int) -> str:
    """ "once", "twice", "three times" ..."""
    return {1: "once", 2: "twice"}.get(count) or f"{NUMBERS[count]} times"


def _pick(options: tuple[str, ...], generator: np.random.Generator) -> str:
    return options[int(generator.integers(len(options)))]
