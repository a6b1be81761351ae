"""Frames of videos as pictures: which of them goes with the seconds that are heard, and how it is read.

As in AudioToken's training (Yariv et al. 2023), a clip of a video shows a frame from the very seconds that are heard:
any of the best frames among them, if some are known (``best_frames`` of ``about``, see :mod:`aural.corpora.vggsound`),
else any of them. Three things differ from the released code. It takes a second for a tenth of the video, rounded down
to whole frames, so that its seconds drift where they are no whole frames; here the video says when each frame is shown.
The range may reach one frame past the end there, and is cut here. And where the sound is over sooner than an example
is long, and is looped, no frame is from later than its end.

Pictures go through the autoencoder once, and their latents are kept. Frames that are drawn anew for each example are
not: the 480,000 examples of the recipe "paper", out of 90,000 videos of 250 frames, seldom draw one twice, and latents
for all of them would take 20 GB. So they are decoded where examples are made, and encoded when they are used, as in the
released code. A pool of encoded recordings draws a frame along with each cut: as many as it has entries, which are
known beforehand and kept as pictures are. Either way what is drawn follows from the seed and the index alone.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from aural.audio import DEMUXERS
from aural.audio_to_image.picture_files import as_scaled_tensor, read_picture
from aural.errors import AuralError, UsageError
from aural.manifest import VIDEO_SUFFIXES, Clip

REMEMBERED = 64
"""Videos whose times of frames are kept: drawing a frame and reading it need them in turn."""


class Shown(NamedTuple):
    """What is seen: a picture, or a frame of a video."""

    path: Path
    frame: int | None = None
    """Its number, from 0 in the order in which they are shown."""


def is_video(image: Path) -> bool:
    """Whether this is the name of a video."""
    return image.suffix.lower() in VIDEO_SUFFIXES


def best_frames(clip: Clip) -> list[int]:
    """Numbers of the frames that are known to show what sounds; none where nothing is known.

    Raises:
        UsageError: they are no numbers.
    """
    text = clip.about.get("best_frames", "")
    try:
        return [int(number) for number in text.split()]
    except ValueError:
        raise UsageError(f"{clip.image}: its best_frames should be numbers, such as '3 17 40', not {text!r}") from None


def draw_frame(video: Path, start: float, end: float, best: Sequence[int], generator: np.random.Generator) -> int:
    """The number of a frame that goes with what is heard.

    Args:
        video: whose first frame is shown at 0 s.
        start: of what is heard, in seconds.
        end: of it; as in the released code, the frame that begins at this very time is still one of them.
        best: numbers of frames that are preferred.
        generator: draws one of the preferred ones in this time, or else any in it. Between two frames, and after the
            last one, that is the one that is still shown.

    Raises:
        AuralError: the video cannot be read, or PyAV is missing.
    """
    times = frame_times(video)
    last = max(0, int(np.searchsorted(times, end, "right")) - 1)
    first = min(int(np.searchsorted(times, start, "left")), last)
    preferred = [number for number in best if first <= number <= last]
    if preferred:
        return preferred[int(generator.integers(len(preferred)))]
    return int(generator.integers(first, last + 1))


def frame_times(video: Path) -> np.ndarray:
    """When each frame is shown, in seconds after the first one, (frames,) in float64; nothing is decoded.

    Raises:
        AuralError: the video cannot be read, or PyAV is missing.
    """
    stamps, base = _stamps(video)
    return (stamps - stamps[0]) * base.numerator / base.denominator


def read_shown(shown: Shown, size: tuple[int, int]) -> Tensor:
    """A picture or a frame of ``size`` (height, width), (3, height, width) in -1..1, each side scaled by itself.

    Raises:
        AuralError: it cannot be read, or it is a frame and PyAV is missing.
    """
    if shown.frame is None:
        return read_picture(shown.path, size)
    stamps, _ = _stamps(shown.path)
    wanted = int(stamps[min(shown.frame, len(stamps) - 1)])
    # A jump may land behind the frame, where it depends on earlier ones: then it is looked for from the beginning.
    for begin in (wanted, int(stamps[0])):
        with _opened(shown.path) as (container, stream):
            container.seek(begin, stream=stream)
            found = _last_until(wanted, container.decode(stream))
            if found is not None:
                return as_scaled_tensor(found.to_image(), size)
    raise AuralError(f"{shown.path}: frame {shown.frame} cannot be decoded; convert the video anew, or leave it out")


def _last_until(wanted: int, frames: Iterator[Any]) -> Any:
    """The frame of that time stamp; of a damaged one, the frame before it; None if they begin later."""
    found = None
    for frame in frames:
        stamp = frame.dts if frame.pts is None else frame.pts
        if stamp > wanted:
            break
        found = frame
        if stamp == wanted:
            break
    return found


@lru_cache(maxsize=REMEMBERED)
def _stamps(video: Path) -> tuple[np.ndarray, Fraction]:
    """The time of each frame, in the order of their times, (frames,) in int64, and its unit in seconds."""
    with _opened(video) as (container, stream):
        stamps = [packet.dts if packet.pts is None else packet.pts for packet in container.demux(stream)]
        known = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
        if not len(known):
            raise AuralError(f"{video}: has no frames; convert the video anew, or leave it out")
        return np.sort(known), stream.time_base


@contextmanager
def _opened(video: Path) -> Iterator[tuple[Any, Any]]:
    """The opened video and its stream of pictures. What goes wrong in reading it is said in one line."""
    try:
        import av
    except ImportError:
        raise AuralError(f"{video}: frames of videos are read by PyAV: pip install 'aural[formats]'") from None
    try:
        with av.open(os.fspath(video), metadata_errors="ignore", options={"format_whitelist": DEMUXERS}) as container:
            if not container.streams.video:
                raise AuralError(f"{video}: has sound but no pictures; give a video, or a PNG or JPEG file")
            yield container, container.streams.video[0]
    except (av.FFmpegError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise AuralError(f"{video}: no video that can be read ({why}); give an MP4, WebM or Matroska file") from None
