"""Judging answers: right, in form, calibrated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aural.answering.answer import load
from aural.answering.evaluate import Answered, ask, calibration_error, classify, evaluate, score, score_labels
from aural.audio import read_mono, write
from aural.demo import EXAMPLES, LABELS
from aural.errors import UsageError
from aural.manifest import Clip, write_manifest


def answered(expected: str, said: str, kind: str = "presence", audio: str = "a.wav") -> Answered:
    return Answered(Clip(Path(audio), question="q", answer=expected, about={"kind": kind}), said)


@pytest.mark.parametrize(
    ("expected", "said", "right", "in_form"),
    [
        ("yes", " Yes", True, True),
        ("yes", "no", False, True),
        ("yes", "a barking dog", False, False),
        ("three", "four", False, True),
        ("three", "yes", False, False),
        ("fast", "slow", False, True),
        ("far away", "near", False, True),
        ("dog three, bell one, so yes", "dog two, bell one, so yes", True, True),
        ("dog three, bell one, so yes", "dog one, bell two, so no", False, True),
        ("a dog first, so yes", "a dog later, so no", False, True),
        ("dog three, bell one, so yes", "three", False, False),
        ("there is no barking dog", "there is no rain", False, True),
        ("there is no barking dog", "two", False, True),
        ("there is no barking dog", "xyz of the", False, False),
        ("a barking dog", "a crowing rooster and a barking dog", False, True),
        ("a barking dog", "a barking barking", False, False),
    ],
)
def test_right_and_in_form(expected: str, said: str, right: bool, in_form: bool) -> None:
    one = answered(expected, said)
    assert (one.right, one.in_form) == (right, in_form)


def test_scores_of_kinds() -> None:
    some = [
        answered("yes", "yes"),
        answered("no", "yes"),
        answered("no", "no"),
        answered("two", "two", "count", "b.wav"),
    ]
    result = score(some)
    assert result["right"] == 0.75
    assert result["of_kind"]["count"]["right"] == 1.0
    presence = result["of_kind"]["presence"]
    assert (presence["right_of_yes"], presence["right_of_no"], presence["n"]) == (1.0, 0.5, 3)
    assert [one["answer"] for one in result["wrong"]] == ["yes"]


def test_calibration_by_hand() -> None:
    assert calibration_error([0.95, 0.95, 0.55, 0.55], [1, 1, 1, 0]) == pytest.approx(0.05)
    assert calibration_error([1.0, 1.0], [0, 0]) == 1.0
    rows = [
        {"label": "a", "found": "a", "probability": 0.8, "recording": "1"},
        {"label": "b", "found": "a", "probability": 0.6, "recording": "2"},
    ]
    result = score_labels(rows)
    assert (result["accuracy"], result["chance"], result["of_label"]) == (0.5, 0.5, {"a": 1.0, "b": 0.0})
    assert result["expected_calibration_error"] == pytest.approx((0.2 + 0.6) / 2)


def test_a_part_of_a_recording_is_heard_alone(tmp_path: Path) -> None:
    model, rate = load(device="cpu"), 16000
    files = sorted(EXAMPLES.glob("*.ogg"))[:3]
    heard = [read_mono(file, rate) for file in files]
    clips, at = [], 0
    for number, (file, waveform) in enumerate(zip(files, heard, strict=True)):
        write(tmp_path / f"{number}.wav", waveform, rate)
        part = {} if number == len(files) - 1 else {"duration": len(waveform) / rate}  # the last one to the end
        clips.append(Clip(tmp_path / "joined.wav", at / rate, **part, labels=(LABELS[file.stem],)))
        at += len(waveform)
    write(tmp_path / "joined.wav", np.concatenate(heard), rate)
    assert [row["found"] for row in classify(model, clips, "likelihood")] == [clip.labels[0] for clip in clips]

    def asked(clips: list[Clip]) -> list[Clip]:
        some = [Clip(c.audio, c.start, c.duration, question="What can be heard?", answer="x") for c in clips]
        return [*some, *(Clip(c.audio, c.start, c.duration, question="Is there a dog?", answer="no") for c in clips)]

    alone = asked([Clip(tmp_path / f"{number}.wav") for number in range(len(files))])
    of_files = {(one.clip.audio.name, one.clip.question): one.answer for one in ask(model, alone)}
    of_parts = {(one.clip.start, one.clip.question): one.answer for one in ask(model, asked(clips))}
    assert list(of_parts.values()) == list(of_files.values()) and len(set(of_parts.values())) > 2


def test_a_clip_that_cannot_be_read_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, files = load(device="cpu"), sorted(EXAMPLES.glob("*.ogg"))[:2]
    (tmp_path / "text.wav").write_text("no sound")
    good_clips = [Clip(files[0], labels=("rain",)), Clip(files[1], labels=("baby cry",))]
    bad_clips = [replace(good_clips[0], audio=tmp_path / name) for name in ("missing.wav", "text.wav")]
    bad_clips.append(replace(good_clips[1], start=1000.0))
    clips = [bad_clips[0], good_clips[0], bad_clips[1], good_clips[1], bad_clips[2]]
    for known in ({}, {"question": "What can be heard?", "answer": "rain"}):
        write_manifest(tmp_path / "good.jsonl", [replace(clip, **known) for clip in good_clips])
        write_manifest(tmp_path / "mixed.jsonl", [replace(clip, **known) for clip in clips])
        write_manifest(tmp_path / "bad.jsonl", [replace(clip, **known) for clip in bad_clips])
        good, mixed = (evaluate(model, tmp_path / name) for name in ("good.jsonl", "mixed.jsonl"))
        assert (good.pop("protocol")["n_unreadable"], mixed.pop("protocol")["n_unreadable"]) == (0, 3)
        assert good == mixed
        with pytest.raises(UsageError, match="none of its 3 clips to judge can be read"):
            evaluate(model, tmp_path / "bad.jsonl")
    assert "missing.wav: there is no such file" in caplog.text and "start earlier" in caplog.text
