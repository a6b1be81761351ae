"""``aural classify``: how probable labels are for each sound."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from aural.commands.options import Debug, DeviceName, Json, ModelName, Offline, Quiet, SoundPaths
from aural.commands.output import one_line, print_json, print_results
from aural.errors import UsageError

Way = Literal["likelihood", "text"]


def classify(
    paths: SoundPaths,
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B,...|FILE", help="Labels, or a file with one a line. Default: those the model knows."),
    ] = None,
    way: Annotated[
        Way, typer.Option("--way", help="By each label's likelihood, or by comparing labels with the text written.")
    ] = "likelihood",
    multi: Annotated[bool, typer.Option("--multi", help="Several may hold at once: a probability for each.")] = False,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many are shown. Default: 1, and in JSON all.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What labels are the answer to. Default: 'this is a sound of'.")
    ] = None,
    model: ModelName = None,
    device: DeviceName = "auto",
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Choose labels for each sound, with probabilities."""
    given = None if labels is None else labels_of(labels)
    from aural.audio import find_sounds

    files = find_sounds(paths, sys.stdin)
    from aural.answering.answer import load
    from aural.answering.classify import PROMPT, classify_each, known_labels

    loaded = load(model, device=device, offline=offline)
    results = classify_each(
        files,
        known_labels(loaded) if given is None else given,
        loaded,
        way=way,
        multi=multi,
        prompt=PROMPT if prompt is None else prompt,
    )

    def show(file: Path, found: dict[str, float]) -> None:
        shown = list(found.items())[: top or (None if as_json else 1)]
        if as_json:
            print_json({"file": str(file), "labels": dict(shown)})
            return
        for label, probability in shown:
            print(f"{file}\t{one_line(label)}\t{probability:.3f}", flush=True)

    return print_results(files, results, show, as_json=as_json, quiet=quiet)


def labels_of(given: str) -> list[str]:
    """What a user writes after ``--labels``: labels between commas, or a file with one a line.

    Without a comma it is a file if there is one of that name, or if it is written as only files are (``a.txt``,
    ``lists/a``).

    Raises:
        UsageError: there is no such file, or no label.
    """
    path = Path(given)
    if "," not in given and given.strip() and (path.is_file() or path.suffix or len(path.parts) > 1):
        try:
            parts = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(f"{given}: labels cannot be read from it ({why}); give A,B,... or another file") from None
    else:
        parts = given.split(",")
    found = [part.strip() for part in parts if part.strip()]
    if not found:
        raise UsageError(f"--labels {given}: holds no label; give some, such as --labels dog,rain")
    return found
