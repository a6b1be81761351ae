"""Pictures in and out, and laid out side by side for people to look at.

Within, a picture is a tensor (3, H, W) in -1..1, red, green and blue; white is 1.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from aural.errors import AuralError

MARGIN = 8
"""Pixels between pictures of a sheet, and around them."""
TEXT_SIZE = 14
"""Pixels; of the words on a sheet."""


def read_picture(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture of any form and format, the way up that its camera says, without its transparency, on white.

    Args:
        path: of the file.
        size: height and width in pixels. As in the released AudioToken, the sides are scaled each by its own factor.

    Returns:
        (3, height, width) in -1..1.

    Raises:
        AuralError: there is no such picture, or it is larger than Pillow dares to read.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # which Pillow would clip at 255 instead of scaling it
                upright = Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8))
            layered = upright.convert("RGBA")
    except Image.DecompressionBombError as error:
        raise AuralError(f"{path}: is too large a picture ({error}); scale it down") from error
    except (OSError, SyntaxError, ValueError) as error:  # of damaged ones
        raise AuralError(f"{path}: no picture that can be read ({error}); give a PNG or JPEG file") from error
    flat = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return as_scaled_tensor(flat, size)


def write_picture(path: Path, image: Image.Image) -> None:
    """A PNG file, which appears under its name when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def as_tensor(image: Image.Image) -> Tensor:
    """An image of Pillow, in RGB, as (3, H, W) in -1..1."""
    return torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()


def as_scaled_tensor(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An image of Pillow, in RGB, as (3, height, width) in -1..1; each side is scaled by its own factor."""
    height, width = size
    fits = image.size == (width, height)
    return as_tensor(image if fits else image.resize((width, height), Image.Resampling.LANCZOS))


def as_image(picture: Tensor, side: int | None = None) -> Image.Image:
    """(3, H, W) in -1..1 as an image of Pillow.

    Args:
        picture: values beyond -1..1 are cut.
        side: pixels of the shorter side; smaller pictures are enlarged to it.
    """
    levels = (picture.clamp(-1, 1).float() + 1) * 127.5
    height, width = levels.shape[1:]
    shorter = min(width, height)
    if side is not None and shorter < side:
        # rounded once, at the end: a level more or less in a small picture would become several in a large one
        size = (round(width * side / shorter), round(height * side / shorter))
        planes = [Image.fromarray(plane.cpu().numpy()).resize(size, Image.Resampling.LANCZOS) for plane in levels]
        levels = torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).clamp(0, 255)
    return Image.fromarray(levels.round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def strip(images: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Pictures of one size side by side, each with its words below it."""
    return sheet([images], [""], below=captions)


def sheet(
    rows: Sequence[Sequence[Image.Image]], names: Sequence[str], *, below: Sequence[str] | None = None
) -> Image.Image:
    """Pictures of one size in rows.

    Args:
        rows: may differ in length.
        names: of the rows, written before them.
        below: what is written below the columns.
    """
    font = ImageFont.load_default(TEXT_SIZE)
    width, height = rows[0][0].size
    left = MARGIN + max(int(font.getlength(name)) for name in names)
    bottom = 2 * TEXT_SIZE if below else 0
    columns = max(len(row) for row in rows)
    whole = (left + columns * (width + MARGIN) + MARGIN, len(rows) * (height + MARGIN) + MARGIN + bottom)
    canvas = Image.new("RGB", whole, "white")
    pen = ImageDraw.Draw(canvas)
    for y, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = MARGIN + y * (height + MARGIN)
        pen.text((MARGIN, top + height // 2), name, fill="black", font=font, anchor="lm")
        for x, image in enumerate(row):
            canvas.paste(image, (left + MARGIN + x * (width + MARGIN), top))
    for x, words in enumerate(below or ()):
        centre = left + MARGIN + x * (width + MARGIN) + width // 2
        pen.text((centre, whole[1] - bottom // 2), words, fill="black", font=font, anchor="mm")
    return canvas
