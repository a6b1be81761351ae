"""The command line: ``aural VERB ...``, also ``python -m aural VERB ...``.

Each verb is a file of :mod:`aural.commands`. Results go to stdout as they come; everything else (progress, messages,
errors) goes to stderr. Exit status: 0 all done, 1 some input failed, 2 wrong usage, 130 on Ctrl-C. Verbs import what
they need when they run: ``--help`` is quick.
"""

import io
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from aural import __version__
from aural.commands.ask import ask
from aural.commands.caption import caption
from aural.commands.classify import classify
from aural.commands.convert import convert
from aural.commands.decode import decode
from aural.commands.demo import demo
from aural.commands.encode import encode
from aural.commands.evaluate import evaluate
from aural.commands.generate import generate
from aural.commands.imagine import imagine
from aural.commands.output import FAILED, INTERRUPTED, OK, USAGE, complain, interruptible
from aural.commands.prepare import prepare
from aural.commands.train import train
from aural.errors import AuralError, UsageError

UNWANTED = ("torchaudio", "torchvision", "torchcodec")
"""Packages whose mere presence breaks imports of transformers beside a CPU build of PyTorch."""

VERBS: tuple[Callable[..., Any], ...] = (
    caption,
    ask,
    classify,
    generate,
    imagine,
    encode,
    decode,
    demo,
    prepare,
    train,
    evaluate,
    convert,
)
"""In the order of ``--help``: using it, then making it."""

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
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # a file's name that is no text must not end a batch
            stream.reconfigure(errors="surrogateescape")
    logging.basicConfig(format="aural: %(message)s", level=logging.ERROR if "--quiet" in given else logging.WARNING)
    try:
        with interruptible():
            status = app(given, prog_name="aural", standalone_mode=False) or OK
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        message, status = _explain(error)
        complain(message)
    if status == INTERRUPTED:
        complain("interrupted; what was finished is kept")
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


for verb in VERBS:
    app.command()(verb)

if __name__ == "__main__":
    main()
