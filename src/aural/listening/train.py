"""Train a listener on soundscapes and recordings: labels of clips, labels of steps, and the meaning of captions.

The truth about a soundscape is exact, so every step of the encoder can be told what sounds in it. The embedding learns
by contrast with the frozen sentence encoder (InfoNCE, as in the captioner), which is how words that no caption of the
training held are understood.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural import spec_augment
from aural.checkpoint import save_model
from aural.errors import UsageError
from aural.features import HOP_LENGTH, N_MELS, SAMPLE_RATE
from aural.listening.recipes import RECIPES, Recipe
from aural.manifest import clips_digest, learned_from
from aural.networks.listener import SYSTEM, Heard, Listener
from aural.networks.sentence_encoder import RememberedSentences, load_sentence_encoder
from aural.soundscapes.examples import Example, Examples
from aural.soundscapes.synthesis import SYNTHESISED
from aural.text_embedding_loss import text_embedding_loss
from aural.training import adjusted, train as run_training

FRAME_SECONDS = HOP_LENGTH / SAMPLE_RATE

CARD = """---
license: apache-2.0
library_name: aural
pipeline_tag: audio-classification
---
# Listener

A small network that hears {n_labels} sounds, says when, and places them among the meanings of sentences. Trained from
scratch by

    {command}

on soundscapes put together from {clips} and from synthesised sounds, in {steps} steps of {batch_size} clips.

Labels: {labels}

Limits: it knows these sounds and little else. The licence of the recordings applies to what is said of them here: carry
their attribution along with the weights.
"""


def train(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    hold_out: str | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.load`.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: recordings with labels and captions.
        out: folder of the model.
        hold_out: clips of this ``split``, or of several, separated by commas, are left out: they can judge the model
            afterwards.
        resume: go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights and dropout.
        steps: instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        change: what an ablation changes in the recipe.

    Raises:
        UsageError: unknown recipe, or nothing to learn from.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    settings = change(RECIPES[recipe]())
    run = adjusted(settings.train, seed=seed, steps=steps, precision=precision)
    clips = learned_from(manifest, hold_out)
    if not any(clip.labels and clip.captions for clip in clips):
        raise UsageError(f"{manifest}: no clip with labels and captions to learn from")
    labels = tuple(sorted({label for clip in clips for label in clip.labels} | set(SYNTHESISED)))
    config = replace(settings.model, labels=labels)

    torch.manual_seed(seed)
    sentence_encoder = load_sentence_encoder(config.text_encoder)
    config = replace(config, embedding_dim=sentence_encoder.dim)
    listener = Listener(config)
    module = _Training(listener, settings, RememberedSentences(sentence_encoder))
    command = f"aural train listening --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    command += f" --hold-out {hold_out}" if hold_out else ""
    card = CARD.format(
        n_labels=len(labels),
        labels=", ".join(labels),
        command=command,
        clips=f"{len(clips)} recordings",
        steps=run.steps,
        batch_size=run.batch_size,
    )

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        own = {name.removeprefix("listener."): some for name, some in weights.items() if name.startswith("listener.")}
        save_model(folder, system=SYSTEM, config=config, weights=own, card=card)

    run_training(
        module,
        example=Examples(clips, settings.data, seed),
        collate=Collate(labels),
        counts=module.counts,
        loss_weights=module.loss_weights,
        config=run,
        out=out,
        save=save,
        resume=resume,
        of={"set of clips": clips_digest(clips), "hold-out": hold_out},
        device=None if device == "auto" else device,
        progress=progress,
    )


@dataclass(frozen=True)
class Collate:
    """Examples -> what a listener learns from."""

    labels: tuple[str, ...]

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """``waveform`` (B, N), ``tags`` (B, L) of 0 and 1, ``events`` (B, L, frames) likewise, ``captions`` B strings.

        ``events`` has a column every 10 ms.
        """
        place = {label: column for column, label in enumerate(self.labels)}
        waveform = torch.from_numpy(np.stack([example.waveform for example in examples]))
        n_frames = round(waveform.shape[1] / SAMPLE_RATE / FRAME_SECONDS)
        tags = torch.zeros(len(examples), len(place))
        events = torch.zeros(len(examples), len(place), n_frames)
        for row, example in enumerate(examples):
            for label in example.labels:
                if label in place:
                    tags[row, place[label]] = 1.0
            for event in example.events:
                first, last = (round(time / FRAME_SECONDS) for time in (event.start, event.end))
                events[row, place[event.label], first : max(first + 1, last)] = 1.0
        return {
            "waveform": waveform,
            "tags": tags,
            "events": events,
            "captions": [example.brief for example in examples],
        }


class _Training(nn.Module):
    """What the loop trains: several losses over one pass through the encoder."""

    def __init__(self, listener: Listener, recipe: Recipe, embed_text: RememberedSentences) -> None:
        super().__init__()
        self.listener = listener
        self.recipe = recipe
        self.embed_text = embed_text
        self.loss_weights = {"tags": 1.0, "steps": recipe.step_weight, "contrastive": recipe.contrastive_weight}
        if recipe.masked_weight:
            self.loss_weights["masked"] = recipe.masked_weight
            self.guess = nn.Linear(self.listener.classifier.in_features // 2, N_MELS)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        fbank, mask = self.listener.fbank(batch["waveform"])
        if self.training and self.recipe.response_db:
            response = spec_augment.frequency_response(len(fbank), fbank.shape[2], self.recipe.response_db)
            fbank = fbank + response.to(fbank)
        spoiled = fbank
        if self.training and self.recipe.spec_augment is not None:
            spoiled = spec_augment.apply(fbank, spec_augment.draw(self.recipe.spec_augment, *fbank.shape))
        heard = self.listener.encode_fbank(spoiled, mask)
        said = self.embed_text(batch["captions"], fbank.device)
        contrast = text_embedding_loss(
            self.listener.embed(heard), said, self.recipe.temperature, duplicates_are_negatives=False
        )
        losses = {
            "tags": F.binary_cross_entropy_with_logits(self.listener.classify(heard), batch["tags"]),
            "steps": self._step_loss(heard, batch["events"]),
            "contrastive": contrast,
        }
        if self.recipe.masked_weight:
            losses["masked"] = self._masked_loss(heard, fbank, spoiled)
        return losses

    def _masked_loss(self, heard: Heard, fbank: Tensor, spoiled: Tensor) -> Tensor:
        """What SpecAugment has blanked, guessed from the steps around it: squared error, step by step."""
        n_steps = heard.steps.shape[1]
        truth, blanked = (
            F.adaptive_avg_pool1d(each.transpose(1, 2), n_steps).transpose(1, 2)
            for each in (fbank, (spoiled != fbank).float())
        )
        return ((self.guess(heard.steps) - truth).square() * blanked).sum() / blanked.sum().clamp_min(1.0)

    def _step_loss(self, heard: Heard, events: Tensor) -> Tensor:
        """Of each step, the share that each label fills: the pause between two barks is not to be smoothed over."""
        shares = F.adaptive_avg_pool1d(events, heard.steps.shape[1]).transpose(1, 2)
        return F.binary_cross_entropy_with_logits(self.listener.classify_steps(heard), shares)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        n = float(len(batch["captions"]))
        items = {"tags": n, "steps": n * batch["waveform"].shape[1], "contrastive": n, "masked": n}
        return {name: items[name] for name in self.loss_weights}
