"""Music to be played: phrases drawn at random, as notes of instruments.

There are three kinds: one to four single notes of one instrument, which can be counted; pieces for one to three
instruments with or without drums; and drums alone. A piece follows a chord progression in a key, a chord every two
beats. Its first part leads and the others accompany, by chords, broken chords, held notes or a bass line. Where its
notes do not tell major from minor, its mode is None.

Times are in seconds from the beginning of the phrase.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator

Choice = TypeVar("Choice")

SHORTEST = 5.0
"""Seconds that a piece takes at the least; slow ones would otherwise have too few beats to tell their tempo."""


@dataclass(frozen=True)
class Instrument:
    """An instrument of General MIDI, by what is said of it and how it is played."""

    label: str
    names: tuple[str, ...]  # noun phrases, the most exact one first
    programs: tuple[int, ...]  # kinds of it, counted from 0
    lowest: int  # MIDI note numbers that it plays well
    highest: int
    chords: bool  # several notes at once


INSTRUMENTS = {
    each.names[0]: each
    for each in (
        Instrument("piano", ("a piano",), (0, 1), 45, 86, True),
        Instrument("harpsichord", ("a harpsichord",), (6,), 45, 79, True),
        Instrument("vibraphone", ("a vibraphone",), (11,), 53, 84, True),
        Instrument("church organ", ("a church organ", "an organ"), (19,), 48, 79, True),
        Instrument("accordion", ("an accordion",), (21,), 53, 84, True),
        Instrument("guitar", ("an acoustic guitar", "a guitar"), (24, 25), 45, 76, True),
        Instrument("guitar", ("a distorted electric guitar", "an electric guitar"), (29, 30), 40, 72, False),
        Instrument("bass guitar", ("a bass guitar", "an electric bass"), (33, 34), 28, 50, False),
        Instrument("violin", ("a violin",), (40,), 55, 91, False),
        Instrument("cello", ("a cello",), (42,), 36, 65, False),
        Instrument("harp", ("a harp",), (46,), 43, 84, True),
        Instrument("trumpet", ("a trumpet",), (56,), 55, 82, False),
        Instrument("saxophone", ("a saxophone",), (64, 65, 66), 52, 76, False),
        Instrument("clarinet", ("a clarinet",), (71,), 50, 84, False),
        Instrument("flute", ("a flute",), (73,), 60, 91, False),
        Instrument("sitar", ("a sitar",), (104,), 48, 74, False),
        Instrument("steel drum", ("a steel drum",), (114,), 55, 84, True),
        Instrument("drums", ("drums", "a drum kit"), (0, 8, 16, 32), 35, 81, True),
    )
}
"""By the exact name. The programs of the drums are kits."""
MELODIC = tuple(name for name in INSTRUMENTS if name != "drums")
BASSES = ("a bass guitar", "a cello")

Cells = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tempo:
    """What a tempo is called, and the note values (groups of beats) by which it can be heard."""

    word: str
    adverb: str  # "at a fast tempo"
    slowest: int  # beats a minute
    fastest: int
    cells: Cells


TEMPOS = (
    Tempo("slow", "at a slow tempo", 50, 72, ((1,), (1,), (2,), (1.5, 0.5))),
    Tempo("medium paced", "at a moderate tempo", 88, 112, ((1,), (1,), (1,), (0.5, 0.5), (1.5, 0.5))),
    Tempo("fast", "at a fast tempo", 140, 176, ((1,), (0.5, 0.5), (0.5, 0.5), (1.5, 0.5))),
)
"""With gaps between them, so that each is heard as what it is called."""
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSIONS = ((0, 3, 4), (0, 4), (0, 3, 0, 4), (0, 5, 3, 4), (0, 0, 3, 4))
"""Degrees of the scale, from 0, on which the chords stand."""
WINDOW = 16
"""Semitones within which a part stays; wide enough for three notes of any chord."""
KICK, SNARE, HAT, OPEN_HAT, RIDE, HIGH_TOM, LOW_TOM = 36, 38, 42, 46, 51, 48, 43
BEATS: tuple[tuple[tuple[int, str], ...], ...] = (
    ((KICK, "x...x..."), (SNARE, "..x...x."), (HAT, "xxxxxxxx")),
    ((KICK, "x..xx..."), (SNARE, "..x...x."), (RIDE, "x.x.x.x.")),
    ((KICK, "x.x.x.x."), (SNARE, "..x...x."), (OPEN_HAT, ".x.x.x.x")),
    ((KICK, "x...x.x."), (SNARE, "..x...x."), (LOW_TOM, ".......x"), (HAT, "x.x.x.x.")),
    ((KICK, "x...x..."), (HIGH_TOM, "..xx...."), (LOW_TOM, "......xx")),
    ((KICK, "x...x..."), (SNARE, "x.xxx.xx")),
)
"""Percussion keys and when they are hit, in halves of beats."""


@dataclass(frozen=True)
class Note:
    """Times in seconds from the beginning of the phrase."""

    start: float
    length: float
    pitch: int  # MIDI note number; of drums, which drum
    velocity: int


@dataclass(frozen=True)
class Part:
    """What one instrument plays, by the start of its notes."""

    instrument: str  # of INSTRUMENTS
    program: int
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Phrase:
    """What is played. The first part leads."""

    parts: tuple[Part, ...]
    bpm: int | None  # beats a minute; None of single notes
    mode: str | None  # "major", "minor" or, where that cannot be heard, None
    seconds: float
    reverb: int  # MIDI controller 91

    @property
    def names(self) -> tuple[str, ...]:
        """Of the instruments."""
        return tuple(part.instrument for part in self.parts)

    @property
    def note_count(self) -> int | None:
        """How many single notes there are; None of pieces."""
        return len(self.parts[0].notes) if self.bpm is None else None

    @property
    def tempo(self) -> Tempo | None:
        """None of single notes."""
        bpm = self.bpm
        return None if bpm is None else next(each for each in TEMPOS if each.slowest <= bpm <= each.fastest)


def draw_phrase(generator: Generator, seconds: float = 6.0) -> Phrase:
    """A phrase at random, at most ``seconds`` long (at least :data:`SHORTEST`); single notes are shorter than that."""
    names, single = draw_names(generator)
    if single:
        return _draw_single_notes(generator, names[0])
    tempo = pick(TEMPOS, generator)
    bpm = int(generator.integers(tempo.slowest, tempo.fastest + 1))
    mode = pick(tuple(SCALES), generator)
    root = int(generator.integers(12))
    lead_in = float(generator.uniform(0.05, 0.4))
    n_beats = math.floor((seconds - lead_in - 0.6) * bpm / 60)
    progression = pick(PROGRESSIONS, generator)
    n_chords = math.ceil(n_beats / 2)
    harmony = [progression[i % len(progression)] for i in range(n_chords - 1)] + [0]
    key = _Key(root, SCALES[mode], harmony)
    parts = []
    for i, name in enumerate(names):
        notes = (
            _drum_beat(n_beats, generator) if name == "drums" else _tune(name, i == 0, key, tempo, n_beats, generator)
        )
        timed = tuple(
            Note(round(lead_in + start * 60 / bpm, 3), round(length * 60 / bpm, 3), pitch, velocity)
            for start, length, pitch, velocity in notes
        )
        parts.append(Part(name, pick(INSTRUMENTS[name].programs, generator), timed))
    pitches = [note.pitch for part in parts if part.instrument != "drums" for note in part.notes]
    thirds = sum((pitch - root - key.scale[2]) % 12 == 0 for pitch in pitches)
    return Phrase(tuple(parts), bpm, mode if thirds >= 2 else None, seconds, _draw_reverb(generator))


def draw_names(generator: Generator) -> tuple[tuple[str, ...], bool]:
    """The instruments of a phrase, no two of them with one label, and whether it is single notes."""
    kind = generator.random()
    if kind < 0.35:
        return (pick(MELODIC, generator),), True
    if kind < 0.42:
        return ("drums",), False
    n = pick((1, 1, 2, 2, 2, 3), generator)
    drawn = {INSTRUMENTS[name].label: name for name in generator.permutation(MELODIC).tolist()}
    names = tuple(drawn.values())[:n]
    return (*names, "drums") if generator.random() < 0.3 else names, False


def _draw_single_notes(generator: Generator, name: str) -> Phrase:
    """One to four notes at least 0.4 s apart, each over before the next begins."""
    instrument = INSTRUMENTS[name]
    lowest = int(generator.integers(instrument.lowest, instrument.highest - WINDOW + 1))
    repeated, apart = generator.random() < 0.25, float(generator.uniform(0.4, 0.9))
    # With a clear pause where the same note comes again; a reverberating organ would join them.
    articulation = generator.uniform(0.4, 0.6 if repeated else 0.9)
    start = float(generator.uniform(0.05, 0.4))
    pitch = int(generator.integers(lowest, lowest + WINDOW + 1))
    notes = []
    for i in range(int(generator.integers(1, 5))):
        if i and not repeated:
            pitch = pick([p for p in range(lowest, lowest + WINDOW + 1) if p != pitch], generator)
        length = round(apart * articulation, 3)
        notes.append(Note(round(start + i * apart, 3), length, pitch, int(generator.integers(80, 112))))
    part = Part(name, pick(instrument.programs, generator), tuple(notes))
    return Phrase((part,), None, None, round(notes[-1].start + notes[-1].length + 0.8, 3), _draw_reverb(generator))


def _draw_reverb(generator: Generator) -> int:
    return int(generator.integers(0, 100))


def pick(options: Sequence[Choice], generator: Generator) -> Choice:
    """One of them, each as likely."""
    return options[int(generator.integers(len(options)))]


@dataclass(frozen=True)
class _Key:
    root: int  # pitch class
    scale: tuple[int, ...]
    harmony: Sequence[int]  # the degree of the chord of every two beats

    def pitches(self, degrees: Sequence[int], lowest: int) -> list[int]:
        """The notes of these degrees in the window above ``lowest``."""
        classes = {self.scale[degree % 7] for degree in degrees}
        return [pitch for pitch in range(lowest, lowest + WINDOW + 1) if (pitch - self.root) % 12 in classes]

    def chord(self, beat: float, lowest: int) -> list[int]:
        degree = self.harmony[int(beat // 2)]
        return self.pitches((degree, degree + 2, degree + 4), lowest)


_Beats = tuple[float, float, int, int]
"""A note whose start and length are in beats: start, length, pitch, velocity."""


def _tune(name: str, leads: bool, key: _Key, tempo: Tempo, n_beats: int, generator: Generator) -> list[_Beats]:
    """The notes of one part."""
    instrument = INSTRUMENTS[name]
    lowest = int(generator.integers(instrument.lowest, instrument.highest - WINDOW + 1))
    loudness = int(generator.integers(85, 105)) - (0 if leads else 10)
    articulation = pick((0.5, 0.8, 0.95, 0.95), generator)
    steps = ((0.5, 0.5),) if tempo.word == "fast" else ((1,),)
    if leads:
        role = pick(("melody", "melody", "chords", "broken chords") if instrument.chords else ("melody",), generator)
    elif name in BASSES:
        role = "bass"
    else:
        role = pick(("chords", "broken chords"), generator) if instrument.chords else "held"
    cells: dict[str, Cells] = {"broken chords": steps, "held": ((2,),), "bass": ((1,), (2,))}
    pitch = lowest + WINDOW // 2
    notes: list[_Beats] = []
    for i, (start, length) in enumerate(rhythm := list(_rhythm(cells.get(role, tempo.cells), n_beats, generator))):
        chord = key.chord(start, lowest)
        if role == "chords":
            first = int(generator.integers(len(chord) - 2))
            pitches = chord[first : first + 3]
        elif role == "broken chords":
            there_and_back = [*chord, *chord[-2:0:-1]]
            pitches = [there_and_back[i % len(there_and_back)]]
        elif role == "bass":
            pitches = [key.pitches((key.harmony[int(start // 2)],), lowest)[0]]
        else:
            options = chord if start % 1 == 0 else key.pitches(range(7), lowest)
            if leads and i in (0, len(rhythm) - 1):
                options = key.pitches((0,), lowest)
            near = sorted(options, key=lambda option: (abs(option - pitch), option))[:4]
            pitch = pick([option for option in near if option != pitch] or near, generator)
            pitches = [pitch]
        accent = 8 if start % 2 == 0 else 0
        velocity = loudness + accent + int(generator.integers(-6, 7))
        notes += [(start, length * articulation, each, velocity) for each in pitches]
    return notes


def _rhythm(cells: Cells, n_beats: int, generator: Generator) -> Iterator[tuple[float, float]]:
    """Starts and lengths in beats: a motif of four beats over and over, the last note held to the end."""
    motif: list[float] = []
    while (left := 4 - sum(motif)) > 0:
        motif += pick([cell for cell in cells if sum(cell) <= left], generator)
    now, i = 0.0, 0
    while now < n_beats:
        # What would be left after this note is too short for a note of its own.
        length = n_beats - now if n_beats - now - motif[i % len(motif)] < 0.5 else motif[i % len(motif)]
        yield now, length
        now, i = now + length, i + 1


def _drum_beat(n_beats: int, generator: Generator) -> list[_Beats]:
    beat = pick(BEATS, generator)
    loudness = int(generator.integers(60, 85))  # at equal velocities drums drown the rest
    notes = []
    for step in range(2 * n_beats):
        for drum, hits in beat:
            if hits[step % 8] == "x":
                softer = 15 if drum in (HAT, OPEN_HAT, RIDE) else 0
                notes.append((step / 2, 0.2, drum, loudness - softer + int(generator.integers(-8, 9))))
    return notes
