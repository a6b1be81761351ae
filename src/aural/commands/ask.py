"""``aural ask``: questions, or the prompts of tasks, put to each sound; or all that can be said of it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aural.commands.options import (
    BatchSize,
    Debug,
    DeviceName,
    Json,
    ModelName,
    Offline,
    Quiet,
    Seed,
    SoundPaths,
    check_windows,
)
from aural.commands.output import named_alone, one_line, print_json, print_results, stretch
from aural.errors import AuralError, UsageError

if TYPE_CHECKING:
    from aural.answering.answer import Answer

Method = Literal["beam", "greedy", "sample"]


def ask(
    paths: SoundPaths,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            metavar="TEXT",
            help="Or the prompt of a task, such as 'generate audio caption'; give it again for another.",
        ),
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Instead: a caption, metadata and the sounds, in one text.")
    ] = False,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A table of tasks, whose prompts are known as such.")
    ] = None,
    model: ModelName = None,
    method: Annotated[
        Method | None, typer.Option("--method", help="How answers are searched for, if not as the model's config says.")
    ] = None,
    beams: Annotated[int, typer.Option(metavar="N", min=1, help="Answers that beam pursues at a time.")] = 3,
    temperature: Annotated[float, typer.Option(metavar="T", help="Of beam and sample; 1: as the model says.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer.")] = 30,
    add_text: Annotated[str | None, typer.Option(metavar="TEXT", help="What the answer is to go on from.")] = None,
    windows: Annotated[
        float | None, typer.Option(metavar="S", help="An answer for every S seconds, instead of one for the whole.")
    ] = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Answer questions about each sound."""
    check_windows(windows)
    if not 0 < temperature < float("inf"):
        raise UsageError(f"--temperature {temperature:g}: give a number above 0, such as --temperature 0.7")
    questions = question or []
    if describe and (questions or (tasks, add_text) != (None, None)):
        raise UsageError("--describe has questions of its own: leave out --question, --tasks and --add-text")
    if not questions and not describe:
        raise UsageError("nothing is asked: pass --question, such as --question 'is there a dog?', or --describe")
    from aural.find_sounds import find_sounds

    files = find_sounds(paths, sys.stdin)
    from aural.answering.answer import answer_each, as_prompt, load, task_prompts
    from aural.answering.describe import describe_each

    known = task_prompts(tasks)
    prompts = [as_prompt(text, known) for text in questions]
    loaded = load(model, device=device, offline=offline)
    how: dict[str, Any] = {
        "method": method,
        "beams": beams,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "windows": windows,
        "batch_size": batch_size,
    }
    results: Iterable[tuple[Any, list[list[Answer]] | AuralError]]
    if describe:
        each = describe_each(files, loaded, **how)
        results = ((file, found if isinstance(found, AuralError) else [found]) for file, found in each)
    else:
        results = answer_each(files, prompts, loaded, add_text=add_text, **how)
    alone = named_alone(paths, files)
    texts: list[str | None] = [*questions] if questions else [None]

    def show(file: Path, answers: "list[list[Answer]]") -> None:
        for text, of_windows in zip(texts, answers, strict=True):
            for found in of_windows:
                if as_json:
                    print_json(_as_fields(file, text, found))
                else:
                    whose = [*([] if alone else [str(file)]), *stretch(found.start, found.end)]
                    asked = [one_line(text)] if text is not None and len(texts) > 1 else []
                    print("\t".join([*whose, *asked, one_line(found.text)]), flush=True)

    return print_results(files, results, show, as_json=as_json, quiet=quiet)


def _as_fields(file: Path, question: str | None, found: "Answer") -> dict[str, Any]:
    """One answer as the JSON object that the interface promises; a description answers no question."""
    fields: dict[str, Any] = {"file": str(file)}
    if found.start is not None:
        fields |= {"start": found.start, "end": found.end}
    if question is not None:
        fields["question"] = question
    return fields | {"answer": found.text, "score": found.score}
