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
        Path | None, typer.Option(metavar="FILE", help="Captioner, AudioToken: the BEATs file it was trained with.")
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
    text_encoder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="AudioGen, MusicGen: folder of T5, where FILE holds none.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """An author's released checkpoint to a model folder.

    FILE is the pytorch_model.bin of the captioner, Pengi's base.pth or base_no_text_enc.pth, a BEATs .pt,
    the state_dict.bin of AudioGen or MusicGen, a folder with MusicGen or an EnCodec in the transformers library's
    layout, the compression_state_dict.bin or model.safetensors of an EnCodec, or AudioToken's
    embedder_learned_embeds.bin. The codec in a MusicGen goes to the folder codec in DIR.
    """
    from aural.answering.convert import convert_pengi, is_pengi
    from aural.audio_to_image.convert import convert_audio_token, is_audio_token
    from aural.checkpoint import check_conversion, read_foreign
    from aural.codec.convert import convert_codec, holds_codec, is_codec
    from aural.codec_folder import OWN_CODEC
    from aural.text_to_audio.convert import convert_generation, is_generation

    content = read_foreign(file)
    if is_codec(content):
        if beats or conformer or tokenizer or text_tokenizer or text_encoder:
            raise UsageError(f"{file} is a codec, which has no parts: leave out all options but -o")
        notes = convert_codec(file, out)
    elif is_generation(content) or file.is_dir():
        if beats or conformer or tokenizer or text_tokenizer:
            raise UsageError(f"{file} is a token language model: of all parts it takes --text-encoder alone")
        with_codec = holds_codec(content)
        del content  # some are of many gigabytes, and are read once more
        if with_codec:  # looked at before the other half is written
            check_conversion(file, out / OWN_CODEC)
        notes = convert_generation(file, out, text_encoder=text_encoder)
        if with_codec:
            codec = out / OWN_CODEC
            notes += convert_codec(file, codec)
            notes.append(
                f"wrote its codec to {codec}: `--model {out}` finds it there, other models by `--codec {codec}`"
            )
    elif is_audio_token(content):
        if conformer or tokenizer or text_tokenizer or text_encoder:
            raise UsageError(f"{file} is a bridge of AudioToken: of all parts it takes --beats alone")
        notes = convert_audio_token(file, out, beats=beats)
    elif text_encoder:
        raise UsageError(f"{file} is no file of AudioGen or MusicGen: leave out --text-encoder, which is for those")
    elif is_pengi(content):
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
