"""``aural evaluate``: the metrics of a system."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from aural.commands.options import (
    BatchSize,
    Debug,
    DeviceName,
    ModelName,
    Offline,
    Quiet,
    Seed,
    TextEncoder,
)
from aural.commands.output import print_json
from aural.errors import UsageError

System = Literal["captioning", "listening", "answering", "text_to_audio", "codec", "pictures", "audio_to_image"]
Method = Literal["hybrid", "greedy", "beam", "nucleus", "sample"]

METHODS: dict[System, tuple[Method, ...]] = {
    "captioning": ("hybrid", "greedy", "beam", "nucleus"),
    "answering": ("beam", "greedy", "sample"),
}
"""Of systems that write, the ways of searching for what to write."""


def evaluate(
    system: Annotated[System, typer.Argument(metavar="SYSTEM", help=", ".join(get_args(System)))],
    manifest: Annotated[Path, typer.Option(metavar="M.jsonl", help="Clips with the truth about them.")],
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only the clips of this split.")] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Judge DIR/SPLIT, trained with --hold-out SPLIT, on SPLIT; pool all splits."),
    ] = None,
    model: ModelName = None,
    method: Annotated[
        Method | None, typer.Option("--method", help="How captions or answers are searched for, if not as by default.")
    ] = None,
    text_encoder: TextEncoder = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Generation, codec: a listener that never heard the clips.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(metavar="NAME|DIR|HUB_ID", help="Generation: the codec, if not the packaged one.")
    ] = None,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Generation: sounds for each label.")] = 20,
    best_of: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Generation: sounds drawn for each, of which the best is kept."),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="M.jsonl", help="Imagination: the pictures that may be right.")
    ] = None,
    painter: Annotated[
        str | None, typer.Option(metavar="DIR|HUB_ID", help="Imagination: the picture model, if not the packaged one.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Pictures, audio_to_image: what was painted, to look at.")
    ] = None,
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
    if judge is None and system == "text_to_audio":
        raise UsageError("generated sounds are judged by a listener: pass --judge DIR")
    if judge is not None and system != "text_to_audio" and (system != "codec" or held_out is not None):
        raise UsageError("--judge goes with text_to_audio, or with one codec: leave it out")
    if best_of is not None and system != "text_to_audio":
        raise UsageError("--best-of goes with text_to_audio: leave it out")
    known = METHODS.get(system, ())
    if method is not None and method not in known:
        remedy = f"pass {', '.join(known[:-1])} or {known[-1]}" if known else "leave it out"
        raise UsageError(f"--method {method}: {system} knows no such method; {remedy}")
    match system:
        case "text_to_audio":
            from aural.text_to_audio.evaluate import evaluate as evaluate_generator
            from aural.text_to_audio.generate import Settings, load as load_generator

            assert judge is not None
            if held_out is not None:
                raise UsageError("--held-out is for systems that hear: pass --model, --judge and --split")
            generator = load_generator(model, codec=codec, device=device, offline=offline)
            settings = Settings(best_of=best_of)
            result = evaluate_generator(
                generator, judge, manifest, split=split, n=n, seed=seed, batch_size=batch_size, settings=settings
            )
        case "codec":
            from aural.codec.evaluate import evaluate as evaluate_codec, evaluate_held_out as codecs_held_out
            from aural.codec_folder import load_codec

            if held_out is None:
                coder = load_codec(model, device=device, offline=offline)
                result = evaluate_codec(coder, manifest, split=split, listener=judge)
            else:
                result = codecs_held_out(held_out, manifest, device=device, offline=offline)
        case "pictures" | "audio_to_image":
            from aural.audio_to_image.evaluate import (
                evaluate as evaluate_token,
                evaluate_held_out as tokens_held_out,
                evaluate_pictures,
            )
            from aural.audio_to_image.imagine import load as load_token
            from aural.audio_to_image.painter import load_painter
            from aural.audio_to_image.picture_files import write_picture
            from aural.device import choose_device

            drawn: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
            if system == "pictures":
                if held_out is not None or split is not None or pictures is not None:
                    raise UsageError("pictures are judged by words alone: leave out --held-out, --split and --pictures")
                drawer = load_painter(model or painter, device=choose_device(device), offline=offline)
                result, image = evaluate_pictures(drawer, manifest, **drawn)
            elif pictures is None:
                raise UsageError("pictures to compare with are missing: pass --pictures with the manifest of glyphs")
            elif held_out is None:
                token = load_token(model, painter=painter, device=device, offline=offline)
                result, image = evaluate_token(token, manifest, pictures, split=split, **drawn)
            else:
                given: dict[str, Any] = {"painter": painter, "device": device, "offline": offline}
                result, image = tokens_held_out(held_out, manifest, pictures, **given, **drawn)
            if sheet is not None:
                write_picture(sheet, image)
        case "listening":
            from aural.embedding import load as load_listener
            from aural.listening.evaluate import evaluate as evaluate_listener, evaluate_held_out as listeners_held_out

            if held_out is None:
                listener = load_listener(model, device=device, offline=offline)
                result = evaluate_listener(listener, manifest, split=split)
            else:
                result = listeners_held_out(held_out, manifest, device=device, offline=offline)
        case "answering":
            from aural.answering.answer import load as load_answerer
            from aural.answering.evaluate import evaluate as evaluate_answerer, evaluate_held_out as answerers_held_out

            how: dict[str, Any] = {"method": method, "seed": seed, "batch_size": batch_size}
            if held_out is None:
                answerer = load_answerer(model, device=device, offline=offline)
                result = evaluate_answerer(answerer, manifest, split=split, **how)
            else:
                result = answerers_held_out(held_out, manifest, device=device, offline=offline, **how)
        case "captioning":
            from aural.captioning.caption import load
            from aural.captioning.evaluate import evaluate as evaluate_captioner, evaluate_held_out

            how = {"method": method or "hybrid", "seed": seed, "batch_size": batch_size}
            if held_out is None:
                captioner = load(model, device=device, offline=offline, text_encoder=text_encoder)
                result = evaluate_captioner(captioner, manifest, split=split, **how)
            else:
                how |= {"offline": offline, "text_encoder": text_encoder}
                result = evaluate_held_out(held_out, manifest, device=device, **how)
    print_json(result)
