"""Train a captioner: bridge and decoder over a trained audio encoder, frozen.

Wu et al. 2023 (arXiv 2309.17352), sections 2 and 3: smoothed cross entropy, and InfoNCE towards the caption's sentence
embedding; mix-ups first, the target recordings last.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from aural.audio import read_mono
from aural.captioning.data import CaptionCollate, CaptionExamples, Example, clean_caption
from aural.captioning.encoded import EncodedCollate, EncodedExamples
from aural.captioning.mixup_captions import Mixup, read_mixups
from aural.captioning.model import IGNORED, SAMPLE_RATE, Captioner, CaptionerConfig
from aural.captioning.recipes import RECIPES, Recipe, Stage
from aural.captioning.tokenizer import TOKENIZER, load_tokenizer, train_tokenizer
from aural.checkpoint import find_model, load_config, load_into, load_weights, save_model, weights_digest
from aural.errors import CheckpointError, UsageError
from aural.manifest import VALIDATION, Clip, clips_digest, held_out, read_manifest
from aural.networks.beats import BEATs
from aural.networks.conv_encoder import ConvEncoder
from aural.networks.listener import SYSTEM, Listener, ListenerConfig
from aural.networks.sentence_encoder import RememberedSentences, load_sentence_encoder
from aural.processes import joined
from aural.soundscapes.examples import Examples, ExampleSettings
from aural.training import adjusted, train as run_training

TOKENIZER_EXAMPLES = 4_000
"""Examples whose captions the tokenizer learns from: enough to have seen every word."""

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


@dataclass
class Shared:
    """What several trainings over one encoder have in common: features of examples, embeddings of their captions.

    The examples are those of the first of these trainings; the others differ in initial weights, dropout and settings.
    """

    pools: dict[str, EncodedExamples] = field(default_factory=dict)
    """By the name of the stage."""
    sentences: RememberedSentences | None = None
    mixups: Sequence[Mixup] = ()


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
    mixups: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    shared: "Shared | None" = None,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.captioning.caption.load`.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: clips with captions; those with a single label are also what soundscapes are made of.
        out: folder of the model; the stages before the last keep theirs in ``out/stages``.
        finetune_manifest: clips of the last stage; None: the same.
        encoder: folder of a trained audio encoder (a listener, or BEATs); None: that of the listener in the box, where
            the recipe is for it and no split is held out, of which the listener knows.
        tokenizer: folder or file of a tokenizer; None: trained on the captions, or that of the training that goes on.
        text_encoder: sentence encoder, see :func:`aural.networks.sentence_encoder.load_sentence_encoder`.
        hold_out: clips of this ``split``, or of several, separated by commas, are left out: they can judge the model
            afterwards.
        mixups: pairs of clips with captions of their own (``aural prepare mixups``, or the published file), for stages
            that mix recordings.
        resume: go on where an earlier run stopped; finished stages are not run again.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights and dropout.
        steps: of every stage, instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        shared: what trainings over the same encoder and clips need to compute only once.
        change: what an experiment changes in the recipe.

    Raises:
        UsageError: unknown recipe, nothing to learn from, or something the recipe needs was not given.
    """
    settings = change(_recipe(recipe, seed, steps, precision))
    shared = shared or Shared()
    everything = read_manifest(manifest)
    last = everything if finetune_manifest is None else read_manifest(finetune_manifest)
    left_out = held_out(hold_out, everything, last)
    clips, last_clips = ([clip for clip in some if clip.split not in left_out] for some in (everything, last))
    for path, some in ((manifest, clips), (finetune_manifest, last_clips)):
        if not any(clip.captions for clip in some):
            raise UsageError(
                f"{path}: no clip with captions to learn from" + (f" outside {hold_out}" if hold_out else "")
            )
    where = None if device == "auto" else device
    if encoder is None and settings.bundled_encoder and hold_out is None:
        encoder = find_model(None, SYSTEM)
    if encoder is None:
        raise UsageError(
            f"recipe {recipe} needs a trained audio encoder: pass --encoder with the folder of one"
            + (f" that was trained with --hold-out {hold_out}" if hold_out else "")
        )
    shared.mixups = shared.mixups or (read_mixups(mixups, _training(clips)) if mixups else ())
    folders = [out / "stages" / stage.name for stage in settings.stages[:-1]] + [out]
    if tokenizer is None and resume:
        tokenizer = _stored_tokenizer(folders)
    words = _tokenizer(settings, tokenizer, _training(clips), shared)
    text_encoder = text_encoder or settings.model.text_encoder
    instruction = settings.model.text_instruction
    sentence_encoder = load_sentence_encoder(text_encoder, instruction=instruction)
    command = f"aural train captioning --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    command += f" --hold-out {hold_out}" if hold_out else ""

    torch.manual_seed(seed)
    encoder_network, config = load_encoder(encoder, settings.model)
    config = replace(
        config,
        decoder=replace(config.decoder, vocab_size=words.get_vocab_size()),
        embedding_dim=sentence_encoder.dim,
        text_encoder=text_encoder,
    )
    captioner = Captioner(config)
    captioner.encoder.load_state_dict(encoder_network.state_dict())
    shared.sentences = shared.sentences or RememberedSentences(sentence_encoder)
    training = _CaptionerTraining(captioner, shared.sentences)
    of = {
        "hold-out": hold_out,
        "encoder": weights_digest(encoder_network.state_dict()),
        "tokenizer": words.to_str(),
        "sentence encoder": weights_digest(sentence_encoder.state_dict()),
        "set of mix-ups": [(clips_digest(mixup.clips), mixup.captions) for mixup in shared.mixups],
    }
    for stage, folder in zip(settings.stages, folders, strict=True):
        stage_clips = last_clips if stage is settings.stages[-1] else clips
        own = {"set of clips": clips_digest(stage_clips, "split"), **of}
        _train_captioner(training, stage, stage_clips, words, folder, command, resume, own, where, progress, shared)
        load_into(captioner, load_weights(folder))  # the next stage begins with the best weights of this one


def _recipe(name: str, seed: int, steps: int | None, precision: str | None) -> Recipe:
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    given = {"seed": seed, "steps": steps, "precision": precision}
    return replace(
        recipe,
        stages=tuple(replace(one, train=adjusted(one.train, **given)) for one in recipe.stages),  # type: ignore
    )


def _training(clips: Iterable[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.split != VALIDATION]


def _stored_tokenizer(folders: Iterable[Path]) -> Path | None:
    """The one that a training has kept with its models, in the folders of its stages."""
    kept = (place / TOKENIZER for folder in folders for place in (folder, folder / "last"))
    return next((path for path in kept if path.is_file()), None)


def _tokenizer(recipe: Recipe, given: Path | None, clips: Sequence[Clip], shared: Shared) -> Tokenizer:
    if given is not None:
        return load_tokenizer(given)
    if recipe.vocab_size is None:
        raise UsageError("this recipe needs BART's tokenizer: pass --tokenizer with its folder (tokenizer.json)")
    # captions of examples, joined ones among them; the same for every seed, so that ensembles share one tokenizer
    captions = _examples(recipe.stages[0], clips, 0, shared).captions(TOKENIZER_EXAMPLES)
    return train_tokenizer(map(clean_caption, captions), recipe.vocab_size)


def _examples(stage: Stage, clips: Sequence[Clip], seed: int, shared: Shared) -> Examples | CaptionExamples:
    """What a stage learns from: an example for each index."""
    if isinstance(stage.data, ExampleSettings):
        return Examples(clips, stage.data, seed)
    return CaptionExamples(clips, stage.data, seed, mixups=shared.mixups)


def load_encoder(folder: Path, model: CaptionerConfig) -> tuple[BEATs | ConvEncoder, CaptionerConfig]:
    """A trained audio encoder from its folder, and the captioner's config changed to it.

    Raises:
        CheckpointError: the folder holds neither kind of encoder.
    """
    if model.conv_encoder is not None:
        config = load_config(folder, ListenerConfig, SYSTEM)
        listener = Listener(config)
        load_into(listener, load_weights(folder))
        if not isinstance(listener.encoder, ConvEncoder):
            raise CheckpointError(f"{folder}: its encoder is not a convolutional one, which this recipe is for")
        return listener.encoder, replace(model, conv_encoder=listener.encoder.config)
    beats = BEATs.from_checkpoint(folder)
    return beats, replace(model, beats=beats.config)


# ----------------------------------------------------------------------------------------------------------- captioner


class _CaptionerTraining(nn.Module):
    """What the loop trains: the captioner's losses, with the captions' sentence embeddings as targets.

    Batches hold waveforms, or ``tokens`` that the frozen encoder has made of them before.
    """

    def __init__(self, captioner: Captioner, embed_text: RememberedSentences) -> None:
        super().__init__()
        self.captioner = captioner
        self.embed_text = embed_text

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        labels = batch["labels"]
        said = self.embed_text(batch["captions"], labels.device)
        if "tokens" in batch:
            encoded = self.captioner.bridge(*self.captioner.downsample(batch["tokens"], None))
            return self.captioner.losses(encoded, labels, said)
        return self.captioner(batch["waveform"], None, labels, said)


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
    of: Mapping[str, Any],
    device: str | None,
    progress: bool,
    shared: Shared,
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
    examples = _examples(stage, learnt, stage.train.seed, shared)
    encoded = shared.pools.get(stage.name)
    if encoded is None and stage.pool is not None and isinstance(examples, Examples):
        with joined(device) as here:
            encoded = EncodedExamples(
                examples,
                captioner.encoder,
                tapped_layer=captioner.config.tapped_layer,
                n=stage.pool,
                n_captions=stage.pool_captions,
                response_db=stage.pool_response_db,
                device=here.device,
                bfloat16=config.precision == "bfloat16",
                progress=progress and here.first and sys.stderr.isatty(),
            )
        shared.pools[stage.name] = encoded
    run_training(
        training,
        example=encoded or examples,
        collate=EncodedCollate(tokenizer, captioner.config.eos_token_id) if encoded else collate,
        counts=_counts,
        loss_weights=captioner.loss_weights,
        config=config,
        out=out,
        save=save,
        validate=(lambda module: token_accuracy(module.captioner, judged, collate)) if judged else None,  # type: ignore
        blocks=_blocks,
        resume=resume,
        of=of,
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
