"""Music with exact truth: phrases of ``music_phrase.py``, played by fluidsynth, in the words of ``music_words.py``.

The program fluidsynth and its soundfont are tools for making training data; nothing else in the package needs them.
They are given a standard MIDI file of format 0, one tick a millisecond.
"""

import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from aural.audio import read_mono, write
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.soundscapes.music_phrase import SHORTEST, Phrase, draw_phrase
from aural.soundscapes.music_words import captions, events, labels, questions, source, together

GAP = 1.5
"""Seconds between two phrases, in which reverberation dies away."""
BATCH = 100
"""Phrases in one call of fluidsynth: reading the soundfont takes longer than playing a phrase."""
LOUDEST = 0.1
"""Root mean square of the loudest quarter of a second of every clip; full scale is 1."""
SOUNDFONTS = ("/usr/share/sounds/sf3/FluidR3Mono_GM.sf3", "/usr/share/sounds/sf2/FluidR3_GM.sf2")
"""Where Debian's fluidr3mono-gm-soundfont and fluid-soundfont-gm put theirs; both are under the MIT licence."""


def midi(phrases: Sequence[Phrase]) -> bytes:
    """A standard MIDI file, format 0, with the phrases one after the other, :data:`GAP` between them."""
    timed: list[tuple[int, int, bytes]] = []  # milliseconds, order within one, message
    begin = 0.0
    for phrase in phrases:
        melodic = iter(channel for channel in range(16) if channel != 9)
        for part in phrase.parts:
            channel = 9 if part.instrument == "drums" else next(melodic)
            settings = (
                bytes((0xC0 | channel, part.program)),
                bytes((0xB0 | channel, 91, phrase.reverb)),
            )
            timed += [(round(1000 * begin), 1, message) for message in settings]
            for note in part.notes:
                on, off = (round(1000 * (begin + at)) for at in (note.start, note.start + note.length))
                timed.append((on, 2, bytes((0x90 | channel, note.pitch, note.velocity))))
                timed.append((off, 0, bytes((0x80 | channel, note.pitch, 64))))
            # All sound off, so that nothing rings on into the next phrase.
            timed.append((round(1000 * (begin + phrase.seconds)), 3, bytes((0xB0 | channel, 120, 0))))
        begin += phrase.seconds + GAP
    timed.append((round(1000 * begin), 4, b"\xff\x2f\x00"))
    track, last = bytearray(b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big")), 0
    for at, _, message in sorted(timed, key=lambda each: each[:2]):
        track += _variable_length(at - last) + message
        last = at
    header = b"MThd" + (6).to_bytes(4, "big") + b"\x00\x00\x00\x01" + (500).to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + bytes(track)


def _variable_length(number: int) -> bytes:
    """Seven bits a byte, the highest first, all but the last byte marked by their top bit."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(0x80 | number & 0x7F)
    return bytes(reversed(digits))


def prepare(
    out: str | os.PathLike[str],
    *,
    n: int,
    seed: int = 0,
    seconds: float = 6.0,
    soundfont: str | os.PathLike[str] | None = None,
) -> list[Clip]:
    """Draw phrases, play them into ``out/audio`` (FLAC, 16 kHz, mono) and describe them.

    Phrase ``i`` is a function of the seed and ``i`` alone, whatever ``n`` is.

    Args:
        out: folder, made if it is not there.
        n: how many phrases.
        seed: 0 or more.
        seconds: how long a piece is, at least :data:`SHORTEST`.
        soundfont: a file with General MIDI instruments; else the first of :data:`SOUNDFONTS` that is there.

    Returns:
        For each phrase one clip with labels, captions and events, and one for each of its questions. Their ``source``
        is the combination of instruments.

    Raises:
        UsageError: no fluidsynth or soundfont, one that does not play, a folder that cannot be written, or arguments
            out of range.
    """
    if n < 1 or seed < 0 or not SHORTEST <= seconds <= 60:
        raise UsageError(f"cannot make {n} phrases of {seconds} s, seed {seed}: at least 1, of {SHORTEST} to 60 s")
    folder = Path(os.path.abspath(out)) / "audio"  # noqa: PTH100 (resolve would follow links)
    font = _soundfont(soundfont)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    clips = []
    for first in range(0, n, BATCH):
        numbers = range(first, min(n, first + BATCH))
        phrases = [draw_phrase(default_rng([seed, number]), seconds) for number in numbers]
        for number, phrase, waveform in zip(numbers, phrases, render(phrases, font), strict=True):
            path = folder / f"music_{seed}_{number:05d}.flac"
            write(path, waveform, SAMPLE_RATE)
            clips += describe(phrase, path)
    return clips


def describe(phrase: Phrase, audio: Path) -> list[Clip]:
    """What is true of a phrase that was played into this file, as clips: one of it, and one of each question."""
    said = Clip(audio, captions=captions(phrase), labels=labels(phrase), source=source(phrase), events=events(phrase))
    asked = [
        Clip(audio, question=question, answer=answer, source=said.source) for question, answer in questions(phrase)
    ]
    return [said, *asked]


def render(phrases: Sequence[Phrase], soundfont: Path) -> Iterator[np.ndarray]:
    """Play the phrases in one go; each as float32 ``(time,)`` at 16 kHz, all equally loud.

    Raises:
        UsageError: there is no fluidsynth, or it does not play.
    """
    with tempfile.TemporaryDirectory() as place:
        score, sound = Path(place, "score.mid"), Path(place, "sound.wav")
        score.write_bytes(midi(phrases))
        # To a file of floats, which cannot clip, and at 44.1 kHz: at 16 kHz the synthesiser itself sounds dull.
        options = ("-ni", "-q", "-r", "44100", "-T", "wav", "-O", "float", "-F", str(sound))
        # Where it cannot read the soundfont, it would take a default, whatever that is.
        fallback = ("-o", f"synth.default-soundfont={soundfont}")
        try:
            done = subprocess.run(
                ["fluidsynth", *options, *fallback, str(soundfont), str(score)], capture_output=True, text=True
            )
        except FileNotFoundError:
            raise UsageError("music is played by fluidsynth, which is not there: apt install fluidsynth") from None
        if done.returncode or not sound.exists():
            problem = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            raise UsageError(f"{soundfont}: fluidsynth cannot play it ({problem[:200]}); pass another soundfont")
        begin = 0.0
        for phrase in phrases:
            yield _levelled(read_mono(sound, SAMPLE_RATE, start=begin, duration=phrase.seconds), phrase, soundfont)
            begin += phrase.seconds + GAP


def _levelled(waveform: np.ndarray, phrase: Phrase, soundfont: Path) -> np.ndarray:
    """The waveform with its loudest quarter of a second at :data:`LOUDEST`, or less if it would clip."""
    size = SAMPLE_RATE // 4
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    loudest, peak = math.sqrt(float(np.square(frames).mean(axis=1).max())), float(np.abs(waveform).max())
    if peak < 1e-4:
        raise UsageError(f"{soundfont}: plays {together(phrase.names)} without a sound; pass one of General MIDI")
    return waveform * min(LOUDEST / loudest, 0.95 / peak)


def _soundfont(given: str | os.PathLike[str] | None) -> Path:
    if given is not None and not Path(given).is_file():
        raise UsageError(f"{given}: there is no such soundfont; check the path")
    found = [Path(given)] if given is not None else [path for path in map(Path, SOUNDFONTS) if path.is_file()]
    if not found:
        raise UsageError("music needs a soundfont of General MIDI: apt install fluidsynth fluidr3mono-gm-soundfont")
    return found[0]
