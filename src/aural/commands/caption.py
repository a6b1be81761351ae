"""``aural caption``: each sound in a sentence."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aural.commands.options import (
    BatchSize,
    Debug,
    DeviceName,
    Json,
    MethodName,
    ModelName,
    Offline,
    Quiet,
    Seed,
    SoundPaths,
    TextEncoder,
    check_windows,
)
from aural.commands.output import named_alone, one_line, print_json, print_results, stretch

if TYPE_CHECKING:
    from aural.captioning.caption import Caption


def caption(
    paths: SoundPaths,
    model: ModelName = None,
    method: MethodName = "hybrid",
    n_candidates: Annotated[int, typer.Option(metavar="N", min=1, help="Captions that hybrid draws and ranks.")] = 50,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="Show all captions considered, with both re-ranking scores.")
    ] = False,
    windows: Annotated[
        float | None, typer.Option(metavar="S", help="A caption for every S seconds, instead of one for the whole.")
    ] = None,
    text_encoder: TextEncoder = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Describe each sound in a sentence."""
    check_windows(windows)
    from aural.find_sounds import find_sounds

    files = find_sounds(paths, sys.stdin)
    from aural.captioning.caption import caption_each, load

    results = caption_each(
        files,
        load(model, device=device, offline=offline, text_encoder=text_encoder),
        method=method,
        n_candidates=n_candidates,
        seed=seed,
        batch_size=batch_size,
        windows=windows,
    )
    alone = named_alone(paths, files)

    def show(file: Path, captions: "list[Caption]") -> None:
        for found in captions:
            if as_json:
                print_json(_as_fields(file, found, candidates))
            else:
                print(_as_text(None if alone else file, found, candidates), flush=True)

    return print_results(files, results, show, as_json=as_json, quiet=quiet)


def _as_fields(file: Path, found: "Caption", candidates: bool) -> dict[str, Any]:
    """One caption as the JSON object that the interface promises."""
    fields: dict[str, Any] = {"file": str(file)}
    if found.start is not None:
        fields |= {"start": found.start, "end": found.end}
    fields |= {"caption": found.text, "score": found.score}
    if candidates:
        fields["candidates"] = [_without_nan(vars(candidate)) for candidate in found.candidates]
    return fields


def _without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    """NaN, which stands for what a method does not look at, as JSON's null."""
    return {name: None if value != value else value for name, value in fields.items()}


def _as_text(file: Path | None, found: "Caption", candidates: bool) -> str:
    """One caption as a line of tab-separated fields, and below it, indented, a line for each candidate."""
    parts = [] if file is None else [str(file)]
    lines = ["\t".join([*parts, *stretch(found.start, found.end), one_line(found.text)])]
    if candidates:
        lines += [
            f"    score {each.score:+.3f}  log-likelihood {each.log_likelihood:+.3f}"
            f"  similarity {each.similarity:+.3f}  {one_line(each.caption)}"
            for each in found.candidates
        ]
    return "\n".join(lines)
