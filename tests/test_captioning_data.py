"""Training examples: a function of the seed and the index, with captions that are true of what is heard."""

from pathlib import Path

import numpy as np
import pytest

from aural.audio import write
from aural.captioning.data import (
    CaptionCollate,
    CaptionExamples,
    DataSettings,
    clean_caption,
    cut_or_place,
)
from aural.captioning.model import SAMPLE_RATE
from aural.captioning.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from aural.errors import CheckpointError
from aural.manifest import Clip
from aural.sound_phrases import SOUNDS, named_sounds
from aural.soundscapes.acoustics import change_speed, low_pass

TONES = {"dog bark": 400.0, "rain": 1000.0, "rooster": 2500.0}


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """One recording for each label: a tone of its own, 3 s."""
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    for label, hz in TONES.items():
        write(tmp_path / f"{label}.wav", 0.2 * np.sin(2 * np.pi * hz * time), SAMPLE_RATE)
    return [
        Clip(audio=tmp_path / f"{label}.wav", captions=SOUNDS[label].finite, labels=(label,), split="fold1")
        for label in TONES
    ]


def test_an_example_depends_on_seed_and_index_alone(clips: list[Clip]) -> None:
    settings = DataSettings(seconds=1.0)
    first, again = CaptionExamples(clips, settings, seed=3), CaptionExamples(clips, settings, seed=3)
    for index in (5, 0, 17):
        a, b = first(index), again(index)
        assert a.caption == b.caption
        np.testing.assert_array_equal(a.waveform, b.waveform)
    assert not np.array_equal(first(0).waveform, first(1).waveform)
    assert not np.array_equal(first(0).waveform, CaptionExamples(clips, settings, seed=4)(0).waveform)


def test_captions_and_labels_are_true_of_the_sound(clips: list[Clip]) -> None:
    """A label is claimed exactly when its tone is in the spectrum."""
    settings = DataSettings(seconds=2.0, speed_octaves=0.0, mix_probability=0.5)
    examples = CaptionExamples(clips, settings, seed=0)
    sizes = set()
    for index in range(40):
        example = examples(index)
        spectrum = np.abs(np.fft.rfft(example.waveform))
        hz = np.fft.rfftfreq(len(example.waveform), 1 / SAMPLE_RATE)
        heard = {label for label, tone in TONES.items() if spectrum[np.abs(hz - tone) < 5].max() > 0.1 * spectrum.max()}
        assert heard == set(example.labels) == named_sounds(example.caption)
        sizes.add(len(heard))
    assert sizes == {1, 2}


def test_captions_are_those_of_the_examples(clips: list[Clip]) -> None:
    examples = CaptionExamples(clips, DataSettings(seconds=0.5), seed=1)
    assert list(examples.captions(20)) == [examples(index).caption for index in range(20)]


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="caption"):
        CaptionExamples([Clip(audio=Path("a.wav"))], DataSettings(), seed=0)


def test_batches_hold_tokens_and_an_end(clips: list[Clip]) -> None:
    examples = CaptionExamples(clips, DataSettings(seconds=0.5), seed=0)
    tokenizer = train_tokenizer(examples.captions(200), 300)
    drawn = [examples(index) for index in range(4)]
    batch = CaptionCollate(tokenizer)(drawn)
    assert batch["waveform"].shape == (4, SAMPLE_RATE // 2)
    assert batch["captions"] == [example.caption for example in drawn]
    for row, example in zip(batch["labels"], drawn, strict=True):
        ids = row[row != -100].tolist()
        assert ids[-1] == 2
        assert tokenizer.decode(ids[:-1]) == example.caption


def test_tokenizer_keeps_any_text_and_the_ids_of_bart(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a dog is barking", "rain falls on a roof"] * 5, 300)
    for text in ("a dog is barking", "Ünïcode, punctuation! 犬"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")


def test_clean_caption() -> None:
    assert clean_caption("  A dog barks; it's RAINING. ") == "a dog barks its raining"


def test_change_speed_moves_pitch_and_length() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    faster = change_speed(tone, 2.0)
    assert len(faster) == 8000
    assert np.abs(np.fft.rfft(faster)).argmax() * 2 == 880


def test_cut_or_place() -> None:
    generator = np.random.default_rng(0)
    ramp = np.arange(1, 11, dtype=np.float32)
    for _ in range(20):
        cut = cut_or_place(ramp, 4, generator)
        assert (np.diff(cut) == 1).all()
        placed = cut_or_place(ramp, 14, generator)
        assert placed[placed > 0].tolist() == ramp.tolist()
        assert len(placed) == 14


def test_low_pass_removes_what_lies_above() -> None:
    time = np.arange(16000) / 16000
    low, high = np.sin(2 * np.pi * 500 * time), np.sin(2 * np.pi * 5000 * time)
    within = slice(800, -800)  # the ends are steps, which have no highest frequency
    np.testing.assert_allclose(low_pass((low + high).astype(np.float32), 2000.0)[within], low[within], atol=5e-3)
