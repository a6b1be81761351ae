"""Training examples of the captioner: recordings cut, varied and mixed, with a true caption each.

Example ``index`` is a function of the seed and the index alone, so that every process, worker and resumed run sees the
same example under the same number.

Shapes: B clips, N samples at 16 kHz, L caption tokens.
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from aural.audio import read_mono
from aural.captioning.caption_mixup import Waveform, join_captions, mix
from aural.captioning.mixup_captions import Mixup
from aural.captioning.model import IGNORED, SAMPLE_RATE
from aural.manifest import Clip
from aural.soundscapes.acoustics import change_speed, low_pass

RMS = 0.05
"""Root mean square that every clip is brought to before its random gain; full scale is 1."""

CACHED_CLIPS = 4096
"""Decoded recordings kept in memory, the least recently used go first (10 s take 0.6 MB)."""


@dataclass(frozen=True)
class DataSettings:
    """How recordings become examples."""

    seconds: float = 5.0
    """Length of an example; longer recordings are cut at random, shorter ones lie somewhere in silence."""
    mix_probability: float = 0.5
    """Share of examples that are two recordings at once (paper section 2.3)."""
    level_db: float = 5.0
    """Relative levels of the two are drawn from -level_db .. level_db."""
    speed_octaves: float = 0.3
    """Recordings are played faster or slower by up to this much, pitch and all."""
    gain_db: float = 12.0
    """Examples are made louder or softer by up to this much."""
    bandwidth_probability: float = 0.0
    """Share of recordings whose high frequencies are cut off somewhere between 2 and 8 kHz."""


@dataclass(frozen=True)
class Example:
    waveform: Waveform
    """(N,)"""
    caption: str
    labels: tuple[str, ...]


class CaptionExamples:
    """``examples(index)`` gives an :class:`Example`: a clip or two are drawn, then captions, then how they sound."""

    def __init__(self, clips: Sequence[Clip], settings: DataSettings, seed: int, mixups: Sequence[Mixup] = ()) -> None:
        """
        Args:
            clips: recordings; those without captions are left out.
            settings: how they become examples.
            seed: of all draws.
            mixups: pairs with captions of their own; if there are any, mixtures are made of these alone.

        Raises:
            ValueError: no clip has a caption.
        """
        self.mixups = mixups
        self.clips = [clip for clip in clips if clip.captions]
        if not self.clips:
            raise ValueError("no clip of the manifest has a caption to learn from")
        self.settings = settings
        self.seed = seed

    def __call__(self, index: int) -> Example:
        generator = np.random.default_rng([self.seed, index])
        clips, caption = self._choose(generator)
        waveform, *others = [self._vary(clip, generator) for clip in clips]
        for other in others:
            level_db = generator.uniform(-self.settings.level_db, self.settings.level_db)
            waveform = mix(waveform, other, level_db, generator.random())
        gain_db = generator.uniform(-self.settings.gain_db, self.settings.gain_db)
        labels = tuple(sorted({label for clip in clips for label in clip.labels}))
        return Example(_at_rms(waveform, RMS * 10 ** (gain_db / 20)), caption, labels)

    def captions(self, n: int) -> Iterator[str]:
        """The captions of the first n examples, without touching their audio."""
        for index in range(n):
            yield self._choose(np.random.default_rng([self.seed, index]))[1]

    def _choose(self, generator: np.random.Generator) -> tuple[list[Clip], str]:
        """One clip or two, and a caption that is true of all that is heard."""
        clip = self._pick_clip(generator)
        caption = _pick_caption(clip, generator)
        if generator.random() >= self.settings.mix_probability:
            return [clip], caption
        if self.mixups:
            mixup = self.mixups[int(generator.integers(len(self.mixups)))]
            return list(mixup.clips), _pick(mixup.captions, generator)
        other = self._pick_clip(generator)
        if other.labels != clip.labels or not clip.labels:  # two dogs are still "a dog is barking"
            names = tuple(c.labels[0] if len(c.labels) == 1 else None for c in (clip, other))
            caption = join_captions(caption, _pick_caption(other, generator), (names[0], names[1]), generator)
        return [clip, other], caption

    def _pick_clip(self, generator: np.random.Generator) -> Clip:
        return self.clips[int(generator.integers(len(self.clips)))]

    def _vary(self, clip: Clip, generator: np.random.Generator) -> Waveform:
        """(N,): the recording at another speed, cut or placed, perhaps dulled, at the common level."""
        octaves = generator.uniform(-self.settings.speed_octaves, self.settings.speed_octaves)
        waveform = change_speed(_read(clip.audio, clip.start, clip.duration), 2**octaves)
        waveform = cut_or_place(waveform, round(self.settings.seconds * SAMPLE_RATE), generator)
        if generator.random() < self.settings.bandwidth_probability:
            waveform = low_pass(waveform, cutoff_hz=float(2000 * 4 ** generator.random()))
        return _at_rms(waveform, RMS)


def _pick_caption(clip: Clip, generator: np.random.Generator) -> str:
    return _pick(clip.captions, generator)


def _pick(captions: Sequence[str], generator: np.random.Generator) -> str:
    return clean_caption(captions[int(generator.integers(len(captions)))])


def clean_caption(text: str) -> str:
    """Lower case, without ASCII punctuation, single spaces: the form that the captioner learns and writes."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


@lru_cache(maxsize=CACHED_CLIPS)
def _read(path: Path, start: float, duration: float | None) -> Waveform:
    return read_mono(path, SAMPLE_RATE, start=start, duration=duration)


def _at_rms(waveform: Waveform, rms: float) -> Waveform:
    """Scaled to a root mean square; silence stays silence."""
    return waveform * np.float32(rms / (float(np.sqrt(np.mean(waveform**2))) + 1e-6))


def cut_or_place(waveform: Waveform, n_samples: int, generator: np.random.Generator) -> Waveform:
    """A random cut of a long clip, or a short one at a random place in silence; (n_samples,)."""
    room = n_samples - len(waveform)
    start = int(generator.integers(abs(room) + 1))
    if room <= 0:
        return waveform[start : start + n_samples]
    return np.pad(waveform, (start, room - start))


@dataclass(frozen=True)
class CaptionCollate:
    """Examples -> what a captioner learns from."""

    tokenizer: Tokenizer
    eos_token_id: int = 2

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """``waveform`` (B, N), ``labels`` (B, L) tokens and </s>, then -100, ``captions`` B strings."""
        captions = [example.caption for example in examples]
        return {
            "waveform": torch.from_numpy(np.stack([example.waveform for example in examples])),
            "labels": token_rows(self.tokenizer, captions, self.eos_token_id),
            "captions": captions,
        }


def token_rows(tokenizer: Tokenizer, captions: Sequence[str], eos_token_id: int) -> Tensor:
    """(B, L): the tokens of each caption and </s>, then -100."""
    rows = [
        torch.tensor([*encoding.ids, eos_token_id])
        for encoding in tokenizer.encode_batch(captions, add_special_tokens=False)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)
