"""Pictures from sounds: what the command line, the demo page and the tests call.

All of a recording is heard, however long, and makes one audio token; with ``windows`` each stretch of it makes one.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any, overload

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from aural.audio import Sound, Window, windows as windows_of
from aural.audio_to_image.audio_token import AudioToken
from aural.audio_to_image.convert import SYSTEM, load_model
from aural.audio_to_image.lora import Lora, merge
from aural.audio_to_image.painter import (
    Painter,
    Painting,
    SchedulerName,
    check_width,
    load_painter,
    paint,
    painted_at_once,
    painting,
)
from aural.audio_to_image.picture_files import as_image
from aural.checkpoint import find_model, load_into
from aural.device import choose_device
from aural.errors import AuralError, UsageError
from aural.features import SAMPLE_RATE
from aural.window_batches import even_windows

SHOWN_SIDE = 256
"""Pixels to which smaller pictures are enlarged."""


@dataclass(frozen=True)
class Imagined:
    """A picture of a recording, or of a stretch of it."""

    image: Image
    seed: int
    """Alone, it makes this picture again."""
    start: float | None = None
    """Seconds; None where the picture is of the whole sound."""
    end: float | None = None


@dataclass(frozen=True)
class ImaginationModel:
    """An audio token and the picture model that it is a word of."""

    name: str
    token: AudioToken
    painter: Painter
    device: torch.device

    @torch.inference_mode()
    def hear(self, pieces: Iterable[Window]) -> Tensor:
        """Windows of one recording, heard one after the other -> the audio token of them all, (D,).

        Over BEATs, a window that is alone and shorter than ``seconds`` of the config is looped until it is as long, as
        in the training (:class:`aural.audio_to_image.data.Recordings`) and in the released code. Over a convolutional
        encoder silence follows it up to ``min_seconds``: its token learns from sounds in silence.
        """
        config = self.token.config
        features: list[Tensor] = []
        masks: list[Tensor] = []
        for piece, following in pairwise(chain(pieces, (None,))):
            assert piece is not None
            heard = piece.waveform
            if config.beats is None:
                heard = np.pad(heard, (0, max(0, round(config.min_seconds * SAMPLE_RATE) - len(heard))))
            elif following is None and not features:
                heard = np.resize(heard, max(len(heard), round(config.seconds * SAMPLE_RATE)))
            some, real = self.token.features(torch.from_numpy(heard)[None].to(self.device))
            features.append(some)
            masks.append(real)
        # a generator of its own, for the released rule of dropout: what is heard does not depend on what was before
        generator = torch.Generator(self.device).manual_seed(0)
        return self.token(torch.cat(features, dim=1), torch.cat(masks, dim=1), generator=generator)[0]

    def pieces(self, sound: Sound, length: float | None) -> Iterator[Window]:
        """Windows of a sound, read as needed: as few of equal length as cover it, or of ``length`` seconds each."""
        if length is None:
            return even_windows(sound, SAMPLE_RATE, self.token.config.seconds)
        return windows_of(sound, SAMPLE_RATE, length)


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    painter: str | os.PathLike[str] | None = None,
    device: str = "auto",
    offline: bool = False,
    dtype: torch.dtype = torch.float32,
) -> ImaginationModel:
    """Load an audio token, and the picture model that it was trained with.

    Args:
        model: None = the one in the box; a folder, or a hub id.
        painter: None = the one in the box; a folder of ours, a Stable Diffusion's folder, or its hub id.
        device: "auto", "cpu", "cuda", ...
        offline: take hub models from the local cache only.
        dtype: of a Stable Diffusion's weights.

    Raises:
        UsageError: there is no such model, or the two do not go together.
        CheckpointError: a folder's config or weights do not fit.
    """
    where = choose_device(device)
    token, updates = load_model(find_model(model, SYSTEM, offline=offline))
    drawer = load_painter(painter, offline=offline, dtype=dtype)
    check_width(drawer, token.config.token_width)
    if updates:
        lora = Lora(drawer.unet, token.config.lora_rank)
        load_into(lora, updates)
        merge(drawer.unet, lora)
    token.requires_grad_(False).to(where)
    return ImaginationModel(str(model or "default"), token, drawer.to(where), torch.device(where))


@overload
def generate_image(sounds: Sound, **options: Any) -> Image: ...
@overload
def generate_image(sounds: list[Sound], **options: Any) -> list[Image]: ...
def generate_image(
    sounds: Any,
    *,
    model: "ImaginationModel | str | os.PathLike[str] | None" = None,
    painter: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Paint a picture of a sound, or of each of a list of sounds.

    Args:
        sounds: a path, a binary file object, or an array or tensor with its sample rate; or a list of these.
        model: a loaded model, or what :func:`load` takes.
        painter: as :func:`load` takes it; not with a loaded model.
        options: see :func:`imagine_each`, which also tells seeds and times.

    Returns:
        A picture for each sound; with ``n`` above 1, or with ``windows``, a list of them for each sound.

    Raises:
        AuralError: a sound cannot be read, or the options do not fit.
    """
    if isinstance(model, ImaginationModel) and painter is not None:
        raise UsageError("the loaded model has a painter already: leave out painter, or load the model with it")
    loaded = model if isinstance(model, ImaginationModel) else load(model, painter=painter)
    alone = not isinstance(sounds, list)
    several = options.get("n", 1) > 1 or options.get("windows") is not None
    results = []
    for _, found in imagine_each([sounds] if alone else sounds, loaded, **options):
        if isinstance(found, AuralError):
            raise found
        images = [one.image for one in found]
        results.append(images if several else images[0])
    return results[0] if alone else results


def imagine_each(
    sounds: Iterable[Sound],
    model: ImaginationModel,
    *,
    prompt: str | None = None,
    negative_prompt: str = "",
    n: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    scheduler: SchedulerName | None = None,
    size: tuple[int, int] | None = None,
    windows: float | None = None,
    blend: "Sound | None" = None,
    share: float = 0.5,
    batch_size: int = 8,
) -> Iterator[tuple[Sound, list[Imagined] | AuralError]]:
    """Paint pictures of every sound, in order; a sound that cannot be read gives its error, and the rest goes on.

    Args:
        sounds: any number; they are read as they are needed.
        model: from :func:`load`.
        prompt: words around ``<*>``, which stands for the sound; None = those of the training.
        negative_prompt: words to keep away from.
        n: pictures of each sound, or of each window.
        seed: of the first of them; each following one has the next.
        steps: from noise to a picture; None = as the picture model would have it.
        guidance: how much the prompt counts; None likewise, 1 = as the picture model says.
        scheduler: None likewise.
        size: height and width in pixels; None likewise.
        windows: seconds; a picture for every stretch of that length instead of one for the whole.
        blend: another sound, with whose audio token each one is mixed.
        share: of that other sound, from 0 to 1.
        batch_size: pictures painted at a time, but on a CPU, where each is painted by itself and does not depend on it.

    Yields:
        Each sound with its pictures: all of the first window, then all of the next.

    Raises:
        UsageError: an option that does not fit.
        AuralError: the sound to blend with cannot be read.
    """
    how = painting(model.painter, steps=steps, guidance=guidance, scheduler=scheduler, size=size)
    if n < 1 or not 0 <= share <= 1 or batch_size < 1:
        raise UsageError(f"{n} pictures with a share of {share:g}: give 1 or more, and a share from 0 to 1")
    if windows is not None and not 0 < windows <= model.token.config.seconds:
        raise UsageError(f"windows of {windows:g} s: this model hears up to {model.token.config.seconds:g} s at once")
    if n >= 1_000_000 or not 0 <= seed < 2**63 - n:
        raise UsageError(f"seed {seed}: give a whole number from 0 to 2**63")
    words = model.token.config.prompt if prompt is None else prompt
    other = None if blend is None else model.hear(model.pieces(blend, None))
    with torch.inference_mode():  # now rather than after the first sound has been read
        model.painter.words.states([words], torch.zeros(1, model.painter.words.width, device=model.device))

    remaining = iter(sounds)
    while chunk := list(islice(remaining, batch_size)):
        heard = [_heard(model, sound, windows, other, share) for sound in chunk]
        wanted = [
            (token, seed + number)
            for found in heard
            if not isinstance(found, AuralError)
            for _, token in found
            for number in range(n)
        ]
        painted = iter(_painted(model, wanted, words, how, negative_prompt, batch_size))
        for sound, found in zip(chunk, heard, strict=True):
            if isinstance(found, AuralError):
                yield sound, found
                continue
            results = []
            for piece, _ in found:
                start, end = (None, None) if piece is None else (piece.start, piece.end)
                results += [replace(one, start=start, end=end) for one in islice(painted, n)]
            yield sound, results


def _heard(
    model: ImaginationModel, sound: Sound, windows: float | None, other: Tensor | None, share: float
) -> list[tuple[Window | None, Tensor]] | AuralError:
    """The audio token of a sound, or of each of its windows."""
    try:
        pieces = model.pieces(sound, windows)
        tokens = [(None, model.hear(pieces))] if windows is None else [(one, model.hear([one])) for one in pieces]
    except AuralError as error:
        return error
    return [(piece, token if other is None else torch.lerp(token, other, share)) for piece, token in tokens]


def _painted(
    model: ImaginationModel,
    wanted: Sequence[tuple[Tensor, int]],
    prompt: str,
    how: Painting,
    negative_prompt: str,
    batch_size: int,
) -> Iterator[Imagined]:
    """A picture for each audio token and seed."""
    at_once = painted_at_once(model.painter, batch_size)
    for first in range(0, len(wanted), at_once):
        tokens, seeds = zip(*wanted[first : first + at_once], strict=True)
        with torch.inference_mode():
            states, mask = model.painter.words.states([prompt] * len(tokens), torch.stack(tokens))
        pictures = paint(model.painter, states, mask, seeds, how, negative_prompt=negative_prompt)
        for picture, seed in zip(pictures, seeds, strict=True):
            yield Imagined(as_image(picture, SHOWN_SIDE), seed)
