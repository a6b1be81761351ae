"""Music with exact truth: what is said of it against the notes in the bytes that are played, and the sound of them."""

import shutil
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from aural.audio import read
from aural.errors import UsageError
from aural.manifest import read_manifest, write_manifest
from aural.sound_phrases import SOUNDS, named_sounds
from aural.soundscapes import music
from aural.soundscapes.music import GAP, describe, midi, prepare
from aural.soundscapes.music_phrase import INSTRUMENTS, MELODIC, TEMPOS, Note, Part, Phrase, draw_phrase
from aural.soundscapes.music_words import NUMBERS, captions, events, labels, questions, source

SCALE_DEGREES = {"major": {0, 2, 4, 5, 7, 9, 11}, "minor": {0, 2, 3, 5, 7, 8, 10}}


@pytest.fixture(scope="module")
def phrases() -> list[Phrase]:
    return [draw_phrase(default_rng([7, number])) for number in range(400)]


def piano(*pitches: int, bpm: int | None = None, mode: str | None = None) -> Phrase:
    """Notes of a piano, one every half a second."""
    notes = tuple(Note(0.2 + 0.5 * i, 0.4, pitch, 90) for i, pitch in enumerate(pitches))
    return Phrase((Part("a piano", 0, notes),), bpm, mode, 0.2 + 0.5 * len(pitches) + 0.8, 40)


def read_midi(data: bytes) -> list[tuple[int, int, int, int]]:
    """The messages of a MIDI file of format 0 without running status: (tick, status, first data byte, second)."""
    assert data[:14] == b"MThd\0\0\0\x06\0\0\0\x01\x01\xf4"  # format 0, one track, 500 ticks a quarter note
    assert data[14:18] == b"MTrk" and int.from_bytes(data[18:22], "big") == len(data) - 22
    place, tick, messages = 22, 0, []
    while place < len(data):
        delta = 0
        while True:
            delta, more = delta << 7 | data[place] & 0x7F, data[place] & 0x80
            place += 1
            if not more:
                break
        tick += delta
        status = data[place]
        if status == 0xFF:
            kind, length = data[place + 1], data[place + 2]
            content = data[place + 3 : place + 3 + length]
            if kind == 0x51:
                assert int.from_bytes(content, "big") == 500_000  # microseconds a quarter note: a tick is 1 ms
            messages.append((tick, status, kind, 0))
            place += 3 + length
        else:
            assert 0x80 <= status < 0xF0
            size = 1 if status & 0xF0 == 0xC0 else 2
            values = [*data[place + 1 : place + 1 + size], 0]
            assert all(value < 128 for value in values)
            messages.append((tick, status, values[0], values[1]))
            place += 1 + size
    assert messages[-1][1:3] == (0xFF, 0x2F)
    return messages


def notes_on(phrase: Phrase) -> list[tuple[int, int, int, int]]:
    return [message for message in read_midi(midi([phrase])) if message[1] & 0xF0 == 0x90]


# ----------------------------------------------------------------------------------------------------------- the notes


def test_a_phrase_follows_from_its_generator() -> None:
    assert draw_phrase(default_rng([3, 5])) == draw_phrase(default_rng([3, 5]))
    assert draw_phrase(default_rng([3, 5])) != draw_phrase(default_rng([3, 6]))


def test_phrases_are_of_all_kinds(phrases: list[Phrase]) -> None:
    assert {name for phrase in phrases for name in phrase.names} == set(INSTRUMENTS)
    assert {phrase.note_count for phrase in phrases} == {None, 1, 2, 3, 4}
    assert {phrase.mode for phrase in phrases} == {None, "major", "minor"}
    assert {phrase.tempo for phrase in phrases} == {None, *TEMPOS}
    assert {len(phrase.parts) for phrase in phrases} == {1, 2, 3, 4}
    assert len({len(phrase.names) for phrase in phrases if "drums" in phrase.names}) == 4


def test_notes_can_be_played_as_they_stand(phrases: list[Phrase]) -> None:
    for phrase in phrases:
        assert len(set(labels(phrase))) == len(phrase.parts)
        for part in phrase.parts:
            instrument = INSTRUMENTS[part.instrument]
            assert part.program in instrument.programs
            ends: dict[int, float] = {}
            for note in part.notes:
                assert instrument.lowest <= note.pitch <= instrument.highest and 20 <= note.velocity <= 127
                assert note.start >= max(0.05, ends.get(note.pitch, 0.0)) and note.length >= 0.05
                ends[note.pitch] = round(note.start + note.length, 3)
            assert max(ends.values()) <= phrase.seconds - 0.5
            if not instrument.chords:
                starts = [note.start for note in part.notes]
                assert len(set(starts)) == len(starts)


def test_single_notes_can_be_told_apart(phrases: list[Phrase]) -> None:
    counted = [phrase for phrase in phrases if phrase.note_count]
    for phrase in counted:
        (part,) = phrase.parts
        assert phrase.seconds < 5 and part.instrument != "drums"
        for note, following in zip(part.notes, part.notes[1:], strict=False):
            assert following.start - note.start >= 0.399 and following.start - note.start > note.length + 0.03
    assert all(count > 10 for count in Counter(phrase.note_count for phrase in counted).values())


def test_the_tempo_is_in_the_notes(phrases: list[Phrase]) -> None:
    rates: dict[str, list[float]] = {tempo.word: [] for tempo in TEMPOS}
    for phrase in phrases:
        if phrase.bpm is None or phrase.tempo is None:
            continue
        assert phrase.tempo.slowest <= phrase.bpm <= phrase.tempo.fastest
        first = min(note.start for part in phrase.parts for note in part.notes)
        for note in (note for part in phrase.parts for note in part.notes):
            halves = (note.start - first) * phrase.bpm / 60 * 2
            assert abs(halves - round(halves)) < 0.02
        starts = sorted({note.start for note in phrase.parts[0].notes})
        rates[phrase.tempo.word].append(60 * (len(starts) - 1) / (starts[-1] - starts[0]))
    slow, medium, fast = (np.median(rates[tempo.word]) for tempo in TEMPOS)
    assert slow < 75 < 90 < medium < 135 < 150 < fast


def test_the_mode_is_in_the_notes(phrases: list[Phrase]) -> None:
    for phrase in phrases:
        pitches = {note.pitch % 12 for part in phrase.parts if part.instrument != "drums" for note in part.notes}
        if phrase.mode is not None:
            roots = [root for root in range(12) if {(p - root) % 12 for p in pitches} <= SCALE_DEGREES[phrase.mode]]
            assert any((root + (4 if phrase.mode == "major" else 3)) % 12 in pitches for root in roots)


# ----------------------------------------------------------------------------------------------------------- the bytes


def test_the_bytes_hold_each_phrase_at_its_place(phrases: list[Phrase]) -> None:
    messages = read_midi(midi(phrases))
    begin = 0.0
    for phrase in phrases:
        end = begin + phrase.seconds
        held = [m for m in messages if round(1000 * begin) <= m[0] <= round(1000 * end)]
        played = Counter((tick - round(1000 * begin), pitch) for tick, status, pitch, _ in held if status >> 4 == 9)
        wanted = Counter((note.start, note.pitch) for part in phrase.parts for note in part.notes)
        assert played.total() == wanted.total()
        for (at, pitch), (start, wanted_pitch) in zip(sorted(played), sorted(wanted), strict=True):
            assert abs(at / 1000 - start) <= 0.0021 and pitch == wanted_pitch
        programs = {m[1] & 0x0F: m[2] for m in held if m[1] >> 4 == 0xC}
        assert sorted(programs.values()) == sorted(part.program for part in phrase.parts)
        assert (9 in programs) == ("drums" in phrase.names)
        assert {m[1] & 0x0F for m in held if m[1] >> 4 == 0xB and m[2] == 120} == set(programs)
        begin = end + GAP
    assert messages[-1][0] == round(1000 * begin)


def test_every_note_that_begins_ends_before_it_begins_again(phrases: list[Phrase]) -> None:
    sounding: set[tuple[int, int]] = set()
    for _, status, pitch, _ in read_midi(midi(phrases)):
        key = (status & 0x0F, pitch)
        if status >> 4 == 9:
            assert key not in sounding
            sounding.add(key)
        elif status >> 4 == 8:
            sounding.remove(key)
    assert not sounding


def test_what_is_said_of_the_number_of_notes_is_what_is_played(phrases: list[Phrase]) -> None:
    for phrase in phrases:
        answers = dict(questions(phrase))
        said = {word for caption in captions(phrase) for word in caption.split() if word in (*NUMBERS, "single")}
        if phrase.note_count is None:
            assert not said and "how many notes are played?" not in answers
            continue
        played = len(notes_on(phrase))
        word = ("no", "one", "two", "three", "four")[played]
        assert said == ({"one", "single"} if played == 1 else {word})
        assert answers["how many notes are played?"] == word
        assert len(events(phrase)) == played


# ----------------------------------------------------------------------------------------------------------- the words


def test_captions_of_single_notes_by_hand() -> None:
    said = captions(piano(60, 64, 67))
    assert {"a piano plays three notes", "three notes played on a piano", "a piano is played"} < set(said)
    assert "a piano plays a single note" in captions(piano(60))


def test_captions_of_a_piece_by_hand() -> None:
    lead = Part("a violin", 40, (Note(0.1, 0.5, 69, 90), Note(0.7, 0.5, 72, 90)))
    drums = Part("drums", 0, (Note(0.1, 0.1, 36, 90),))
    phrase = Phrase((lead, drums), 100, "minor", 6.0, 40)
    said = [caption.replace("a drum kit", "drums") for caption in captions(phrase)]
    assert "a violin and drums play medium paced music in a minor key" in said
    assert "a violin accompanied by drums" in said
    assert labels(phrase) == ("violin", "drums")
    assert [(e.label, e.start, e.end) for e in events(phrase)] == [("violin", 0.1, 1.2), ("drums", 0.1, 0.2)]
    alone = captions(Phrase((drums,), 150, None, 6.0, 40))
    assert {"drums play a fast rhythm", "a drum kit plays a fast rhythm"} & set(alone)


def test_answers_by_hand() -> None:
    answers = {question: answer for pitch in range(60, 70) for question, answer in questions(piano(pitch, 64))}
    assert answers["which instrument is playing?"] == "a piano"
    assert answers["how many instruments are playing?"] == "one"
    assert answers["how many notes are played?"] == "two"
    assert answers["does the piano play two notes?"] == "yes"
    assert answers["can exactly two notes be heard?"] == "yes"
    piece = piano(60, 64, 67, bpm=60, mode="major")
    assert set(questions(piece)) >= {
        *(("is the music slow, medium paced or fast?", "slow"), ("is the music fast or slow?", "slow")),
        *(("is the music slow?", "yes"), ("is the music in a major or a minor key?", "major")),
    }
    assert "is the music fast or slow?" not in dict(questions(replace(piece, bpm=100)))


def test_captions_name_the_instruments_alone_and_claim_nothing_else(phrases: list[Phrase]) -> None:
    words = {word for tempo in TEMPOS for word in (tempo.word, tempo.adverb)}
    for phrase in phrases:
        said = captions(phrase)
        assert len(said) >= 6 and len(set(said)) == len(said)
        for caption in said:
            assert named_sounds(caption) == set(labels(phrase)), caption
            assert caption == " ".join(caption.lower().split()) and not set(caption) & set(string.punctuation)
            true = {phrase.tempo.word, phrase.tempo.adverb} if phrase.tempo else set()
            assert {word for word in words if word in caption} <= true
            assert {mode for mode in ("major", "minor") if mode in caption} <= {phrase.mode}


def test_all_labels_have_words() -> None:
    assert {instrument.label for instrument in INSTRUMENTS.values()} <= set(SOUNDS)
    for instrument in INSTRUMENTS.values():
        assert all(named_sounds(name) == {instrument.label} for name in instrument.names)


def test_yes_and_no_are_equally_many_and_no_instrument_gives_the_answer_away() -> None:
    drawn = [draw_phrase(default_rng([8, number])) for number in range(3000)]
    asked: Counter[tuple[str, str]] = Counter()
    for phrase in drawn:
        pairs = questions(phrase)
        assert len({question for question, _ in pairs}) == len(pairs)
        yes_or_no = Counter(answer for _, answer in pairs if answer in ("yes", "no"))
        assert yes_or_no["yes"] == yes_or_no["no"]
        for question, answer in pairs:
            named = [name for name in INSTRUMENTS if name in question or f"the {name.split(' ', 1)[-1]}" in question]
            if answer in ("yes", "no") and named:
                assert (max(named, key=len) in phrase.names) == (answer == "yes"), (question, answer)
                asked[max(named, key=len), answer] += 1
    for name in INSTRUMENTS:
        assert 0.4 < asked[name, "yes"] / (asked[name, "yes"] + asked[name, "no"]) < 0.6, name


def test_a_source_is_a_combination_of_instruments(phrases: list[Phrase]) -> None:
    combinations = {frozenset(phrase.names) for phrase in phrases}
    assert len({source(phrase) for phrase in phrases}) == len(combinations)
    several = next(phrase for phrase in phrases if len(phrase.parts) > 1)
    assert source(several) == source(replace(several, parts=several.parts[::-1]))
    assert source(piano(60)) == source(piano(72, bpm=60)) != source(several)


def test_what_is_known_of_a_file_fits_into_a_manifest(tmp_path: Path, phrases: list[Phrase]) -> None:
    clips = [clip for phrase in phrases[:20] for clip in describe(phrase, tmp_path / "a.flac")]
    write_manifest(tmp_path / "m.jsonl", clips)
    assert read_manifest(tmp_path / "m.jsonl") == clips
    said, *asked = describe(phrases[0], tmp_path / "a.flac")
    assert said.captions and said.labels and said.events and said.question is None
    assert [(clip.question, clip.answer) for clip in asked] == questions(phrases[0])
    assert not any(clip.captions or clip.labels for clip in asked)


# ----------------------------------------------------------------------------------------------------------- the sound


def playable() -> bool:
    return bool(shutil.which("fluidsynth")) and any(Path(font).is_file() for font in music.SOUNDFONTS)


def test_prepare_writes_what_its_clips_say(tmp_path: Path) -> None:
    if not playable():
        with pytest.raises(UsageError, match="apt install fluidsynth"):
            prepare(tmp_path, n=2)
        return
    clips = prepare(tmp_path / "a", n=6, seed=0)
    said = [clip for clip in clips if clip.captions]
    assert [clip.audio.name for clip in said] == [f"music_0_{number:05d}.flac" for number in range(6)]
    fewer = prepare(tmp_path / "b", n=3, seed=0)
    assert [replace(clip, audio=Path()) for clip in fewer] == [replace(c, audio=Path()) for c in clips[: len(fewer)]]
    for number, clip in enumerate(said):
        waveform, rate = read(clip.audio)
        assert rate == 16000 and waveform.shape == (1, round(draw_phrase(default_rng([0, number])).seconds * rate))
        assert 0.05 < np.abs(waveform).max() <= 0.95
        first = min(event.start for event in clip.events)
        assert np.abs(waveform[0, : round(first * rate)]).max() < 1e-3  # nothing is left of the phrase before
        assert np.abs(waveform[0, round(first * rate) : round((first + 0.3) * rate)]).max() > 0.01
        if number < 3:
            assert np.array_equal(waveform, read(tmp_path / "b" / "audio" / clip.audio.name)[0])


def test_the_notes_that_sound_are_the_ones_asked_for(tmp_path: Path) -> None:
    asked = piano(69, 57, 81)
    if not playable():
        with pytest.raises(UsageError, match="apt install fluidsynth"):
            prepare(tmp_path, n=1)
        return
    *_, waveform = music.render([draw_phrase(default_rng(0)), asked], music._soundfont(None))
    for note, frequency in zip(asked.parts[0].notes, (440.0, 220.0, 880.0), strict=True):
        cut = waveform[round((note.start + 0.05) * 16000) : round((note.start + 0.4) * 16000)]
        spectrum = np.abs(np.fft.rfft(cut * np.hanning(len(cut)), 65536))
        found = np.argmax(spectrum) * 16000 / 65536
        assert min(abs(found / (harmonic * frequency) - 1) for harmonic in (1, 2)) < 0.01


def test_without_fluidsynth_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    font = tmp_path / "some.sf2"
    font.write_bytes(b"a soundfont")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt install fluidsynth"):
        prepare(tmp_path / "out", n=1, soundfont=font)


def test_without_a_soundfont_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no such soundfont"):
        prepare(tmp_path, n=1, soundfont=tmp_path / "none.sf2")
    monkeypatch.setattr(music, "SOUNDFONTS", (str(tmp_path / "none.sf3"),))
    with pytest.raises(UsageError, match="apt install fluidsynth fluidr3mono-gm-soundfont"):
        prepare(tmp_path, n=1)


def test_a_file_that_is_no_soundfont_is_an_error(tmp_path: Path) -> None:
    font = tmp_path / "some.sf2"
    font.write_bytes(b"not a soundfont")
    with pytest.raises(UsageError, match=r"apt install fluidsynth|pass another soundfont|without a sound"):
        prepare(tmp_path / "out", n=1, soundfont=font)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 1, "seed": -1}, {"n": 1, "seconds": 2.0}])
def test_arguments_out_of_range(wrong: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot make"):
        prepare(tmp_path, **wrong)  # type: ignore[arg-type]


def test_melodic_instruments_have_room_for_a_window() -> None:
    for name in MELODIC:
        assert INSTRUMENTS[name].highest - INSTRUMENTS[name].lowest >= 16
