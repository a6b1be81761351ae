"""Every audio task as a prompt and a text to answer it with: the templates of Pengi (paper, Table 1), and one's own.

``tasks.csv`` beside this file is the table: ``task,prompt,answer``, where ``{name}`` stands for a fact about a clip.
``{caption}`` is one of its captions, ``{labels}`` all of its labels; ``{question}`` is put as :func:`plain_question`
puts it, here as in asking; ``{answer}`` and every name under ``about`` are themselves. A clip takes part in the tasks
whose names are all known. A table of the same form, given by the user, adds tasks or replaces those of the same name.
"""

import csv
import os
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aural.errors import UsageError
from aural.manifest import Clip

TABLE = Path(__file__).with_name("tasks.csv")
COLUMNS = ("task", "prompt", "answer")


@dataclass(frozen=True)
class Task:
    """A kind of question that can be put to a recording."""

    name: str
    prompt: str
    """Template of what is asked."""
    answer: str
    """Template of what is to be answered."""


def read_tasks(more: str | os.PathLike[str] | None = None) -> dict[str, Task]:
    """The table, by name, with a user's tasks added.

    Args:
        more: another table, CSV with a header; its tasks replace those of the same name.

    Raises:
        UsageError: it is missing, or is not such a table; says which line and why.
    """
    return read_table(TABLE) | ({} if more is None else read_table(more))


def read_table(path: str | os.PathLike[str]) -> dict[str, Task]:
    """The tasks of one table, by name; errors as for :func:`read_tasks`."""
    return {task.name: task for task in _read(Path(path))}


def _read(path: Path) -> Iterator[Task]:
    try:
        rows = list(csv.DictReader(path.read_text("utf-8-sig").splitlines(), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a table of tasks: {error}") from None
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UsageError(f"{path}: is no table of tasks: its first line should be {','.join(COLUMNS)}")
    for number, row in enumerate(rows, start=2):
        values = [row[column] for column in COLUMNS]
        if not all(values):
            raise UsageError(f"{path}:{number}: {', '.join(COLUMNS)} must all be given")
        try:
            for template in values[1:]:
                placeholders(template)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}; write {{name}} for what is known of a clip") from None
        yield Task(*values)


def placeholders(template: str) -> list[str]:
    """The names in braces.

    Raises:
        ValueError: the braces do not match, or a name has a format.
    """
    names = []
    for _, name, form, conversion in string.Formatter().parse(template):
        if name == "" or form or conversion:
            raise ValueError(f"braces of {template!r} must hold a name and nothing else")
        names += [] if name is None else [name]
    return names


def plain_question(text: str) -> str:
    """A question as the model is given it: without its mark, beginning in lower case. Empty where nothing is asked."""
    bare = text.strip().rstrip("?").rstrip()
    return bare[:1].lower() + bare[1:]


def is_of(text: str, template: str) -> bool:
    """Whether a text is a template filled in: anything but nothing may stand for a name."""
    parts = string.Formatter().parse(template)
    pattern = "".join(re.escape(literal) + ("" if name is None else ".+") for literal, name, _, _ in parts)
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def known(clip: Clip) -> dict[str, tuple[str, ...]]:
    """What templates can say of a clip: each name with the texts that may stand for it, which take turns."""
    about: dict[str, tuple[str, ...]] = {name: (text,) for name, text in clip.about.items()}
    if clip.labels:
        about["labels"] = (", ".join(clip.labels),)
    if clip.captions:
        about["caption"] = clip.captions
    question = plain_question(clip.question or "")
    if question and clip.answer:
        about |= {"question": (question,), "answer": (clip.answer,)}
    return about


def asked_of(clip: Clip, tasks: Sequence[Task], turn: int = 0) -> dict[str, tuple[str, str]]:
    """Prompt and answer of each task that the clip can take part in.

    Args:
        clip: what is known of a recording.
        tasks: the table.
        turn: where something can be said in several ways, which of them.
    """
    facts = {name: texts[turn % len(texts)] for name, texts in known(clip).items()}
    return {
        task.name: (_filled(task.prompt, facts), _filled(task.answer, facts))
        for task in tasks
        if set(placeholders(task.prompt) + placeholders(task.answer)) <= set(facts)
    }


def _filled(template: str, facts: dict[str, str]) -> str:
    return "".join(
        literal + ("" if name is None else facts[name]) for literal, name, _, _ in string.Formatter().parse(template)
    )
