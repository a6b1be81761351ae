"""How verbs speak: results on stdout as they come, everything else on stderr; and the exit statuses."""

import _thread
import json
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from aural.errors import AuralError, UsageError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

Result = TypeVar("Result")

RETRIED = 0.02
"""Seconds after which Ctrl-C is tried again."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it Ctrl-C waits while soundfile reads.

    libsndfile calls back into Python for the bytes of a file. What is raised there is printed and thrown away, and the
    file is taken for a damaged one.
    """
    elsewhere = threading.current_thread() is not threading.main_thread()  # where no signal arrives
    if elsewhere or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    waiting: list[threading.Timer] = []

    def again() -> None:
        waiting.clear()
        _thread.interrupt_main()

    def interrupt(number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_globals.get("__name__") != "soundfile":
            frame = frame.f_back
        if frame is None:
            raise KeyboardInterrupt
        if not waiting:
            waiting.append(threading.Timer(RETRIED, again))
            waiting[0].daemon = True
            waiting[0].start()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for timer in waiting:
            timer.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def print_results(
    files: Sequence[Path],
    results: Iterable[tuple[Any, Result | AuralError]],
    show: Callable[[Path, Result], None],
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print what was found for each file as it comes, and complain about those that failed.

    Args:
        files: the inputs, in the order of ``results``.
        results: each sound with what was found, or its error.
        show: prints what was found for a file, or writes it; where it cannot be written, the file has failed.
        as_json: an error is a JSON object on stdout besides.
        quiet: no progress bar.

    Returns:
        The exit status.
    """
    status = OK
    with progress(len(files), quiet) as advance:
        for file, (_, found) in zip(files, results, strict=True):
            advance()
            if isinstance(found, AuralError):
                status = failed({"file": str(file)}, found, as_json)
                continue
            try:
                show(file, found)
            except BrokenPipeError:  # it is stdout that is gone
                raise
            except (AuralError, OSError) as error:
                status = failed({"file": str(file)}, error, as_json)
    return status


def failed(whose: dict[str, Any], error: Exception, as_json: bool) -> int:
    """Complain about one input of several, and go on; ``whose`` says in JSON which. Returns the exit status."""
    complain(str(error))
    if as_json:
        print_json(whose | {"error": str(error)})
    return FAILED


def places(files: Sequence[Path], out: Path, suffixes: Collection[str]) -> list[Path]:
    """Where to write what is made of each file; folders are made.

    Args:
        files: the inputs.
        out: for one input the file itself; for several, or where there is a folder of that name or it has no suffix,
            the folder, in which each has its input's name with the first of ``suffixes``.
        suffixes: what a single file may end in.

    Raises:
        UsageError: ``out`` ends in something else, is a file where several are to be written, or two inputs would be
            written to one place.
    """
    if len(files) == 1 and not out.is_dir() and out.suffix:
        if out.suffix.lower() not in suffixes:
            raise UsageError(f"{out}: unknown format {out.suffix!r}; choose one of {', '.join(suffixes)}")
        out.parent.mkdir(parents=True, exist_ok=True)
        return [out]
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and {len(files)} are to be written: give a folder")
    suffix = next(iter(suffixes))
    found = {file: out / f"{file.stem}{suffix}" for file in files}
    first: dict[Path, Path] = {}
    for file, place in found.items():
        if first.setdefault(place, file) != file:
            raise UsageError(f"{first[place]} and {file} would both be written to {place}: do them one by one")
    out.mkdir(parents=True, exist_ok=True)
    return list(found.values())


def print_json(fields: dict[str, Any]) -> None:
    """One JSON object, as one line on stdout; with escapes where a file's name is no text."""
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps(fields, allow_nan=False)
    print(text, flush=True)


def stretch(start: float | None, end: float | None) -> list[str]:
    """The column that says from when to when, if there is one."""
    return [] if start is None or end is None else [f"{start:.2f}-{end:.2f} s"]


def named_alone(paths: Sequence[str], files: Sequence[Path]) -> bool:
    """Whether the user named a single file, whose results need not say whose they are."""
    return len(paths) == 1 and [Path(paths[0])] == list(files)


def one_line(text: str) -> str:
    """Without line breaks and tabs, which separate results."""
    return " ".join(text.split())


def complain(message: str) -> None:
    """An error, as one line on stderr, which by Python's default writes what it has no letters for as escapes."""
    print(f"aural: {one_line(message)}", file=sys.stderr)


def say(message: str, quiet: bool) -> None:
    """A message for the person at the terminal, kept out of the results on stdout."""
    if not quiet:
        print(f"aural: {message}", file=sys.stderr)


@contextmanager
def progress(total: int, quiet: bool, *, prints: bool = True) -> Iterator[Callable[[], None]]:
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
