"""Glyphs of any font become pictures with words, and a likeness tells them apart."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from audio_to_image_models import few_glyphs, font, glyphs

from aural.__main__ import main
from aural.audio_to_image.evaluate import N_NAMES
from aural.audio_to_image.glyph_words import glyph_words, lines, sound_names
from aural.audio_to_image.glyphs import draw_glyphs, prepare_glyphs
from aural.audio_to_image.likeness import gallery
from aural.audio_to_image.picture_files import as_image, as_tensor, read_picture, sheet
from aural.errors import AuralError, ManifestError, UsageError
from aural.manifest import read_manifest
from aural.sound_phrases import SOUNDS


def test_every_glyph_is_a_picture_with_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main(["prepare", "glyphs", "--font", str(font(tmp_path)), "-o", str(tmp_path)])
    assert status.value.code == 0 and "pictures" in capsys.readouterr().err
    clips = read_manifest(tmp_path / "manifest.jsonl", required="image")
    named = {name: clip for clip in clips for name in clip.captions}
    telephone = named["black telephone"]
    assert telephone.captions[0] == "telephone" and telephone.labels == ("telephone",)
    assert telephone.image is not None and telephone.image.name == "260e.png"
    picture = read_picture(telephone.image, (128, 128))
    assert picture.shape == (3, 128, 128) and picture[:, 0, 0].tolist() == [1.0] * 3 and picture.min() < -0.9
    ink = (picture[0] < 0).nonzero()
    assert (ink.amax(0) + ink.amin(0) - 127).abs().max() <= 2  # in the middle
    assert (ink.amax(0) - ink.amin(0)).max() > 100  # and as large as fits
    assert not any("letter" in name or "digit" in name or "regional" in name for name in named)
    with pytest.raises(ManifestError, match="'audio' is missing"):
        read_manifest(tmp_path / "manifest.jsonl")


def test_glyphs_that_look_the_same_are_one_with_all_names(tmp_path: Path) -> None:
    looks = [glyph.image.tobytes() for glyph in draw_glyphs(font(tmp_path), side=32)]
    assert len(set(looks)) == len(looks) > 60
    glyph = draw_glyphs(font(tmp_path), side=1)  # in one pixel nearly all look the same
    shades = {one.image.getpixel((0, 0)) for one in glyph}
    assert len(shades) == len(glyph) < len(looks) and max(len(one.names) for one in glyph) > 5


def test_words_are_ours_first_and_labels_are_those_of_recordings() -> None:
    assert glyph_words("dog face") == (("dog", "puppy", "hound", "barking dog", "dog face"), ("dog bark", "dog"))
    assert glyph_words("black chess pawn") == (("chess pawn", "black chess pawn"), ())
    assert {label for line in lines() for label in line.labels} <= set(SOUNDS)
    names = sound_names()
    assert len(names) == len(set(names)) >= N_NAMES
    of_esc10 = "dog bark, rain, sea waves, baby cry, clock tick, person sneeze, helicopter, chainsaw, rooster"
    known = {label for line in lines() for label in line.labels}
    assert {*of_esc10.split(", "), "fire crackling"} <= known


def test_what_is_no_font_or_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    with pytest.raises(UsageError, match="no font"):
        prepare_glyphs(tmp_path / "a.ttf", tmp_path / "out")
    with pytest.raises(AuralError, match="no picture"):
        read_picture(tmp_path / "a.ttf", (8, 8))
    for arguments in (["--font", "part.ttf", "folder"], []):
        with pytest.raises(SystemExit) as status:
            main(["prepare", "glyphs", *arguments, "-o", str(tmp_path / "out")])
        assert status.value.code == 2


def test_a_glyph_looks_most_like_itself_when_it_is_drawn_worse(tmp_path: Path) -> None:
    clips = read_manifest(glyphs(tmp_path), required="image")
    pictures = torch.stack([read_picture(clip.image, (64, 64)) for clip in clips if clip.image])
    known = gallery(pictures)
    blurred = F.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    noise = 0.2 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    worse = torch.roll(blurred, (1, -1), dims=(2, 3)) + noise
    right = known.nearest(worse) == torch.arange(len(pictures))
    assert right.float().mean() > 0.97
    among = torch.tensor([0, 5])
    assert set(known.nearest(pictures[:9], among).tolist()) <= {0, 5} and known.nearest(pictures[5:6], among) == 5


def test_pictures_go_in_and_out_and_lie_side_by_side(tmp_path: Path) -> None:
    clips = read_manifest(few_glyphs(tmp_path), required="image")
    picture = read_picture(clips[0].image or tmp_path, (128, 128))
    torch.testing.assert_close(as_tensor(as_image(picture)), picture)
    assert as_image(picture, 256).size == (256, 256) and as_image(picture, 32).size == (128, 128)
    laid = as_tensor(sheet([[as_image(picture)] * 2, [as_image(picture)]], ["a", "bb"]))
    assert laid.shape[1] == 2 * 136 + 8
    assert torch.equal(laid[:, 8:136, -136:-8], picture)
