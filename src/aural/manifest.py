"""Manifests: which sounds there are and what is said about them, one JSON object a line.

    {"audio": "clips/1.ogg", "captions": ["a dog barks", "a dog is barking"], "labels": ["dog bark"], "split": "fold1"}

``audio`` alone is required, or ``image`` where a training learns from pictures. ``start`` and ``duration`` (seconds)
pick a part of the file; ``captions`` and ``labels`` are lists; ``question`` and ``answer`` are text; ``image`` is a
picture of the same scene, or a video that begins when the file ``audio`` does; ``split`` names the part of the corpus;
``source`` names the recording that the clip was cut from: clips of one source belong on one side of any split;
``events`` says what sounds when, as ``[["dog bark", 0.5, 0.9], ...]``, every occurrence by itself, or as
``["dog bark", 0.5, 2.9, false]`` a stretch that holds any number of them; ``about`` holds whatever else is known, such
as ``{"emotion": "happy"}``, for templates of tasks. Paths are relative to the manifest. Reading is strict, and reports
all bad lines at once.
"""

import difflib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from aural.errors import ManifestError

SHOWN = 8
"""How many problems an error lists before it only counts."""
VALIDATION = "validation"
"""``split`` of the clips that training leaves alone; where a system validates, they choose its best model."""
VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".3gp", ".ts", ".wmv"}
"""What the name of an ``image`` ends in that is a video."""
LONGEST = 1e9
"""Seconds; no recording is longer than thirty years."""


@dataclass(frozen=True)
class Event:
    """A sound in a clip, from when to when."""

    label: str
    start: float
    """Seconds from the beginning of the clip."""
    end: float
    single: bool = True
    """One occurrence, to be counted; False: a stretch that holds any number of them."""


@dataclass(frozen=True)
class Clip:
    """A sound, or a part of one, and what is said about it. Read from a manifest, its paths are absolute."""

    audio: Path = Path()
    """Of a picture without sound: the empty path."""
    start: float = 0.0
    """Seconds."""
    duration: float | None = None
    """Seconds; None reaches to the end."""
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    question: str | None = None
    answer: str | None = None
    image: Path | None = None
    split: str | None = None
    source: str | None = None
    events: tuple[Event, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict, hash=False)


FIELDS = tuple(one.name for one in fields(Clip))


def read_manifest(path: str | os.PathLike[str], *, required: Literal["audio", "image"] = "audio") -> list[Clip]:
    """Read a manifest; whether the sounds exist is found out when they are read.

    Args:
        path: of the manifest.
        required: what every line must have.

    Raises:
        ManifestError: the file is missing, holds no clip, or has bad lines: ``file:line: what``, all of them.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such manifest; `aural prepare` makes one") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8 JSON Lines") from None
    folder = Path(os.path.abspath(path.parent))  # noqa: PTH100 (resolve would follow links)
    clips: list[Clip] = []
    problems: list[str] = []
    # Not splitlines(): JSON text may hold characters, such as U+2028, that it takes for ends of lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            found: list[str] = []
            try:
                clip = _clip(line, folder, required, found)
            except RecursionError:
                clip, found = None, ["lists or objects in one another, too many to be read: write fewer"]
            problems += [f"{path}:{number}: {problem}" for problem in found]
            clips += [clip] if clip else []
    if problems:
        more = f"; and {len(problems) - SHOWN} more problems" if len(problems) > SHOWN else ""
        raise ManifestError("; ".join(problems[:SHOWN]) + more)
    if not clips:
        raise ManifestError(f'{path}: holds no clips; write one JSON object a line, such as {{"audio": "a.wav"}}')
    return clips


def write_manifest(path: str | os.PathLike[str], clips: Iterable[Clip]) -> None:
    """Write a manifest that :func:`read_manifest` reads back; it appears under its name when it is complete.

    Raises:
        ManifestError: it cannot be written there.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent)  # noqa: PTH100 (as in reading)
    lines = [json.dumps(_object(clip, folder), ensure_ascii=False, allow_nan=False) + "\n" for clip in clips]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be written: {error.strerror}; is its folder there?") from None
    except UnicodeEncodeError as error:
        raise ManifestError(f"{path}: a name in it is not text: {error.object!r}; rename the file") from None
    finally:
        temporary.unlink(missing_ok=True)


def held_out(hold_out: str | None, *clips: Iterable[Clip]) -> frozenset[str]:
    """The splits that a training leaves out.

    Args:
        hold_out: their names, separated by commas.
        clips: all manifests that the training reads.

    Raises:
        ManifestError: no clip is of such a split, so that what should be left out may be learned under another name.
    """
    names = frozenset(name for part in (hold_out or "").split(",") if (name := part.strip()))
    there = {clip.split for some in clips for clip in some if clip.split is not None}
    if names - there:
        raise ManifestError(
            f"--hold-out {hold_out}: no clip is of the split {min(names - there)!r}; "
            f"there are {', '.join(sorted(there)) or 'none'}"
        )
    return names


def learned_from(path: Path, hold_out: str | None) -> list[Clip]:
    """The clips of a manifest but those held out and those left for validation.

    Raises:
        ManifestError: as :func:`read_manifest` and :func:`held_out`.
    """
    clips = read_manifest(path)
    left_out = held_out(hold_out, clips) | {VALIDATION}
    return [clip for clip in clips if clip.split not in left_out]


def clips_digest(clips: Iterable[Clip], *more: str) -> str:
    """Which clips these are: not where they lie, but which recordings, as far as names and sizes tell.

    Args:
        clips: in their order.
        more: fields that count, besides the part of the file, captions, labels and image.

    Returns:
        64 hexadecimal digits.
    """
    told = []
    for clip in clips:
        heard, *seen = ((file.name, _size(file)) for file in (clip.audio, clip.image) if file is not None)
        known = (*heard, clip.start, clip.duration, clip.captions, clip.labels, *seen)
        told.append((*known, *(getattr(clip, name) for name in more)))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _object(clip: Clip, folder: str) -> dict[str, Any]:
    """The clip as plain data, without what is at its default."""
    values = {name: getattr(clip, name) for name in FIELDS}
    values["audio"] = None if clip.audio == Path() else _relative(clip.audio, folder)
    values["image"] = None if clip.image is None else _relative(clip.image, folder)
    values["events"] = tuple(
        [event.label, event.start, event.end, *([] if event.single else [False])] for event in clip.events
    )
    return {name: value for name, value in values.items() if value not in (None, (), 0.0, {})}


def _relative(path: Path, folder: str) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _clip(line: str, folder: Path, required: str, problems: list[str]) -> Clip | None:
    """The clip of a line, or None and what is wrong with it in ``problems``."""
    try:
        values = json.loads(line)
    except ValueError as error:
        problems.append(f"not JSON: {getattr(error, 'msg', error)} at column {getattr(error, 'colno', 1)}")
        return None
    if not isinstance(values, dict):
        problems.append('not an object: write {"audio": "a.wav", ...}, one a line')
        return None
    for name in values:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=1)
            problems.append(f"unknown field {name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    if values.get(required) is None:
        problems.append(f"field {required!r} is missing")

    def take(name: str, expected: str, fits: bool) -> Any:
        value = values.get(name)
        if value is not None and not fits:
            problems.append(f"field {name!r} should be {expected}, not {json.dumps(value, ensure_ascii=False)[:80]}")
            return None
        return value

    def text(name: str) -> Any:
        return take(name, "a text that is not empty", _is_text(values.get(name)))

    def texts(name: str) -> tuple[str, ...]:
        value = values.get(name)
        fits = isinstance(value, list) and all(_is_text(one) for one in value)
        return tuple(take(name, "a list of texts that are not empty", fits) or ())

    def events(name: str) -> tuple[Event, ...]:
        value = values.get(name)
        fits = isinstance(value, list) and all(_is_event(one) for one in value)
        rows = take(name, 'a list of ["label", start, end], times in seconds', fits) or ()
        return tuple(Event(label, float(start), float(end), *single) for label, start, end, *single in rows)

    def named_texts(name: str) -> dict[str, str]:
        value = values.get(name)
        fits = isinstance(value, dict) and all(_is_text(one) for one in [*value, *value.values()])
        return take(name, 'an object of texts, such as {"emotion": "happy"}', fits) or {}

    def file(name: str) -> Path | None:
        value = text(name)
        return None if value is None else Path(os.path.normpath(folder / value))

    def time(name: str, expected: str, least: float) -> float | None:
        value: Any = values.get(name)
        fits = type(value) in (int, float) and least <= value <= LONGEST
        value = take(name, f"a number of seconds, {expected}", fits)
        return None if value is None else float(value)

    clip = dict(
        audio=file("audio") or Path(),
        start=time("start", "0 or more", 0.0) or 0.0,
        duration=time("duration", "more than 0", math.ulp(0.0)),
        captions=texts("captions"),
        labels=texts("labels"),
        events=events("events"),
        about=named_texts("about"),
        image=file("image"),
        **{name: text(name) for name in ("question", "answer", "split", "source")},
    )
    return None if problems else Clip(**clip)


def _is_event(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) in (3, 4) and _is_text(value[0])):
        return False
    times, single = value[1:3], value[3:]
    if single not in ([], [True], [False]):
        return False
    return all(type(time) in (int, float) for time in times) and 0 <= times[0] <= times[1] <= LONGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
