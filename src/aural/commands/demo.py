"""``aural demo``: the tour."""

from pathlib import Path
from typing import Annotated

import typer

from aural.commands.options import Debug, DeviceName, Offline, Quiet, Seed
from aural.commands.output import say


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the page.")] = Path("demo"),
    device: DeviceName = "auto",
    seed: Seed = 0,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The tour: every verb on bundled recordings, as a page."""
    from aural.demo import demo as make_demo

    page = make_demo(out, device=device, seed=seed, offline=offline)
    say(f"wrote {page}: open it in a browser", quiet)
