"""``aural evaluate``: the metrics of a system."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from aural.commands.options import (
    BatchSize,
    Debug,
    DeviceName,
    MethodName,
    ModelName,
    Offline,
    Quiet,
    Seed,
    TextEncoder,
)
from aural.commands.output import print_json
from aural.errors import UsageError

System = Literal["captioning", "listening"]


def evaluate(
    system: Annotated[System, typer.Argument(metavar="SYSTEM", help="captioning or listening")],
    manifest: Annotated[Path, typer.Option(metavar="M.jsonl", help="Clips with the truth about them.")],
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only the clips of this split.")] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Judge DIR/SPLIT, trained with --hold-out SPLIT, on SPLIT; pool all splits."),
    ] = None,
    model: ModelName = None,
    method: MethodName = "hybrid",
    text_encoder: TextEncoder = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    as_json: Annotated[bool, typer.Option("--json", help="The result is one JSON object in any case.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The metrics of a system, as one JSON object."""
    if held_out is not None and (model is not None or split is not None):
        raise UsageError("--held-out names the models and splits itself: leave out --model and --split")
    match system:
        case "listening":
            from aural.listening.embed import load as load_listener
            from aural.listening.evaluate import evaluate as evaluate_listener, evaluate_held_out as listeners_held_out

            if held_out is None:
                listener = load_listener(model, device=device, offline=offline)
                result = evaluate_listener(listener, manifest, split=split)
            else:
                result = listeners_held_out(held_out, manifest, device=device)
        case "captioning":
            from aural.captioning.caption import load
            from aural.captioning.evaluate import evaluate as evaluate_captioner, evaluate_held_out

            how: dict[str, Any] = {"method": method, "seed": seed, "batch_size": batch_size}
            if held_out is None:
                captioner = load(model, device=device, offline=offline, text_encoder=text_encoder)
                result = evaluate_captioner(captioner, manifest, split=split, **how)
            else:
                result = evaluate_held_out(held_out, manifest, device=device, **how)
    print_json(result)
