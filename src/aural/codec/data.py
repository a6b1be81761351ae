"""What a codec learns from: short cuts of recordings and soundscapes; nobody needs to know what sounds in them.

Cut ``index`` is a function of the seed and the index alone, so that every process, worker and resumed run hears the
same cut under the same number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.soundscapes.acoustics import Waveform, at_level, change_speed
from aural.soundscapes.compose import RMS, Soundscapes, SoundscapeSettings
from aural.soundscapes.recordings import read

DRAWN = 2
"""Cuts drawn from a sound, of which the loudest is taken: pauses teach little."""


@dataclass(frozen=True)
class CutSettings:
    """What cuts are drawn from."""

    n_samples: int = SAMPLE_RATE
    """Of a cut, at 16 kHz."""
    soundscapes: SoundscapeSettings = field(default_factory=lambda: SoundscapeSettings(seconds=(3.0, 5.0)))
    recordings: float = 0.6
    """Share of cuts that are from single recordings; the others are from soundscapes, synthesised sounds among them."""
    speed_octaves: float = 0.3
    """Recordings are played faster or slower by up to this much, pitch and all."""
    gain_db: float = 14.0
    """Recordings are made louder or softer by up to this much, as soundscapes are by their own settings."""


class Cuts:
    """``cuts(index)`` is the cut of an index: (``n_samples``,) at 16 kHz, zeros after a sound that is shorter."""

    def __init__(self, clips: Sequence[Clip], settings: CutSettings, seed: int) -> None:
        """
        Args:
            clips: recordings; those with a single label also become parts of soundscapes. There may be none.
            settings: what is drawn.
            seed: of all draws.
        """
        self.clips, self.settings, self.seed = list(clips), settings, seed
        self.soundscapes = Soundscapes(clips, settings.soundscapes, seed)

    def __call__(self, index: int) -> Waveform:
        generator = np.random.default_rng([self.seed, 5, index])
        if self.clips and generator.random() < self.settings.recordings:
            sound = self._recording(generator)
        else:
            sound = self.soundscapes(index).waveform
        n = self.settings.n_samples
        starts = generator.integers(max(1, len(sound) - n + 1), size=DRAWN)
        cut = max((sound[start : start + n] for start in starts), key=lambda part: float(np.square(part).sum()))
        return np.pad(cut, (0, n - len(cut)))

    def _recording(self, generator: np.random.Generator) -> Waveform:
        """A recording at another speed and level, full scale at most."""
        octaves, gain_db = self.settings.speed_octaves, self.settings.gain_db
        clip = self.clips[int(generator.integers(len(self.clips)))]
        sound = change_speed(read(clip), float(2 ** generator.uniform(-octaves, octaves)))
        sound = at_level(sound, RMS * 10 ** (float(generator.uniform(-gain_db, gain_db)) / 20))
        return sound / np.float32(max(1.0, float(np.abs(sound).max(initial=0.0))))
