"""Captions as AudioGen was trained on them."""

from pathlib import Path

import pytest

from aural.manifest import Clip
from aural.text_to_audio.captions import keywords, lemma, prepared, pseudo_sentence


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A dog is barking at the park.", "dog bark park"),  # the paper's own
        ("Two women’s voices, 3 cars passing by, and then a bird chirping", "woman voice car pass bird chirp"),
        ("It was the one that they had", ""),
        ("DOG, dogs; 2 doggies?", "dog dog doggy"),
    ],
)
def test_stop_words_numbers_and_endings_go(caption: str, expected: str) -> None:
    assert keywords(caption) == expected


@pytest.mark.parametrize(
    ("forms", "plain"),
    [
        ("bark barks barking barked", "bark"),
        ("hum hums humming hummed", "hum"),
        ("crackle crackles crackling crackled", "crackle"),
        ("smoke smokes smoking smoked", "smoke"),
        ("wheeze wheezes wheezing wheezed", "wheeze"),
        ("bounce bounces bouncing bounced", "bounce"),
        ("oscillate oscillates oscillating oscillated", "oscillate"),
        ("howl howls howling howled", "howl"),
        ("carry carries carrying carried", "carry"),
        ("ring rings ringing rang", "ring"),
        ("hiss hisses hissing hissed", "hiss"),
        ("branch branches", "branch"),
        ("wolf wolves", "wolf"),
    ],
)
def test_all_forms_of_a_word_come_to_one(forms: str, plain: str) -> None:
    assert {lemma(form) for form in forms.split()} == {plain}


@pytest.mark.parametrize("word", ["morning", "string", "speed", "glass", "bus", "hundred", "series", "bleed"])
def test_what_only_looks_like_an_ending_stays(word: str) -> None:
    assert lemma(word) == word


def test_a_clip_is_learned_with_its_captions_or_else_its_tags_and_not_at_all_if_it_is_speech() -> None:
    said = Clip(Path("a.wav"), captions=("a dog barks", "a barking dog", "dogs bark"), labels=("animal",))
    assert prepared(said) == ("dog bark", "bark dog")
    assert prepared(Clip(Path("a.wav"), labels=("dog", "bark", "park"))) == ("dog bark park",)
    assert prepared(Clip(Path("a.wav"), labels=("can opening", "3D printer"))) == ("can opening 3D printer",)
    assert pseudo_sentence(("dog", "bark", "park")) == "dog bark park"
    for clip in (
        Clip(Path("a.wav"), labels=("dog", "Male speech")),
        Clip(Path("a.wav"), captions=("speech of a man",)),
    ):
        assert prepared(clip) == ()
    assert prepared(Clip(Path("a.wav"), captions=("a loudspeaker hums",))) == ("loudspeaker hum",)
    assert prepared(Clip(Path("a.wav"))) == ()
