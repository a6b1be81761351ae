"""The small text-to-image model learns pictures with their words, and paints each by its seed alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_to_image_models import GLYPHS, few_glyphs, picture_model
from PIL import Image
from torch import Tensor

from aural.audio_to_image.evaluate import evaluate_pictures
from aural.audio_to_image.likeness import gallery
from aural.audio_to_image.painter import Painter, PixelCanvas, load_painter, paint, painting
from aural.audio_to_image.picture_files import as_tensor, read_picture
from aural.audio_to_image.picture_model import PictureModelConfig, build_unet
from aural.audio_to_image.recipes import PICTURE_RECIPES, PictureRecipe
from aural.audio_to_image.train_pictures import Pictures, train_pictures
from aural.checkpoint import load_weights
from aural.errors import AuralError, CheckpointError, UsageError
from aural.manifest import read_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_glyphs(tmp_path_factory.mktemp("glyphs"))


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Painter:
    return load_painter(picture_model(tmp_path_factory.mktemp("models") / "pictures", manifest))


def painted(painter: Painter, prompts: list[str], seeds: list[int], guidance: float = 2.0) -> Tensor:
    with torch.inference_mode():
        states, mask = painter.words.states(prompts)
    return paint(painter, states, mask, seeds, painting(painter, guidance=guidance))


def test_the_words_for_a_picture_paint_it(manifest: Path, tmp_path: Path) -> None:
    def longer(recipe: PictureRecipe) -> PictureRecipe:
        run = replace(recipe.train, steps=160, batch_size=8, learning_rate=3e-3, ema_decay=None, log_every=100)
        return replace(recipe, train=run, sketch=run, model=replace(recipe.model, steps=8))

    train_pictures("tiny", manifest=manifest, out=tmp_path / "out", change=longer, progress=False)
    painter = load_painter(tmp_path / "out")
    clips = read_manifest(manifest, required="image")
    known = gallery(torch.stack([read_picture(clip.image, (16, 16)) for clip in clips if clip.image]))
    names = list(GLYPHS.values())
    pictures = painted(painter, [f"a photo of {name}" for name in names], [5] * 3)
    assert [clips[place].labels[0] for place in known.nearest(pictures).tolist()] == names
    result, sheet = evaluate_pictures(painter, manifest)
    assert (result["pictures"], result["n_names"], result["n_pictures"]) == (1.0, 3, 3)
    assert abs(result["chance"] - 1 / 3) < 1e-6 and sheet.width > 3 * 96


def test_what_sketches_is_learnt_first_and_stays(manifest: Path, tmp_path: Path) -> None:
    def longer(recipe: PictureRecipe) -> PictureRecipe:
        return replace(recipe, sketch=replace(recipe.sketch, steps=200, batch_size=8), blank=0.0)

    train_pictures("tiny", manifest=manifest, out=tmp_path / "out", change=longer, progress=False)
    alone, whole = load_weights(tmp_path / "out" / "sketch"), load_weights(tmp_path / "out")
    assert alone and all(torch.equal(one.half().float(), whole[f"sketch.{name}"]) for name, one in alone.items())
    painter = load_painter(tmp_path / "out")
    clips = [clip for clip in read_manifest(manifest, required="image") if clip.image]
    shown = torch.stack([read_picture(clip.image, (8, 8)) for clip in clips if clip.image])
    with torch.inference_mode():
        sketches = painter.unet.sketch(*painter.words.states([f"a photo of {clip.captions[0]}" for clip in clips]))
    apart = (sketches[:, None] - shown[None]).square().mean((2, 3, 4))
    assert apart.argmin(1).tolist() == [0, 1, 2] and apart.diagonal().max() < 0.05


def test_a_picture_depends_on_its_seed_and_prompt_alone(painter: Painter) -> None:
    prompts = ["a mouse", "a photo of a pair of scissors", ""]
    together = painted(painter, prompts, [0, 7, 7])
    assert together.shape == (3, 3, 16, 16) and together.abs().max() <= 1
    for place, (prompt, seed) in enumerate(zip(prompts, (0, 7, 7), strict=True)):
        torch.testing.assert_close(painted(painter, [prompt], [seed])[0], together[place], atol=1e-4, rtol=0)
    assert (painted(painter, ["a mouse"], [1]) - together[:1]).abs().max() > 1e-2


def test_guidance_leads_away_from_the_blank_prompt(painter: Painter) -> None:
    plain = painted(painter, ["a mouse"], [3], guidance=1.0)
    blank = painted(painter, [""], [3], guidance=1.0)
    torch.testing.assert_close(painted(painter, ["a mouse"], [3], guidance=0.0), blank, atol=1e-4, rtol=0)
    torch.testing.assert_close(painted(painter, [""], [3], guidance=5.0), blank, atol=1e-4, rtol=0)
    assert (painted(painter, ["a mouse"], [3], guidance=5.0) - plain).abs().max() > 1e-4


def test_a_resumed_training_is_the_same_training(manifest: Path, tmp_path: Path) -> None:
    def never_full(recipe: PictureRecipe) -> PictureRecipe:
        return replace(recipe, train=replace(recipe.train, learning_rate=1e-3, final_learning_rate=1e-3))

    how = {"manifest": manifest, "progress": False, "change": never_full}
    train_pictures("tiny", out=tmp_path / "whole", **how)  # type: ignore[arg-type]
    train_pictures("tiny", out=tmp_path / "halves", steps=2, **how)  # type: ignore[arg-type]
    train_pictures("tiny", out=tmp_path / "halves", resume=True, **how)  # type: ignore[arg-type]
    whole, halves = load_weights(tmp_path / "whole"), load_weights(tmp_path / "halves")
    assert whole.keys() == halves.keys() and all(torch.equal(whole[name], halves[name]) for name in whole)


def test_half_of_the_examples_can_be_heard_and_some_have_no_words(manifest: Path) -> None:
    few = read_manifest(manifest, required="image")
    clips = [few[0], *[replace(few[1], labels=(), captions=("x",))] * 30]
    pictures = Pictures(clips, replace(PICTURE_RECIPES["tiny"](), sounding=0.5, blank=0.2), seed=0)
    drawn = [pictures(index) for index in range(600)]
    heard = [torch.equal(one.latents, pictures.latents[0]) for one in drawn]
    assert abs(sum(heard) / 600 - (0.5 + 0.5 / 31)) < 0.06
    assert abs(sum(one.prompt == "" for one in drawn) / 600 - 0.2) < 0.05
    assert {one.prompt for one in drawn if not one.latents.equal(pictures.latents[0])} == {
        "", "x", "a photo of x", "a picture of x",
    }  # fmt: skip


def test_patches_go_there_and_back() -> None:
    pictures = torch.rand(2, 3, 16, 16)
    canvas = PixelCanvas(4)
    moments = canvas.moments(pictures)
    assert moments.shape[1:] == canvas.shape(16, 16) == (48, 4, 4)
    assert torch.equal(canvas.decode(canvas.draw(moments)), pictures)


def test_the_default_is_small_enough_for_the_box() -> None:
    with torch.device("meta"):
        unet = build_unet(PICTURE_RECIPES["default"]().model)
    assert 2 * sum(parameter.numel() for parameter in unet.parameters()) < 28e6


def test_a_picture_of_any_kind_is_read_as_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.array([[0, 32768, 65535], [65535, 0, 257]], np.uint16)
    expected = torch.tensor([[0, 128, 255], [255, 0, 1]]) / 127.5 - 1
    for name, kind in (("a.png", "<u2"), ("a.tif", "<u2"), ("b.tif", ">u2")):
        Image.fromarray(grey.astype(kind)).save(tmp_path / name)
        torch.testing.assert_close(read_picture(tmp_path / name, (2, 3)), expected.expand(3, 2, 3), atol=1e-6, rtol=0)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: is to be turned by a quarter, clockwise
    levels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(levels).save(tmp_path / "turned.png", exif=turned)
    assert torch.equal(read_picture(tmp_path / "turned.png", (3, 2)), as_tensor(Image.fromarray(np.rot90(levels, -1))))
    content = bytearray((tmp_path / "turned.png").read_bytes())
    content[11] = 5  # the length of the first chunk
    (tmp_path / "damaged.png").write_bytes(content)
    with pytest.raises(AuralError, match=r"damaged\.png: no picture that can be read"):
        read_picture(tmp_path / "damaged.png", (2, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(AuralError, match=r"a\.png: is too large a picture .*scale it down"):
        read_picture(tmp_path / "a.png", (2, 3))


def test_what_does_not_fit_is_refused(painter: Painter, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no multiple"):
        PictureModelConfig(side=60)
    with pytest.raises(ValueError, match="sketch_side"):
        PictureModelConfig(sketch_side=24)
    with pytest.raises(ValueError, match="groups"):
        PictureModelConfig(channels=(100,))
    for wrong, what in (
        ({"steps": 2000}, "1 to 1000"),
        ({"guidance": -1.0}, "guidance"),
        ({"scheduler": "pndm"}, "take ddim"),
        ({"size": (20, 16)}, "16 by 16 alone"),
        ({"size": (32, 32)}, "16 by 16 alone"),  # a multiple, but what is sketched has one size
    ):
        with pytest.raises(UsageError, match=what):
            painting(painter, **wrong)  # type: ignore[arg-type]
    assert painting(painter, size=(16, 16)) == painting(painter)
    for name, what in ((tmp_path, "no picture model"), ("nothing", "org/name")):
        with pytest.raises((UsageError, CheckpointError), match=what):
            load_painter(name)
    with pytest.raises(UsageError, match="stands for a sound"):
        painter.words.states(["a <*>"])
    for recipe in ("paper", "huge"):
        with pytest.raises(UsageError, match="there are default, tiny"):
            train_pictures(recipe, manifest=manifest, out=tmp_path / "out")
