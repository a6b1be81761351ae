"""Recordings and what can be asked about them: for training an audio encoder along with the bridge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aural.answering.tasks import Task, asked_of
from aural.answering.waveform import repeated
from aural.audio import read_mono, seconds
from aural.errors import UsageError
from aural.manifest import Clip


@dataclass(frozen=True)
class AskedExample:
    waveform: np.ndarray
    """(N,)"""
    prompt: str
    answer: str


class AskedExamples:
    """``examples(index)`` draws a task by its share, then a clip that can take part in it, then a segment of the clip.

    A short clip is repeated up to the length of the segment.
    """

    def __init__(
        self, clips: Sequence[Clip], tasks: Mapping[Task, float], *, sample_rate: int, n_samples: int, seed: int
    ) -> None:
        """
        Args:
            clips: of the manifest.
            tasks: what is asked, and in which proportion.
            sample_rate: in Hz, of the waveforms.
            n_samples: length of a segment.
            seed: of all draws.

        Raises:
            UsageError: no clip can take part in any task.
        """
        self.sample_rate, self.n_samples, self.seed = sample_rate, n_samples, seed
        of_task = {task: [clip for clip in clips if asked_of(clip, [task])] for task in tasks}
        self.clips = {task: some for task, some in of_task.items() if some}
        if not self.clips:
            raise UsageError(
                "no clip of the manifest has what a task asks for: captions, labels, questions with answers"
            )
        shares = np.array([tasks[task] for task in self.clips])
        self.shares = shares / shares.sum()

    def __call__(self, index: int) -> AskedExample:
        generator = np.random.default_rng([self.seed, index])
        task = list(self.clips)[int(generator.choice(len(self.clips), p=self.shares))]
        some = self.clips[task]
        clip = some[int(generator.integers(len(some)))]
        prompt, answer = asked_of(clip, [task], int(generator.integers(1 << 16)))[task.name]
        wanted = self.n_samples / self.sample_rate
        own = clip.duration if clip.duration is not None else seconds(clip.audio) - clip.start
        start = clip.start + float(generator.uniform(0, max(0.0, own - wanted)))
        waveform = read_mono(clip.audio, self.sample_rate, start=start, duration=min(own, wanted))
        return AskedExample(repeated(waveform, self.n_samples), prompt, answer)


@dataclass(frozen=True)
class AskedCollate:
    """Examples -> what an audio language model learns from."""

    prompts: Callable[[Sequence[str]], torch.Tensor]
    targets: Callable[[Sequence[str]], torch.Tensor]

    def __call__(self, examples: Sequence[AskedExample]) -> dict[str, Any]:
        """``waveform`` (B, N), ``prompts`` and ``targets``."""
        return {
            "waveform": torch.from_numpy(np.stack([example.waveform for example in examples])),
            "prompts": self.prompts([example.prompt for example in examples]),
            "targets": self.targets([example.answer for example in examples]),
        }
