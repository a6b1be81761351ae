"""Train a token language model over the codes of a frozen codec.

Shi et al. 2023 (arXiv 2309.08773): the likelihood of the codes given the text, in a tenth of the steps without it, and
in those the regulariser besides (equation 6). Codec and reader of texts are frozen and stay outside of what is trained.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from aural.checkpoint import save_model, weights_digest
from aural.codec_folder import Codec, load_codec
from aural.config import config_to_dict
from aural.errors import UsageError
from aural.features import SAMPLE_RATE
from aural.manifest import Clip, clips_digest, learned_from
from aural.networks.sentence_encoder import load_sentence_encoder
from aural.processes import joined
from aural.soundscapes.examples import Examples
from aural.text_to_audio.convert import SYSTEM, TOKENIZER, load_t5
from aural.text_to_audio.data import Recordings, Scenes, Sounds
from aural.text_to_audio.delay_pattern import usual_delays
from aural.text_to_audio.encoded import Coded, encoded_pool
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel
from aural.text_to_audio.published_names import TEXT
from aural.text_to_audio.recipes import RECIPES, Recipe
from aural.text_to_audio.schedule import dropping_draws
from aural.text_to_audio.text_encoder import SentenceText, T5Text
from aural.training import adjusted, train as run_training

CARD = """---
license: apache-2.0
library_name: aural
pipeline_tag: text-to-audio
---
# Sound from text: token language model

It writes the codes of sounds that a text describes. Trained from scratch by

    {command}

on {clips}, {scenes}over the codec whose codebooks have the digest {codec}.

Losses at the end of training: {metrics}

Limits: it knows the sounds it was trained on and little else. The licence of the recordings applies to what is made of
them here: carry their attribution along with the weights.
"""


def train(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    codec: Path | str | None = None,
    codes: Path | None = None,
    text_encoder: Path | None = None,
    hold_out: str | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.text_to_audio.generate.load`.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: clips with captions or labels.
        out: folder of the model.
        codec: folder of a codec; None: the one in the box.
        codes: folder of the sounds as codes, which other trainings may share; None: ``out/codes``.
        text_encoder: folder of T5, for a recipe whose texts it reads.
        hold_out: clips of this ``split``, or of several, separated by commas, are left out: what they sound like can
            judge the model afterwards.
        resume: go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", ...
        seed: of the data and the initial weights.
        steps: instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        change: what an experiment changes in the recipe.

    Raises:
        UsageError: unknown recipe, nothing to learn from, something the recipe needs was not given, or given without
            need.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    settings = change(RECIPES[recipe]())
    settings = replace(settings, train=adjusted(settings.train, seed=seed, steps=steps, precision=precision))
    if codes is not None and not settings.pool:
        raise UsageError(f"recipe {recipe} encodes the sounds of each step: leave out --codes")
    clips = learned_from(manifest, hold_out)
    known_by = clips_digest(clips)
    # Encoded on the fly, the sounds go where the model is, on which the training decides.
    coder = load_codec(codec, device="cpu")
    config = over(coder, settings.model)
    reader, config, stored, files = _reader(config, text_encoder, recipe)
    sounds = _sounds(settings, config, clips, seed)
    source: Callable[[int], Any] = sounds
    if settings.pool:
        of = {
            "codec": config.codec,
            "soundscapes": settings.soundscapes and config_to_dict(settings.soundscapes),
            "mixing": settings.mixing and config_to_dict(settings.mixing),
            "seconds": config.seconds,
            "texts": settings.n_texts,
            "keywords": config.keywords,
            "seed": seed,
            "clips": known_by,
        }
        folder = out / "codes" if codes is None else codes
        with joined(None if device == "auto" else device) as here:
            shown = progress and here.first and sys.stderr.isatty()
            coder = replace(coder, network=coder.network.to(here.device), device=here.device)
            parts = {"rank": here.rank, "size": here.size}
            source = encoded_pool(sounds, coder, settings.pool, folder, of=of, seed=seed, progress=shown, **parts)

    torch.manual_seed(seed)
    model = TokenLanguageModel(config)
    command = f"aural train text_to_audio --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    command += f" --hold-out {hold_out}" if hold_out else ""

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()} | stored
        card = CARD.format(
            command=command,
            clips=f"{len(clips)} clips",
            scenes="sound synthesised here, and soundscapes made of both, " if settings.soundscapes else "",
            codec=config.codec,
            metrics=", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())),
        )
        dtype = torch.float16 if settings.half else None
        save_model(folder, system=SYSTEM, config=config, weights=weights, card=card, files=files, dtype=dtype)

    batch = settings.train.batch_size
    run_training(
        Training(model, reader, None if settings.pool else coder),
        example=Steps(source, batch, dropping_draws(settings.train.steps) < settings.text_dropping, seed),
        collate=collate,
        counts=counts,
        loss_weights=model.loss_weights,
        config=settings.train,
        out=out,
        save=save,
        blocks=lambda module: cast(Training, module).model.blocks,
        resume=resume,
        of={
            "set of clips": known_by,
            "hold-out": hold_out,
            "codec": config.codec,
            "text encoder": weights_digest(stored),
        },
        device=None if device == "auto" else device,
        progress=progress,
    )


def over(codec: Codec, config: GenerationConfig) -> GenerationConfig:
    """The config of a language model of a codec's codes.

    Raises:
        UsageError: the codec's frames are not a whole number a second.
    """
    if codec.sample_rate % codec.hop:
        raise UsageError(f"the codec {codec.name} makes {codec.frame_rate:g} frames a second: take one with whole ones")
    return replace(
        config,
        codebook_size=codec.codebook_size,
        delays=usual_delays(codec.n_codebooks),
        sample_rate=codec.sample_rate,
        frame_rate=codec.sample_rate // codec.hop,
        codec=codec.digest,
    )


def _reader(
    config: GenerationConfig, text_encoder: Path | None, recipe: str
) -> tuple[SentenceText | T5Text, GenerationConfig, dict[str, Tensor], dict[str, str]]:
    """What reads the texts, the config with its sizes, and the weights and files that are stored with the model."""
    if config.t5 is None:
        if text_encoder is not None:
            raise UsageError(f"recipe {recipe} reads by the sentence encoder in the box: leave out --text-encoder")
        sentences = load_sentence_encoder()
        return SentenceText(sentences), replace(config, text_width=sentences.dim), {}, {}
    if text_encoder is None:
        raise UsageError(f"recipe {recipe} reads by a T5: pass --text-encoder FOLDER with t5-base or t5-large")
    reader, sizes = load_t5(text_encoder)
    stored = {TEXT + name: tensor for name, tensor in reader.encoder.state_dict().items()}
    return reader, replace(config, t5=sizes, text_width=sizes.width), stored, {TOKENIZER: reader.tokenizer.to_str()}


def _sounds(settings: Recipe, config: GenerationConfig, clips: Sequence[Clip], seed: int) -> Sounds:
    if settings.soundscapes is None:
        return Recordings(
            clips,
            seconds=config.seconds,
            sample_rate=config.sample_rate,
            mixing=settings.mixing,
            keywords=config.keywords,
            seed=seed,
        )
    if config.sample_rate != SAMPLE_RATE:
        raise UsageError(f"soundscapes are made at {SAMPLE_RATE} Hz: take a codec of that, not of {config.sample_rate}")
    if not any(clip.captions for clip in clips):
        raise UsageError("no clip of the manifest has a caption to learn from")
    return Scenes(Examples(clips, settings.soundscapes, seed), settings.n_texts)


# ---------------------------------------------------------------------------------------------------- from step to step


@dataclass(frozen=True)
class Example:
    sound: Any
    """:class:`.TrueSound` or :class:`.Coded`."""
    text: str
    dropped: bool
    """Whether the text is not shown; the same for all of a step."""


@dataclass(frozen=True)
class Steps:
    """``steps(index)`` is the sound of an index with one of its texts."""

    sounds: Callable[[int], Any]
    batch_size: int
    dropped: Tensor
    """(steps,), whether the texts of a step are dropped."""
    seed: int

    def __call__(self, index: int) -> Example:
        sound = self.sounds(index)
        text = sound.texts[int(np.random.default_rng([self.seed, 7, index]).integers(len(sound.texts)))]
        return Example(sound, text, bool(self.dropped[index // self.batch_size]))


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """Examples -> what :class:`Training` takes.

    ``texts`` B strings and ``dropped`` (B,) bool, with ``codes`` (B, K, T) and ``frames`` (B,) where sounds are encoded
    already, or else ``waveform`` (B, N) and ``samples`` (B,).
    """
    batch: dict[str, Any] = {
        "texts": [example.text for example in examples],
        "dropped": torch.tensor([example.dropped for example in examples]),
    }
    sounds = [example.sound for example in examples]
    if isinstance(sounds[0], Coded):
        codes = torch.stack([sound.codes for sound in sounds]).long()
        return batch | {"codes": codes, "frames": torch.tensor([sound.n_frames for sound in sounds])}
    waveform = torch.from_numpy(np.stack([sound.waveform for sound in sounds]))
    return batch | {"waveform": waveform, "samples": torch.tensor([sound.n_samples for sound in sounds])}


def counts(batch: Mapping[str, Any]) -> dict[str, float]:
    """What each loss is a mean over: frames (or samples) of sound; ordered pairs of items with dropped text."""
    n_dropped = int(batch["dropped"].sum())
    n_places = int(batch["frames" if "frames" in batch else "samples"].sum())
    return {"cross_entropy": n_places, "representation_regularization": n_dropped * (n_dropped - 1)}


class Training(nn.Module):
    """The losses of a batch; codec and reader are no parts of it, so that they are neither trained nor spread."""

    def __init__(self, model: TokenLanguageModel, reader: SentenceText | T5Text, codec: Codec | None) -> None:
        super().__init__()
        self.model = model
        self.frozen = (reader, codec)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """``batch`` is as :func:`collate` makes it, on the device of the model."""
        reader, codec = self.frozen
        device = batch["dropped"].device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            states, mask = reader.to(device)(batch["texts"])
            if codec is None:
                codes, frames = batch["codes"], batch["frames"]
            else:
                here = replace(codec, network=codec.network.to(device), device=device)
                codes, frames = here.encode(batch["waveform"]), -(-batch["samples"] // codec.hop)
        return self.model.losses(codes, states, mask, dropped=batch["dropped"], frames=frames)
