"""All that can be asked of a scene, with the answers, by task and by kind of question."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from aural.answering.tasks import Task, asked_of, known, placeholders
from aural.manifest import Clip
from aural.sound_phrases import SOUNDS
from aural.soundscapes.facts import FactSheet, fact_sheet, facts
from aural.soundscapes.imagined import imagined
from aural.soundscapes.questions import questions
from aural.soundscapes.scene import Scene
from aural.soundscapes.wording import captions

QUESTION_ROUNDS = 3
"""How often a scene is asked through: each time one question of each kind, about another of its sounds."""

OF_SCENES = ({"caption", "labels", "metadata"}, {"question", "answer"})
"""What templates can say of a soundscape: nothing else, and no question beside the rest."""

Asked = tuple[str, str]
"""A prompt and its answer."""
AskedOf = dict[str, dict[str, tuple[Asked, ...]]]
"""By the name of a task, and by kind of question; what is no question is a kind of its own, of the name of the task."""


@dataclass(frozen=True)
class Told:
    """An answer, what it answers, and what it can be known from."""

    facts: FactSheet
    prompt: str
    answer: str
    kind: str
    """Of what is asked."""


def all_asked(
    scene: Scene | None,
    labels: Sequence[str],
    said: Sequence[str],
    tasks: Sequence[Task],
    generator: np.random.Generator,
    about: Mapping[str, str] | None = None,
) -> AskedOf:
    """Every prompt that a scene has an answer to.

    Args:
        scene: the truth; None where only labels and captions are known.
        labels: of what is heard.
        said: captions that are true of it.
        tasks: the table; what is known of a scene as a whole is its ``{metadata}``.
        generator: of the questions.
        about: what else is known of it, by the names that templates have for it.
    """
    found: dict[str, dict[str, dict[Asked, None]]] = {}
    about = {**(about or {}), **({"metadata": facts(scene)} if scene is not None and facts(scene) else {})}
    whole = Clip(Path(), captions=tuple(said), labels=tuple(labels), about=about)
    for turn in range(QUESTION_ROUNDS):
        asked = () if scene is None else questions(scene, generator)
        of_questions = ((Clip(Path(), question=one.question, answer=one.answer), 0, one.kind) for one in asked)
        for clip, way, kind in ((whole, turn, ""), *of_questions):
            for name, pair in asked_of(clip, tasks, way).items():
                found.setdefault(name, {}).setdefault(kind or name, {})[pair] = None
    return {name: {kind: tuple(pairs) for kind, pairs in kinds.items()} for name, kinds in found.items()}


def can_be_asked(task: Task, clips: Iterable[Clip]) -> bool:
    """Whether :func:`all_asked` can have an answer to a task, of soundscapes or of recordings with captions."""
    names = {*placeholders(task.prompt), *placeholders(task.answer)}

    def of(clip: Clip) -> set[str]:
        has_facts = clip.labels and all(label in SOUNDS for label in clip.labels)
        return {*known(replace(clip, question=None)), *(["metadata"] if has_facts else [])}

    return any(names <= some for some in chain(OF_SCENES, (of(clip) for clip in clips if clip.captions)))


def told(facts: FactSheet, asked: AskedOf) -> Iterator[Told]:
    """All that is asked of a scene, with the facts of it."""
    for kinds in asked.values():
        for kind, pairs in kinds.items():
            for prompt, answer in pairs:
                yield Told(facts, prompt, answer, kind)


def told_of_imagined(n: int, tasks: Sequence[Task], seed: int) -> Iterator[Told]:
    """All that can be asked of ``n`` scenes without sound (:mod:`aural.soundscapes.imagined`)."""
    for index in range(n):
        generator = np.random.default_rng([seed, 9, index])
        scene = imagined(generator)
        said = captions(scene, QUESTION_ROUNDS, generator)
        sheet = fact_sheet(scene)
        assert sheet is not None
        yield from told(sheet, all_asked(scene, scene.labels, said, tasks, generator))
