"""Right and exact captions, their intervals, and the protocol beside them."""

from pathlib import Path

import numpy as np
import pytest

from aural.audio import read_mono, write
from aural.captioning.caption import caption, load
from aural.captioning.evaluate import Judged, evaluate, evaluate_held_out, judge, score
from aural.demo import EXAMPLES
from aural.errors import UsageError
from aural.manifest import Clip, Event, write_manifest


def judged(caption: str, *labels: str, source: str = "s") -> Judged:
    return Judged(Clip(audio=Path(f"{source}.wav"), labels=labels, source=source), caption)


@pytest.mark.parametrize(
    ("caption", "labels", "right", "exact"),
    [
        ("a dog is barking", ("dog bark",), True, True),
        ("a dog is barking while rain falls", ("dog bark",), True, False),
        ("rain falls", ("dog bark",), False, False),
        ("something is heard", ("dog bark",), False, False),
        ("a dog is barking while rain falls", ("dog bark", "rain"), True, True),
        ("a dog is barking", ("dog bark", "rain"), False, False),
    ],
)
def test_right_and_exact(caption: str, labels: tuple[str, ...], right: bool, exact: bool) -> None:
    one = judged(caption, *labels)
    assert (one.right, one.exact) == (right, exact)


def test_score_counts_by_hand() -> None:
    some = [
        judged("a dog barks", "dog bark", source="a"),
        judged("a dog barks and rain falls", "dog bark", source="a"),
        judged("rain falls", "rain", source="b"),
        judged("a dog barks", "rain", source="c"),
    ]
    found = score(some)
    assert found["right"] == 0.75
    assert found["exact"] == 0.5
    assert found["n_clips"] == 4
    assert found["n_recordings"] == 3
    assert found["right_of_label"] == {"dog bark": 1.0, "rain": 0.5}
    assert [wrong["caption"] for wrong in found["not_exact"]] == ["a dog barks and rain falls", "a dog barks"]
    low, high = found["right_interval_95"]
    assert 0 <= low < 0.75 < high <= 1


def test_interval_of_one_opinion_is_a_point() -> None:
    assert score([judged("rain falls", "rain", source=str(i)) for i in range(5)])["right_interval_95"] == [1.0, 1.0]


def test_a_label_that_is_not_in_the_table_counts_by_its_own_words() -> None:
    some = [judged("a brass kazoo hums", "kazoo"), judged("a kazoo hums", "brass kazoo"), judged("rain falls", "rain")]
    assert [(one.right, one.exact) for one in some] == [(True, None), (False, None), (True, True)]
    assert score(some)["right"] == pytest.approx(2 / 3)
    assert score(some)["exact"] == 1.0
    assert score(some[:2])["exact"] is None


def test_nothing_to_judge_is_an_error(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [Clip(audio=tmp_path / "a.wav", split="x")])
    with pytest.raises(UsageError, match="no clip with labels or captions"):
        evaluate(None, tmp_path / "m.jsonl")  # type: ignore[arg-type]  # it must not come so far as to use the model
    with pytest.raises(UsageError, match="--hold-out"):
        evaluate_held_out(tmp_path, tmp_path / "m.jsonl")


def scene(caption: str, *events: Event) -> Judged:
    labels = tuple(dict.fromkeys(event.label for event in events))
    return Judged(Clip(audio=Path("s.wav"), labels=labels, events=events, source="s"), caption)


def test_order_and_counts_by_hand() -> None:
    dog, rain = Event("dog bark", 0.0, 0.4), Event("rain", 2.0, 5.0, single=False)
    beeps = [Event("beep", start, start + 0.2) for start in (0.0, 1.0, 2.0)]
    found = score(
        [
            scene("a dog barks once and then rain falls", dog, rain),
            scene("rain falls after a dog barks twice", dog, rain),
            scene("rain falls while a dog barks once", dog, rain),  # no order is stated
            scene("a rooster crows before rain falls", dog, rain),  # another sound
            scene("three beeps can be heard", *beeps),
            scene("a device beeps", *beeps),  # no number is stated
        ]
    )
    assert found["order"]["accuracy"] == 0.5
    assert found["order"]["where_named"] == pytest.approx(2 / 3)
    assert (found["order"]["n"], found["order"]["n_named"]) == (4, 3)
    assert found["count"]["accuracy"] == 0.5
    assert found["count"]["of_number"] == {1: 0.5, 3: 0.5}
    assert (found["count"]["n"], found["count"]["n_named"]) == (6, 5)
    assert found["events"]["precision"] == pytest.approx(9 / 10)
    assert found["events"]["recall"] == pytest.approx(9 / 10)
    assert found["fluent"] == 1.0


def test_reference_captions_are_scored_as_far_as_there_are_some() -> None:
    said = [("rain falls", "rain is falling"), ("a rooster crows", "the call of a rooster"), ("a dog barks",), ()]
    clips = [Clip(Path(f"{n}.wav"), labels=("rain",), captions=captions) for n, captions in enumerate(said)]
    told = ["rain is falling", "a dog barks", "a dog barks", "rain falls"]
    some = [Judged(clip, caption) for clip, caption in zip(clips, told, strict=True)]
    found = score(some[:2])["caption_scores"]
    assert 0 < found["bleu_1"] < 1
    assert found["cider_d"] > 0
    assert "spider" not in found
    more = score(some)[
        "caption_scores"
    ]  # one caption is enough to be compared with, and where there is none is no harm
    assert (more["protocol"]["n_items"], more["protocol"]["n_references"]) == (3, [1, 2])
    assert more["cider_d"] > found["cider_d"]
    assert "caption_scores" not in score(some[2:])  # CIDEr-D weighs words over the clips: one says nothing


def test_clips_without_labels_are_compared_with_their_captions_alone() -> None:
    labelled = [judged("a dog barks", "dog bark", source="a"), judged("rain falls", "dog bark", source="b")]
    said = ("a dog barks", "a dog is barking")
    others = [Judged(Clip(Path(f"{n}.wav"), captions=said), "a dog barks loudly") for n in range(2)]
    alone, together, without = score(labelled), score(labelled + others), score(others)
    same = ("right", "right_interval_95", "exact", "exact_interval_95", "n_labelled", "right_of_label", "events")
    assert {name: together[name] for name in same} == {name: alone[name] for name in same}
    assert together["not_exact"] == alone["not_exact"]
    assert (together["n_clips"], together["n_labelled"], without["n_labelled"]) == (4, 2, 0)
    assert {without[name] for name in ("right", "right_interval_95", "exact", "exact_interval_95")} == {None}
    assert (without["right_of_label"], without["not_exact"], "events" in without) == ({}, [], False)
    assert without["fluent"] == 1.0
    assert together["caption_scores"] == without["caption_scores"]


def test_a_clip_that_cannot_be_read_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, files = load(device="cpu"), sorted(EXAMPLES.glob("*.ogg"))[:2]
    said = ("a sound can be heard", "something is heard")
    good = [Clip(file, captions=said) for file in files]
    (tmp_path / "text.wav").write_text("no sound")
    bad = [Clip(tmp_path / "missing.wav", captions=said), Clip(files[0], start=1000.0, captions=said)]
    bad.append(Clip(tmp_path / "text.wav", captions=said))
    write_manifest(tmp_path / "good.jsonl", good)
    write_manifest(tmp_path / "mixed.jsonl", [bad[0], good[0], bad[1], good[1], bad[2]])
    write_manifest(tmp_path / "bad.jsonl", bad)
    found, mixed = (evaluate(model, tmp_path / name, method="greedy") for name in ("good.jsonl", "mixed.jsonl"))
    assert (found.pop("protocol")["n_unreadable"], mixed.pop("protocol")["n_unreadable"]) == (0, 3)
    assert found == mixed
    assert (found["n_clips"], found["right"], found["caption_scores"]["protocol"]["n_items"]) == (2, None, 2)
    for name in ("missing.wav: there is no such file", "nothing is left at 1000.0 s", "text.wav"):
        assert name in caplog.text
    with pytest.raises(UsageError, match="none of its 3 clips to judge can be read"):
        evaluate(model, tmp_path / "bad.jsonl", method="greedy")


def test_a_part_of_a_recording_is_heard_alone(tmp_path: Path) -> None:
    model, rate = load(device="cpu"), 16000
    heard = [read_mono(file, rate) for file in sorted(EXAMPLES.glob("*.ogg"))[:2]]
    for number, waveform in enumerate(heard):
        write(tmp_path / f"{number}.wav", waveform, rate)
    write(tmp_path / "joined.wav", np.concatenate(heard), rate)
    first = len(heard[0]) / rate
    parts = [Clip(tmp_path / "joined.wav", duration=first), Clip(tmp_path / "joined.wav", first)]
    said = [one.caption for one in judge(model, parts, method="greedy")]
    assert said == [one.text for one in caption([tmp_path / "0.wav", tmp_path / "1.wav"], model=model, method="greedy")]
    assert said[0] != said[1]
