"""``aural generate``: a sound for each prompt."""

import json
import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aural.commands.options import Debug, DeviceName, Json, ModelName, Offline, Quiet, Seed
from aural.commands.output import OK, failed, one_line, print_json, progress, say
from aural.errors import AuralError, UsageError

if TYPE_CHECKING:
    from aural.text_to_audio.generate import GenerationModel, Request, Settings

LONGEST_NAME = 60
"""Letters of a prompt that a file's name takes over."""


def generate(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="What is to be heard: 'a dog barks'.")
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", metavar="FILE|DIR|-", help="A file for one sound, a folder for several, - for wav on stdout."
        ),
    ] = "",
    prompts_file: Annotated[Path | None, typer.Option(metavar="F", help="More prompts, one a line.")] = None,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="Sounds of each prompt, of seeds one apart.")] = 1,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds; default: as long as the clips of training.")
    ] = None,
    cfg_scale: Annotated[float, typer.Option(metavar="G", help="How strongly the prompt guides; 1: no more.")] = 3.0,
    top_k: Annotated[int, typer.Option(metavar="K", min=0, help="Draw from the K best codes; 0: from all.")] = 250,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", help="Draw from the best codes of this share, instead of --top-k.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", help="1: as the model says; 0: the best code.")] = 1.0,
    negative_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What guidance is to lead away from.")] = (
        None
    ),
    best_of: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Draw N sounds for each and keep the best; default: as the model has it; -o -: 1."
        ),
    ] = None,
    continue_from: Annotated[
        Path | None, typer.Option(metavar="F", help="A sound that the generated ones begin with.")
    ] = None,
    model: ModelName = None,
    codec: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR|HUB_ID", help="Of the model, if neither in its folder nor the packaged one."),
    ] = None,
    weights: Annotated[
        Literal["float32", "int8", "int4"] | None,
        typer.Option(help="int8, int4: quicker on a CPU, and not quite the same. Default: float32."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Short for --weights int8.")] = False,
    device: DeviceName = "auto",
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Sounds made at a time.")] = 4,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Make a sound of each prompt, and a JSON file beside it that says how."""
    texts = [*(prompts or ()), *(_lines(prompts_file) if prompts_file else ())]
    if not texts:
        raise UsageError("nothing to generate: give a prompt, such as 'a dog barks', or --prompts-file F")
    if int8 and weights not in (None, "int8"):
        raise UsageError(f"--int8 and --weights {weights} exclude each other: pass one of them")
    if not out:
        raise UsageError("where to? pass -o out.wav, a folder, or -o - for wav on stdout")
    piped = out == "-"
    if piped and (len(texts) * n > 1 or as_json):
        raise UsageError("stdout takes one sound and nothing else: give one prompt without --n and --json, or a folder")
    from aural.text_to_audio.generate import Request, Settings, load

    settings = Settings(duration, cfg_scale, temperature, top_k or None, top_p, negative_prompt, best_of)
    requests = [Request(text, seed + number) for text in texts for number in range(n)]
    files = [] if piped else _files(out, requests)
    loaded = load(model, codec=codec, device=device, offline=offline, weights="int8" if int8 else weights or "float32")
    if piped:
        _pipe(requests[0], loaded, settings, continue_from, quiet)
        return OK
    return _write(requests, files, loaded, settings, continue_from, batch_size, as_json, quiet)


def _write(
    requests: "Sequence[Request]",
    files: Sequence[Path],
    model: "GenerationModel",
    settings: "Settings",
    continue_from: Path | None,
    batch_size: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Each sound with its sidecar, and a line for it on stdout; one that cannot be written loses no other."""
    from aural.audio import write
    from aural.checkpoint import write_whole
    from aural.text_to_audio.generate import generate_each, sidecar

    status = OK
    for folder in {file.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    continued = None if continue_from is None else str(continue_from)
    frames = model.n_frames(settings) * model.best_of(settings) * len(requests)
    with progress(frames, quiet, prints=False) as advance:
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal shown
            for _ in range(done - shown):
                advance()
            shown = done

        made = generate_each(
            requests, model, settings, batch_size=batch_size, continue_from=continue_from, progress=show
        )
        for file, one in zip(files, made, strict=True):
            told = json.dumps(sidecar(one, model, settings, continued), indent=2, ensure_ascii=False) + "\n"
            try:
                write(file, one.waveform, one.sample_rate)
                write_whole(file.with_suffix(".json"), told)
            except AuralError as error:
                status = failed({"prompt": one.prompt, "file": str(file)}, error, as_json)
                continue
            if as_json:
                fields = {"prompt": one.prompt, "file": str(file), "seconds": one.seconds}
                fields |= {"sample_rate": one.sample_rate, "seed": one.seed}
                speed = {"frames_per_second": one.codes.shape[1] / one.took, "real_time_factor": one.seconds / one.took}
                print_json(fields | speed)
            else:
                print(f"{file}\t{one_line(one.prompt)}", flush=True)
    return status


def _pipe(
    request: "Request", model: "GenerationModel", settings: "Settings", continue_from: Path | None, quiet: bool
) -> None:
    """A wav on stdout, whose header says from the start how long it will be, piece by piece."""
    import numpy as np

    from aural.text_to_audio.generate import stream

    pieces = stream(request, model, settings, continue_from=continue_from)
    rate, frame = model.codec.sample_rate, 2 * model.channels  # bytes of all channels together
    n_bytes = frame * model.n_samples(settings)
    form = (b"fmt ", 16, 1, model.channels, rate, frame * rate, frame, 16)  # PCM of 16 bits
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + n_bytes, b"WAVE", *form, b"data", n_bytes)
    try:
        with closing(pieces):
            sys.stdout.buffer.write(header)
            for piece in pieces:
                samples = np.round(piece.T * 32768.0).clip(-32768, 32767).astype("<i2")
                sys.stdout.buffer.write(samples.tobytes())  # row by row: the channels of a sample follow one another
                sys.stdout.buffer.flush()
    except BrokenPipeError:  # whoever listened has heard enough; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        say("nobody listens any more: stopped", quiet)


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as prompts, one a line: {error}") from None
    return (line.strip() for line in text.splitlines() if line.strip())


def _files(out: str, requests: "Sequence[Request]") -> list[Path]:
    """Where the sounds go: the file that was named, or names in a folder made of prompt and seed."""
    from aural.audio import WRITABLE

    path = Path(out)
    if path.suffix.lower() in WRITABLE and not path.is_dir():
        if len(requests) > 1:
            raise UsageError(f"{out} is one file for {len(requests)} sounds: pass -o FOLDER")
        return [path]
    if path.suffix and not path.is_dir():
        raise UsageError(f"{out}: unknown format {path.suffix!r}; choose one of {', '.join(WRITABLE)}, or a folder")
    files: list[Path] = []
    for request in requests:
        words = re.sub(r"\W+", "_", request.prompt.lower()).strip("_")[:LONGEST_NAME].rstrip("_") or "sound"
        names = (f"{words}_{request.seed}{more}.wav" for more in ("", *(f"_{i}" for i in range(2, len(requests) + 2))))
        files.append(next(path / name for name in names if path / name not in files))
    return files
