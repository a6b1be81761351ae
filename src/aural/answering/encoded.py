"""Scenes as the frozen encoder hears them, with what can be asked about them: computed once, asked again and again."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from aural.answering.language import Told
from aural.answering.tasks import Task, asked_of
from aural.manifest import Clip
from aural.soundscapes.examples import Example, Examples
from aural.soundscapes.facts import facts
from aural.soundscapes.questions import questions

QUESTION_ROUNDS = 3
"""How often a scene is asked through: each time one question of each kind, about another of its sounds."""

Asked = tuple[str, str]
"""A prompt and its answer."""


@dataclass(frozen=True)
class EncodedScene:
    rows: Tensor
    """(R, A) float16, of the audio encoder."""
    asked: tuple[Asked, ...]
    """Those of this turn."""


class EncodedScenes:
    """A pool of scenes; :meth:`draw` goes through it, and each turn asks other things of each scene."""

    def __init__(
        self,
        examples: Examples,
        encode: Callable[[Tensor], Tensor],
        tasks: Sequence[Task],
        *,
        n: int,
        device: torch.device,
        bfloat16: bool,
        progress: bool,
    ) -> None:
        """Encode examples 0 .. n-1; ``n`` is rounded up to whole groups of one length.

        Args:
            examples: soundscapes and recordings.
            encode: waveforms (B, N) -> rows (B, R, A).
            tasks: what can be asked.
            n: size of the pool.
            device: where to encode.
            bfloat16: encode under autocast.
            progress: show a progress bar.
        """
        self.rows: list[Tensor] = []
        self.facts: list[str] = []
        self.asked: list[dict[str, dict[str, tuple[Asked, ...]]]] = []
        """Of each scene, by task and kind of question."""
        group = examples.settings.soundscapes.group
        for first in track(range(0, -(-n // group) * group, group), "encoding scenes", disable=not progress):
            some = [examples.with_captions(index, QUESTION_ROUNDS) for index in range(first, first + group)]
            waveform = torch.from_numpy(np.stack([example.waveform for example, _ in some])).to(device)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                rows = encode(waveform)
            self.rows += list(rows.half().cpu())
            for index, (example, said) in enumerate(some, start=first):
                generator = np.random.default_rng([examples.seed, 5, index])
                self.facts.append("" if example.scene is None else facts(example.scene))
                self.asked.append(all_asked(example, said, tasks, generator))
        often = Counter(kind for asked in self.asked for kinds in asked.values() for kind in kinds)
        # what few scenes allow to ask is asked of these the more often
        self.weights = {kind: n**-0.5 for kind, n in often.items()}

    def draw(self, index: int, *, shares: Mapping[str, float], n_asked: int, seed: int) -> EncodedScene:
        """The scene of an index with ``n_asked`` prompts, of the tasks named in ``shares`` in their proportion."""
        turn, place = divmod(index, len(self.rows))
        # Scenes of a group are alike in length only; any order will do, another one each turn.
        scene = int(np.random.default_rng([seed, 6, turn]).permutation(len(self.rows))[place])
        generator = np.random.default_rng([seed, 7, index])
        asked = {name: kinds for name, kinds in self.asked[scene].items() if name in shares}
        drawn = []
        for _ in range(n_asked):
            kinds = asked[_drawn({name: shares[name] for name in asked}, generator)]
            pairs = kinds[_drawn({kind: self.weights[kind] for kind in kinds}, generator)]
            drawn.append(pairs[int(generator.integers(len(pairs)))])
        return EncodedScene(self.rows[scene], tuple(drawn))

    def texts(self) -> list[Told]:
        """All that is said and asked about the pool."""
        return [
            Told(known, prompt, answer, kind)
            for known, asked in zip(self.facts, self.asked, strict=True)
            for kinds in asked.values()
            for kind, some in kinds.items()
            for prompt, answer in some
        ]


def _drawn(weights: Mapping[str, float], generator: np.random.Generator) -> str:
    """One of the names, as often as its weight says."""
    names, values = list(weights), np.array(list(weights.values()))
    return names[int(generator.choice(len(names), p=values / values.sum()))]


def all_asked(
    example: Example, captions: Sequence[str], tasks: Sequence[Task], generator: np.random.Generator
) -> dict[str, dict[str, tuple[Asked, ...]]]:
    """Every prompt that an example has an answer to, by the name of its task and the kind of question.

    What is no question is a kind of its own, of the name of the task.
    """
    found: dict[str, dict[str, dict[Asked, None]]] = {}
    known = Clip(Path(), captions=tuple(captions), labels=example.labels)
    for turn in range(QUESTION_ROUNDS):
        asked = () if example.scene is None else questions(example.scene, generator)
        of_questions = ((Clip(Path(), question=one.question, answer=one.answer), 0, one.kind) for one in asked)
        for clip, way, kind in ((known, turn, ""), *of_questions):
            for name, pair in asked_of(clip, tasks, way).items():
                found.setdefault(name, {}).setdefault(kind or name, {})[pair] = None
    return {name: {kind: tuple(pairs) for kind, pairs in kinds.items()} for name, kinds in found.items()}


@dataclass(frozen=True)
class EncodedCollate:
    """Encoded scenes -> what an audio language model learns from."""

    prompts: Callable[[Sequence[str]], Tensor]
    targets: Callable[[Sequence[str]], Tensor]

    def __call__(self, scenes: Sequence[EncodedScene]) -> dict[str, Any]:
        """``rows`` (S, R, A) of the scenes; ``prompts`` and ``targets`` of all that is asked, scene after scene."""
        asked = [pair for scene in scenes for pair in scene.asked]
        return {
            "rows": torch.stack([scene.rows for scene in scenes]).float(),
            "prompts": self.prompts([prompt for prompt, _ in asked]),
            "targets": self.targets([answer for _, answer in asked]),
        }
