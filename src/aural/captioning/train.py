"""Train a captioner: first the encoder, on labels, if the recipe says so; then bridge and decoder over it, frozen.

Wu et al. 2023 (arXiv 2309.17352), sections 2 and 3: smoothed cross entropy, and InfoNCE towards the caption's sentence
embedding; mix-ups first, the target recordings last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from aural import spec_augment
from aural.audio import read_mono
from aural.captioning.data import CaptionCollate, CaptionExamples, Example, TagCollate, clean_caption
from aural.captioning.model import IGNORED, SAMPLE_RATE, Captioner, CaptionerConfig
from aural.captioning.recipes import RECIPES, Recipe, Stage
from aural.captioning.tokenizer import TOKENIZER, load_tokenizer, train_tokenizer
from aural.checkpoint import load_config, load_into, load_weights, save_model
from aural.errors import UsageError
from aural.manifest import Clip, read_manifest
from aural.networks.beats import BEATs
from aural.networks.conv_encoder import ConvEncoder, ConvEncoderConfig
from aural.networks.sentence_encoder import SentenceEncoder, load_sentence_encoder
from aural.training import train as run_training

VALIDATION = "validation"
"""``split`` of the clips that choose the best model; without such clips the last model is the one that is kept."""

TOKENIZER_EXAMPLES = 20_000
"""Examples whose captions the tokenizer learns from: enough to have seen every pair of sounds."""

CARD = """---
license: apache-2.0
library_name: aural
pipeline_tag: audio-to-text
---
# {title}

{what} Trained from scratch by

    {command}

on {clips}. Audio was resampled to 16 kHz and varied in level, speed and bandwidth, and clips were mixed in pairs.

Metrics at the end of training: {metrics}

Limits: it knows the sounds it was trained on and little else. The licence of the recordings applies to what is said of
them here: carry their attribution along with the weights.
"""


def train(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    finetune_manifest: Path | None = None,
    encoder: Path | None = None,
    tokenizer: Path | None = None,
    text_encoder: str | None = None,
    hold_out: str | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.captioning.caption.load`.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: clips with captions (and labels, when the recipe trains the encoder).
        out: folder of the model; the stages before the last keep theirs in ``out/stages``.
        finetune_manifest: clips of the last stage; None: the same.
        encoder: folder of a trained audio encoder (BEATs or the convolutional one), which replaces its training.
        tokenizer: folder or file of a tokenizer; None: trained on the captions.
        text_encoder: sentence encoder, see :func:`aural.networks.sentence_encoder.load_sentence_encoder`.
        hold_out: clips of this ``split`` are left out, so that they can judge the model afterwards.
        resume: go on where an earlier run stopped; finished stages are not run again.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights and dropout.
        steps: of every stage, instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.

    Raises:
        UsageError: unknown recipe, nothing to learn from, or something the recipe needs was not given.
    """
    settings = _recipe(recipe, seed, steps, precision)
    clips = [clip for clip in read_manifest(manifest) if hold_out is None or clip.split != hold_out]
    last_clips = clips
    if finetune_manifest is not None:
        last_clips = [c for c in read_manifest(finetune_manifest) if hold_out is None or c.split != hold_out]
    for path, some in ((manifest, clips), (finetune_manifest, last_clips)):
        if not any(clip.captions for clip in some):
            raise UsageError(
                f"{path}: no clip with captions to learn from" + (f" outside {hold_out}" if hold_out else "")
            )
    where = None if device == "auto" else device
    if encoder is None and settings.encoder_stage is None:
        raise UsageError(f"recipe {recipe} needs a trained audio encoder: pass --encoder with the folder of one")
    words = _tokenizer(settings, tokenizer, _training(clips))
    text_encoder = text_encoder or settings.model.text_encoder
    instruction = settings.model.text_instruction
    sentence_encoder = load_sentence_encoder(text_encoder, instruction=instruction)
    command = f"aural train captioning --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    command += f" --hold-out {hold_out}" if hold_out else ""

    torch.manual_seed(seed)
    encoder_network, config = _encoder(settings, encoder, _training(clips), out, command, resume, where, progress)
    config = replace(
        config,
        decoder=replace(config.decoder, vocab_size=words.get_vocab_size()),
        embedding_dim=sentence_encoder.dim,
        text_encoder=text_encoder,
    )
    captioner = Captioner(config)
    captioner.encoder.load_state_dict(encoder_network.state_dict())
    training = _CaptionerTraining(captioner, _Remembered(sentence_encoder))
    for stage in settings.stages:
        is_last = stage is settings.stages[-1]
        folder = out if is_last else out / "stages" / stage.name
        stage_clips = last_clips if is_last else clips
        _train_captioner(training, stage, stage_clips, words, folder, command, resume, where, progress)
        load_into(captioner, load_weights(folder))  # the next stage begins with the best weights of this one


def _recipe(name: str, seed: int, steps: int | None, precision: str | None) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")

    def changed(stage: Stage) -> Stage:
        run = replace(stage.train, seed=seed)
        if steps is not None:
            run = replace(run, steps=steps, warmup_steps=min(run.warmup_steps, steps))
        if precision is not None:
            run = replace(run, precision=precision)  # type: ignore[arg-type]
        return replace(stage, train=run)

    recipe = RECIPES[name]()
    encoder_stage = changed(recipe.encoder_stage) if recipe.encoder_stage is not None else None
    return replace(recipe, stages=tuple(changed(stage) for stage in recipe.stages), encoder_stage=encoder_stage)


def _training(clips: Iterable[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.split != VALIDATION]


def _tokenizer(recipe: Recipe, given: Path | None, clips: Sequence[Clip]) -> Tokenizer:
    if given is not None:
        return load_tokenizer(given)
    if recipe.vocab_size is None:
        raise UsageError("this recipe needs BART's tokenizer: pass --tokenizer with its folder (tokenizer.json)")
    # captions of examples, joined ones among them; the same for every seed, so that ensembles share one tokenizer
    captions = CaptionExamples(clips, recipe.stages[0].data, seed=0).captions(TOKENIZER_EXAMPLES)
    return train_tokenizer(captions, recipe.vocab_size)


# ------------------------------------------------------------------------------------------------------------- encoder


class _EncoderTraining(nn.Module):
    """What the loop trains first: independent yes or no for each label."""

    def __init__(self, encoder: ConvEncoder, config: CaptionerConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec_augment = config.spec_augment

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        fbank, mask = self.encoder.fbank(batch["waveform"])
        if self.training and self.spec_augment is not None:
            fbank = spec_augment.apply(fbank, spec_augment.draw(self.spec_augment, *fbank.shape))
        logits = self.encoder.classify(self.encoder.encode_fbank(fbank, mask))
        return {"tags": F.binary_cross_entropy_with_logits(logits, batch["tags"])}


def _encoder(
    recipe: Recipe,
    given: Path | None,
    clips: Sequence[Clip],
    out: Path,
    command: str,
    resume: bool,
    device: str | None,
    progress: bool,
) -> tuple[BEATs | ConvEncoder, CaptionerConfig]:
    """The trained audio encoder, and the captioner's config with the encoder's own in it."""
    if given is not None:
        return load_encoder(given, recipe.model)
    assert recipe.encoder_stage is not None
    assert recipe.model.conv_encoder is not None
    stage = recipe.encoder_stage
    labels = tuple(sorted({label for clip in clips for label in clip.labels}))
    if not labels:
        raise UsageError("no clip has labels to train the encoder on: add labels to the manifest, or pass --encoder")
    config = replace(recipe.model.conv_encoder, labels=labels)
    network = ConvEncoder(config)
    folder = out / "stages" / stage.name

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        weights = {name.removeprefix("encoder."): value for name, value in weights.items()}
        card = _card(
            "Audio encoder", f"A convolutional network that hears {len(labels)} labels.", command, clips, metrics
        )
        save_model(folder, system="conv_encoder", config=config, weights=weights, card=card)

    run_training(
        _EncoderTraining(network, recipe.model),
        example=CaptionExamples(clips, stage.data, stage.train.seed),
        collate=TagCollate(labels),
        counts=lambda batch: {"tags": batch["tags"].numel()},
        loss_weights={"tags": 1.0},
        config=stage.train,
        out=folder,
        save=save,
        resume=resume,
        device=device,
        progress=progress,
    )
    load_into(network, load_weights(folder))
    return network, replace(recipe.model, conv_encoder=config)


def load_encoder(folder: Path, model: CaptionerConfig) -> tuple[BEATs | ConvEncoder, CaptionerConfig]:
    """A trained audio encoder from its folder, and the captioner's config changed to it.

    Raises:
        CheckpointError: the folder holds neither kind of encoder.
    """
    if model.conv_encoder is not None:
        config = load_config(folder, ConvEncoderConfig, "conv_encoder")
        network = ConvEncoder(config)
        load_into(network, load_weights(folder))
        return network, replace(model, conv_encoder=config)
    beats = BEATs.from_checkpoint(folder)
    return beats, replace(model, beats=beats.config)


# ----------------------------------------------------------------------------------------------------------- captioner


@dataclass
class _Remembered:
    """A sentence encoder that embeds each caption once."""

    encoder: SentenceEncoder

    def __post_init__(self) -> None:
        self.known: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """(captions, width of the sentence encoder)"""
        new = sorted({caption for caption in captions if caption not in self.known})
        if new:
            self.known.update(zip(new, self.encoder.encode(new).cpu(), strict=True))
        return torch.stack([self.known[caption] for caption in captions]).to(device)


class _CaptionerTraining(nn.Module):
    """What the loop trains: the captioner's losses, with the captions' sentence embeddings as targets."""

    def __init__(self, captioner: Captioner, embed_text: _Remembered) -> None:
        super().__init__()
        self.captioner = captioner
        self.embed_text = embed_text

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        waveform = batch["waveform"]
        return self.captioner(waveform, None, batch["labels"], self.embed_text(batch["captions"], waveform.device))


def _blocks(module: nn.Module) -> list[nn.Module]:
    """What FSDP assembles one at a time; of the module it is given, which is a copy."""
    captioner = cast(_CaptionerTraining, module).captioner
    return [*captioner.postencoder.layers, *captioner.decoder.layers]


def _counts(batch: Mapping[str, Any]) -> dict[str, float]:
    return {"cross_entropy": int((batch["labels"] != IGNORED).sum()), "contrastive": len(batch["labels"])}


def _train_captioner(
    training: _CaptionerTraining,
    stage: Stage,
    clips: Sequence[Clip],
    tokenizer: Tokenizer,
    out: Path,
    command: str,
    resume: bool,
    device: str | None,
    progress: bool,
) -> None:
    captioner = training.captioner
    learnt = _training(clips)
    judged = [clip for clip in clips if clip.split == VALIDATION and clip.captions]

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        weights = {name.removeprefix("captioner."): value for name, value in weights.items()}
        card = _card("Audio captioner", "It writes one sentence about a recording.", command, learnt, metrics)
        files = {TOKENIZER: tokenizer.to_str()}
        save_model(folder, system="captioning", config=captioner.config, weights=weights, card=card, files=files)

    config = stage.train if judged else replace(stage.train, validate_every=0)
    collate = CaptionCollate(tokenizer, captioner.config.eos_token_id)
    run_training(
        training,
        example=CaptionExamples(learnt, stage.data, stage.train.seed),
        collate=collate,
        counts=_counts,
        loss_weights=captioner.loss_weights,
        config=config,
        out=out,
        save=save,
        validate=(lambda module: token_accuracy(module.captioner, judged, collate)) if judged else None,  # type: ignore
        blocks=_blocks,
        resume=resume,
        device=device,
        progress=progress,
    )


@torch.no_grad()
def token_accuracy(captioner: Captioner, clips: Sequence[Clip], collate: CaptionCollate) -> dict[str, float]:
    """Share of caption tokens, </s> included, that are the most likely ones given all before them; first captions."""
    right = count = 0
    device = captioner.final_logits_bias.device
    for clip in clips:
        waveform = read_mono(clip.audio, SAMPLE_RATE, start=clip.start, duration=clip.duration)
        waveform = waveform[: int(captioner.max_seconds * SAMPLE_RATE)]
        batch = collate([Example(waveform, clean_caption(clip.captions[0]), clip.labels)])
        labels = batch["labels"].to(device)
        encoded = captioner.encode(batch["waveform"].to(device))
        best = captioner.logits(encoded.memory, encoded.mask, captioner.shifted_right(labels)).argmax(-1)
        right += int((best == labels).sum())
        count += labels.numel()
    return {"token_accuracy": right / max(1, count)}


def _card(title: str, what: str, command: str, clips: Sequence[Clip], metrics: Mapping[str, float]) -> str:
    labels = sorted({label for clip in clips for label in clip.labels})
    described = f"{len(clips)} clips" + (f" of {len(labels)} labels ({', '.join(labels)})" if labels else "")
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items())) or "none"
    return CARD.format(title=title, what=what, command=command, clips=described, metrics=figures)
