"""Long recordings a few windows at a time: stretches with results of their own, and what is in memory meanwhile."""

import itertools
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aural.answering.answer import AnsweringModel, answer, load as load_answerer
from aural.answering.classify import classify
from aural.audio import Sound, Window, read_mono, windows as windows_of, write
from aural.captioning.caption import CaptioningModel, caption, load as load_captioner
from aural.demo import EXAMPLES
from aural.errors import AudioError, UsageError
from aural.window_batches import Piece, Stretch, batches, pieces, stretches

RATE = 16000
QUESTION = "what can be heard?"
HEARD = [read_mono(file, RATE)[: 5 * RATE] for file in sorted(EXAMPLES.glob("*.ogg"))[:6]]
LONG = (np.concatenate([*HEARD, *HEARD[:3], HEARD[3][: 2 * RATE]]), RATE)
"""47 seconds, of another sound every five: windows of 5 s have one of them each."""
STRETCHES = [(0.0, 20.0), (20.0, 40.0), (40.0, 47.0)]


@pytest.fixture(scope="module")
def captioner() -> CaptioningModel:
    return load_captioner(device="cpu")


@pytest.fixture(scope="module")
def answerer() -> AnsweringModel:
    return load_answerer(device="cpu")


def part(start: float, end: float) -> Sound:
    return LONG[0][round(start * RATE) : round(end * RATE)], RATE


def test_a_stretch_of_any_length_is_captioned_as_a_recording_of_its_own(captioner: CaptioningModel) -> None:
    assert captioner.window_seconds < 20
    found = caption(LONG, model=captioner, method="greedy", windows=20.0)
    assert [(one.start, one.end) for one in found] == STRETCHES
    for one, times in zip(found, STRETCHES, strict=True):
        alone = caption(part(*times), model=captioner, method="greedy")
        assert (one.text, one.score) == (alone.text, pytest.approx(alone.score, abs=1e-4))
    assert any(" then " in one.text for one in found)  # summed up
    together = caption([part(0.0, 7.0), LONG], model=captioner, method="greedy", windows=20.0, batch_size=3)
    assert [(one.text, one.start, one.end) for one in together[1]] == [(one.text, one.start, one.end) for one in found]
    assert [(one.start, one.end) for one in together[0]] == [(0.0, 7.0)]


def test_one_stretch_is_the_whole(captioner: CaptioningModel, answerer: AnsweringModel) -> None:
    """With what is drawn, too."""
    options: dict[str, Any] = {"model": captioner, "n_candidates": 4, "seed": 3}
    whole, (stretch,) = caption(LONG, **options), caption(LONG, windows=3600.0, **options)
    assert (stretch.start, stretch.end) == (0.0, 47.0)
    assert (stretch.text, stretch.score, stretch.candidates) == (whole.text, whole.score, whole.candidates)
    for method in ("greedy", "sample"):
        asked: dict[str, Any] = {"model": answerer, "method": method, "seed": 3}
        answered, (of_stretch,) = answer(LONG, QUESTION, **asked), answer(LONG, QUESTION, windows=50.0, **asked)
        assert (of_stretch.text, of_stretch.score) == (answered.text, answered.score)
        assert (of_stretch.start, of_stretch.end) == (0.0, 47.0)


def test_a_stretch_of_any_length_is_asked_as_a_recording_of_its_own(answerer: AnsweringModel) -> None:
    assert answerer.model.config.seconds < 20
    for batch_size in (8, 2):
        found = answer(LONG, QUESTION, model=answerer, windows=20.0, batch_size=batch_size)
        assert [(one.start, one.end) for one in found] == STRETCHES
        for one, times in zip(found, STRETCHES, strict=True):
            alone = answer(part(*times), QUESTION, model=answerer)
            assert (one.text, one.score) == (alone.text, pytest.approx(alone.score, abs=1e-4))
            assert (alone.start, alone.end) == (None, None)


def test_a_stretch_that_is_heard_at_once_is_one_window(captioner: CaptioningModel, answerer: AnsweringModel) -> None:
    found = answer(LONG, QUESTION, model=answerer, windows=5.0)
    told = caption(LONG, model=captioner, method="greedy", windows=5.0)
    for results in (found, told):
        times = [(one.start, one.end) for one in results]
        assert times == [*itertools.pairwise(range(0, 50, 5)), (45, 47)]
    for one in found:
        alone = answer(part(one.start, one.end), QUESTION, model=answerer)
        assert (one.text, one.score) == (alone.text, pytest.approx(alone.score, abs=1e-4))
    assert len({one.text for one in found}) > 5


@pytest.mark.parametrize("windows", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_refused(windows: float, captioner: CaptioningModel, answerer: AnsweringModel) -> None:
    with pytest.raises(UsageError, match="give a number of seconds above 0"):
        caption(LONG, model=captioner, windows=windows)
    with pytest.raises(UsageError, match="give a number of seconds above 0"):
        answer(LONG, QUESTION, model=answerer, windows=windows)


def test_labels_are_of_all_windows(answerer: AnsweringModel) -> None:
    labels = ["dog bark", "rain", "baby cry"]
    together = classify([LONG, part(0.0, 3.0), LONG], labels, model=answerer)
    assert [one.scores for one in together] == [
        classify(sound, labels, model=answerer).scores for sound in (LONG, part(0.0, 3.0), LONG)
    ]


# --------------------------------------------------------------------------------------------------------------- memory


def test_few_windows_of_long_recordings_are_held_at_a_time(answerer: AnsweringModel) -> None:
    made: list[weakref.ref[Window]] = []
    alive: list[int] = []

    def counted(windows: Iterator[Window]) -> Iterator[Window]:
        for window in windows:
            made.append(weakref.ref(window))
            alive.append(sum(one() is not None for one in made))
            yield window
            del window

    class Counting(AnsweringModel):
        def stretches(self, sound: Any, length: float | None = None) -> Iterator[tuple[Stretch, Iterator[Window]]]:
            for stretch, windows in super().stretches(sound, length):
                yield stretch, counted(windows)
                del windows

    counting = Counting(**{name: getattr(answerer, name) for name in ("name", "model", "tokenizers", "device")})
    sounds = [LONG, part(5.0, 47.0), part(0.0, 3.0), LONG]
    for options in ({}, {"windows": 4.0}, {"windows": 20.0}):
        alive.clear()
        found = answer(sounds, QUESTION, model=counting, batch_size=3, **options)
        assert len(alive) > 10 and max(alive) <= 3 + 1  # one more, which says that the batch is complete
        alone = [answer(sound, QUESTION, model=answerer, **options) for sound in sounds]
        for one, other in zip(found, alone, strict=True):
            one, other = (some if isinstance(some, list) else [some] for some in (one, other))
            assert [(a.text, a.start, a.end) for a in one] == [(a.text, a.start, a.end) for a in other]
            assert [a.score for a in one] == pytest.approx([a.score for a in other], abs=1e-4)


def windows_of_5(sound: Sound) -> Iterator[Window]:
    return windows_of(sound, RATE, 5.0)


def test_one_stretch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", np.zeros(20 * 60 * 8000), 8000)
    n_bytes = 4 * 60 * RATE  # of a stretch
    tracemalloc.start()
    try:
        count = 0
        for stretch, windows in stretches(tmp_path / "a.wav", RATE, 60.0, longest=5.0, whole=windows_of_5):
            assert (stretch.start, stretch.end) == (60.0 * count, 60.0 * (count + 1))
            assert sum(len(window.waveform) for window in windows) == 60 * RATE
            count += 1
            del windows
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20 and peak < 5 * n_bytes  # the reader joins what comes to the rest of what came


def test_pieces_tell_where_stretches_and_sounds_end(tmp_path: Path) -> None:
    def of(sound: Sound) -> Iterator[tuple[Stretch, Iterator[Window]]]:
        return stretches(sound, RATE, 8.0, longest=5.0, whole=windows_of_5)

    def told(piece: Piece) -> object:
        if piece.window is not None:
            return piece.number
        return (piece.error and "error") or (piece.stretch and (piece.stretch.start, piece.stretch.end)) or "end"

    sounds = [part(0.0, 18.0), tmp_path / "missing.wav", part(0.0, 1.0)]
    every = list(pieces(sounds, of))
    assert [told(piece) for piece in every] == [
        *(0, 1, (0.0, 8.0), 2, 3, (8.0, 16.0), 4, (16.0, 18.0), "end", "error", 0, (0.0, 1.0), "end")
    ]
    assert isinstance(every[9].error, AudioError)
    cut = list(batches(pieces(sounds, of), 2))
    assert [told(piece) for batch in cut for piece in batch] == [told(piece) for piece in every]
    assert [sum(piece.window is not None for piece in batch) for batch in cut] == [2, 2, 2]
