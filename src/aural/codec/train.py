"""Train a codec: reconstruction, a discriminator, and codebooks that follow what they are given.

Defossez et al., arXiv 2210.13438, sections 3.3 and 3.4. Codec and discriminator are two players in one module of the
one training loop: one pass through both gives the gradients of either, which no loss lets through to the other, and one
optimiser moves both. (The original moves the discriminator first, and has its verdicts computed anew; here a step costs
one pass through it instead of two, and state, averages and resuming are the loop's.)
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aural.checkpoint import save_model, weights_digest
from aural.codec.data import Cuts
from aural.codec.losses import (
    GradientBalancer,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    l1_loss,
    multi_scale_mel_loss,
    negative_si_snr,
)
from aural.codec.recipes import RECIPES, Recipe
from aural.codec_folder import SYSTEM, load_codec
from aural.errors import UsageError
from aural.manifest import clips_digest, learned_from
from aural.networks.encodec import Encodec, PaddedConv, add_weight_norm, fold_weight_norm, folded
from aural.networks.stft_discriminator import Judged, StftDiscriminator
from aural.soundscapes.compose import RMS
from aural.training import adjusted, train as run_training

CARD = """---
license: apache-2.0
library_name: aural
---
# Codec: EnCodec, {sample_rate} Hz, {frame_rate:g} frames/s, {kilobits:.1f} kbit/s

Sound as {n_codebooks} of {codebook_size} entries a frame, and back. {millions:.1f} M parameters, trained by

    {command}

on cuts of {n_samples} samples from {n_clips} recordings and from soundscapes made of them and of synthesised sounds, in
{steps} steps of {batch_size} cuts, {judged} of them with a discriminator.

Limits: it was trained on these sounds alone. The licence of the recordings applies to it: carry their attribution along
with the weights.
"""


def train(
    recipe: str = "default",
    *,
    manifest: Path,
    out: Path,
    codec: str | None = None,
    hold_out: str | None = None,
    resume: bool = False,
    device: str = "auto",
    seed: int = 0,
    steps: int | None = None,
    precision: str | None = None,
    progress: bool = True,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> None:
    """Train by a recipe; ``out`` is then a model folder for :func:`aural.codec_folder.load_codec`.

    Args:
        recipe: a name in ``RECIPES``.
        manifest: recordings; those with a single label are also what soundscapes are made of.
        out: folder of the model.
        codec: name or folder of a trained one, for a recipe by which its decoder learns on.
        hold_out: clips of this ``split``, or of several, separated by commas, are left out: they can judge the model
            afterwards.
        resume: go on where an earlier run stopped.
        device: "auto", "cpu", "cuda", ...
        seed: of the data, the initial weights, and what codebooks draw.
        steps: instead of the recipe's.
        precision: "float32" or "bfloat16", instead of the recipe's.
        progress: show a progress bar on a terminal.
        change: what an experiment changes in the recipe.

    Raises:
        UsageError: unknown recipe, nothing to learn from, or a codec that the recipe needs or does not.
    """
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    settings = change(RECIPES[recipe]())
    run = adjusted(settings.train, seed=seed, steps=steps, precision=precision)
    settings = replace(settings, train=run)
    clips = learned_from(manifest, hold_out)
    if not clips:
        raise UsageError(f"{manifest}: no clip to learn from" + (f" outside {hold_out}" if hold_out else ""))
    command = f"aural train codec --recipe {recipe} --manifest {manifest.name} --seed {seed}"
    command += f" --hold-out {hold_out}" if hold_out else ""
    command += f" --codec {codec}" if codec else ""

    torch.manual_seed(seed)
    begun_from = None
    if settings.decoder_alone:
        if codec is None:
            raise UsageError(f"by recipe {recipe} the decoder of a codec learns on: pass --codec with its folder")
        network = load_codec(codec, device="cpu").network
        begun_from = weights_digest(network.state_dict())
        settings = replace(settings, model=network.config)
        network.encoder.requires_grad_(False)
    elif codec is not None:
        raise UsageError(f"recipe {recipe} begins anew: leave out --codec, or take recipe decoder")
    else:
        network = awake(Encodec(settings.model))
    card = CARD.format(
        sample_rate=settings.model.sample_rate,
        frame_rate=settings.model.frame_rate,
        kilobits=settings.model.kilobits_per_second,
        n_codebooks=settings.model.quantizer.n_codebooks,
        codebook_size=settings.model.quantizer.codebook_size,
        millions=sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        command=command,
        n_samples=settings.data.n_samples,
        n_clips=len(clips),
        steps=run.steps,
        judged=sum(round(phase.share * run.steps) for phase in settings.phases if phase.judged),
        batch_size=run.batch_size,
    )
    cuts = Cuts(clips, settings.data, seed)
    module = _Training(network, settings, cuts)

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        own = {name.removeprefix("codec."): x for name, x in weights.items() if name.startswith("codec.")}
        kept = torch.float16 if settings.half else None
        save_model(folder, system=SYSTEM, config=settings.model, weights=folded(own), card=card, dtype=kept)

    run_training(
        module,
        example=_Examples(cuts, run.batch_size),
        collate=_collate,
        counts=module.counts,
        loss_weights=module.loss_weights,
        config=run,
        out=out,
        save=save,
        resume=resume,
        of={"set of clips": clips_digest(clips), "hold-out": hold_out, "codec": begun_from},
        device=None if device == "auto" else device,
        progress=progress,
    )


ELU_GAIN = 1.245
"""By how much a convolution after an ELU widens what it is given, on average, so that a spread of 1 stays one."""
LEVEL = RMS
"""The root mean square that waveforms are expected to have."""


@torch.no_grad()
def awake(codec: Encodec) -> Encodec:
    """Give the convolutions weights that hand a sound on at its strength, and no bias; in place.

    PyTorch's own let it shrink from layer to layer until biases drown it: the latents of all sounds are then nearly the
    same, and hundreds of steps pass before encoder and decoder have anything to say to one another.
    """
    convolutions = [module for module in codec.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
    ends = (codec.encoder.layers[0], codec.decoder.layers[0], codec.decoder.layers[-1])
    first, middle, last = (cast(PaddedConv, layer).conv for layer in ends)
    gains: dict[nn.Module, float] = {first: 1 / LEVEL, middle: 1.0, last: ELU_GAIN * LEVEL}
    for module in convolutions:
        taps = 2 if isinstance(module, nn.ConvTranspose1d) else module.kernel_size[0]  # that meet in one output
        nn.init.normal_(module.weight, std=gains.get(module, ELU_GAIN) / math.sqrt(module.in_channels * taps))
        nn.init.zeros_(cast(Tensor, module.bias))
    return codec


@torch.no_grad()
def awake_judge(discriminator: StftDiscriminator) -> StftDiscriminator:
    """The same for a discriminator, in place.

    At PyTorch's own weights it gives all sounds the same verdict, and hardly learns to tell them apart.
    """
    slope = discriminator.config.negative_slope
    for scale in discriminator.discriminators:
        convolutions = [module for module in scale.modules() if isinstance(module, nn.Conv2d)]
        for module in convolutions:
            given = 1 / LEVEL if module is convolutions[0] else math.sqrt(2 / (1 + slope**2))
            weight = given / math.sqrt(module.weight[0].numel()) * torch.randn_like(module.weight)
            if parametrize.is_parametrized(module, "weight"):
                module.weight = weight  # finds length and direction
            else:
                module.weight.copy_(weight)
            nn.init.zeros_(cast(Tensor, module.bias))
    return discriminator


@dataclass(frozen=True)
class _Examples:
    """A cut (N,), and how many steps are done before the one that learns from it."""

    cuts: Cuts
    batch_size: int

    def __call__(self, index: int) -> tuple[np.ndarray, int]:
        return self.cuts(index), index // self.batch_size


def _collate(examples: Sequence[tuple[np.ndarray, int]]) -> dict[str, Any]:
    """``waveform`` (B, 1, N), and ``step``, by which the training knows what it is to do."""
    waveforms, steps = zip(*examples, strict=True)
    return {"waveform": torch.from_numpy(np.stack(waveforms))[:, None], "step": steps[0]}


class _Training(nn.Module):
    """What the loop trains: the codec and the discriminator; for AdamW, their weights as length times direction."""

    REPORTED = ("waveform", "mel", "adversarial", "features", "negative_si_snr")
    """Losses that are only reported: those that are trained by have gone into ``balanced``."""

    def __init__(self, codec: Encodec, recipe: Recipe, cuts: Cuts) -> None:
        super().__init__()
        self.recipe, self.cuts = recipe, cuts
        shares = accumulate(phase.share for phase in recipe.phases)
        self.ends = [round(share * recipe.train.steps) for share in shares]
        self.codec = codec
        self.discriminator = awake_judge(StftDiscriminator(recipe.discriminator))
        if recipe.train.optimizer == "muon":  # which sees to the size of each step itself, and needs to see the weights
            fold_weight_norm(self.discriminator)
        else:
            add_weight_norm(self.codec)
        self.balancers = nn.ModuleList(
            GradientBalancer({name: weight for name, weight in asdict(phase.weights).items() if weight})
            for phase in recipe.phases
        )
        learnt = {"balanced": 1.0, "commitment": 1.0, "discriminator": 1.0}
        self.loss_weights = learnt | dict.fromkeys(self.REPORTED, 0.0)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        target, phase = batch["waveform"], self._phase(batch)
        judged = self.recipe.phases[phase].judged
        if self.recipe.decoder_alone:
            with torch.no_grad():
                vectors = self.codec.quantizer.decode(self.codec.encode(target))
            output, commitment = self.codec.decoder(vectors), target.new_zeros(())
        elif self.recipe.phases[phase].quantised:
            self._start_codebooks(target.device)
            output, quantized = self.codec(target)
            commitment = quantized.penalty
        else:
            output, commitment = self.codec.decoder(self.codec.encoder(target)), target.new_zeros(())
        output = output[..., : target.shape[2]].float()
        made = output.detach().requires_grad_()  # losses are differentiated as far as here; the balancer does the rest
        fake = real = []
        if judged:
            fake, real = _in_full(self.discriminator(made)), _in_full(self.discriminator(target))
        with torch.autocast(output.device.type, enabled=False):
            losses = {
                "waveform": l1_loss(made, target),
                "mel": multi_scale_mel_loss(made, target, self.recipe.mel),
            }
            if judged:
                losses |= {"adversarial": adversarial_loss(fake), "features": feature_matching_loss(fake, real)}
                verdict = discriminator_loss(fake, real)
            else:  # several processes expect a gradient for every parameter
                verdict = 0.0 * torch.stack([parameter.sum() for parameter in self.discriminator.parameters()]).sum()
            balancer = cast(GradientBalancer, self.balancers[phase])
            gradient, balanced = balancer.balance({name: losses[name] for name in balancer.weights}, made)
            seconds = target.shape[2] / self.recipe.model.sample_rate
            reported = {name: loss.detach() for name, loss in losses.items()}
            reported["negative_si_snr"] = negative_si_snr(
                made.detach(), target, self.recipe.model.sample_rate, seconds=seconds, overlap=0.0
            )
            trained = {
                "balanced": _with_gradient(output, gradient, balanced.loss),
                "commitment": commitment,
                "discriminator": verdict,
            }
            return trained | dict.fromkeys(self.REPORTED, output.new_zeros(())) | reported

    def _phase(self, batch: Mapping[str, Any]) -> int:
        return min(bisect_right(self.ends, batch["step"]), len(self.ends) - 1)

    @torch.no_grad()
    def _start_codebooks(self, device: torch.device) -> None:
        """Let k-means find the entries among the frames of the first cuts, if there are none yet."""
        quantizer, n_cuts = self.codec.quantizer, self.recipe.start_cuts
        if not n_cuts or all(codebook.inited.item() for codebook in quantizer.codebooks):
            return
        waveforms = torch.from_numpy(np.stack([self.cuts(index) for index in range(n_cuts)]))[:, None]
        frames = [self.codec.encoder(some.to(device)).float() for some in waveforms.split(8)]
        quantizer(torch.cat(frames), self.recipe.model.quantizer.n_codebooks)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Cuts that each loss is a mean over."""
        n = float(len(batch["waveform"]))
        absent: set[str] = set()
        phase = self.recipe.phases[self._phase(batch)]
        if not phase.quantised or self.recipe.decoder_alone:
            absent |= {"commitment"}
        if not phase.judged:
            absent |= {"discriminator", "adversarial", "features"}
        return {name: 0.0 if name in absent else n for name in self.loss_weights}


def _with_gradient(output: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """A scalar that is ``value``, and whose gradient with respect to ``output`` is ``gradient``."""
    sent = (output * gradient).sum()
    return sent - sent.detach() + value.detach()


def _in_full(judged: Sequence[Judged]) -> list[Judged]:
    """In full precision, also where the discriminator ran in half."""
    return [Judged(one.logits.float(), tuple(feature.float() for feature in one.features)) for one in judged]
