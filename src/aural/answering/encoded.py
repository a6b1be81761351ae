"""Scenes as the frozen encoder hears them, with what can be asked about them: computed once, asked again and again."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from aural.answering.asked import QUESTION_ROUNDS, Asked, AskedOf, Told, all_asked, told
from aural.answering.fact_rows import FactRows
from aural.answering.tasks import Task
from aural.errors import UsageError
from aural.features import N_MELS
from aural.soundscapes.examples import Examples
from aural.soundscapes.facts import FactSheet, fact_sheet, sheet_of_labels
from aural.spec_augment import frequency_response
from aural.turns import order


@dataclass(frozen=True)
class EncodedScene:
    rows: Tensor
    """(R, A) float16, of the audio encoder."""
    asked: tuple[Asked, ...]
    """Those of this turn."""


@dataclass(frozen=True)
class KnownScene:
    rows: Tensor
    """(R, A) float16, of the audio encoder."""
    facts: FactSheet


class EncodedScenes:
    """A pool of scenes; :meth:`draw` goes through it, and each turn asks other things of each scene.

    One pool after the other can be held: the next has other scenes, and so nothing that is known by heart.
    """

    def __init__(
        self,
        examples: Examples,
        encode: Callable[..., Tensor],
        tasks: Sequence[Task],
        *,
        n: int,
        response_db: float,
        device: torch.device,
        bfloat16: bool,
        progress: bool,
    ) -> None:
        """Nothing is encoded before a pool is asked for by :meth:`hold`.

        Args:
            examples: soundscapes and recordings.
            encode: waveforms (B, N) and ``response`` (B, 1, mels) -> rows (B, R, A).
            tasks: what can be asked.
            n: scenes of a pool, rounded up to whole groups of one length.
            response_db: each is heard as by another microphone (:func:`aural.spec_augment.frequency_response`).
            device: where to encode.
            bfloat16: encode under autocast.
            progress: show a progress bar.
        """
        self.examples = examples
        self.encode = encode
        self.tasks = tasks
        group = examples.settings.soundscapes.group
        self.n = -(-n // group) * group
        self.response_db = response_db
        self.device = device
        self.bfloat16 = bfloat16
        self.progress = progress
        self.held: int | None = None

    def hold(self, number: int) -> "EncodedScenes":
        """Encode the scenes of a pool, from 0 on, unless it is the one at hand."""
        if number != self.held:
            self.held = None
            self.rows, self.facts, self.asked = self._encoded(number * self.n, self.n)
            often = Counter(kind for asked in self.asked for kinds in asked.values() for kind in kinds)
            # what few scenes allow to ask is asked of these the more often
            self.weights = {kind: n**-0.5 for kind, n in often.items()}
            self.held = number
        return self

    def first_rows(self, n: int) -> Tensor:
        """Rows (n, R, A) of the first scenes of pool 0, or of all of them if they are fewer."""
        rows = self.rows if self.held == 0 else self._encoded(0, min(n, self.n))[0]
        return torch.stack(rows[:n]).float()

    def _encoded(self, first: int, n: int) -> tuple[list[Tensor], list[FactSheet | None], list[AskedOf]]:
        """Rows, facts and what can be asked of the examples from ``first`` on, in whole groups."""
        all_rows: list[Tensor] = []
        facts: list[FactSheet | None] = []
        asked: list[AskedOf] = []
        group = self.examples.settings.soundscapes.group
        for start in track(range(first, first + n, group), "encoding scenes", disable=not self.progress):
            some = [self.examples.with_captions(index, QUESTION_ROUNDS) for index in range(start, start + group)]
            waveform = torch.from_numpy(np.stack([example.waveform for example, _ in some])).to(self.device)
            drawn = torch.Generator().manual_seed(self.examples.seed + start)
            response = frequency_response(len(some), N_MELS, self.response_db, drawn)
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                rows = self.encode(waveform, response=response)
            all_rows += list(rows.half().cpu())
            for index, (example, said) in enumerate(some, start=start):
                generator = np.random.default_rng([self.examples.seed, 5, index])
                known = sheet_of_labels(example.labels) if example.scene is None else fact_sheet(example.scene)
                facts.append(known)
                asked.append(all_asked(example.scene, example.labels, said, self.tasks, generator, example.about))
        return all_rows, facts, asked

    def _place(self, index: int, seed: int) -> int:
        """Scenes of a group are alike in length only; any order will do, another one each turn."""
        turn, place = divmod(index, len(self.rows))
        return int(order(len(self.rows), seed=seed, stream=6, turn=turn)[place])

    def draw_facts(self, index: int, *, seed: int) -> KnownScene:
        """The scene of an index, or else the next of which something is known, with its facts."""
        scene = self._place(index, seed)
        for place in chain(range(scene, len(self.rows)), range(scene)):
            known = self.facts[place]
            if known is not None:
                return KnownScene(self.rows[place], known)
        raise UsageError("nothing is known of any scene: the manifest needs clips with one label")

    def draw(self, index: int, *, shares: Mapping[str, float], n_asked: int, seed: int) -> EncodedScene:
        """The scene of an index with ``n_asked`` prompts, of the tasks named in ``shares`` in their proportion."""
        scene = self._place(index, seed)
        generator = np.random.default_rng([seed, 7, index])
        asked = {name: kinds for name, kinds in self.asked[scene].items() if name in shares}
        drawn = []
        for _ in range(n_asked):
            kinds = asked[_drawn({name: shares[name] for name in asked}, generator)]
            pairs = kinds[_drawn({kind: self.weights[kind] for kind in kinds}, generator)]
            drawn.append(pairs[int(generator.integers(len(pairs)))])
        return EncodedScene(self.rows[scene], tuple(drawn))

    def texts(self) -> list[Told]:
        """All that is said and asked about the scenes of the pool; of its recordings too little is known."""
        known = zip(self.facts, self.asked, strict=True)
        return [one for facts, asked in known if facts and all(facts.known) for one in told(facts, asked)]


def _drawn(weights: Mapping[str, float], generator: np.random.Generator) -> str:
    """One of the names, as often as its weight says."""
    names, values = list(weights), np.array(list(weights.values()))
    return names[int(generator.choice(len(names), p=values / values.sum()))]


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


@dataclass(frozen=True)
class FactsCollate:
    """Encoded scenes with their facts -> what an audio mapper learns the facts from."""

    read: FactRows

    def __call__(self, scenes: Sequence[KnownScene]) -> dict[str, Any]:
        """``rows`` (S, R, A); ``facts`` (S, P, W) and which of them are ``known`` (S, P)."""
        sheets = [scene.facts for scene in scenes]
        return {
            "rows": torch.stack([scene.rows for scene in scenes]).float(),
            "facts": self.read(sheets),
            "known": self.read.known(sheets),
        }
