"""Arguments and options that several verbs take, written once so that they mean the same everywhere."""

from typing import Annotated, Literal

import typer

from aural.errors import UsageError

Device = Literal["auto", "cpu", "cuda", "mps"]
CaptionMethod = Literal["hybrid", "greedy", "beam", "nucleus"]

SoundPaths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="A file, a folder, a glob, or - for a list of paths on stdin.")
]
ModelName = Annotated[str | None, typer.Option("--model", metavar="NAME|DIR|HUB_ID", help="Default: the packaged one.")]
MethodName = Annotated[CaptionMethod, typer.Option("--method", help="How captions are searched for.")]
DeviceName = Annotated[Device, typer.Option("--device", help="Where to compute; auto: cuda, else mps, else cpu.")]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The same seed gives the same output.")
]
IdleSeed = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="Taken as by all verbs; nothing is drawn here."),
]
IdleBatchSize = Annotated[
    int, typer.Option("--batch-size", metavar="N", min=1, help="Taken as by all verbs; files come one by one here.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Sounds computed at a time.")]
Json = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout, and nothing else.")]
Offline = Annotated[bool, typer.Option("--offline", help="Take hub models from the local cache only.")]
TextEncoder = Annotated[
    str | None,
    typer.Option("--text-encoder", metavar="DIR|HUB_ID", help="The sentence encoder, if not the model's own."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no messages; errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # read by main()


def check_windows(windows: float | None) -> None:
    """Refuse a length of windows that is none.

    Raises:
        UsageError: it is not above 0.
    """
    if windows is not None and not windows > 0:
        raise UsageError(f"--windows {windows:g}: give the length of a window in seconds, such as --windows 10")
