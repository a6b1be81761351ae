"""The command line: ``aural VERB ...``, also ``python -m aural VERB ...``.

Results go to stdout as they come; everything else (progress, messages, errors) goes to stderr. Exit status: 0 all
done, 1 some input failed, 2 wrong usage, 130 on Ctrl-C. Verbs import what they need when they run: ``--help`` is quick.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aural import __version__
from aural.errors import AuralError, UsageError

if TYPE_CHECKING:
    from aural.captioning.caption import Caption

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
UNWANTED = ("torchaudio", "torchvision", "torchcodec")
"""Packages whose mere presence breaks imports of transformers beside a CPU build of PyTorch."""

Device = Literal["auto", "cpu", "cuda", "mps"]
Corpus = Literal["esc10", "esc50", "clotho", "audiocaps", "instruments", "folder", "soundscapes", "music", "mixups"]
System = Literal["captioning", "listening"]
Method = Literal["hybrid", "greedy", "beam", "nucleus"]
Precision = Literal["float32", "bfloat16"]

SoundPaths = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="A file, a folder, a glob, or - for a list of paths on stdin.")
]
ModelName = Annotated[str | None, typer.Option("--model", metavar="NAME|DIR|HUB_ID", help="Default: the packaged one.")]
MethodName = Annotated[Method, typer.Option("--method", help="How captions are searched for.")]
DeviceName = Annotated[Device, typer.Option("--device", help="Where to compute; auto: cuda, else mps, else cpu.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same output.")]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Sounds computed at a time.")]
Json = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout, and nothing else.")]
Offline = Annotated[bool, typer.Option("--offline", help="Take hub models from the local cache only.")]
TextEncoder = Annotated[
    str | None,
    typer.Option("--text-encoder", metavar="DIR|HUB_ID", help="The sentence encoder, if not the model's own."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no messages; errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # read by main()

app = typer.Typer(
    name="aural",
    help="Sound, words and pictures turn into one another.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, print its errors as one line each, and exit with the status of the module's docstring."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="aural: %(message)s", level=logging.ERROR if "--quiet" in given else logging.WARNING)
    try:
        status = app(given, prog_name="aural", standalone_mode=False) or OK
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        message, status = _explain(error)
        _complain(message)
    if status == INTERRUPTED:
        _complain("interrupted; what was finished is kept")
    sys.exit(status)


def _explain(error: Exception) -> tuple[str, int]:
    """What to tell the user about an error that ended a command, and the exit status it calls for."""
    match error:
        case UsageError():
            return str(error), USAGE
        case AuralError() | OSError():
            return str(error), FAILED
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            message = error.format_message().replace("Value error, ", "").rstrip(".")
            return f"{message} (see `{context.command_path if context else 'aural'} --help`)", USAGE
    return f"this should not have happened: {type(error).__name__}: {error} (--debug shows where)", FAILED


def _version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import version
    from importlib.util import find_spec
    from platform import python_version

    print(f"aural {__version__} (torch {version('torch')}, Python {python_version()})")
    for name in filter(find_spec, UNWANTED):
        print(
            f"aural: {name} is installed, which can break other imports beside this torch; aural does not use it: "
            f"pip uninstall {name}",
            file=sys.stderr,
        )
    raise typer.Exit(OK)


@app.callback(invoke_without_command=True)
def _no_verb(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)


# ------------------------------------------------------------------------------------------------------------- using it


@app.command()
def caption(
    paths: SoundPaths,
    model: ModelName = None,
    method: MethodName = "hybrid",
    n_candidates: Annotated[int, typer.Option(metavar="N", min=1, help="Captions that hybrid draws and ranks.")] = 50,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="Show all captions considered, with both re-ranking scores.")
    ] = False,
    windows: Annotated[
        float | None, typer.Option(metavar="S", help="A caption for every S seconds, instead of one for the whole.")
    ] = None,
    text_encoder: TextEncoder = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    as_json: Json = False,
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Describe each sound in a sentence."""
    if windows is not None and not windows > 0:
        raise UsageError(f"--windows {windows:g}: give the length of a window in seconds, such as --windows 10")
    from aural.audio import find_sounds

    files = find_sounds(paths, sys.stdin)
    from aural.captioning.caption import caption_each, load

    results = caption_each(
        files,
        load(model, device=device, offline=offline, text_encoder=text_encoder),
        method=method,
        n_candidates=n_candidates,
        seed=seed,
        batch_size=batch_size,
        windows=windows,
    )
    named = not (len(paths) == 1 and [Path(paths[0])] == files)
    status = OK
    with _progress(len(files), quiet) as advance:
        for file, (_, result) in zip(files, results, strict=True):
            advance()
            if isinstance(result, AuralError):
                status = FAILED
                _complain(str(result))
                if as_json:
                    _print_json({"file": str(file), "error": str(result)})
                continue
            for found in result:
                if as_json:
                    _print_json(_as_fields(file, found, candidates))
                else:
                    print(_as_text(file if named else None, found, candidates), flush=True)
    return status


def _as_fields(file: Path, found: "Caption", candidates: bool) -> dict[str, Any]:
    """One caption as the JSON object that the interface promises."""
    fields: dict[str, Any] = {"file": str(file)}
    if found.start is not None:
        fields |= {"start": found.start, "end": found.end}
    fields |= {"caption": found.text, "score": found.score}
    if candidates:
        fields["candidates"] = [_without_nan(vars(candidate)) for candidate in found.candidates]
    return fields


def _as_text(file: Path | None, found: "Caption", candidates: bool) -> str:
    """One caption as a line of tab-separated fields, and below it, indented, a line for each candidate."""
    parts = [] if file is None else [str(file)]
    if found.start is not None and found.end is not None:
        parts.append(f"{found.start:.2f}-{found.end:.2f} s")
    lines = ["\t".join([*parts, _one_line(found.text)])]
    if candidates:
        lines += [
            f"    score {each.score:+.3f}  log-likelihood {each.log_likelihood:+.3f}"
            f"  similarity {each.similarity:+.3f}  {_one_line(each.caption)}"
            for each in found.candidates
        ]
    return "\n".join(lines)


@app.command()
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
    _say(f"wrote {page}: open it in a browser", quiet)


# ------------------------------------------------------------------------------------------------------------ making it


@app.command()
def prepare(
    corpus: Annotated[
        Corpus,
        typer.Argument(
            metavar="CORPUS",
            help="esc10, esc50, clotho, audiocaps, instruments, folder (any); made: soundscapes, music, mixups.",
        ),
    ],
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Where the corpus was unpacked; of soundscapes and mixups the manifest of recordings.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="M.jsonl", help="The manifest to write; of mixups, a .json file.")
    ],
    append: Annotated[bool, typer.Option("--append", help="Keep what the manifest holds and add to it.")] = False,
    n: Annotated[int, typer.Option("--n", metavar="N", min=1, help="How many are made.")] = 1000,
    seed: Seed = 0,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Make them from clips of this split only.")] = None,
    fluency: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Mixups: FENSE's error detector, instead of the rules.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="Soundscapes: only these kinds, such as sequence,counted.")
    ] = None,
    seconds: Annotated[
        tuple[float, float], typer.Option(metavar="MIN MAX", help="Soundscapes: shortest and longest.")
    ] = (4.0, 10.0),
    by_split: Annotated[
        bool, typer.Option("--by-split", help="Soundscapes: N of each split, from its own recordings only.")
    ] = False,
    soundfont: Annotated[Path | None, typer.Option(metavar="FILE", help="Music: a General MIDI soundfont.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """A published corpus, or any folder, to a manifest; or soundscapes, music and mix-up captions that are made."""
    if corpus in ("soundscapes", "mixups"):
        if len(folders) != 1:
            raise UsageError(
                f"{len(folders)} manifests were given; pass one: `aural prepare {corpus} M.jsonl -o OUT`, or append "
                "one corpus to the other first"
            )
        if corpus == "soundscapes":
            settings = (kinds.split(",") if kinds else None, seconds, by_split)
            _prepare_soundscapes(folders[0], out, *settings, n=n, seed=seed, split=split, quiet=quiet)
        else:
            _prepare_mixups(folders[0], out, n=n, seed=seed, split=split, fluency=fluency, quiet=quiet)
        return
    from aural.corpora import audiocaps, clotho, esc10, esc50, folder, instruments
    from aural.manifest import read_manifest, write_manifest

    corpora = {"esc10": esc10, "esc50": esc50, "clotho": clotho, "audiocaps": audiocaps}
    corpora |= {"instruments": instruments, "folder": folder}
    clips = read_manifest(out) if append and out.exists() else []
    if corpus == "music":
        from aural.soundscapes import music

        clips += [clip for place in folders for clip in music.prepare(place, n=n, seed=seed, soundfont=soundfont)]
    else:
        clips += [clip for place in folders for clip in corpora[corpus].prepare(place)]
    clips = list(dict.fromkeys(clips))  # appending the same corpus twice changes nothing
    if not clips:
        raise UsageError(f"nothing to do: no {corpus} clips in {', '.join(map(str, folders))}")
    write_manifest(out, clips)
    splits = sorted({clip.split or "none" for clip in clips})
    _say(f"wrote {out}: {len(clips)} clips (splits: {', '.join(splits)})", quiet)


def _prepare_soundscapes(
    manifest: Path,
    out: Path,
    kinds: list[str] | None,
    seconds: tuple[float, float],
    by_split: bool,
    *,
    n: int,
    seed: int,
    split: str | None,
    quiet: bool,
) -> None:
    """Sounds on a timeline, from the recordings of a manifest and from synthesised ones, with their exact truth."""
    from dataclasses import replace

    from aural.manifest import read_manifest
    from aural.soundscapes.compose import SoundscapeSettings
    from aural.soundscapes.prepare import prepare as make, with_kinds

    if not 0.5 <= seconds[0] <= seconds[1]:
        raise UsageError(f"--seconds {seconds[0]:g} {seconds[1]:g}: give the shortest first, 0.5 or more")
    settings = replace(SoundscapeSettings(), seconds=seconds)
    settings = with_kinds(settings, kinds) if kinds else settings
    clips = [clip for clip in read_manifest(manifest) if split is None or clip.split == split]
    splits = sorted({clip.split for clip in clips if clip.split}) if by_split else [split]
    with _progress(n * len(splits), quiet, prints=False) as advance:
        made = make(clips, out, n=n, seed=seed, settings=settings, splits=splits, advance=advance)
    _say(f"wrote {out}: {len(made)} soundscapes, with questions in {out.with_suffix('.questions.jsonl')}", quiet)


def _prepare_mixups(
    manifest: Path, out: Path, *, n: int, seed: int, split: str | None, fluency: Path | None, quiet: bool
) -> None:
    """Pairs of the clips of a manifest, with captions by a language model if the environment names one."""
    from aural.captioning.chat import URL, from_environment
    from aural.captioning.mixup_captions import write_mixups
    from aural.fluency import detect, load_fluency
    from aural.manifest import read_manifest

    endpoint = from_environment()
    if endpoint is None:
        _say(f"captions are joined by the grammar; set {URL} to have a language model do it", quiet)
    else:
        _say(f"captions are joined by {endpoint.model} at {endpoint.url}", quiet)
    detector = detect if fluency is None else load_fluency(fluency)
    report = write_mixups(
        read_manifest(manifest), out, n=n, seed=seed, split=split, endpoint=endpoint, fluency=detector
    )
    _say(f"wrote {out}: {report}", quiet)


@app.command()
def train(
    system: Annotated[System, typer.Argument(metavar="SYSTEM", help="captioning or listening")],
    recipe: Annotated[str, typer.Option(metavar="NAME", help="A recipe of SYSTEM/recipes.py; tiny takes seconds.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the model.")],
    manifest: Annotated[Path | None, typer.Option(metavar="M.jsonl", help="What to learn from.")] = None,
    finetune_manifest: Annotated[
        Path | None, typer.Option(metavar="M.jsonl", help="What the last stage learns from, if something else.")
    ] = None,
    hold_out: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="Leave the clips of this split out, to judge by later.")
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
    text_encoder: TextEncoder = None,
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
    common: dict[str, Any] = {"manifest": manifest, "out": out, "hold_out": hold_out, "resume": resume, "seed": seed}
    common |= {"device": device, "steps": steps, "precision": precision, "progress": not quiet}
    if system == "listening":
        if finetune_manifest or encoder or tokenizer or mixups or text_encoder:
            raise UsageError("a listener is trained in one go: only captioning takes parts and a second manifest")
        from aural.listening.train import train as train_listener

        train_listener(recipe, **common)
    else:
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
    _say(f"wrote {out}: pass --model {out} to use it", quiet)


@app.command()
def evaluate(
    system: Annotated[System, typer.Argument(metavar="SYSTEM", help="captioning or listening")],
    manifest: Annotated[Path, typer.Option(metavar="M.jsonl", help="Clips with the truth about them.")],
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only the clips of this split.")] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Judge DIR/SPLIT, trained with --hold-out SPLIT, on SPLIT; pool all splits."),
    ] = None,
    model: ModelName = None,
    method: MethodName = "hybrid",
    text_encoder: TextEncoder = None,
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
    if system == "listening":
        from aural.listening.embed import load as load_listener
        from aural.listening.evaluate import evaluate as evaluate_listener, evaluate_held_out as listeners_held_out

        if held_out is None:
            listener = load_listener(model, device=device, offline=offline)
            _print_json(evaluate_listener(listener, manifest, split=split))
        else:
            _print_json(listeners_held_out(held_out, manifest, device=device))
        return
    from aural.captioning.caption import load
    from aural.captioning.evaluate import evaluate as evaluate_captioner, evaluate_held_out

    if held_out is None:
        loaded = load(model, device=device, offline=offline, text_encoder=text_encoder)
        result = evaluate_captioner(loaded, manifest, split=split, method=method, seed=seed, batch_size=batch_size)
    else:
        result = evaluate_held_out(held_out, manifest, method=method, seed=seed, batch_size=batch_size, device=device)
    _print_json(result)


@app.command()
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
        Path | None, typer.Option(metavar="DIR", help="Captioner: folder with the files of its tokenizer.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """An author's released checkpoint to a model folder.

    FILE is the pytorch_model.bin of the captioner, or a BEATs .pt.
    """
    from aural.captioning.convert import convert as convert_captioner

    for note in convert_captioner(file, out, beats=beats, conformer=conformer, tokenizer=tokenizer):
        _say(note, quiet)
    _say(f"wrote {out}", quiet)


# ------------------------------------------------------------------------------------------------------------- printing


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False, allow_nan=False), flush=True)


def _without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    """NaN, which stands for what a method does not look at, as JSON's null."""
    return {name: None if value != value else value for name, value in fields.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _complain(message: str) -> None:
    """An error, as one line on stderr."""
    print(f"aural: {_one_line(message)}", file=sys.stderr)


def _say(message: str, quiet: bool) -> None:
    """A message for the person at the terminal, kept out of the results on stdout."""
    if not quiet:
        print(f"aural: {message}", file=sys.stderr)


@contextmanager
def _progress(total: int, quiet: bool, *, prints: bool = True) -> Iterator[Callable[[], None]]:
    """A function to call after each of ``total`` inputs; draws a bar where nothing else shows that work goes on.

    That is: on a terminal, when the results go somewhere else. Results that the command ``prints`` on the terminal are
    progress enough.
    """
    if quiet or total < 2 or not sys.stderr.isatty() or (prints and sys.stdout.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # rich would otherwise send what is printed on stdout to its own console, which is stderr
    with Progress(console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    main()
