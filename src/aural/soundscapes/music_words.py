"""What is true of a phrase of music, in labels, captions, questions and answers; all of it follows from its notes.

Captions are lower case and without punctuation, and name the instruments of the phrase and no others, by
:func:`aural.sound_phrases.named_sounds`.
"""

import hashlib
import zlib
from collections.abc import Sequence

from numpy.random import Generator, default_rng

from aural.manifest import Event
from aural.soundscapes.music_phrase import INSTRUMENTS, TEMPOS, Phrase, draw_names, pick

NUMBERS = ("no", "one", "two", "three", "four")


def labels(phrase: Phrase) -> tuple[str, ...]:
    """Of the instruments, as in :mod:`aural.sound_phrases`."""
    return tuple(INSTRUMENTS[name].label for name in phrase.names)


def source(phrase: Phrase) -> str:
    """A name for the combination of instruments, the same whatever their order."""
    return "music-" + hashlib.sha256(" + ".join(sorted(phrase.names)).encode()).hexdigest()[:8]


def events(phrase: Phrase) -> tuple[Event, ...]:
    """Every single note by itself; of a piece, each instrument from its first note to the end of its last."""
    if phrase.bpm is None:
        label = labels(phrase)[0]
        return tuple(Event(label, note.start, round(note.start + note.length, 3)) for note in phrase.parts[0].notes)
    return tuple(
        Event(
            INSTRUMENTS[part.instrument].label,
            part.notes[0].start,
            round(max(note.start + note.length for note in part.notes), 3),
        )
        for part in phrase.parts
    )


def captions(phrase: Phrase) -> tuple[str, ...]:
    """Sentences that are all true of a phrase, lower case and without punctuation, each different."""
    generator = _generator_of(phrase)
    # An instrument may have two names; each sentence takes the ones of the first version or of the second.
    versions = [[pick(INSTRUMENTS[name].names, generator) for name in phrase.names] for _ in range(2)]
    said = zip(*(_captions(phrase, names) for names in versions), strict=True)
    return tuple(pick(either, generator) for either in said)


def _captions(phrase: Phrase, names: Sequence[str]) -> list[str]:
    who = together(names)
    plural = len(names) > 1 or names[0] == "drums"
    plays, are = ("play", "are") if plural else ("plays", "is")
    if phrase.note_count is not None:
        notes = _notes(phrase.note_count)
        said = [
            *(f"{who} plays {notes}", f"{who} playing {notes}", f"{notes} played on {who}", f"{notes} of {who}"),
            *(f"{who} can be heard playing {notes}", f"{who} is played"),
        ]
        return [*said, f"a single note of {who}", f"{who} plays a single note"] if phrase.note_count == 1 else said
    tempo, mode = phrase.tempo, phrase.mode
    assert tempo is not None
    things = ("a {} rhythm", "a {} beat") if phrase.names == ("drums",) else ("{} music", "a {} piece")
    music, piece = (thing.format(tempo.word) for thing in things)
    said = [
        *(f"{who} {plays}", f"{who} {are} playing", f"the sound of {who}"),
        *(
            f"{who} {plays} {music}",
            f"{who} playing {piece}",
            f"{music} played by {who}",
            f"{who} {plays} {tempo.adverb}",
        ),
    ]
    if mode is not None:
        said += [
            *(f"{who} {are} playing in a {mode} key", f"{piece} in a {mode} key played by {who}"),
            *(f"{who} {plays} {music} in a {mode} key", f"{who} playing in a {mode} key {tempo.adverb}"),
        ]
    if len(names) > 1:
        accompanied = f"{names[0]} accompanied by {together(names[1:])}"
        said += [accompanied, f"{accompanied} playing {music}"]
    return said


def questions(phrase: Phrase) -> list[tuple[str, str]]:
    """Questions and answers. Yes and no are equally many, for every instrument too, so that none gives it away."""
    generator = _generator_of(phrase)
    present, absent = _present_and_absent(phrase, generator)
    right_and_wrong = [*((name, "yes") for name in present), *((name, "no") for name in absent)]
    asked: list[tuple[str, str]] = []
    for name, answer in right_and_wrong:
        form = "are there {}?" if name == "drums" else "is there {}?"
        asked.append((pick((form, "can {} be heard?"), generator).format(name), answer))
    if len(phrase.names) == 1:
        asked.append(("which instrument is playing?", phrase.names[0]))
    else:
        asked.append(("which instruments are playing?", together(phrase.names)))
    asked.append(("how many instruments are playing?", NUMBERS[len(phrase.names)]))
    if phrase.note_count is not None:
        notes = _notes(phrase.note_count)
        others = [_notes(n) for n in range(1, 5) if n != phrase.note_count]
        asked += [
            ("how many notes are played?", NUMBERS[phrase.note_count]),
            *((f"does {_the(name)} play {notes}?", answer) for name, answer in right_and_wrong),
            (f"can exactly {notes} be heard?", "yes"),
            (f"can exactly {pick(others, generator)} be heard?", "no"),
        ]
    if (tempo := phrase.tempo) is not None:
        others = [other.word for other in TEMPOS if other != tempo]
        asked += [
            ("is the music slow, medium paced or fast?", tempo.word),
            *([("is the music fast or slow?", tempo.word)] if tempo.word != "medium paced" else []),
            *((f"{_is(name)} playing {tempo.adverb}?", answer) for name, answer in right_and_wrong),
            (f"is the music {tempo.word}?", "yes"),
            (f"is the music {pick(others, generator)}?", "no"),
        ]
    if phrase.mode is not None:
        asked.append(("is the music in a major or a minor key?", phrase.mode))
    return asked


def _present_and_absent(phrase: Phrase, generator: Generator) -> tuple[list[str], list[str]]:
    """Equally many instruments that are in a phrase and that are not, none of a kind with one of the others: a bass
    guitar is some guitar.

    These are the instruments in which the phrase differs from another one, drawn at random; there may be none. As that
    other might as well have been the phrase, every instrument, however frequent, is asked for as often in vain as not.
    """
    names, single = draw_names(generator)
    while single != (phrase.bpm is None):
        names, single = draw_names(generator)
    both = {_kind(name) for name in names} & {_kind(name) for name in phrase.names}
    ours, theirs = (
        [name for name in generator.permutation(of).tolist() if _kind(name) not in both] for of in (phrase.names, names)
    )
    n = min(len(ours), len(theirs))
    return ours[:n], theirs[:n]


def _kind(name: str) -> str:
    return name.split()[-1].removesuffix("s")


def _generator_of(phrase: Phrase) -> Generator:
    """For choices of words that depend on nothing but the phrase."""
    return default_rng(zlib.crc32(repr(phrase).encode()))


def together(names: Sequence[str]) -> str:
    """``a and b with c and d``, without commas."""
    pairs = [" and ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
    return " with ".join(pairs)


def _notes(n: int) -> str:
    return f"{NUMBERS[n]} note" + ("" if n == 1 else "s")


def _the(name: str) -> str:
    return "the " + name.removeprefix("a ").removeprefix("an ")


def _is(name: str) -> str:
    return f"{'are' if name == 'drums' else 'is'} {_the(name)}"
