"""Train the small text-to-image model on pictures and the words for them; the text encoder is frozen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.audio_to_image.losses import add_noise, diffusion_loss
from aural.audio_to_image.painter import PixelCanvas
from aural.audio_to_image.picture_files import read_picture
from aural.audio_to_image.picture_model import (
    SYSTEM,
    PictureModelConfig,
    Sketch,
    build_scheduler,
    build_unet,
    foretell,
)
from aural.audio_to_image.recipes import PICTURE_RECIPES, PictureRecipe
from aural.audio_to_image.words import SentenceWords, padded
from aural.checkpoint import load_into, load_weights, save_model
from aural.errors import UsageError
from aural.manifest import Clip, clips_digest, read_manifest
from aural.networks.sentence_encoder import load_sentence_encoder
from aural.training import Save, TrainConfig, adjusted, train as run_training
from aural.whitening import start_white

WORDINGS = ("{}", "a photo of {}", "a picture of {}")
"""How the words for a picture become a prompt."""

CARD = """---
license: apache-2.0
library_name: aural
pipeline_tag: text-to-image
---
# Small pictures from words

A diffusion model of {millions:.1f} M parameters that draws glyphs of {side} by {side} pixels. Trained from scratch by

    {command}

on {n} pictures. Its words are read by a frozen sentence encoder, which is not part of these weights.

Limits: it knows the pictures it was trained on and what lies between them. The default learns from Noto Color Emoji
(Google, SIL Open Font License 1.1).
"""

SKETCH = "sketch"
SKETCH_CARD = """# What sketches

A part of a small text-to-image model, trained first by `aural train pictures`; of little use alone.
"""


def train_pictures(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    change: Callable[[PictureRecipe], PictureRecipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.audio_to_image.painter.load_painter`.

    What sketches is trained first, in ``out/sketch``, and is frozen when the U-Net is trained.

    Args:
        recipe: a name in ``PICTURE_RECIPES``.
        manifest: pictures with captions, such as those of ``aural prepare glyphs``.
        out: folder of the model.
        resume: go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights and the noise.
        steps: of the U-Net, instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        change: what an experiment changes in the recipe.

    Raises:
        UsageError: unknown recipe, or no picture has words.
    """
    if recipe not in PICTURE_RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; there are {', '.join(PICTURE_RECIPES)}")
    settings = change(PICTURE_RECIPES[recipe]())
    settings = replace(settings, train=adjusted(settings.train, seed=seed, steps=steps, precision=precision))
    settings = replace(settings, sketch=adjusted(settings.sketch, seed=seed, precision="float32"))
    clips = [clip for clip in read_manifest(manifest, required="image") if clip.captions]
    if not clips:
        raise UsageError(f"{manifest}: no picture has captions to learn from; `aural prepare glyphs` writes some")
    examples = Pictures(clips, settings, seed)
    collate = Collate(SentenceWords(load_sentence_encoder(settings.model.text_encoder)))
    torch.manual_seed(seed)
    module = PictureTraining(settings.model)
    read = [collate.read(name) for name in sorted({name for clip in clips for name in clip.captions})]
    start_white(module.unet.encoder_hid_proj, torch.cat(read))
    start_white(module.unet.sketch.read, torch.stack([states.mean(0) for states in read]))
    command = f"aural train pictures --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    card = CARD.format(millions=millions, side=settings.model.side, command=command, n=len(clips))

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        own = {name.removeprefix("unet."): value for name, value in weights.items()}
        save_model(folder, system=SYSTEM, config=settings.model, weights=own, card=card, dtype=torch.float16)

    def save_sketch(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        own = {name.removeprefix("sketch."): value for name, value in weights.items()}
        save_model(folder, system=SKETCH, config=settings.model, weights=own, card=SKETCH_CARD)

    def run(module: nn.Module, loss: str, config: TrainConfig, out: Path, save: Save) -> None:
        run_training(
            module,
            example=examples,
            collate=collate,
            counts=lambda batch: {loss: len(batch["latents"])},
            loss_weights={loss: 1.0},
            config=config,
            out=out,
            save=save,
            resume=resume,
            of={"set of pictures": clips_digest(clips)},
            device=None if device == "auto" else device,
            progress=progress,
        )

    run(SketchTraining(module.unet.sketch, settings.model), "sketch", settings.sketch, out / SKETCH, save_sketch)
    load_into(module.unet.sketch, load_weights(out / SKETCH))
    module.unet.sketch.requires_grad_(False)
    run(module, "diffusion", settings.train, out, save)


@dataclass(frozen=True)
class Shown:
    """An example: a picture and a prompt for it."""

    latents: Tensor
    """(C, H, W)"""
    prompt: str


class Pictures:
    """``pictures(index)`` is the :class:`Shown` of an index; all pictures are kept in memory."""

    def __init__(self, clips: Sequence[Clip], recipe: PictureRecipe, seed: int) -> None:
        """Read them all.

        Args:
            clips: with ``image`` and ``captions``; those with ``labels`` can be heard.
            recipe: how examples are drawn.
            seed: of the drawing.

        Raises:
            AuralError: a picture cannot be read.
        """
        side, canvas = recipe.model.side, PixelCanvas(recipe.model.patch)
        self.recipe, self.seed = recipe, seed
        self.captions = [clip.captions for clip in clips]
        images = [clip.image for clip in clips if clip.image is not None]
        self.latents = canvas.moments(torch.stack([read_picture(image, (side, side)) for image in images]))
        self.sounding = [place for place, clip in enumerate(clips) if clip.labels]

    def __call__(self, index: int) -> Shown:
        generator = np.random.default_rng([self.seed, 8, index])
        heard = self.sounding and generator.random() < self.recipe.sounding
        place = int(generator.choice(self.sounding) if heard else generator.integers(len(self.captions)))
        words = self.captions[place][int(generator.integers(len(self.captions[place])))]
        prompt = WORDINGS[int(generator.integers(len(WORDINGS)))].format(words)
        return Shown(self.latents[place], "" if generator.random() < self.recipe.blank else prompt)


class Collate:
    """Examples -> a batch. Each prompt is read once: the same ones come back many times in a training."""

    def __init__(self, words: SentenceWords) -> None:
        self.words = words
        self.known: dict[str, Tensor] = {}

    @torch.no_grad()
    def read(self, prompt: str) -> Tensor:
        """The states of a prompt's tokens, (L, D)."""
        return self.words.states([prompt])[0][0]

    def __call__(self, examples: Sequence[Shown]) -> dict[str, Any]:
        """``latents`` (B, C, H, W), ``states`` (B, L, D) and ``mask`` (B, L) of the prompts."""
        for prompt in {example.prompt for example in examples} - self.known.keys():
            self.known[prompt] = self.read(prompt)[None].half()
        read = [self.known[example.prompt].float() for example in examples]
        real = [torch.ones(1, one.shape[1], dtype=torch.bool) for one in read]
        states, mask = padded(read, real)
        return {"latents": torch.stack([example.latents for example in examples]), "states": states, "mask": mask}


class SketchTraining(nn.Module):
    """What sketches and its loss: the mean squared error of the picture, made as small as a sketch."""

    def __init__(self, sketch: Sketch, config: PictureModelConfig) -> None:
        super().__init__()
        self.sketch = sketch
        self.canvas = PixelCanvas(config.patch)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of :class:`Collate` -> its loss."""
        small = F.adaptive_avg_pool2d(self.canvas.decode(batch["latents"]), self.sketch.side)
        return {"sketch": F.mse_loss(self.sketch(batch["states"], batch["mask"]).float(), small)}


class PictureTraining(nn.Module):
    """The U-Net and its loss: the mean squared error of the picture that it foretells; what sketches is frozen."""

    def __init__(self, config: PictureModelConfig) -> None:
        super().__init__()
        self.unet = build_unet(config)
        self.levels = build_scheduler().alphas_cumprod

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of :class:`Collate` -> its loss, at a step of the noise that is drawn for each picture."""
        latents = batch["latents"]
        steps = torch.randint(len(self.levels), (len(latents),), device=latents.device)
        noisy = add_noise(latents, torch.randn_like(latents), self.levels.to(latents.device)[steps])
        foretold = foretell(self.unet, noisy, steps, batch["states"], batch["mask"])
        return {"diffusion": diffusion_loss(foretold, latents)}
