"""Judging answers: right, in form, calibrated."""

from pathlib import Path

import pytest

from aural.answering.evaluate import Answered, calibration_error, score, score_labels
from aural.manifest import Clip


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
