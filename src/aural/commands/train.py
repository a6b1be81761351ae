"""``aural train``: a system, by one of its recipes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from aural.commands.options import Debug, DeviceName, Quiet, Seed
from aural.commands.output import say
from aural.errors import UsageError

System = Literal["captioning", "listening", "answering", "text_to_audio", "codec", "pictures", "audio_to_image"]
Precision = Literal["float32", "bfloat16"]

PARTS: dict[System, set[str]] = {
    "captioning": {"--finetune-manifest", "--encoder", "--tokenizer", "--mixups", "--text-encoder"},
    "listening": set(),
    "answering": {"--encoder", "--gpt2", "--text-encoder", "--tasks"},
    "text_to_audio": {"--codec", "--codes", "--text-encoder"},
    "codec": {"--codec"},
    "pictures": set(),
    "audio_to_image": {"--encoder", "--pictures", "--painter", "--lora"},
}
"""What each system can be given besides a manifest and what all trainings have in common."""


def train(
    system: Annotated[System, typer.Argument(metavar="SYSTEM", help=", ".join(PARTS))],
    recipe: Annotated[str, typer.Option(metavar="NAME", help="A recipe of SYSTEM/recipes.py; tiny takes seconds.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the model.")],
    manifest: Annotated[Path | None, typer.Option(metavar="M.jsonl", help="What to learn from.")] = None,
    finetune_manifest: Annotated[
        Path | None, typer.Option(metavar="M.jsonl", help="What the last stage learns from, if something else.")
    ] = None,
    hold_out: Annotated[
        str | None, typer.Option(metavar="SPLIT,...", help="Leave the clips of these splits out, to judge by later.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A trained audio encoder, instead of training one.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A tokenizer, instead of training one on the captions.")
    ] = None,
    mixups: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Captioning: pairs of clips with captions of their own.")
    ] = None,
    gpt2: Annotated[
        Path | None, typer.Option("--gpt2", metavar="DIR", help="Answering: GPT-2; or OUT/language of an earlier run.")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answering: a table of tasks beyond the built-in ones.")
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|HUB_ID",
            help="The sentence encoder, if not the bundled one; answering: DIR of CLIP; text_to_audio: DIR of T5.",
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|HUB_ID", help="Generation: if not the packaged one. Codec: whose decoder learns on."
        ),
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Generation: where sounds are kept as codes, to be shared.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="M.jsonl", help="Imagination: pictures for the labels of the sounds.")
    ] = None,
    painter: Annotated[
        str | None, typer.Option(metavar="DIR|HUB_ID", help="Imagination: the picture model, if not the packaged one.")
    ] = None,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", min=1, help="Imagination: let the picture model learn along.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted training stopped.")] = False,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Steps of each stage.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Number format, instead of the recipe's.")] = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a system; started by torchrun, on many devices."""
    if manifest is None:
        raise UsageError("nothing to learn from: pass --manifest M.jsonl, which `aural prepare` makes")
    parts = {
        "--finetune-manifest": finetune_manifest,
        "--encoder": encoder,
        "--tokenizer": tokenizer,
        "--mixups": mixups,
        "--gpt2": gpt2,
        "--text-encoder": text_encoder,
        "--tasks": tasks,
        "--codec": codec,
        "--codes": codes,
        "--pictures": pictures,
        "--painter": painter,
        "--lora": lora,
    }
    if unused := [option for option, value in parts.items() if value is not None and option not in PARTS[system]]:
        takes = ", ".join(sorted(PARTS[system])) or "no parts, it is trained in one go"
        raise UsageError(f"a training of {system} takes no {', '.join(unused)}: it takes {takes}")
    common: dict[str, Any] = {"manifest": manifest, "out": out, "hold_out": hold_out, "resume": resume, "seed": seed}
    common |= {"device": device, "steps": steps, "precision": precision, "progress": not quiet}
    match system:
        case "listening":
            from aural.listening.train import train as train_listener

            train_listener(recipe, **common)
        case "codec":
            from aural.codec.train import train as train_codec

            train_codec(recipe, codec=codec, **common)
        case "answering":
            from aural.answering.train import train as train_answerer

            clip = None if text_encoder is None else Path(text_encoder)
            train_answerer(recipe, encoder=encoder, gpt2=gpt2, text_encoder=clip, tasks=tasks, **common)
        case "text_to_audio":
            from aural.text_to_audio.train import train as train_generator

            t5 = None if text_encoder is None else Path(text_encoder)
            train_generator(recipe, codec=codec, codes=codes, text_encoder=t5, **common)
        case "pictures":
            from aural.audio_to_image.train_pictures import train_pictures

            if common.pop("hold_out"):
                raise UsageError("--hold-out is for sounds, by which a model is judged: pictures are learnt by heart")
            train_pictures(recipe, **common)
        case "audio_to_image":
            from aural.audio_to_image.train import train as train_token

            train_token(recipe, pictures=pictures, painter=painter, encoder=encoder, lora=lora or 0, **common)
        case "captioning":
            from aural.captioning.train import train as train_captioner

            train_captioner(
                recipe,
                finetune_manifest=finetune_manifest,
                encoder=encoder,
                tokenizer=tokenizer,
                mixups=mixups,
                text_encoder=text_encoder,
                **common,
            )
    say(f"wrote {out}: pass --model {out} to use it", quiet)
