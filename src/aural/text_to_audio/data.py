"""What a token language model learns from: sounds of one length, and texts that are true of them.

Example ``index`` is a function of the seed and the index alone. Of the two sources, :class:`Scenes` makes soundscapes
and takes recordings by turns, and :class:`Recordings` is the paper's: cuts of the recordings of a manifest, of which
some are mixed in twos, as AudioGen does it (Kreuk et al., arXiv 2209.15352, section 3.3).

Shapes: N samples of a clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from aural.audio import read_mono, seconds
from aural.errors import UsageError
from aural.manifest import Clip
from aural.soundscapes.acoustics import Waveform
from aural.soundscapes.examples import Examples
from aural.text_to_audio.captions import prepared, pseudo_sentence


@dataclass(frozen=True)
class MixingSettings:
    """AudioGen's augmentation: two clips at once, with both texts."""

    share: float = 0.5
    """Of the examples, those that are mixed."""
    snr_db: int = 5
    """The first is louder than the second by a whole number of decibels, at most this far from 0 either way."""
    overlap: float = 0.5
    """The second begins where this share of the clip, at least, is still to come."""


@dataclass(frozen=True)
class TrueSound:
    """A sound and what is true of it."""

    waveform: Waveform
    """(N,), mono; silence follows what is shorter."""
    n_samples: int
    """How many are of the sound; they stand first."""
    texts: tuple[str, ...]
    """At least one; they take turns."""


Sounds = Callable[[int], TrueSound]
"""The training sound of an index."""


@dataclass(frozen=True)
class Scenes:
    """Soundscapes and recordings with several true captions each; all of their length counts, silence included."""

    examples: Examples
    n_texts: int

    def __call__(self, index: int) -> TrueSound:
        example, said = self.examples.with_captions(index, self.n_texts)
        return TrueSound(example.waveform, len(example.waveform), tuple(dict.fromkeys((*said, example.brief))))


class Recordings:
    """Cuts of recordings, some of them mixed in twos."""

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        seconds: float,
        sample_rate: int,
        mixing: MixingSettings | None,
        keywords: bool,
        seed: int,
    ) -> None:
        """
        Args:
            clips: those of which nothing is said are left out.
            seconds: length of the examples; a longer recording is cut anywhere, silence follows a shorter one.
            sample_rate: in Hz.
            mixing: None = each alone.
            keywords: texts are prepared as for AudioGen, see :func:`.captions.prepared`.
            seed: of all draws.

        Raises:
            UsageError: of no clip anything is said.
        """
        texts = [(clip, prepared(clip) if keywords else _said(clip)) for clip in clips]
        self.clips = [(clip, said) for clip, said in texts if said]
        if not self.clips:
            raise UsageError("no clip of the manifest has a caption or labels to learn from")
        self.n_samples, self.sample_rate = round(seconds * sample_rate), sample_rate
        self.mixing, self.seed = mixing, seed

    def __call__(self, index: int) -> TrueSound:
        generator = np.random.default_rng([self.seed, 2, index])
        first = self._cut(generator)
        if self.mixing is None or generator.random() >= self.mixing.share:
            return first
        return mixed(first, self._cut(generator), self.mixing, generator)

    def _cut(self, generator: np.random.Generator) -> TrueSound:
        """Somewhere in one of the recordings."""
        clip, said = self.clips[int(generator.integers(len(self.clips)))]
        wanted = self.n_samples / self.sample_rate
        there = _length(clip.audio) - clip.start if clip.duration is None else clip.duration
        start = clip.start + max(0.0, there - wanted) * float(generator.random())
        sound = read_mono(clip.audio, self.sample_rate, start=start, duration=min(wanted, there))[: self.n_samples]
        waveform = np.zeros(self.n_samples, np.float32)
        waveform[: len(sound)] = sound
        return TrueSound(waveform, len(sound), (said[int(generator.integers(len(said)))],))


def mixed(first: TrueSound, second: TrueSound, settings: MixingSettings, generator: np.random.Generator) -> TrueSound:
    """Two sounds at once, at a drawn ratio of their powers, the second a little later; with both texts.

    The sum is turned down where it would exceed full scale.
    """
    n = len(first.waveform)
    ratio_db = int(generator.integers(-settings.snr_db, settings.snr_db + 1))
    later = int(generator.integers(round(n * (1 - settings.overlap)) + 1))
    power, other = (float(np.mean(one.waveform[: one.n_samples] ** 2)) for one in (first, second))
    gain = (power / other) ** 0.5 * 10 ** (-ratio_db / 20) if power and other else 1.0
    waveform = first.waveform.copy()
    waveform[later:] += np.float32(gain) * second.waveform[: n - later]
    waveform /= np.float32(max(1.0, float(np.abs(waveform).max())))
    n_samples = min(n, max(first.n_samples, later + second.n_samples))
    return TrueSound(waveform, n_samples, (f"{first.texts[0]} {second.texts[0]}",))


def _said(clip: Clip) -> tuple[str, ...]:
    return clip.captions or ((pseudo_sentence(clip.labels),) if clip.labels else ())


@cache
def _length(audio: Path) -> float:
    """Seconds of a file, found out once."""
    return seconds(audio)
