"""``aural ask``: a question, or the prompt of a task, put to each sound."""

import sys
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
from aural.errors import UsageError

if TYPE_CHECKING:
    from aural.answering.answer import Answer

Method = Literal["beam", "greedy", "sample"]


def ask(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="A question, or the prompt of a task: 'generate audio caption'.")
    ],
    paths: SoundPaths,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A table of tasks, whose prompts are known as such.")
    ] = None,
    model: ModelName = None,
    method: Annotated[Method, typer.Option("--method", help="How answers are searched for.")] = "beam",
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
    """Answer a question about each sound."""
    check_windows(windows)
    if not 0 < temperature < float("inf"):
        raise UsageError(f"--temperature {temperature:g}: give a number above 0, such as --temperature 0.7")
    from aural.audio import SUFFIXES, find_sounds

    if Path(prompt).suffix.lower() in SUFFIXES and Path(prompt).is_file():
        raise UsageError(f"{prompt} is a sound, and the question comes first: aural ask 'is there a dog?' {prompt}")
    files = find_sounds(paths, sys.stdin)
    from aural.answering.answer import as_prompt, ask_each, load, task_prompts

    asked = as_prompt(prompt, task_prompts(tasks))
    results = ask_each(
        files,
        [asked],
        load(model, device=device, offline=offline),
        method=method,
        beams=beams,
        max_tokens=max_tokens,
        temperature=temperature,
        add_text=add_text,
        seed=seed,
        windows=windows,
        batch_size=batch_size,
    )
    alone = named_alone(paths, files)

    def show(file: Path, answers: "list[list[Answer]]") -> None:
        for found in answers[0]:
            if as_json:
                print_json(_as_fields(file, asked, found))
            else:
                columns = [*([] if alone else [str(file)]), *stretch(found.start, found.end), one_line(found.text)]
                print("\t".join(columns), flush=True)

    return print_results(files, results, show, as_json=as_json, quiet=quiet)


def _as_fields(file: Path, prompt: str, found: "Answer") -> dict[str, Any]:
    """One answer as the JSON object that the interface promises."""
    fields: dict[str, Any] = {"file": str(file)}
    if found.start is not None:
        fields |= {"start": found.start, "end": found.end}
    return fields | {"prompt": prompt, "answer": found.text, "score": found.score}
