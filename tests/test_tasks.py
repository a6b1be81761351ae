"""Tasks as templates: which clips take part in which, and a user's own table."""

from pathlib import Path

import pytest

from aural.answering.answer import as_prompt, task_prompts
from aural.answering.tasks import Task, asked_of, is_of, read_tasks
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


def test_training_puts_a_question_as_asking_does() -> None:
    for text in ("Is there a dog?", " is there a dog ", "How many dogs are there ??", "List the sounds"):
        clip = Clip(Path("a.wav"), question=text, answer="yes")
        ((prompt, _),) = asked_of(clip, list(read_tasks().values())).values()
        assert prompt == as_prompt(text, task_prompts()) == as_prompt(text, ())
    mine = Task("mine", "{question}, yes or no", "{answer}")
    clip = Clip(Path("a.wav"), question="Is there a dog?", answer="Yes")
    assert asked_of(clip, [mine]) == {"mine": ("is there a dog, yes or no", "Yes")}
    assert asked_of(Clip(Path("a.wav"), question=" ? ", answer="yes"), [mine]) == {}


def test_a_prompt_with_a_name_in_braces_is_known_filled_in() -> None:
    prompts = [*task_prompts(), "count the {thing}", "which {bird} is it?", "Say {{all}} of {this} and {that}", "a{b}"]
    for text in ("count the dogs", "which wren is it?", "Say {all} of rain and the wind", "Generate audio caption"):
        assert as_prompt(text, prompts) in (text, text[:1].lower() + text[1:])
    assert as_prompt("Count the dogs?", prompts) == "count the dogs"
    assert as_prompt("count the", prompts) == "question: count the"
    assert as_prompt("count the dogs", task_prompts()) == "question: count the dogs"
    assert as_prompt("is it so: count the dogs?", prompts) == "question: is it so: count the dogs"
    assert is_of("count the dogs and\nthe bells", "count the {thing}") and not is_of("a", "a{b}") and is_of("a.", "a.")
    assert not is_of("ab", "a.")


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
