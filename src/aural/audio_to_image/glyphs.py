"""Glyphs of a font as pictures with words: what the small picture model learns from.

Meant for Noto Color Emoji, whose licence (OFL) allows it; any font will do. Every glyph of a single code point counts
that shows a thing, a being or a sign of its own: no letters, no skin tones, no flags. Sequences of code points (a woman
with a microphone) are left out: nearly all of them are people who differ in a detail that small pictures do not show.
"""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aural.audio_to_image.glyph_words import UNNAMED, glyph_words
from aural.audio_to_image.picture_files import write_picture
from aural.errors import UsageError
from aural.manifest import Clip, write_manifest

FIRST_CODE_POINT = 0x203C
"""What comes before is letters, digits and punctuation of text."""
KINDS = ("So", "Sm", "Po")
"""Unicode's categories of symbols; skin tones have another."""
LEFT_OUT = ("regional indicator", "emoji component", "tag ", "combining ", "variation selector")
DRAWN_SIZE = 109
"""Pixels of an em: the one size that the bitmaps of Noto Color Emoji have."""
PICTURE_SIDE = 128
MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Glyph:
    """A glyph, drawn."""

    code_point: int
    names: tuple[str, ...]
    """The plainest first."""
    labels: tuple[str, ...]
    """Of sounds, see :func:`aural.audio_to_image.glyph_words.glyph_words`."""
    image: Image.Image
    """Square, on white."""


def draw_glyphs(font: Path, side: int = PICTURE_SIDE) -> list[Glyph]:
    """All glyphs of a font that show something; those that look the same are one, with the names of all.

    Args:
        font: a TrueType or OpenType file.
        side: pixels of the pictures.

    Raises:
        UsageError: it is no font, or has no such glyph.
    """
    try:
        drawer = ImageFont.truetype(font, DRAWN_SIZE)
    except OSError as error:
        raise UsageError(f"{font}: no font that can be read ({error}); give a .ttf file") from error
    found: dict[bytes, Glyph] = {}
    for code_point, name in _shown(font):
        image = _drawn(chr(code_point), drawer, side)
        if image is None:
            continue
        names, labels = glyph_words(name)
        twin = found.get(image.tobytes())
        if twin is not None:
            names, labels = tuple(dict.fromkeys(twin.names + names)), tuple(dict.fromkeys(twin.labels + labels))
        found[image.tobytes()] = replace(twin or Glyph(code_point, (), (), image), names=names, labels=labels)
    if not found:
        raise UsageError(f"{font} has no glyph that shows anything but letters; take Noto Color Emoji")
    return list(found.values())


def prepare_glyphs(font: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write every glyph as a picture, and a manifest of them: ``image``, ``captions``, ``labels``.

    Args:
        font: a TrueType or OpenType file.
        out: the folder to write; what is there under the same names is replaced.

    Returns:
        The manifest.

    Raises:
        UsageError: as :func:`draw_glyphs`.
    """
    folder = Path(out)
    clips = []
    for glyph in draw_glyphs(Path(font)):
        picture = (folder / "pictures" / f"{glyph.code_point:x}.png").absolute()
        write_picture(picture, glyph.image)
        clips.append(Clip(captions=glyph.names, labels=glyph.labels, image=picture))
    write_manifest(folder / MANIFEST, clips)
    return folder / MANIFEST


def _shown(font: Path) -> Iterator[tuple[int, str]]:
    """Code points of a font that show something, and their names in lower case."""
    from fontTools.ttLib import TTFont  # comes with matplotlib

    with TTFont(font, lazy=True) as tables:
        code_points = sorted(tables.getBestCmap())
    for code_point in code_points:
        name = UNNAMED.get(code_point) or unicodedata.name(chr(code_point), "").lower()
        symbol = code_point in UNNAMED or unicodedata.category(chr(code_point)) in KINDS
        if code_point >= FIRST_CODE_POINT and symbol and name and not name.startswith(LEFT_OUT):
            yield code_point, name


def _drawn(text: str, drawer: ImageFont.FreeTypeFont, side: int) -> Image.Image | None:
    """A glyph in the middle of a white square that it fills but for a small border; None where nothing is drawn."""
    left, top, right, bottom = (round(edge) for edge in drawer.getbbox(text))
    if right <= left or bottom <= top:
        return None
    ink = Image.new("RGBA", (right - left, bottom - top), "#ffffff00")
    ImageDraw.Draw(ink).text((-left, -top), text, font=drawer, fill="black", embedded_color=True)
    room = round(max(ink.size) * 1.06)
    square = Image.new("RGBA", (room, room), "white")
    square.alpha_composite(ink, ((room - ink.width) // 2, (room - ink.height) // 2))
    image = square.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return None if np.asarray(image).min() == 255 else image
