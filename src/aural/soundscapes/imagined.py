"""Scenes that nobody renders: drawn at random, for learning what words say of them.

Their truth has the form of a soundscape's, so that captions, facts and questions are made of them in the same way.
"""

from collections.abc import Collection

import numpy as np

from aural.sound_phrases import SOUNDS
from aural.soundscapes.compose import CONTINUOUS, SHORTEST_GAP
from aural.soundscapes.scene import Part, Scene

KINDS = {"alone": 0.3, "in turn": 0.37, "at once": 0.12, "behind": 0.18, "silence": 0.03}
"""Kinds of scenes, and the share of each; "behind" has something in the background besides."""
COUNTED = 0.8
"""Share of sounds with a number, of those that can be counted."""
MOST_EVENTS = 4
"""Highest number of occurrences of a counted sound."""
DISTANT = 0.15
"""Share of sounds that are far away."""
CONTRAST = 0.4
"""Share of scenes of several sounds where one is clearly louder; the others lie within 4 dB."""
PACED = 0.3
"""Share of counted sounds that come at a pace."""


def imagined(generator: np.random.Generator) -> Scene:
    """A scene of sounds of :data:`aural.sound_phrases.SOUNDS`, all equally likely."""
    seconds = round(float(generator.uniform(4, 10)), 1)
    kind = list(KINDS)[int(generator.choice(len(KINDS), p=list(KINDS.values())))]
    if kind == "silence":
        return Scene(seconds, ())
    number = {"alone": 1, "at once": 2}.get(kind) or int(generator.integers(1, 3)) + (kind == "in turn")
    contrast_db = float(generator.uniform(9, 14)) if generator.random() < CONTRAST else 0.0
    parts: list[Part] = []
    if kind == "behind":
        label = _label(sorted(CONTINUOUS & set(SOUNDS)), (), generator)
        parts.append(Part(label, ((0.0, seconds),), level_db=float(generator.uniform(-12, -5)), background=True))
    stretches = [(0.0, seconds)] * number
    if kind != "at once":
        edges = np.cumsum([0.0, *generator.uniform(0.5, 1.5, number)])
        edges *= seconds / edges[-1]
        stretches = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    for place, (first, last) in enumerate(stretches):
        level_db = float(generator.uniform(-2, 2))
        if place == 1:
            level_db += contrast_db * (1 if generator.random() < 0.5 else -1)
        label = _label(sorted(SOUNDS), [part.label for part in parts], generator)
        parts.append(_part(label, first, last - SHORTEST_GAP, level_db, generator))
    return Scene(seconds, tuple(sorted(parts, key=lambda part: (not part.background, part.start))))


def _label(labels: list[str], but: Collection[str], generator: np.random.Generator) -> str:
    free = [label for label in labels if label not in but]
    return free[int(generator.integers(len(free)))]


def _part(label: str, first: float, last: float, level_db: float, generator: np.random.Generator) -> Part:
    """A sound somewhere between two times, as one stretch or a number of events."""
    distant = label != "noise" and bool(generator.random() < DISTANT)
    start = float(generator.uniform(first, (first + last) / 2))
    end = float(generator.uniform(max(start + 0.3, (first + last) / 2), max(start + 0.4, last)))
    if SOUNDS[label].one_and_many is None or generator.random() >= COUNTED:
        return Part(label, ((start, end),), level_db=level_db, distant=distant)
    count = int(generator.integers(1, MOST_EVENTS + 1))
    step = (end - start) / count
    times = tuple((start + place * step, start + (place + 0.5) * step) for place in range(count))
    bpm = float(50 * 4.8 ** generator.random()) if count == MOST_EVENTS and generator.random() < PACED else None
    return Part(label, times, True, level_db, distant, bpm)
