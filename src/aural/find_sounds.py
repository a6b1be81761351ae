"""From what a user names to a list of files."""

import glob
import os
from collections.abc import Iterable, Iterator, Set
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO

from aural.audio import SUFFIXES
from aural.errors import UsageError


def find_sounds(
    patterns: Iterable[str | os.PathLike[str]], stdin: TextIO | None = None, *, suffixes: Set[str] = SUFFIXES
) -> list[Path]:
    """Turn what a user names into a list of files, in the order given, each once.

    - a file is taken whatever its suffix, and so is a name that does not exist: reading it reports the error;
    - a folder is searched to any depth for the ``suffixes``, by default those of sounds, in sorted order, without
      hidden files and folders;
    - a glob (``*``, ``?``, ``[...]``, and ``**`` for any depth) gives the sounds it matches, sorted, or all files if
      it ends in a suffix of its own (``*.dat``);
    - ``-`` stands for the files and folders listed on ``stdin``, one a line (or separated by NUL).

    Beside others, a folder or glob without a sound stands for itself, so that reading it reports the error.

    Raises:
        UsageError: nothing was named, or nothing that was named holds a sound.
    """
    found: dict[str, Path] = {}
    problems: list[UsageError] = []
    for named in patterns:
        pattern = os.fspath(named)
        for name in _listed(stdin) if pattern == "-" else [pattern]:
            may_be_glob = pattern != "-" and any(character in name for character in "*?[")
            # Path.exists would raise for a name that is too long
            is_glob = may_be_glob and not os.path.exists(name)  # noqa: PTH110
            try:
                paths = _glob(name, suffixes) if is_glob else _file_or_folder(Path(name), suffixes)
            except UsageError as error:
                problems.append(error)
                paths = [Path(name)]
            for path in paths:
                found.setdefault(os.path.abspath(path), path)  # noqa: PTH100 (resolve would follow links)
    if not found:
        raise UsageError("no sounds were named; pass files, folders, globs, or - for a list on standard input")
    if len(problems) >= len(found):
        raise problems[0]
    return list(found.values())


def _listed(stdin: TextIO | None) -> list[str]:
    """Names that came in, one a line or separated by NUL."""
    listed = (stdin.read() if stdin else "").strip("\r\n\0")
    names = [line.rstrip("\r") for line in listed.split("\0" if "\0" in listed else "\n") if line.strip()]
    if not names:
        raise UsageError("-: no paths came in on standard input; pipe a list of sounds into the command")
    if any(character < " " and character not in "\t\n" for name in names for character in name):
        raise UsageError("-: what came in on standard input is no list of paths; save a sound to a file first")
    return names


def _file_or_folder(path: Path, suffixes: Set[str]) -> list[Path]:
    if not os.path.isdir(path):  # noqa: PTH112 (as above)
        return [path]
    sounds = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        sounds += [Path(folder, name) for name in files if not name.startswith(".") and _ends_in(name, suffixes)]
    if not sounds:
        raise UsageError(f"{path}: no sounds in this folder (looked for {' '.join(sorted(suffixes))})")
    return sorted(sounds)


def _glob(pattern: str, suffixes: Set[str]) -> list[Path]:
    suffix = Path(pattern).suffix
    named = bool(suffix) and not glob.has_magic(suffix)
    before, deep, after = pattern.partition("**")
    if deep and (not before or before.endswith(os.sep)):
        roots = glob.iglob(before) if before else ["."]  # noqa: PTH207 (Path.glob takes no absolute ones)
        matches = [path for root in roots for path in _below(Path(root), Path(f"{deep}{after}").parts)]
    else:
        matches = [Path(match) for match in glob.iglob(pattern)]  # noqa: PTH207
    sounds = [path for path in sorted(matches) if path.is_file() and (named or _ends_in(path.name, suffixes))]
    if not sounds:
        raise UsageError(f"{pattern}: no sounds match; check the pattern, and quote it if the shell expands it")
    return sounds


def _below(root: Path, wanted: tuple[str, ...]) -> Iterator[Path]:
    """Files at any depth whose parts match; glob itself would follow links, and go round in circles."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and _match(path.relative_to(root).parts, wanted):
                yield path


def _match(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted or not parts:
        return not parts and all(one == "**" for one in wanted)
    if wanted[0] == "**":
        return _match(parts, wanted[1:]) or _match(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _match(parts[1:], wanted[1:])


def _ends_in(name: str, suffixes: Set[str]) -> bool:
    return Path(name).suffix.lower() in suffixes
