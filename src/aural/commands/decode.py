"""``aural decode``: files of codes to sounds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aural.commands.options import Debug, DeviceName, IdleBatchSize, IdleSeed, Json, ModelName, Offline, Quiet
from aural.commands.output import places, print_json, print_results

if TYPE_CHECKING:
    from torch import Tensor


def decode(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="A .codes file, a folder, a glob, or - for a list of paths on stdin."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE|DIR", help="A sound, or for several files a folder (.wav).")
    ],
    model: ModelName = None,
    device: DeviceName = "auto",
    seed: IdleSeed = 0,
    batch_size: IdleBatchSize = 1,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Turn files of codes that `aural encode` wrote into sounds; the model must be the one they were made with."""
    from aural.audio import WRITABLE, write
    from aural.codec.files import SUFFIX
    from aural.find_sounds import find_sounds

    files = find_sounds(paths, sys.stdin, suffixes={SUFFIX})
    targets = places(files, out, WRITABLE)
    from aural.codec.encode import decode_each
    from aural.codec_folder import load_codec

    codec = load_codec(model, device=device, offline=offline)
    target_of = dict(zip(files, targets, strict=True))

    def show(file: Path, found: "Tensor") -> None:
        target, seconds = target_of[file], found.shape[1] / codec.sample_rate
        write(target, found, codec.sample_rate)
        if as_json:
            print_json({"file": str(file), "out": str(target), "seconds": seconds})
        else:
            print(f"{target}\t{seconds:.2f} s", flush=True)

    return print_results(files, decode_each(files, codec), show, as_json=as_json, quiet=quiet)
