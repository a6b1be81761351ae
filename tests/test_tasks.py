"""Tasks as templates: which clips take part in which, and a user's own table."""

from pathlib import Path

import pytest

from aural.answering.tasks import asked_of, read_tasks
from aural.errors import UsageError
from aural.manifest import Clip


def test_a_clip_takes_part_in_the_tasks_that_it_knows_enough_for() -> None:
    tasks = list(read_tasks().values())
    clip = Clip(Path("a.wav"), captions=("a dog barks", "barking"), labels=("dog bark", "rain"))
    assert asked_of(clip, tasks) == {
        "audio captioning": ("generate audio caption", "a dog barks"),
        "sound event classification": ("this is a sound of", "dog bark, rain"),
    }
    assert asked_of(clip, tasks, turn=3)["audio captioning"][1] == "barking"
    clip = Clip(Path("a.wav"), question="how many {dogs}", answer="two", about={"instrument": "flute", "pitch": "60"})
    assert asked_of(clip, tasks) == {
        "audio question answering": ("question: how many {dogs}", "two"),
        "instrument classification": ("this instrument is", "flute"),
        "music note analysis": ("this music note is", "produced by flute, pitch 60"),
    }
    assert asked_of(Clip(Path("a.wav")), tasks) == {}


def test_a_users_table_adds_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('task,prompt,answer,note\nbirds,"this bird is","a {bird}, surely",mine\nmetadata,tell all,{all}\n')
    tasks = read_tasks(path)
    assert asked_of(Clip(Path("a.wav"), about={"bird": "wren"}), list(tasks.values())) == {
        "birds": ("this bird is", "a wren, surely")
    }
    assert tasks["metadata"].prompt == "tell all"
    assert len(tasks) == len(read_tasks()) + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line should be task,prompt,answer"),
        ("prompt,answer\na,b\n", "first line should be task,prompt,answer"),
        ("task,prompt,answer\nbirds,,{bird}\n", ":2: task, prompt, answer must all be given"),
        ("task,prompt,answer\na,b,c\nbirds,this is,{bird\n", ":3: "),
        ("task,prompt,answer\nbirds,this is,{bird:>9}\n", "a name and nothing else"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_tasks(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_tasks(tmp_path / "nowhere.csv")
