"""Training examples: soundscapes and whole recordings by turns, each with what is true of it.

Example ``index`` is a function of the seed and the index alone, so that every process, worker and resumed run sees the
same example under the same number. Examples of one group have the same length.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aural.features import SAMPLE_RATE
from aural.manifest import Clip, Event
from aural.sound_phrases import SOUNDS
from aural.soundscapes.acoustics import Waveform, at_level, change_speed, low_pass
from aural.soundscapes.compose import RMS, Soundscapes, SoundscapeSettings
from aural.soundscapes.recordings import clear_bursts, read
from aural.soundscapes.scene import Part, Scene
from aural.soundscapes.wording import brief, captions

COUNTED = 0.7
"""Share of recordings whose events can be counted that are described with their number, which no corpus states."""


@dataclass(frozen=True)
class ExampleSettings:
    """What examples are drawn from."""

    soundscapes: SoundscapeSettings = field(default_factory=SoundscapeSettings)
    recordings: float = 0.35
    """Share of examples that are one recording with the captions of the manifest; the others are soundscapes."""
    speed_octaves: float = 0.3
    """Recordings are played faster or slower by up to this much, pitch and all."""
    bandwidth: float = 0.2
    """Share of examples whose high frequencies are cut off somewhere between 2 and 8 kHz."""


@dataclass(frozen=True)
class Example:
    waveform: Waveform
    """(time,), 16 kHz."""
    caption: str
    brief: str
    """A shorter caption, of which there are few: what is heard, without number, level or place."""
    labels: tuple[str, ...]
    events: tuple[Event, ...]
    scene: Scene | None
    """The whole truth, which questions can be asked about; None for a recording of which no label is given."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What else the manifest says of a recording; nothing of a soundscape."""


class Examples:
    """``examples(index)`` is the :class:`Example` of an index."""

    def __init__(self, clips: Sequence[Clip], settings: ExampleSettings, seed: int) -> None:
        """
        Args:
            clips: recordings with captions; those with a single label also become parts of soundscapes.
            settings: what is drawn.
            seed: of all draws.

        Raises:
            ValueError: recordings are asked for, and no clip has a caption.
        """
        self.settings = settings
        self.seed = seed
        self.soundscapes = Soundscapes(clips, settings.soundscapes, seed)
        self.clips = [clip for clip in clips if clip.captions]
        if settings.recordings > 0 and not self.clips:
            raise ValueError("no clip of the manifest has a caption to learn from")

    def __call__(self, index: int) -> Example:
        return self.with_captions(index, 1)[0]

    def with_captions(self, index: int, n: int) -> tuple[Example, tuple[str, ...]]:
        """An example, and up to ``n`` captions that are true of it; the first is the example's own."""
        generator = np.random.default_rng([self.seed, 2, index])
        if generator.random() < self.settings.recordings:
            example, said = self._recording(index, n, generator)
        else:
            soundscape = self.soundscapes(index)
            scene = soundscape.scene
            said = captions(scene, n, generator)
            example = Example(soundscape.waveform, said[0], brief(scene, generator), scene.labels, scene.events, scene)
        if generator.random() < self.settings.bandwidth:
            waveform = low_pass(example.waveform, cutoff_hz=float(2000 * 4 ** generator.random()))
            example = replace(example, waveform=waveform)
        return example, said

    def captions(self, n: int) -> Iterator[str]:
        """Captions of the first n examples, four of each soundscape: for a tokenizer to learn from."""
        for index in range(n):
            generator = np.random.default_rng([self.seed, 2, index])
            if generator.random() < self.settings.recordings:
                yield from self._draw(generator).captions
            else:
                yield from captions(self.soundscapes(index).scene, 4, generator)

    def _draw(self, generator: np.random.Generator) -> Clip:
        return self.clips[int(generator.integers(len(self.clips)))]

    def _recording(self, index: int, n: int, generator: np.random.Generator) -> tuple[Example, tuple[str, ...]]:
        """A recording somewhere in silence, or a cut of it, at the length of its group."""
        clip = self._draw(generator)
        octaves, gain_db = self.settings.speed_octaves, self.settings.soundscapes.gain_db
        sound = change_speed(read(clip), float(2 ** generator.uniform(-octaves, octaves)))
        n_samples = round(self.soundscapes.seconds(index) * SAMPLE_RATE)
        room = n_samples - len(sound)
        start = int(generator.integers(abs(room) + 1))
        waveform = np.zeros(n_samples, np.float32)
        if room < 0:
            waveform[:] = sound[start : start + n_samples]
            start, sound = 0, waveform
        else:
            waveform[start : start + len(sound)] = sound
        waveform = at_level(waveform, RMS * 10 ** (float(generator.uniform(-gain_db, gain_db)) / 20))
        said = tuple(clip.captions[place] for place in generator.permutation(len(clip.captions))[:n])
        plain = said[0]
        times = (start / SAMPLE_RATE, (start + len(sound)) / SAMPLE_RATE)
        parts = tuple(Part(label, (times,)) for label in clip.labels)
        events = tuple(Event(label, *times, single=False) for label in clip.labels)
        counted = self._counted(clip, sound, start)
        scene = Scene(n_samples / SAMPLE_RATE, (counted,) if counted else parts) if parts else None
        if scene and counted and generator.random() < COUNTED:
            said = captions(scene, n, generator)
        return Example(waveform, said[0], plain, clip.labels, events, scene, clip.about), said

    def _counted(self, clip: Clip, sound: Waveform, start: int) -> Part | None:
        """The sound of a recording as single events, if it is one whose number can be told and is beyond doubt."""
        label = clip.labels[0] if len(clip.labels) == 1 else None
        if label not in SOUNDS or SOUNDS[label].one_and_many is None:
            return None
        found = clear_bursts(sound, label) or []
        if not 1 <= len(found) <= self.settings.soundscapes.most_events:
            return None
        times = tuple(((start + first) / SAMPLE_RATE, (start + last) / SAMPLE_RATE) for first, last in found)
        return Part(label, times, counted=True)
