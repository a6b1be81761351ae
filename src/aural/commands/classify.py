"""``aural classify``: which of given labels fits each sound, and how probable each is."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aural.commands.options import (
    BatchSize,
    Debug,
    DeviceName,
    IdleSeed,
    Json,
    ModelName,
    Offline,
    Quiet,
    SoundPaths,
)
from aural.commands.output import one_line, print_json, print_results
from aural.errors import UsageError

if TYPE_CHECKING:
    from aural.answering.classify import Labels

Way = Literal["likelihood", "text"]


def classify(
    paths: SoundPaths,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="A,B,...", help="Labels. Default: those that the model knows.")
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option("--labels-file", metavar="FILE", help="Labels, one a line.")
    ] = None,
    way: Annotated[
        Way | None,
        typer.Option(
            "--way",
            help="By each label's likelihood, or by comparing labels with the text written. Default: likelihood of "
            "labels that the model has learned by these names, text of others.",
        ),
    ] = None,
    multi: Annotated[bool, typer.Option("--multi", help="Several may hold at once: a probability for each.")] = False,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many are shown; JSON holds all.")] = 1,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What labels are the answer to. Default: 'this is a sound of'.")
    ] = None,
    model: ModelName = None,
    device: DeviceName = "auto",
    seed: IdleSeed = 0,
    batch_size: BatchSize = 8,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Choose among labels for each sound, with probabilities."""
    if labels is not None and labels_file is not None:
        raise UsageError("labels were given twice: pass either --labels or --labels-file")
    if multi and way != "text" and prompt is not None:
        raise UsageError("--multi asks a question for each label: leave out --prompt, or pass --way text")
    given = None
    if labels is not None:
        given = _labels(labels.split(","), f"--labels {labels}")
    elif labels_file is not None:
        given = _labels(_lines(labels_file), str(labels_file))
    from aural.find_sounds import find_sounds

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
        batch_size=batch_size,
    )

    def show(file: Path, found: "Labels") -> None:
        if as_json:
            scores = dict(found.scores)
            print_json({"file": str(file), "label": found.label, "score": found.score, "scores": scores})
            return
        for label, probability in list(found.scores.items())[:top]:
            print(f"{file}\t{one_line(label)}\t{probability:.3f}", flush=True)

    return print_results(files, results, show, as_json=as_json, quiet=quiet)


def _lines(path: Path) -> list[str]:
    """Of a file of labels.

    Raises:
        UsageError: it is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{path}: labels cannot be read from it ({why}); give a file with one a line") from None


def _labels(parts: list[str], source: str) -> list[str]:
    """Without spaces around them, and without empty ones.

    Raises:
        UsageError: nothing is left.
    """
    found = [part.strip() for part in parts if part.strip()]
    if not found:
        raise UsageError(f"{source}: holds no label; give some, such as --labels dog,rain")
    return found
