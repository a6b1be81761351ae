"""``aural convert``: an author's released checkpoint to a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from aural.commands.options import Debug, Quiet
from aural.commands.output import say
from aural.errors import UsageError


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An author's released checkpoint.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the model.")],
    beats: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Captioner: the BEATs file it was trained with.")
    ] = None,
    conformer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Captioner: JSON file of the Conformer's settings.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the files of its tokenizer: captioner's BART, Pengi's GPT-2."),
    ] = None,
    text_tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pengi: folder with the files of CLIP's tokenizer.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """An author's released checkpoint to a model folder.

    FILE is the pytorch_model.bin of the captioner, Pengi's base.pth or base_no_text_enc.pth, or a BEATs .pt.
    """
    from aural.answering.convert import convert_pengi, is_pengi
    from aural.checkpoint import read_foreign

    if is_pengi(read_foreign(file)):
        if beats or conformer:
            raise UsageError(f"{file} is a file of Pengi: leave out --beats and --conformer, which are the captioner's")
        notes = convert_pengi(file, out, tokenizer=tokenizer, text_tokenizer=text_tokenizer)
    else:
        if text_tokenizer:
            raise UsageError(f"{file} is no file of Pengi: leave out --text-tokenizer, which is for those")
        from aural.captioning.convert import convert as convert_captioner

        notes = convert_captioner(file, out, beats=beats, conformer=conformer, tokenizer=tokenizer)
    for note in notes:
        say(note, quiet)
    say(f"wrote {out}", quiet)
