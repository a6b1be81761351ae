"""What is found of the clips of a manifest: one that cannot be read costs a warning, not the judging of all others."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from aural.audio import Sound
from aural.errors import AudioError, AuralError, UsageError
from aural.manifest import Clip, read_manifest
from aural.sound_source import part

Found = TypeVar("Found")

logger = logging.getLogger("aural")


def found_of_clips(
    clips: Iterable[Clip],
    sample_rate: int,
    find: Callable[[Iterator[Sound]], Iterator[tuple[Sound, Found | AuralError]]],
) -> Iterator[tuple[Clip, Found]]:
    """Each clip with what is found of it, in order; those that cannot be read are left out, with a warning.

    Args:
        clips: of a clip that is a part of a recording, that part is heard; read when it is needed.
        sample_rate: in Hz, of such parts.
        find: takes sounds, and gives each with what is found of it or the error that it met, in the same order.
    """
    given: deque[Clip] = deque()

    def sounds() -> Iterator[Sound]:
        for clip in clips:
            try:
                sound = part(clip.audio, sample_rate, start=clip.start, duration=clip.duration)
            except AudioError as error:
                logger.warning("left out: %s", error)
                continue
            given.append(clip)
            yield sound

    for _, found in find(sounds()):
        clip = given.popleft()
        if isinstance(found, AuralError):
            logger.warning("left out: %s", found)
        else:
            yield clip, found


def count_unreadable(manifest: Path, clips: Sequence[Clip], found: Sequence[object]) -> int:
    """How many of the clips were left out.

    Raises:
        UsageError: all of them.
    """
    if not found:
        raise UsageError(f"{manifest}: none of its {len(clips)} clips to judge can be read: mend their paths or files")
    return len(clips) - len(found)


def splits_held_out(models: Path, manifest: Path) -> list[str]:
    """The splits of a manifest that ``models/SPLIT`` was trained without.

    Raises:
        UsageError: there is no such folder.
    """
    splits = sorted({clip.split for clip in read_manifest(manifest) if clip.split and (models / clip.split).is_dir()})
    if not splits:
        raise UsageError(
            f"{models}: no folder named after a split of {manifest}; train with --hold-out SPLIT -o {models}/SPLIT"
        )
    return splits
