"""``aural encode``: sounds to files of codes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aural.commands.options import (
    Debug,
    DeviceName,
    IdleBatchSize,
    IdleSeed,
    Json,
    ModelName,
    Offline,
    Quiet,
    SoundPaths,
)
from aural.commands.output import places, print_json, print_results

if TYPE_CHECKING:
    from aural.codec.files import EncodedSound


def encode(
    paths: SoundPaths,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE|DIR", help="A .codes file, or for several sounds a folder.")
    ],
    codebooks: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The first N codebooks only: smaller, and rougher.")
    ] = None,
    model: ModelName = None,
    device: DeviceName = "auto",
    seed: IdleSeed = 0,
    batch_size: IdleBatchSize = 1,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Turn sounds into small files of codes, which `aural decode` turns into sounds again."""
    from aural.find_sounds import find_sounds

    files = find_sounds(paths, sys.stdin)
    from aural.codec.encode import encode_each
    from aural.codec.files import SUFFIX, write_codes
    from aural.codec_folder import load_codec

    target_of = dict(zip(files, places(files, out, {SUFFIX}), strict=True))
    encoded = encode_each(files, load_codec(model, device=device, offline=offline), n_codebooks=codebooks)

    def show(file: Path, sound: "EncodedSound") -> None:
        target = target_of[file]
        write_codes(target, sound)
        seconds, n_bytes = sound.n_samples / sound.sample_rate, target.stat().st_size
        if as_json:
            print_json({"file": str(file), "out": str(target), "seconds": seconds, "bytes": n_bytes})
        else:
            print(f"{target}\t{seconds:.2f} s\t{n_bytes} bytes", flush=True)

    return print_results(files, encoded, show, as_json=as_json, quiet=quiet)
