"""A listener as the judge of sounds that were made: does it hear in them what was meant?

It had no part in what it judges, and is best trained on real recordings alone (``aural train listening --recipe
judge``), without those that it judges.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aural.audio import read_mono
from aural.checkpoint import find_model, load_config, load_into, load_weights
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.networks.listener import SYSTEM, Listener, ListenerConfig
from aural.networks.sentence_encoder import RememberedSentences, load_sentence_encoder
from aural.sound_phrases import SOUNDS


@dataclass(frozen=True)
class Judge:
    """A listener, the labels it chooses among, and the sentence encoder whose space it shares."""

    name: str
    listener: Listener
    labels: tuple[str, ...]
    sentences: RememberedSentences

    @torch.inference_mode()
    def hear(self, waveform: np.ndarray, sample_rate: int) -> tuple[Tensor, Tensor]:
        """Logits (labels,) of a sound (time,), and its embedding (K,) of unit length."""
        sound = torch.from_numpy(read_mono((waveform, sample_rate), SAMPLE_RATE))
        heard = self.listener(sound[None])
        columns = [self.listener.config.labels.index(label) for label in self.labels]
        return self.listener.classify(heard)[0, columns], self.listener.embed(heard)[0]

    def best(self, logits: Tensor, n: int) -> frozenset[str]:
        """The n most likely labels."""
        return frozenset(self.labels[place] for place in logits.topk(n).indices.tolist())


def load_judge(folder: str | os.PathLike[str], clips: Sequence[Clip]) -> tuple[Judge, list[Clip]]:
    """The judge, and those recordings of one label that it knows and there are words for.

    Raises:
        UsageError: there is no such listener, or it knows fewer than two of the labels.
        CheckpointError: the folder's config or weights do not fit.
    """
    path = find_model(folder, SYSTEM)
    config = load_config(path, ListenerConfig, SYSTEM)
    listener = Listener(config)
    load_into(listener, load_weights(path))
    alone = [clip for clip in clips if len(clip.labels) == 1]
    labels = tuple(sorted({clip.labels[0] for clip in alone} & set(config.labels) & set(SOUNDS)))
    if len(labels) < 2:
        raise UsageError(f"the judge {folder} knows {len(labels)} of the labels of the recordings: there must be two")
    sentences = RememberedSentences(load_sentence_encoder(config.text_encoder))
    return Judge(str(folder), listener.eval(), labels, sentences), [c for c in alone if c.labels[0] in labels]
