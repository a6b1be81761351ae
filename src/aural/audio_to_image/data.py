"""What an audio token is trained on: sounds, each with a picture and with the name of what sounds.

A clip of the manifest that has an ``image`` is paired with it. One that has none is paired by its label with a picture
of another manifest, such as that of the glyphs: with any of those that have the label. An ``image`` may be a video, of
which a frame is taken from the seconds that are heard (:mod:`aural.audio_to_image.video_frames`).

Shapes: N samples, T vectors of a recording, M their width.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from aural.audio import read_mono
from aural.audio_to_image.video_frames import Shown, best_frames, draw_frame, is_video, read_shown
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.padding import pad
from aural.soundscapes.acoustics import Waveform, at_level, change_speed, low_pass
from aural.soundscapes.recordings import read
from aural.turns import order

SPEED_OCTAVES, LEVEL_DB, MUFFLED = 0.3, 10.0, 0.2
"""How a recording is varied: faster or slower, louder or softer, and how often its high frequencies are cut off."""
RMS = 0.05
"""Of what sounds in a varied recording, before its level is varied."""
ENCODED_AT_ONCE = 16


@dataclass(frozen=True)
class Pair:
    """A sound and the pictures it may evoke."""

    clip: Clip
    images: tuple[Path, ...]
    name: str
    """Of what sounds; empty where the manifest does not say."""

    @property
    def of_video(self) -> bool:
        """Whether what it evokes is a frame of its video."""
        return is_video(self.images[0])

    def frame(self, start: float, end: float, generator: np.random.Generator) -> int | None:
        """A frame of its video, by number, of the time that is heard, in seconds of the clip; None of a picture."""
        if not self.of_video:
            return None
        first = self.clip.start
        return draw_frame(self.images[0], first + start, first + end, best_frames(self.clip), generator)


@dataclass(frozen=True)
class Evoked:
    """An example: what is heard of a recording, and a picture."""

    heard: Tensor
    """(N,) samples, or (T, M) features."""
    image: Shown
    name: str


def pairs(clips: Sequence[Clip], pictures: Sequence[Clip]) -> list[Pair]:
    """Sounds with the pictures they are paired with; those without any are left out.

    Args:
        clips: of the manifest of sounds.
        pictures: with ``image``, ``labels`` and ``captions``, of which the first names what is seen.

    Raises:
        UsageError: no sound has a picture, or a video is among the pictures.
    """
    of_label: dict[str, list[Clip]] = {}
    for picture in pictures:
        if picture.image is not None and is_video(picture.image):
            raise UsageError(f"{picture.image}: a video goes with its own sound only; leave it out of the pictures")
        for label in picture.labels:
            of_label.setdefault(label, []).append(picture)
    found = []
    for clip in clips:
        label = clip.labels[0] if clip.labels else ""
        if clip.image is not None:
            found.append(Pair(clip, (clip.image,), label))
        elif len(clip.labels) == 1 and label in of_label:
            some = of_label[label]
            images = tuple(picture.image for picture in some if picture.image is not None)
            found.append(Pair(clip, images, next((one.captions[0] for one in some if one.captions), label)))
    if not found:
        raise UsageError(
            "no sound has a picture: give the manifest an image for each clip, or pass --pictures with a manifest of "
            "pictures that have the labels of the sounds"
        )
    return found


class Recordings:
    """``recordings(index)`` is the :class:`Evoked` of an index, with samples; any order, each in its turn.

    As in the released code, a clip is looped until it is long enough, and starts at a whole second; of a video, the
    frame is drawn anew for each example, out of the seconds that are heard.
    """

    def __init__(self, paired: Sequence[Pair], seconds: float, seed: int) -> None:
        self.pairs, self.seconds, self.seed = paired, seconds, seed

    def shown(self) -> set[Shown] | None:
        """All pictures that examples show; None where videos are among them."""
        if any(pair.of_video for pair in self.pairs):
            return None
        return {Shown(image) for pair in self.pairs for image in pair.images}

    def __call__(self, index: int) -> Evoked:
        pair = in_turn(self.pairs, index, self.seed)
        generator = np.random.default_rng([self.seed, 10, index])
        waveform = read_mono(pair.clip.audio, SAMPLE_RATE, start=pair.clip.start, duration=pair.clip.duration)
        n_samples = round(self.seconds * SAMPLE_RATE)
        spare = max(0, len(waveform) - n_samples) // SAMPLE_RATE
        start = int(generator.integers(spare + 1)) * SAMPLE_RATE
        heard = np.resize(waveform[start:] if len(waveform) else np.zeros(1, np.float32), n_samples)
        image = pair.images[int(generator.integers(len(pair.images)))]
        end = min(start + n_samples, len(waveform))
        frame = pair.frame(start / SAMPLE_RATE, end / SAMPLE_RATE, generator)
        return Evoked(torch.from_numpy(heard), Shown(image, frame), pair.name)


class EncodedRecordings:
    """``recordings(index)`` goes through a pool of varied recordings that were encoded once, with features.

    Of a video, a frame is drawn once for each of the pool, out of the seconds of the recording that were cut out.
    """

    def __init__(
        self,
        paired: Sequence[Pair],
        encode: Callable[[Tensor], Tensor],
        *,
        n: int,
        seconds: float,
        seed: int,
        progress: bool,
    ) -> None:
        """Encode them.

        Args:
            paired: every one comes in as often as any other, whatever its label.
            encode: waveforms (B, N) -> features (B, T, M).
            n: size of the pool.
            seconds: of each.
            seed: of all draws.
            progress: show a progress bar.
        """
        self.pairs, self.seed = paired, seed
        self.features: list[Tensor] = []
        self.frames: list[int | None] = []
        shown = not (progress and sys.stderr.isatty())
        for first in track(range(0, n, ENCODED_AT_ONCE), "encoding recordings", disable=shown):
            some = [self._cut(index, seconds) for index in range(first, min(first + ENCODED_AT_ONCE, n))]
            self.features += list(encode(torch.from_numpy(np.stack([waveform for waveform, _ in some]))).half().cpu())
            self.frames += [frame for _, frame in some]

    def _cut(self, index: int, seconds: float) -> tuple[Waveform, int | None]:
        """What is heard of a recording, and the frame of its video that goes with it."""
        pair = in_turn(self.pairs, index, self.seed)
        generator = np.random.default_rng([self.seed, 11, index])
        if not pair.of_video:
            return varied(read(pair.clip), seconds, generator)[0], None
        clip = pair.clip  # with the silence at its ends, without which its seconds would not be those of the video
        waveform = read_mono(clip.audio, SAMPLE_RATE, start=clip.start, duration=clip.duration)
        heard, start, end = varied(waveform, seconds, generator)
        return heard, pair.frame(start, end, generator)

    def shown(self) -> set[Shown]:
        """All pictures and frames that examples show."""
        entries = ((in_turn(self.pairs, index, self.seed), frame) for index, frame in enumerate(self.frames))
        return {Shown(image, frame) for pair, frame in entries for image in pair.images}

    def __call__(self, index: int) -> Evoked:
        turn, place = divmod(index, len(self.features))
        entry = int(order(len(self.features), seed=self.seed, stream=12, turn=turn)[place])
        pair = in_turn(self.pairs, entry, self.seed)
        image = pair.images[int(np.random.default_rng([self.seed, 13, index]).integers(len(pair.images)))]
        return Evoked(self.features[entry].float(), Shown(image, self.frames[entry]), pair.name)


def in_turn(paired: Sequence[Pair], index: int, seed: int) -> Pair:
    """The pair of an index: all of them in some order, then all of them in another."""
    turn, place = divmod(index, len(paired))
    return paired[int(order(len(paired), seed=seed, stream=9, turn=turn)[place])]


def varied(waveform: Waveform, seconds: float, generator: np.random.Generator) -> tuple[Waveform, float, float]:
    """A recording (time,) as it might sound elsewhere: a cut of it, or all of it somewhere in silence.

    Returns:
        (N,), and where in the recording what is heard begins and ends, in seconds.
    """
    faster = float(2 ** generator.uniform(-SPEED_OCTAVES, SPEED_OCTAVES))
    sound = change_speed(waveform, faster)
    n_samples = round(seconds * SAMPLE_RATE)
    start = int(generator.integers(abs(n_samples - len(sound)) + 1))
    heard = np.zeros(n_samples, np.float32)
    begun, ended = 0.0, len(waveform) / SAMPLE_RATE
    if len(sound) > n_samples:
        heard[:] = sound[start : start + n_samples]
        begun, ended = start * faster / SAMPLE_RATE, (start + n_samples) * faster / SAMPLE_RATE
    else:
        heard[start : start + len(sound)] = sound
    heard = at_level(heard, RMS * 10 ** (float(generator.uniform(-LEVEL_DB, LEVEL_DB)) / 20))
    if generator.random() < MUFFLED:
        heard = low_pass(heard, cutoff_hz=float(2000 * 4 ** generator.random()))
    return heard, begun, ended


@dataclass(frozen=True)
class Collate:
    """Examples -> a batch."""

    moments: Mapping[Shown, Tensor] | None
    """Of each picture, see :meth:`aural.audio_to_image.painter.Canvas.moments`: computed once. None: what is shown is
    not known beforehand, and batches hold the pictures themselves."""
    names: Mapping[str, Tensor]
    """Of each name, what audio tokens of it are pulled towards, (D,); empty where names are not known."""
    size: tuple[int, int]
    """Height and width of pictures."""

    def __call__(self, examples: Sequence[Evoked]) -> dict[str, Tensor]:
        """``heard`` (B, N) or (B, T, M), and its mask; ``moments`` of what is seen, or ``pictures`` (B, 3, height,
        width) of it; ``names`` (B, D), if known."""
        heard, mask = pad([example.heard for example in examples])
        batch = {"heard": heard, "mask": mask}
        if self.moments is None:
            batch["pictures"] = torch.stack([read_shown(example.image, self.size) for example in examples])
        else:
            batch["moments"] = torch.stack([self.moments[example.image] for example in examples]).float()
        if self.names:
            batch["names"] = torch.stack([self.names[example.name] for example in examples])
        return batch
