"""Soundscapes: always the same for a seed, and what is said of them is what can be measured in them."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from typer.testing import CliRunner

from aural.__main__ import app
from aural.audio import read_mono, write
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.fluency_rules import errors
from aural.manifest import Clip, read_manifest, write_manifest
from aural.metrics.events import order_of
from aural.sound_phrases import SILENCE, SOUNDS, named_sounds
from aural.soundscapes import acoustics, recordings, synthesis
from aural.soundscapes.compose import LIKE_NOISE, RMS, Soundscapes, SoundscapeSettings
from aural.soundscapes.examples import Examples, ExampleSettings
from aural.soundscapes.prepare import prepare, with_kinds
from aural.soundscapes.questions import HELD_OUT, KINDS, NOT_THERE, SEEN, Question, Wording, bare, questions, verdict
from aural.soundscapes.reading import read
from aural.soundscapes.scene import CONTRAST_DB, Scene
from aural.soundscapes.wording import NUMBERS, brief, caption, captions


def bark(hz: float, seconds: float = 0.3) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.4 * np.sin(2 * np.pi * hz * times) * np.exp(-6 * times)).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two dogs of one and three barks, steady rain, and a cow that the table of sounds does not know."""
    folder = tmp_path_factory.mktemp("recordings")
    gap = np.zeros(SAMPLE_RATE // 2, np.float32)
    generator = np.random.default_rng(0)
    sounds = {
        "dog1": np.concatenate([gap, bark(500), gap]),
        "dog3": np.concatenate([bark(700), gap, bark(650), gap, bark(720), gap]),
        "rain": 0.1 * generator.standard_normal(3 * SAMPLE_RATE, dtype=np.float32),
        "cow": bark(150, 1.0),
    }
    labels = {"dog1": "dog bark", "dog3": "dog bark", "rain": "rain", "cow": "cow"}
    made = []
    for name, waveform in sounds.items():
        write(folder / f"{name}.wav", waveform, SAMPLE_RATE)
        label = labels[name]
        said = SOUNDS[label].finite if label in SOUNDS else ("a cow moos",)
        made.append(Clip(folder / f"{name}.wav", captions=said, labels=(label,), source=name))
    return made


@pytest.fixture(scope="module")
def drawn(clips: list[Clip]) -> list[Scene]:
    soundscapes = Soundscapes(clips, SoundscapeSettings(), seed=0)
    return [soundscapes(index).scene for index in range(400)]


# ------------------------------------------------------------------------------------------------------------ composing


def test_the_same_index_is_the_same_soundscape_whoever_asks(clips: list[Clip]) -> None:
    one, other = (Soundscapes(clips, SoundscapeSettings(), seed=5) for _ in range(2))
    forwards = [one(index) for index in range(12)]
    backwards = [other(index) for index in reversed(range(12))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert a.scene == b.scene
        assert np.array_equal(a.waveform, b.waveform)
    assert Soundscapes(clips, SoundscapeSettings(), seed=6)(3).scene != forwards[3].scene


def test_soundscapes_of_a_group_have_one_length(clips: list[Clip]) -> None:
    soundscapes = Soundscapes(clips, SoundscapeSettings(seconds=(2.0, 6.0), group=4), seed=0)
    lengths = [len(soundscapes(index).waveform) for index in range(12)]
    assert [len(set(lengths[place : place + 4])) for place in (0, 4, 8)] == [1, 1, 1]
    assert len(set(lengths)) > 1
    assert all(2.0 <= n / SAMPLE_RATE <= 6.0 for n in lengths)


def test_scenes_are_consistent(drawn: list[Scene]) -> None:
    for scene in drawn:
        assert len(set(scene.labels)) == len(scene.labels)
        for part in scene.parts:
            assert all(0 <= start < end <= scene.seconds for start, end in part.times), part
            assert list(part.times) == sorted(part.times)
            assert all(a[1] <= b[0] for a, b in zip(part.times, part.times[1:], strict=False)) or not part.counted
            assert part.count is None or 1 <= part.count <= 4
        for first, second in scene.order:
            ends = [event.end for event in scene.events if event.label == first]
            starts = [event.start for event in scene.events if event.label == second]
            assert max(ends) <= min(starts)


def test_every_kind_is_drawn_and_labels_that_nobody_can_word_are_left_out(drawn: list[Scene]) -> None:
    labels = Counter(label for scene in drawn for label in scene.labels)
    assert {"dog bark", "rain", SILENCE, *synthesis.SYNTHESISED} <= set(labels)
    assert "cow" not in labels
    assert {len(scene.parts) for scene in drawn} == {0, 1, 2, 3}
    assert {part.count for scene in drawn for part in scene.parts} == {None, 1, 2, 3, 4}
    assert {part.tempo for scene in drawn for part in scene.parts} == {None, "slow", "fast"}


def test_without_recordings_everything_is_synthesised() -> None:
    soundscapes = Soundscapes([], SoundscapeSettings(), seed=0)
    heard = {label for index in range(200) for label in soundscapes(index).scene.labels}
    assert heard == {*synthesis.SYNTHESISED, SILENCE}
    assert all(not soundscapes(index).scene.sources for index in range(20))


def test_counted_sounds_are_there_so_often_and_then(clips: list[Clip]) -> None:
    settings = SoundscapeSettings(kinds=(("counted", 1.0),), synthesised=0.0, noise_floor=0.0, distant=0.0)
    soundscapes = Soundscapes([clip for clip in clips if clip.labels[0] == "dog bark"], settings, seed=1)
    for index in range(40):
        soundscape = soundscapes(index)
        (part,) = soundscape.scene.parts
        found = recordings.bursts(soundscape.waveform, quiet_db=-20.0, weak_db=-15.0)
        assert len(found) == part.count
        for (start, _), (measured, _) in zip(part.times, found, strict=True):
            assert abs(start - measured / SAMPLE_RATE) < 0.08


def test_levels_are_as_stated(clips: list[Clip]) -> None:
    settings = SoundscapeSettings(
        kinds=(("sequence", 1.0),), contrast=1.0, distant=0.0, noise_floor=0.0, gain_db=0.0, seconds=(6.0, 6.0)
    )
    soundscapes = Soundscapes(clips, settings, seed=2)
    said = 0
    for index in range(30):
        soundscape = soundscapes(index)
        first, second = soundscape.scene.parts
        measured = [
            acoustics.active_rms(soundscape.waveform[round(part.start * SAMPLE_RATE) : round(part.end * SAMPLE_RATE)])
            for part in (first, second)
        ]
        difference = 20 * np.log10(measured[0] / measured[1])
        # a click lies in one frame of the measure or on the border of two, which is 3 dB
        assert difference == pytest.approx(first.level_db - second.level_db, abs=3.5)
        said += soundscape.scene.louder(first) is not None
        assert (soundscape.scene.louder(first) is True) == (first.level_db - second.level_db >= CONTRAST_DB)
    assert said > 20


def test_noise_never_sounds_with_what_is_like_it(clips: list[Clip]) -> None:
    kinds = (("overlap", 0.5), ("background", 0.5))
    soundscapes = Soundscapes(clips, SoundscapeSettings(kinds=kinds, synthesised=0.5), seed=5)
    heard = [frozenset(part.label for part in soundscapes(index).scene.parts) for index in range(300)]
    assert sum("noise" in labels for labels in heard) > 5 < sum("rain" in labels for labels in heard)
    assert all(len(labels & LIKE_NOISE) < 2 for labels in heard)


def test_silence_is_silent_and_nothing_clips(clips: list[Clip]) -> None:
    soundscapes = Soundscapes(clips, SoundscapeSettings(), seed=3)
    for index in range(150):
        soundscape = soundscapes(index)
        rms = float(np.sqrt(np.mean(soundscape.waveform**2)))
        assert np.abs(soundscape.waveform).max() <= 1.0
        assert rms < 10 ** (-70 / 20) if not soundscape.scene.parts else rms > 10 ** (-65 / 20)


def test_a_distant_sound_is_dull_and_reverberant() -> None:
    generator = np.random.default_rng(0)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1.0
    heard = acoustics.from_afar(click, generator)
    spectrum = np.abs(np.fft.rfft(heard)) ** 2
    above = spectrum[len(spectrum) * 3000 // 8000 :].sum() / spectrum.sum()
    assert above < 1e-3
    assert (heard[2000:] ** 2).sum() > 0.1 * (heard**2).sum()  # a tenth of a second later


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -1.0), ("brown", -2.0)])
def test_colours_of_noise(colour: acoustics.NoiseColour, slope: float) -> None:
    noise = acoustics.noise(1 << 18, colour, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    low, high = (power[(hz > centre / 1.4) & (hz < centre * 1.4)].mean() for centre in (200, 3200))
    assert np.log2(high / low) / 4 == pytest.approx(slope, abs=0.1)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("label", synthesis.SYNTHESISED)
def test_synthesised_sounds_are_finite_and_audible(label: str) -> None:
    for seed in range(5):
        made = synthesis.SYNTHESISED[label](np.random.default_rng(seed))
        assert made.dtype == np.float32
        assert np.isfinite(made).all()
        assert 0.04 <= len(made) / SAMPLE_RATE <= 5.0
        assert acoustics.active_rms(made) > 1e-3


def test_pitch_rises_and_falls() -> None:
    for seed in range(5):
        for make, rises in ((synthesis.rising_tone, True), (synthesis.falling_tone, False)):
            made = make(np.random.default_rng(seed))
            parts = [made[: len(made) // 4], made[-len(made) // 4 :]]
            crossings = [np.count_nonzero(np.diff(np.signbit(part))) for part in parts]
            assert (crossings[1] > crossings[0]) == rises


# --------------------------------------------------------------------------------------------------------------- saying


def test_captions_say_what_is_there_and_in_which_order(drawn: list[Scene]) -> None:
    generator = np.random.default_rng(0)
    for scene in drawn:
        everything_in_turn = len(scene.order) == len(scene.foreground) * (len(scene.foreground) - 1) // 2
        for said in captions(scene, 4, generator):
            reading = read(said)
            assert {(one.label, one.count) for one in reading.mentions} == {
                (part.label, part.count) for part in scene.parts
            } or (scene.labels == (SILENCE,) == tuple(one.label for one in reading.mentions)), said
            assert set(reading.order) == (set(scene.order) if everything_in_turn else set()), said
            assert errors(said) == (), said
            assert said == " ".join(said.lower().split())
        assert named_sounds(brief(scene, generator)) == set(scene.labels)


def test_ten_thousand_captions_hold_thousands_of_sentences(clips: list[Clip]) -> None:
    soundscapes = Soundscapes([], SoundscapeSettings(), seed=0)
    generator = np.random.default_rng(0)
    scenes = [soundscapes(index).scene for index in range(500)]
    said = [caption(scenes[number % len(scenes)], generator) for number in range(10_000)]
    assert len(set(said)) > 3000


@pytest.mark.parametrize(
    ("said", "mentions", "order"),
    [
        ("a dog barks twice.", {("dog bark", 2)}, []),
        ("Rain falls, and then a dog barks", {("rain", None), ("dog bark", None)}, [("rain", "dog bark")]),
        ("a dog barks after rain falls", {("rain", None), ("dog bark", None)}, [("rain", "dog bark")]),
        ("a dog barks three times while rain falls", {("rain", None), ("dog bark", 3)}, []),
        ("a fire burns and crackles", {("fire crackling", None)}, []),
        ("a single beep before a fire burns and crackles", {("beep", 1), ("fire crackling", None)},
         [("beep", "fire crackling")]),
        ("rain falls while two beeps can be heard and then a dog barks once",
         {("rain", None), ("beep", 2), ("dog bark", 1)}, [("beep", "dog bark")]),
        ("there is silence", {("silence", None)}, []),
        ("a dog barks and then there is silence", {("dog bark", None)}, [("dog bark", "silence")]),
        ("somebody talks", set(), []),
    ],
)  # fmt: skip
def test_reading_by_hand(said: str, mentions: set[tuple[str, int | None]], order: list[tuple[str, str]]) -> None:
    reading = read(said)
    assert {(one.label, one.count) for one in reading.mentions} == mentions
    assert list(reading.order) == order


@given(st.text(max_size=200))
@hypothesis_settings(max_examples=100, deadline=None)
def test_any_text_can_be_read(text: str) -> None:
    reading = read(text)
    assert reading.labels <= {*SOUNDS, SILENCE}


# --------------------------------------------------------------------------------------------------------------- asking


@pytest.mark.parametrize("wording", [SEEN, HELD_OUT])
def test_answers_are_true(drawn: list[Scene], wording: Wording) -> None:
    generator = np.random.default_rng(0)
    asked = Counter()
    things = {SOUNDS[label].noun_phrases[0]: label for label in SOUNDS}
    for scene in drawn:
        parts = {part.label: part for part in scene.parts}
        for one in questions(scene, generator, wording):
            asked[one.kind, one.answer if one.answer in ("yes", "no") else "*"] += 1
            named = [label for thing, label in things.items() if thing in one.question]
            if one.kind == "presence":
                assert (one.answer == "yes") == (named[0] in parts), one
            elif one.kind == "count":
                (label,) = (label for label in parts if _many(label) in one.question)
                assert NUMBERS.index(one.answer) == parts[label].count, one
            elif one.kind == "comparison":  # in the order of the question
                named = sorted(
                    filter(lambda p: _many(p) in one.question, parts), key=lambda p: one.question.find(_many(p))
                )
                a, b = (parts[label].count or 0 for label in named)
                first, second = (bare(parts[label].label) for label in named)
                assert one.answer == f"{first} {NUMBERS[a]}, {second} {NUMBERS[b]}, so {'yes' if a > b else 'no'}"
                assert verdict(one.answer) == ("yes" if a > b else "no")
            elif one.kind == "premise":
                assert one.answer.startswith(NOT_THERE.split("{", maxsplit=1)[0])
                assert not any(label in parts for label in named), one
            elif one.kind == "loudness":
                loudest = max(scene.foreground, key=lambda part: part.level_db)
                assert one.answer in things or _reasoned(one, ("louder", "quieter"), wording.is_louder)
                assert (things[_named(one.answer)] == loudest.label) == (verdict(one.answer) != "no")
            elif one.kind == "duration":
                longest = max(scene.foreground, key=lambda part: part.seconds)
                assert things[one.answer] == longest.label
            elif one.kind == "order" and one.answer in things:
                place = 0 if one.question in wording.first else -1
                assert things[one.answer] == scene.foreground[place].label
            elif one.kind == "order" and one.answer not in ("yes", "no"):
                assert _reasoned(one, ("first", "later"), wording.before)
                assert (things[_named(one.answer)] == scene.foreground[0].label) == (verdict(one.answer) == "yes")
            elif one.kind == "manner":
                part = parts[named[0]]
                assert ("far away" in one.answer) == part.distant and ("behind" in one.answer) == part.background
                assert [NUMBERS.index(word) for word in one.answer.split() if word in NUMBERS] == [
                    n for n in (part.count,) if n is not None
                ]
            elif one.kind == "tempo":
                assert one.answer in {part.tempo for part in scene.parts}
    assert {kind for kind, _ in asked} == set(KINDS)
    yes, no = asked["presence", "yes"], asked["presence", "no"]
    assert 0.4 < yes / (yes + no) < 0.6


def _about_the_first_named(question: str, thing: str, ways: tuple[str, ...]) -> bool:
    """Whether a question, put in one of some ways, has a thing in the place of their ``{a}``."""
    return any(
        re.fullmatch(re.escape(way).replace(r"\{a\}", re.escape(thing)).replace(r"\{b\}", ".+"), question)
        for way in ways
    )


def _named(answer: str) -> str:
    """The sound in an answer, without what is said of it."""
    return re.sub(r" (first|later|louder|quieter), so (yes|no)$", "", answer)


def _reasoned(one: Question, words: tuple[str, str], ways: tuple[str, ...]) -> bool:
    """Whether an answer says of the sound that is asked of the first word, and so yes, or the second, and so no."""
    thing = _named(one.answer)
    assert one.answer == f"{thing} {words[0]}, so yes" or one.answer == f"{thing} {words[1]}, so no"
    return _about_the_first_named(one.question, thing, ways)


def test_paraphrases_are_new() -> None:
    assert all(set(ways).isdisjoint(getattr(HELD_OUT, name)) for name, ways in vars(SEEN).items())


def _many(label: str) -> str:
    words = SOUNDS[label].one_and_many
    return words[1] if words else "\0"


# ------------------------------------------------------------------------------------------------------------- examples


def test_examples_mix_soundscapes_and_recordings(clips: list[Clip]) -> None:
    settings = ExampleSettings(SoundscapeSettings(seconds=(2.0, 4.0), group=5), recordings=0.4)
    examples = Examples(clips, settings, seed=0)
    drawn = [examples(index) for index in range(60)]
    again = Examples(clips, settings, seed=0)(7)
    assert again.caption == drawn[7].caption
    assert np.array_equal(again.waveform, drawn[7].waveform)
    whole = [example for example in drawn if "cow" in example.labels]
    assert whole and all(example.caption == "a cow moos" for example in whole)
    assert all(len({len(one.waveform) for one in drawn[at : at + 5]}) == 1 for at in range(0, 60, 5))
    for index, example in enumerate(drawn):
        assert example.caption == examples.with_captions(index, 3)[1][0]
        assert {event.label for event in example.events} <= set(example.labels)
        assert np.abs(example.waveform).max() > 0 or example.labels == (SILENCE,)
    with pytest.raises(ValueError, match="caption"):
        Examples([], settings, seed=0)


# -------------------------------------------------------------------------------------------------------------- writing


def test_a_set_can_be_written_and_read(clips: list[Clip], tmp_path: Path) -> None:
    clips = [replace(clip, split="a" if clip.labels == ("dog bark",) else "b") for clip in clips]
    write_manifest(tmp_path / "m.jsonl", clips)
    command = ["prepare", "soundscapes", str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "set.jsonl"), "--n", "12"]
    result = CliRunner().invoke(app, [*command, "--seed", "4"])
    assert result.exit_code == 0, result.output
    written = read_manifest(tmp_path / "set.jsonl")
    soundscapes = Soundscapes(read_manifest(tmp_path / "m.jsonl"), SoundscapeSettings(), seed=4)
    assert len(written) == 12
    for index, clip in enumerate(written):
        soundscape = soundscapes(index)
        assert clip.labels == soundscape.scene.labels
        assert clip.events == soundscape.scene.events
        assert len(clip.captions) >= 2
        np.testing.assert_allclose(read_mono(clip.audio, SAMPLE_RATE), soundscape.waveform, atol=1e-4)
    command = [*command[:3], "-o", str(tmp_path / "by.jsonl"), "--n", "3", "--by-split", "--seconds", "2", "3"]
    assert CliRunner().invoke(app, [*command, "--kinds", "single,counted"]).exit_code == 0
    halves = read_manifest(tmp_path / "by.jsonl")
    assert [clip.split for clip in halves] == ["a"] * 3 + ["b"] * 3
    assert all({"dog1", "dog3"} >= set((clip.source or "dog1").split("+")) for clip in halves[:3])
    asked = read_manifest(tmp_path / "set.questions.jsonl")
    assert {clip.audio for clip in asked} == {clip.audio for clip in written}
    assert all(clip.question and clip.answer and clip.about["kind"] in KINDS for clip in asked)
    paraphrases = read_manifest(tmp_path / "set.paraphrases.jsonl")
    assert len(paraphrases) == pytest.approx(len(asked), rel=0.3)
    assert {clip.question for clip in asked}.isdisjoint(clip.question for clip in paraphrases)


def test_only_some_kinds(clips: list[Clip], tmp_path: Path) -> None:
    settings = with_kinds(SoundscapeSettings(seconds=(5.0, 6.0)), ["sequence"])
    clips = [replace(clip, split="test") for clip in clips]
    made = prepare(clips, tmp_path / "two.jsonl", n=6, seed=0, settings=settings, splits=["test"])
    assert all(order_of(clip.events) is not None and clip.split == "test" for clip in made)
    with pytest.raises(UsageError, match="no kind of soundscape is called 'duet'; there are single"):
        with_kinds(SoundscapeSettings(), ["duet"])
    assert json.loads((tmp_path / "two.jsonl").read_text().splitlines()[0])["events"]


def test_bursts_by_hand() -> None:
    gap = np.zeros(SAMPLE_RATE // 4, np.float32)
    waveform = np.concatenate([gap, bark(400), gap, 0.1 * bark(400), gap, bark(500), gap])
    assert len(recordings.bursts(waveform)) == 2  # the second is 20 dB weaker
    assert recordings.clear_bursts(waveform, "dog bark") is None  # and makes the number doubtful
    assert len(recordings.clear_bursts(np.concatenate([bark(400), gap, bark(400), gap]), "dog bark") or []) == 2
    assert recordings.bursts(np.zeros(SAMPLE_RATE, np.float32)) == []
    assert RMS > 0
