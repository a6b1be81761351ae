"""What an audio token is trained on: sounds, each with a picture and with the name of what sounds.

A clip of the manifest that has an ``image`` is paired with it. One that has none is paired by its label with a picture
of another manifest, such as that of the glyphs: with any of those that have the label.

Shapes: N samples, T vectors of a recording, M their width.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from aural.audio import read_mono
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.manifest import Clip
from aural.padding import pad
from aural.soundscapes.acoustics import Waveform, at_level, change_speed, low_pass
from aural.soundscapes.recordings import read

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


@dataclass(frozen=True)
class Evoked:
    """An example: what is heard of a recording, and a picture."""

    heard: Tensor
    """(N,) samples, or (T, M) features."""
    image: Path
    name: str


def pairs(clips: Sequence[Clip], pictures: Sequence[Clip]) -> list[Pair]:
    """Sounds with the pictures they are paired with; those without any are left out.

    Args:
        clips: of the manifest of sounds.
        pictures: with ``image``, ``labels`` and ``captions``, of which the first names what is seen.

    Raises:
        UsageError: no sound has a picture.
    """
    of_label: dict[str, list[Clip]] = {}
    for picture in pictures:
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

    As in the released code, a clip is looped until it is long enough, and starts at a whole second.
    """

    def __init__(self, paired: Sequence[Pair], seconds: float, seed: int) -> None:
        self.pairs, self.seconds, self.seed = paired, seconds, seed

    def __call__(self, index: int) -> Evoked:
        pair = in_turn(self.pairs, index, self.seed)
        generator = np.random.default_rng([self.seed, 10, index])
        waveform = read_mono(pair.clip.audio, SAMPLE_RATE, start=pair.clip.start, duration=pair.clip.duration)
        n_samples = round(self.seconds * SAMPLE_RATE)
        spare = max(0, len(waveform) - n_samples) // SAMPLE_RATE
        start = int(generator.integers(spare + 1)) * SAMPLE_RATE
        heard = np.resize(waveform[start:] if len(waveform) else np.zeros(1, np.float32), n_samples)
        return Evoked(torch.from_numpy(heard), pair.images[int(generator.integers(len(pair.images)))], pair.name)


class EncodedRecordings:
    """``recordings(index)`` goes through a pool of varied recordings that were encoded once, with features."""

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
        shown = not (progress and sys.stderr.isatty())
        for first in track(range(0, n, ENCODED_AT_ONCE), "encoding recordings", disable=shown):
            some = [self._waveform(index, seconds) for index in range(first, min(first + ENCODED_AT_ONCE, n))]
            self.features += list(encode(torch.from_numpy(np.stack(some))).half().cpu())

    def _waveform(self, index: int, seconds: float) -> Waveform:
        pair = in_turn(self.pairs, index, self.seed)
        return varied(read(pair.clip), seconds, np.random.default_rng([self.seed, 11, index]))

    def __call__(self, index: int) -> Evoked:
        turn, place = divmod(index, len(self.features))
        entry = int(np.random.default_rng([self.seed, 12, turn]).permutation(len(self.features))[place])
        pair = in_turn(self.pairs, entry, self.seed)
        image = pair.images[int(np.random.default_rng([self.seed, 13, index]).integers(len(pair.images)))]
        return Evoked(self.features[entry].float(), image, pair.name)


def in_turn(paired: Sequence[Pair], index: int, seed: int) -> Pair:
    """The pair of an index: all of them in some order, then all of them in another."""
    turn, place = divmod(index, len(paired))
    return paired[int(np.random.default_rng([seed, 9, turn]).permutation(len(paired))[place])]


def varied(waveform: Waveform, seconds: float, generator: np.random.Generator) -> Waveform:
    """A recording (time,) as it might sound elsewhere: a cut of it, or all of it somewhere in silence; (N,)."""
    sound = change_speed(waveform, float(2 ** generator.uniform(-SPEED_OCTAVES, SPEED_OCTAVES)))
    n_samples = round(seconds * SAMPLE_RATE)
    start = int(generator.integers(abs(n_samples - len(sound)) + 1))
    heard = np.zeros(n_samples, np.float32)
    if len(sound) > n_samples:
        heard[:] = sound[start : start + n_samples]
    else:
        heard[start : start + len(sound)] = sound
    heard = at_level(heard, RMS * 10 ** (float(generator.uniform(-LEVEL_DB, LEVEL_DB)) / 20))
    if generator.random() < MUFFLED:
        heard = low_pass(heard, cutoff_hz=float(2000 * 4 ** generator.random()))
    return heard


@dataclass(frozen=True)
class Collate:
    """Examples -> a batch."""

    moments: dict[Path, Tensor]
    """Of each picture, see :meth:`aural.audio_to_image.painter.Canvas.moments`: computed once."""
    names: dict[str, Tensor]
    """Of each name, what audio tokens of it are pulled towards, (D,); empty where names are not known."""

    def __call__(self, examples: Sequence[Evoked]) -> dict[str, Tensor]:
        """``heard`` (B, N) or (B, T, M), and its mask; ``moments`` of the pictures; ``names`` (B, D), if known."""
        heard, mask = pad([example.heard for example in examples])
        moments = torch.stack([self.moments[example.image] for example in examples]).float()
        batch = {"heard": heard, "mask": mask, "moments": moments}
        if self.names:
            batch["names"] = torch.stack([self.names[example.name] for example in examples])
        return batch
