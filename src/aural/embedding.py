"""Sounds and sentences as vectors of one space: what is alike in meaning lies close together.

A recording longer than ten seconds is covered by windows of equal length, whose embeddings are averaged.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.audio import SHORTEST_WINDOW, Sound, seconds, windows
from aural.checkpoint import find_model, load_config, load_into, load_weights, uninitialised
from aural.device import choose_device
from aural.features import SAMPLE_RATE
from aural.networks.listener import SYSTEM, Heard, Listener, ListenerConfig
from aural.networks.sentence_encoder import SentenceEncoder, load_sentence_encoder
from aural.sound_source import rewindable

LONGEST_WINDOW = 10.0
"""Seconds heard at once."""


@dataclass(frozen=True)
class ListeningModel:
    """A listener, and the sentence encoder whose space it shares."""

    name: str
    listener: Listener
    device: torch.device
    offline: bool = False

    @cached_property
    def sentence_encoder(self) -> SentenceEncoder:
        """Loaded when it is first needed."""
        return load_sentence_encoder(self.listener.config.text_encoder, offline=self.offline)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """(texts, K) of unit length."""
        return F.normalize(self.sentence_encoder.encode(list(texts)), dim=-1)

    @torch.inference_mode()
    def hear(self, sound: Sound) -> Iterator[Heard]:
        """What is heard in each window of a sound (one where it is short), batches of one."""
        sound = rewindable(sound)  # its length comes first
        length = max(seconds(sound), SHORTEST_WINDOW)
        n_windows = max(1, -(-length // LONGEST_WINDOW))
        for window in windows(sound, SAMPLE_RATE, length / n_windows):
            yield self.listener(torch.from_numpy(window.waveform)[None].to(self.device))

    @torch.inference_mode()
    def embed_audio(self, sound: Sound) -> Tensor:
        """(K,) of unit length."""
        heard = torch.cat([self.listener.embed(one) for one in self.hear(sound)])
        return F.normalize(heard.mean(0), dim=0).cpu()


def load(model: str | os.PathLike[str] | None = None, *, device: str = "auto", offline: bool = False) -> ListeningModel:
    """A listener: the one in the box, a folder, or a hub id.

    Raises:
        CheckpointError: the folder does not hold a listener.
        UsageError: there is no such model, or no such device.
    """
    where = choose_device(device)
    folder = find_model(model, SYSTEM, offline=offline)
    config = load_config(folder, ListenerConfig, SYSTEM)
    with uninitialised():
        listener = Listener(config)
    load_into(listener, load_weights(folder))
    return ListeningModel(str(model or "default"), listener.to(where).eval(), where, offline)


def embed_audio(sounds: Any, *, model: "ListeningModel | str | os.PathLike[str] | None" = None) -> Tensor:
    """Sounds as vectors that are close to those of the words for them (cosine similarity, by their product).

    Args:
        sounds: a path, a binary file object, or an array or tensor with its sample rate; or a list of these.
        model: a loaded model, or what :func:`load` takes.

    Returns:
        (K,) for one sound, (sounds, K) for a list; of unit length.

    Raises:
        AuralError: a sound cannot be read.
    """
    loaded = model if isinstance(model, ListeningModel) else load(model)
    if isinstance(sounds, list):
        return torch.stack([loaded.embed_audio(sound) for sound in sounds])
    return loaded.embed_audio(sounds)


def embed_text(texts: str | list[str], *, model: "ListeningModel | str | os.PathLike[str] | None" = None) -> Tensor:
    """Sentences or words as vectors of the same space.

    Args:
        texts: one, or a list.
        model: a loaded model, or what :func:`load` takes.

    Returns:
        (K,) for one text, (texts, K) for a list; of unit length.
    """
    loaded = model if isinstance(model, ListeningModel) else load(model)
    return loaded.embed_text([texts])[0] if isinstance(texts, str) else loaded.embed_text(texts)
