"""Soundscapes: recordings and synthesised sounds on a timeline, and the truth about it.

Soundscape ``index`` of a seed is always the same, whoever asks for it and in whatever order: there is no state. Nothing
touches the disk but the recordings themselves, which are decoded once and kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.sound_phrases import SOUNDS
from aural.soundscapes.acoustics import Waveform, active_rms, at_level, change_speed, faded, from_afar, noise
from aural.soundscapes.recordings import clear_bursts, looped, occurrences, read, with_single_labels
from aural.soundscapes.scene import Part, Scene
from aural.soundscapes.synthesis import SYNTHESISED, noise_of, varied

Kind = Literal["single", "counted", "rhythm", "sequence", "overlap", "background", "noise", "silence"]

CONTINUOUS = frozenset(
    {"rain", "sea waves", "fire crackling", "helicopter", "chainsaw", "clock tick", "engine", "noise", "3D printer"}
)
"""Sounds that can go on behind others without beginning or end."""

LIKE_NOISE = frozenset({"noise", "rain", "sea waves"})
"""Nobody hears one of these through another: they never sound at once."""

NOISE_SHARE = 0.3
"""How often noise is drawn, relative to each other synthesised sound: a hiss without a source is seldom worth a word,
and where rain cannot be told from it, rain is the better guess."""

RMS = 0.05
"""Level of a sound at 0 dB; full scale is 1."""

SHORTEST_GAP = 0.25
"""Seconds of silence between two occurrences, and between sounds that follow one another, at least."""


@dataclass(frozen=True)
class SoundscapeSettings:
    """What soundscapes are drawn from."""

    seconds: tuple[float, float] = (4.0, 10.0)
    """Shortest and longest; drawn for each group."""
    group: int = 1
    """This many soundscapes in a row have the same length, so that a batch of them needs no padding."""
    kinds: tuple[tuple[Kind, float], ...] = (
        ("single", 0.2),
        ("counted", 0.24),
        ("rhythm", 0.04),
        ("sequence", 0.28),
        ("overlap", 0.12),
        ("background", 0.12),
        ("noise", 0.03),
        ("silence", 0.03),
    )
    """Kinds of scenes and how often each is drawn, relative to the others."""
    synthesised: float = 0.3
    """Share of sounds that are made rather than recorded."""
    most_events: int = 4
    """Highest number of occurrences of a counted sound."""
    distant: float = 0.15
    """Share of sounds that are far away."""
    contrast: float = 0.3
    """Share of scenes of several sounds where one is clearly louder; the others lie within 4 dB."""
    speed_octaves: float = 0.3
    """Recordings are played faster or slower by up to this much, pitch and all."""
    noise_floor: float = 0.5
    """Share of soundscapes with a noise 25 to 45 dB below the sounds, which nobody would mention."""
    gain_db: float = 12.0
    """Soundscapes are made louder or softer by up to this much."""


@dataclass(frozen=True)
class Soundscape:
    waveform: Waveform
    """(time,), 16 kHz."""
    scene: Scene


class Soundscapes:
    """``soundscapes(index)`` is the :class:`Soundscape` of an index."""

    def __init__(self, clips: Sequence[Clip], settings: SoundscapeSettings, seed: int) -> None:
        """
        Args:
            clips: recordings; those with a single label are material, and there may be none.
            settings: what is drawn.
            seed: soundscapes of different seeds have nothing in common.
        """
        self.settings = settings
        self.seed = seed
        self.clips: dict[str, list[Clip]] = {}
        for clip in with_single_labels(clips):
            if clip.labels[0] in SOUNDS:
                self.clips.setdefault(clip.labels[0], []).append(clip)
        self._taken_apart: dict[str, list[Clip]] = {}

    def seconds(self, index: int) -> float:
        """Length of a soundscape: the same for all of its group."""
        group = np.random.default_rng([self.seed, 1, index // self.settings.group])
        return round(float(group.uniform(*self.settings.seconds)), 1)

    def taken_apart(self, label: str) -> list[Clip]:
        """The recordings of a label whose occurrences can be told apart."""
        if label not in self._taken_apart:
            self._taken_apart[label] = [clip for clip in self.clips.get(label, ()) if occurrences(clip)]
        return self._taken_apart[label]

    def __call__(self, index: int) -> Soundscape:
        settings = self.settings
        generator = np.random.default_rng([self.seed, 0, index])
        stage = _Stage(self, self.seconds(index), generator)
        kinds, weights = zip(*settings.kinds, strict=True)
        kind = kinds[int(generator.choice(len(kinds), p=np.array(weights) / sum(weights)))]
        return stage.play(kind)


@dataclass(frozen=True)
class _Bout:
    label: str
    waveform: Waveform
    counted: bool | None
    """Whether it is a single event; None where that is to be found out."""


class _Stage:
    """One soundscape while it is being put together."""

    def __init__(self, soundscapes: Soundscapes, seconds: float, generator: np.random.Generator) -> None:
        self.soundscapes = soundscapes
        self.settings = soundscapes.settings
        self.clips = soundscapes.clips
        self.generator = generator
        self.n_samples = round(seconds * SAMPLE_RATE)
        self.mixed = np.zeros(self.n_samples, np.float32)
        self.parts: list[Part] = []
        self.sources: list[str] = []
        self.contrast_db = 0.0

    # -------------------------------------------------------------------------------------------------------- the kinds

    def play(self, kind: Kind) -> Soundscape:
        generator = self.generator
        if generator.random() < self.settings.contrast:
            self.contrast_db = float(generator.uniform(9, 14))
        if kind == "silence":
            return self._silence()
        if kind == "noise":
            made = noise_of(self.n_samples, generator)
            self._place("noise", [made], [0], background=True)
        elif kind == "single":
            self._one()
        elif kind == "counted":
            self._counted(0, self.n_samples, self._draw_label(countable=True))
        elif kind == "rhythm":
            self._rhythm()
        elif kind == "sequence":
            self._sequence(3 if self.n_samples > 7 * SAMPLE_RATE and generator.random() < 0.25 else 2)
        elif kind == "overlap":
            self._overlap()
        else:
            self._background()
        return self._finished()

    def _silence(self) -> Soundscape:
        """Nothing at all, or what a quiet recorder leaves: noise below -74 dBFS."""
        level_db = self.generator.uniform(-96, -74)
        if self.generator.random() < 0.5:
            self.mixed += noise(self.n_samples, "white", self.generator) * np.float32(10 ** (level_db / 20))
        return Soundscape(self.mixed, Scene(self.n_samples / SAMPLE_RATE, ()))

    def _one(self) -> None:
        """One sound as it is, wherever it fits."""
        label = self._draw_label()
        if label in CONTINUOUS and self.generator.random() < 0.5:
            self._place(label, [self._continuous(label, self.n_samples)], [0])
        else:
            self._place_bout(label, 0, self.n_samples)

    def _rhythm(self) -> None:
        """A short sound again and again, at a steady pace and more often than anybody counts."""
        label = self._draw_label(countable=True)
        sound = self._occurrence(label)[: round(0.25 * SAMPLE_RATE)]
        bpm = float(50 * 4.8 ** self.generator.random())  # 50 to 240, and no faster than the sound is short
        step = max(round(60 / bpm * SAMPLE_RATE), len(sound) + round(0.02 * SAMPLE_RATE))
        starts = list(range(self._room(step), self.n_samples - len(sound), step))
        if len(starts) <= self.settings.most_events:
            self._counted(0, self.n_samples, label)
        else:
            self._place(label, [faded(sound)] * len(starts), starts, counted=False, bpm=60 * SAMPLE_RATE / step)

    def _sequence(self, n_sounds: int) -> None:
        """Sounds that follow one another, each in a stretch of its own."""
        labels: list[str] = []
        while len(labels) < n_sounds:
            labels.append(self._draw_label(countable=self.generator.random() < 0.5 or None, but=labels))
        shares = self.generator.uniform(0.7, 1.3, n_sounds)
        edges = np.round(np.cumsum([0, *shares / shares.sum()]) * self.n_samples).astype(int).tolist()
        gap = round(SHORTEST_GAP * SAMPLE_RATE)
        for label, start, end in zip(labels, edges[:-1], edges[1:], strict=True):
            if self._countable(label) and self.generator.random() < 0.6:
                self._counted(start, end - gap, label)
            else:
                self._place_bout(label, start, end - gap)

    def _overlap(self) -> None:
        """Two sounds at once."""
        first = self._draw_label()
        second = self._draw_label(but=_masked_by(first))
        longer, shorter = sorted([self._bout(first), self._bout(second)], key=lambda bout: -len(bout.waveform))
        start = self._room(self.n_samples - len(longer.waveform))
        inside = start + self._room(len(longer.waveform) - len(shorter.waveform))
        self._place(longer.label, [longer.waveform], [start], counted=longer.counted)
        self._place(shorter.label, [shorter.waveform], [inside], counted=shorter.counted)

    def _background(self) -> None:
        """Something that goes on throughout, softer, and one or two sounds in front of it."""
        behind = self._drawn_by_weight(sorted(CONTINUOUS & (set(self.clips) | {"engine", "noise"})))
        level_db = float(self.generator.uniform(-12, -5))
        self._place(behind, [self._continuous(behind, self.n_samples)], [0], background=True, level_db=level_db)
        masked = _masked_by(behind)
        front = [self._draw_label(countable=self.generator.random() < 0.7 or None, but=masked)]
        half = self.n_samples
        if self.n_samples > 5 * SAMPLE_RATE and self.generator.random() < 0.4:
            front.append(self._draw_label(countable=self.generator.random() < 0.7 or None, but=[*masked, *front]))
            half = self.n_samples // 2
        gap = round(SHORTEST_GAP * SAMPLE_RATE)
        for place, label in enumerate(front):
            start, end = place * half, (place + 1) * half - gap
            if self._countable(label) and self.generator.random() < 0.7:
                self._counted(start, end, label)
            else:
                self._place_bout(label, start, end)

    def _counted(self, start: int, end: int, label: str) -> None:
        """One occurrence after another, between two samples."""
        generator = self.generator
        wanted = int(generator.integers(1, self.settings.most_events + 1))
        regular = generator.random() < 0.5
        sound = self._occurrence(label)
        if len(sound) > end - start:
            sound = faded(sound[: end - start], 0.02)
        gap = round(SHORTEST_GAP * SAMPLE_RATE)
        least = len(sound) + gap
        number = max(1, min(wanted, (end - start + gap) // least))
        spare = end - start - number * least + gap
        copies = [sound] * number
        if generator.random() < 0.3:
            copies = [sound, *(varied(sound, generator)[: len(sound)] for _ in range(number - 1))]
        if regular or number == 1:
            most = spare // max(1, number - 1) if number > 1 else 0
            step = least + min(most, round(1.2 * SAMPLE_RATE * float(generator.random()) ** 2))
            first = self._room(end - start - (number - 1) * step - len(sound))
            starts = [start + first + place * step for place in range(number)]
        else:
            pauses = np.sort(generator.integers(0, spare + 1, number)).tolist()
            starts = [start + place * least + pause for place, pause in enumerate(pauses)]
        bpm = 60 * SAMPLE_RATE / (starts[1] - starts[0]) if regular and number >= 4 else None
        self._place(label, copies, starts, counted=True, bpm=bpm)

    # ------------------------------------------------------------------------------------------------------- the sounds

    def _draw_label(self, *, countable: bool | None = None, but: Collection[str] = ()) -> str:
        """A label that is not in ``but``; recorded ones are weighed by how many recordings there are, up to a point."""
        made = [label for label in SYNTHESISED if label not in but and (not countable or self._countable(label))]
        recorded = [label for label in self.clips if label not in but and (not countable or self._countable(label))]
        if not recorded or (made and self.generator.random() < self.settings.synthesised):
            return self._drawn_by_weight(made)
        weights = np.array([min(8, len(self.clips[label])) for label in recorded], float)
        return recorded[int(self.generator.choice(len(recorded), p=weights / weights.sum()))]

    def _drawn_by_weight(self, labels: Sequence[str]) -> str:
        """One of these; noise more seldom than the others."""
        weights = np.array([NOISE_SHARE if label == "noise" else 1.0 for label in labels])
        return labels[int(self.generator.choice(len(labels), p=weights / weights.sum()))]

    def _countable(self, label: str) -> bool:
        """Whether single events of it can be had."""
        words = SOUNDS[label].one_and_many
        return words is not None and (label in SYNTHESISED or bool(self.soundscapes.taken_apart(label)))

    def _clip(self, label: str, some: Sequence[Clip]) -> Clip | None:
        """One of these recordings of the label; None where it is to be made."""
        if not some or (label in SYNTHESISED and self.generator.random() < self.settings.synthesised):
            return None
        clip = some[int(self.generator.integers(len(some)))]
        self.sources.append(clip.source or str(clip.audio))
        return clip

    def _speed(self, waveform: Waveform) -> Waveform:
        octaves = self.settings.speed_octaves
        return change_speed(waveform, float(2 ** self.generator.uniform(-octaves, octaves)))

    def _occurrence(self, label: str) -> Waveform:
        """A single event: one bark, one ring."""
        clip = self._clip(label, self.soundscapes.taken_apart(label))
        if clip is None:
            return SYNTHESISED[label](self.generator)
        found = occurrences(clip)
        return self._speed(found[int(self.generator.integers(len(found)))])

    def _bout(self, label: str, most: int | None = None) -> "_Bout":
        """At most this many samples of a sound, as often as it happens to occur in them."""
        clip = self._clip(label, self.clips.get(label, ()))
        waveform = SYNTHESISED[label](self.generator) if clip is None else self._speed(read(clip))
        longest = round(float(self.generator.uniform(1.2, 6.0)) * SAMPLE_RATE)
        longest = min(longest, self.n_samples if most is None else most)
        is_one_event = clip is None and self._countable(label) and len(waveform) <= longest
        if len(waveform) > longest:
            tries = [self._room(len(waveform) - longest) for _ in range(4)]  # one may be the pause between two barks
            start = max(tries, key=lambda at: active_rms(waveform[at : at + longest]))
            waveform = waveform[start : start + longest]
        return _Bout(label, faded(waveform, 0.02), True if is_one_event else None)

    def _place_bout(self, label: str, start: int, end: int) -> None:
        """A bout of a sound somewhere between two samples."""
        bout = self._bout(label, end - start)
        at = start + self._room(end - start - len(bout.waveform))
        self._place(label, [bout.waveform], [at], counted=bout.counted)

    def _continuous(self, label: str, n_samples: int) -> Waveform:
        clip = self._clip(label, self.clips.get(label, ()))
        if clip is None:
            if label == "noise":
                return noise_of(n_samples, self.generator)
            return looped(SYNTHESISED[label](self.generator), n_samples, self.generator)
        return looped(self._speed(read(clip)), n_samples, self.generator)

    def _room(self, spare: int) -> int:
        return int(self.generator.integers(max(0, spare) + 1))

    # ----------------------------------------------------------------------------------------------------------- mixing

    def _place(
        self,
        label: str,
        sounds: Sequence[Waveform],
        starts: Sequence[int],
        *,
        counted: bool | None = None,
        bpm: float | None = None,
        background: bool = False,
        level_db: float | None = None,
    ) -> None:
        """Add one part: its sounds at these samples, at a level of its own, perhaps from afar.

        ``counted``: whether ``sounds`` are single events; None: one sound, and it is to be found out.
        """
        generator = self.generator
        distant = not background and label != "noise" and generator.random() < self.settings.distant
        if level_db is None:
            level_db = float(generator.uniform(-2, 2))
            if any(not part.background for part in self.parts):  # the first sets the level, the second is the contrast
                level_db += self.contrast_db * (-1 if generator.random() < 0.5 else 1)
                self.contrast_db = 0.0
            if distant:
                level_db -= 4.0
        track = np.zeros(self.n_samples, np.float32)
        times = []
        for start, sound in zip(starts, sounds, strict=True):
            piece = sound[: self.n_samples - start]
            track[start : start + len(piece)] += piece
            times += [(start, start + len(piece))]
        if distant:
            track = from_afar(track, generator)
        self.mixed += at_level(track, RMS * 10 ** (level_db / 20))
        if counted is None:  # what the sound brings along is counted where there can be no doubt
            found = clear_bursts(sounds[0], label) if SOUNDS[label].one_and_many else None
            counted = found is not None and len(found) <= self.settings.most_events
            if found and counted:
                times = [(starts[0] + start, starts[0] + end) for start, end in found]
        seconds = tuple((round(start / SAMPLE_RATE, 3), round(end / SAMPLE_RATE, 3)) for start, end in times)
        self.parts.append(Part(label, seconds, counted, level_db, distant, bpm, background))

    def _finished(self) -> Soundscape:
        settings, generator = self.settings, self.generator
        if generator.random() < settings.noise_floor:
            level = RMS * 10 ** (generator.uniform(-45, -25) / 20)
            colour = ("white", "pink", "brown")[int(generator.integers(3))]
            self.mixed += noise(self.n_samples, colour, generator) * np.float32(level)  # type: ignore[arg-type]
        self.mixed *= np.float32(10 ** (generator.uniform(-settings.gain_db, settings.gain_db) / 20))
        peak = float(np.abs(self.mixed).max())
        if peak > 0.99:  # not clipped: turned down
            self.mixed *= np.float32(0.99 / peak)
        parts = sorted(self.parts, key=lambda part: (not part.background, part.start))
        return Soundscape(
            self.mixed, Scene(self.n_samples / SAMPLE_RATE, tuple(parts), tuple(dict.fromkeys(self.sources)))
        )


def _masked_by(label: str) -> frozenset[str]:
    """What cannot sound at the same time as a label: itself, and what is too much like it."""
    return LIKE_NOISE if label in LIKE_NOISE else frozenset({label})
