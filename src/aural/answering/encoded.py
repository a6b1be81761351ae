"""Scenes as the frozen encoder hears them, with what can be asked about them: computed once, asked again and again."""

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
        self.asked: list[dict[str, tuple[Asked, ...]]] = []
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

    def draw(self, index: int, *, shares: Mapping[str, float], n_asked: int, seed: int) -> EncodedScene:
        """The scene of an index with ``n_asked`` prompts, of the tasks named in ``shares`` in their proportion."""
        turn, place = divmod(index, len(self.rows))
        # Scenes of a group are alike in length only; any order will do, another one each turn.
        scene = int(np.random.default_rng([seed, 6, turn]).permutation(len(self.rows))[place])
        generator = np.random.default_rng([seed, 7, index])
        asked = {name: pairs for name, pairs in self.asked[scene].items() if name in shares}
        weights = np.array([shares[name] for name in asked])
        drawn = generator.choice(len(weights), size=n_asked, p=weights / weights.sum())
        names = list(asked)
        picked = (asked[names[task]] for task in drawn)
        return EncodedScene(self.rows[scene], tuple(pairs[int(generator.integers(len(pairs)))] for pairs in picked))

    def texts(self) -> list[Told]:
        """All that is said and asked about the pool."""
        return [
            Told(known, prompt, answer)
            for known, asked in zip(self.facts, self.asked, strict=True)
            for some in asked.values()
            for prompt, answer in some
        ]


def all_asked(
    example: Example, captions: Sequence[str], tasks: Sequence[Task], generator: np.random.Generator
) -> dict[str, tuple[Asked, ...]]:
    """Every prompt that an example has an answer to, by the name of its task."""
    found: dict[str, dict[Asked, None]] = {}
    known = Clip(Path(), captions=tuple(captions), labels=example.labels)
    for turn in range(QUESTION_ROUNDS):
        asked = () if example.scene is None else questions(example.scene, generator)
        facts = [(known, turn), *((Clip(Path(), question=one.question, answer=one.answer), 0) for one in asked)]
        for clip, way in facts:
            for name, pair in asked_of(clip, tasks, way).items():
                found.setdefault(name, {})[pair] = None
    return {name: tuple(pairs) for name, pairs in found.items()}


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
