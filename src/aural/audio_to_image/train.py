"""Train an audio token: what a frozen listener hears becomes a word that a frozen picture model understands.

Yariv et al., arXiv 2305.13050: the diffusion loss goes backward through the U-Net and the text encoder, whose weights
stay as they are, into the bridge alone; and, where it is asked for, into low-rank updates of the U-Net.
"""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.convert import CLASSIFIER, LORA, NOT_TUNED, SYSTEM
from aural.audio_to_image.data import Collate, EncodedRecordings, Pair, Recordings, pairs
from aural.audio_to_image.lora import Lora
from aural.audio_to_image.losses import LossConfig, add_noise, diffusion_target, loss_weights, losses
from aural.audio_to_image.painter import Painter, load_painter
from aural.audio_to_image.recipes import RECIPES, Recipe
from aural.audio_to_image.video_frames import Shown, read_shown
from aural.checkpoint import find_model, load_config, load_into, load_weights, save_model, weights_digest
from aural.errors import CheckpointError, UsageError
from aural.manifest import clips_digest, learned_from, read_manifest
from aural.networks.beats import BEATs
from aural.networks.conv_encoder import ConvEncoder
from aural.networks.listener import SYSTEM as LISTENING, Listener, ListenerConfig
from aural.processes import joined
from aural.training import adjusted, train as run_training

logger = logging.getLogger("aural")

CARD = """---
license: apache-2.0
library_name: aural
pipeline_tag: text-to-image
---
# Pictures from sound: an audio token

It makes a word of a recording, for the prompts of the picture model {painter}. Trained by

    {command}

on {n} recordings with pictures; the audio encoder and the picture model were frozen.

Limits: it knows the sounds it was trained on. The licence of the recordings applies to what is said of them here: carry
their attribution along with the weights.
"""


def train(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    pictures: Path | None = None,
    painter: str | os.PathLike[str] | None = None,
    encoder: Path | None = None,
    lora: int = 0,
    hold_out: str | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.audio_to_image.imagine.load`.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: sounds with an ``image``, a picture or a video, or with one label.
        out: folder of the model.
        pictures: a manifest of pictures with labels, for sounds without an image.
        painter: the picture model, see :func:`aural.audio_to_image.painter.load_painter`.
        encoder: folder of a trained listener, or of the recipe "paper" a file of BEATs. None: the listener in the box,
            if no split is held out, of which it knows.
        lora: rank of updates of the U-Net's attention that are learnt along; 0 = none, 4 = as released.
        hold_out: clips of this ``split``, or of several, separated by commas, are left out: they can judge the model
            afterwards.
        resume: go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights and the noise.
        steps: instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        change: what an experiment changes in the recipe.

    Raises:
        UsageError: unknown recipe, nothing to learn from, or something the recipe needs was not given.
        CheckpointError: the encoder is not of the recipe's kind.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    settings = change(RECIPES[recipe]())
    settings = replace(settings, train=adjusted(settings.train, seed=seed, steps=steps, precision=precision))
    clips = learned_from(manifest, hold_out)
    seen_with = read_manifest(pictures, required="image") if pictures else []
    paired = pairs(clips, seen_with)
    config, heard_by = _encoder(settings.token, encoder, hold_out)
    with joined(None if device == "auto" else device) as processes:
        where = processes.device
        frozen = load_painter(painter).to(where)
        of = {
            "set of clips": clips_digest(clips),
            "hold-out": hold_out,
            "set of pictures": clips_digest(seen_with),
            "painter": weights_digest(frozen.unet.state_dict()),
            "encoder": weights_digest(heard_by),
            "rank of lora": lora,
        }
        torch.manual_seed(seed)
        token = AudioToken(replace(config, token_width=frozen.words.width, lora_rank=lora))
        assert token.encoder is not None
        load_into(token.encoder, heard_by)
        shown = progress and processes.first and sys.stderr.isatty()
        module = TokenTraining(token, frozen, settings.losses, checkpointing=settings.checkpointing)
        if settings.pool:
            token.to(where)
            bfloat16 = settings.train.precision == "bfloat16"

            def encode(waveform: Tensor) -> Tensor:
                with torch.autocast(where.type, torch.bfloat16, enabled=bfloat16):
                    return token.features(waveform.to(where))[0].float()

            example: EncodedRecordings | Recordings = EncodedRecordings(
                paired, encode, n=settings.pool, seconds=settings.seconds, seed=seed, progress=shown
            )
        else:
            example = Recordings(paired, settings.seconds, seed)
        size, seen = settings.size or (frozen.side, frozen.side), example.shown()
        moments = None if seen is None else _moments(seen, frozen, size, shown)
        rows = _name_rows(paired, frozen, wanted=settings.losses.classification > 0 and processes.first)
        collate = Collate(moments, rows, size)
        command = f"aural train audio_to_image --recipe {recipe} --manifest {shlex.quote(manifest.name)} --seed {seed}"
        given: dict[str, Any] = {"pictures": pictures and pictures.name, "painter": painter and frozen.name}
        given |= {"encoder": encoder and encoder.name, "hold-out": hold_out}
        given |= {"lora": lora, "steps": steps, "precision": precision}
        command += "".join(f" --{name} {shlex.quote(str(one))}" for name, one in given.items() if one)
        card = CARD.format(painter=frozen.name, command=command, n=len(paired))

        def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
            renamed = {
                name.removeprefix("token.") if name.startswith("token.") else LORA + name.removeprefix("lora."): tensor
                for name, tensor in weights.items()
            }
            save_model(folder, system=SYSTEM, config=token.config, weights=renamed, card=card)

        run_training(
            module,
            example=example,
            collate=collate,
            counts=lambda batch: dict.fromkeys(module.loss_weights(labels="names" in batch), len(batch["heard"])),
            loss_weights=module.loss_weights(labels=bool(collate.names)),
            config=settings.train,
            out=out,
            save=save,
            resume=resume,
            of=of,
            device=None if device == "auto" else device,
            progress=progress,
        )


def _encoder(
    config: AudioTokenConfig, encoder: Path | None, hold_out: str | None
) -> tuple[AudioTokenConfig, dict[str, Tensor]]:
    """The config with the sizes of the encoder, and the encoder's weights."""
    if config.conv_encoder is None:
        if encoder is None:
            raise UsageError(
                "this recipe hears through BEATs: pass --encoder with its file, or what convert made of it"
            )
        beats = BEATs.from_checkpoint(encoder)
        if not beats.config.finetuned_model:
            logger.warning("%s: %s", encoder, NOT_TUNED)
        sizes = replace(beats.config, finetuned_model=False, labels=())
        weights = {name: one for name, one in beats.state_dict().items() if not name.startswith(CLASSIFIER)}
        try:
            return replace(config, beats=sizes, encoder_width=sizes.encoder_embed_dim), weights
        except ValueError as error:
            raise CheckpointError(f"{encoder} does not fit this recipe: {error}; pass a larger BEATs") from None
    if encoder is None:
        if hold_out is not None:
            raise UsageError(
                f"pass --encoder with the folder of a listener that was trained with --hold-out {hold_out}"
            )
        encoder = find_model(None, LISTENING)
    heard = load_config(encoder, ListenerConfig, LISTENING)
    listener = Listener(heard)
    load_into(listener, load_weights(encoder))
    if not isinstance(listener.encoder, ConvEncoder):
        raise CheckpointError(f"{encoder}: its encoder is not a convolutional one, which this recipe is for")
    sizes_of = listener.encoder.config
    config = replace(
        config, conv_encoder=sizes_of, encoder_width=sizes_of.width, layers=(1,), min_seconds=heard.min_seconds
    )
    return config, dict(listener.encoder.state_dict())


def _moments(pictures: Iterable[Shown], painter: Painter, size: tuple[int, int], shown: bool) -> dict[Shown, Tensor]:
    """What there is to know of the latents of every picture, in half precision: the autoencoder reads each once."""
    moments = {}
    for picture in track(sorted(pictures), "encoding pictures", disable=not shown):
        pixels = read_shown(picture, size)[None].to(painter.device)
        moments[picture] = painter.canvas.moments(pixels)[0].half().cpu()
    return moments


def _name_rows(paired: list[Pair], painter: Painter, *, wanted: bool) -> dict[str, Tensor]:
    """What audio tokens are pulled towards, of each name; empty, and so for all, where a clip has no name."""
    names = sorted({pair.name for pair in paired})
    if "" in names:  # the classification term is a mean over a batch, and needs the name of each
        if wanted:
            nameless = [pair.clip.audio for pair in paired if not pair.name]
            logger.warning(
                "%d of %d clips have no label, such as %s: audio tokens are not pulled towards names, of any clip",
                len(nameless),
                len(paired),
                nameless[0],
            )
        return {}
    return dict(zip(names, painter.words.embeddings(names).float().cpu(), strict=True))


class TokenTraining(nn.Module):
    """The bridge, and the updates of a picture model that is not a part of it: what is frozen is not saved."""

    def __init__(self, token: AudioToken, painter: Painter, config: LossConfig, *, checkpointing: bool = False) -> None:
        """
        Args:
            token: with its frozen encoder.
            painter: frozen, on the device of the training.
            config: weights of the losses.
            checkpointing: compute the U-Net twice instead of keeping what its gradients need.
        """
        super().__init__()
        self.token = token
        self.painter = painter
        self.config = config
        self.lora = Lora(painter.unet, token.config.lora_rank) if token.config.lora_rank else None
        if self.lora:
            self.lora.attach(painter.unet)
        self.levels: Tensor = painter.scheduler.alphas_cumprod
        if checkpointing:
            painter.unet.enable_gradient_checkpointing()

    def loss_weights(self, *, labels: bool) -> dict[str, float]:
        """Weight of each loss, with the names of what sounds or without."""
        return loss_weights(self.config, labels=labels)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of :class:`aural.audio_to_image.data.Collate` -> its losses, with noise drawn for each picture."""
        heard, mask = batch["heard"], batch["mask"]
        features, real = self.token.features(heard, mask) if heard.dim() == 2 else (heard, mask)
        embedding = self.token(features, real).float()
        prompts = [self.token.config.prompt] * len(embedding)
        states, read = self.painter.words.states(prompts, embedding)
        latents = self.painter.canvas.draw(batch["moments"] if "moments" in batch else self._moments(batch["pictures"]))
        noise = torch.randn_like(latents)
        steps = torch.randint(len(self.levels), (len(latents),), device=latents.device)
        levels = self.levels.to(latents.device)[steps]
        foretold = self.painter.predict(add_noise(latents, noise, levels), steps, states, read)
        target = diffusion_target(latents, noise, levels, self.painter.scheduler.config.prediction_type)
        return losses(foretold, target, embedding, batch.get("names"))

    def _moments(self, pictures: Tensor) -> Tensor:
        """Of pictures that are not known beforehand: in the precision and layout, and so with the noise, of others."""
        with torch.autocast(pictures.device.type, enabled=False):
            return self.painter.canvas.moments(pictures).float().contiguous()
