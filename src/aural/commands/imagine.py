"""``aural imagine``: a picture of each sound."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aural import __version__
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
from aural.commands.output import places, print_json, print_results
from aural.errors import UsageError

if TYPE_CHECKING:
    from aural.audio_to_image.imagine import Imagined

Scheduler = Literal["ddim", "pndm", "dpm", "euler", "lms", "unipc"]
Precision = Literal["float32", "float16", "bfloat16"]


def imagine(
    paths: SoundPaths,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR|FILE.png", help="For the pictures.")],
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Words around <*>, the sound: 'a watercolour of <*>'.")
    ] = None,
    negative_prompt: Annotated[str, typer.Option(metavar="TEXT", help="Words to keep away from.")] = "",
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Pictures of each sound.")] = 1,
    windows: Annotated[
        float | None, typer.Option(metavar="S", help="A storyboard: a picture for every S seconds, in a strip.")
    ] = None,
    blend: Annotated[Path | None, typer.Option(metavar="PATH", help="Mix each sound with this one.")] = None,
    share: Annotated[float, typer.Option(metavar="X", help="Of the sound to blend with, from 0 to 1.")] = 0.5,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="From noise to a picture.")] = None,
    cfg_scale: Annotated[
        float | None, typer.Option("--cfg-scale", metavar="X", help="Guidance: how much the prompt counts.")
    ] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="The way from noise to a picture.")] = None,
    size: Annotated[
        tuple[int, int] | None, typer.Option(metavar="H W", help="Height and width in pixels.", show_default=False)
    ] = None,
    painter: Annotated[
        str | None,
        typer.Option(metavar="DIR|HUB_ID", help="Picture model: a Stable Diffusion 1.x or 2.x, or one of ours."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Number format of a Stable Diffusion.")] = "float32",
    model: ModelName = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 4,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Paint a picture of each sound."""
    check_windows(windows)
    from aural.find_sounds import find_sounds

    files = find_sounds(paths, sys.stdin)
    if blend is not None and not blend.is_file():
        raise UsageError(f"there is no sound {blend} to blend with: give --blend a file")
    places_of = dict(zip(files, places(files, out, (".png",)), strict=True))
    import torch

    from aural.audio_to_image.imagine import imagine_each, load
    from aural.audio_to_image.painter import painting
    from aural.audio_to_image.picture_files import strip, write_picture
    from aural.checkpoint import write_whole

    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    loaded = load(model, painter=painter, device=device, offline=offline, dtype=dtypes[precision])
    how: dict[str, Any] = {"steps": steps, "guidance": cfg_scale, "scheduler": scheduler, "size": size}
    said: dict[str, Any] = {
        "prompt": loaded.token.config.prompt if prompt is None else prompt,
        "negative_prompt": negative_prompt,
    }
    mixed: dict[str, Any] = {"blend": blend, "share": share, "windows": windows}
    results = imagine_each(files, loaded, n=n, seed=seed, batch_size=batch_size, **how, **said, **mixed)
    settings = said | asdict(painting(loaded.painter, **how))
    settings |= {} if blend is None else {"blend": str(blend), "share": share}
    settings |= {"model": loaded.name, "painter": loaded.painter.name, "aural": __version__}

    def show(file: Path, found: "list[Imagined]") -> None:
        place = places_of[file]
        for number in range(n):
            own = found[number::n]  # one, or one for each window
            path = place if n == 1 else place.with_stem(f"{place.stem}-{own[0].seed}")
            times = [(one.start, one.end) for one in own if one.start is not None]
            image = own[0].image
            if windows is not None:
                image = strip([one.image for one in own], [f"{start:.1f}-{end:.1f} s" for start, end in times])
            write_picture(path, image)
            about = {"file": str(file), "image": str(path), "seed": own[0].seed}
            about |= {"times": times} if windows is not None else {}
            write_whole(path.with_suffix(".json"), json.dumps(about | settings, indent=2) + "\n")
            if as_json:
                print_json(about)
            else:
                print(path, flush=True)

    return print_results(files, results, show, as_json=as_json, quiet=quiet)
