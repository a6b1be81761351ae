"""What AudioToken is trained by: the diffusion loss of the frozen model, and terms that keep the audio token a word.

Yariv et al., arXiv 2305.13050; the forms are those of the released code, whose l1 term is a mean rather than a norm and
whose classification term squares the distance of a batch rather than of each item.

Everything is a function of tensors: gradients flow from here through frozen networks into whatever made the audio
token. Networks are frozen by ``requires_grad_(False)``; under ``no_grad`` nothing would be learnt.

Shapes: B items, C channels, H height and W width of a latent picture, L tokens of a label, V words, D their width.
Masks are boolean, True = real.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What a diffusion model foretells, by the names of its settings: the noise (Stable Diffusion 1.x), the velocity, or
the picture itself (our small model)."""

LOG_VARIANCES = (-30.0, 20.0)
LATENT_SCALE = 0.18215


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms beside the diffusion loss; the defaults are the released ones."""

    l1: float = 0.01
    squared_l2: float = 0.0
    classification: float = 0.0  # released: off, and 0.01 where it is asked for


# ------------------------------------------------------------------------------------------------------------ diffusion


def signal_levels(n_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tensor:
    """How much of a picture's variance is left after each step of noising: (n_steps,), float32, falling from 1.

    The schedule of Stable Diffusion ("scaled linear"): the square root of beta grows linearly.
    """
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, n_steps) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def draw_latents(moments: Tensor, noise: Tensor, scale: float = LATENT_SCALE) -> Tensor:
    """A draw from what a variational autoencoder says of pictures.

    Args:
        moments: (B, 2 C, H, W), means and then logarithms of variances.
        noise: (B, C, H, W), standard normal.
        scale: of latents to diffuse, per unit of the autoencoder's.

    Returns:
        (B, C, H, W)
    """
    mean, log_variance = moments.chunk(2, dim=1)
    return scale * (mean + (0.5 * log_variance.clamp(*LOG_VARIANCES)).exp() * noise)


def add_noise(latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """Latents and noise (B, C, H, W), and the :func:`signal_levels` (B,) of their steps -> noisy latents."""
    signal, spread = _amplitudes(levels, latents)
    return signal * latents + spread * noise


def diffusion_target(latents: Tensor, noise: Tensor, levels: Tensor, prediction: Prediction) -> Tensor:
    """What the diffusion model should foretell (B, C, H, W); arguments as of :func:`add_noise`."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return latents
    signal, spread = _amplitudes(levels, latents)
    return signal * noise - spread * latents


def diffusion_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all entries, in float32 whatever the networks compute in."""
    return F.mse_loss(predicted.float(), target.float())


def _amplitudes(levels: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Of signal and noise, (B, 1, ...) each."""
    levels = levels.to(latents).reshape(-1, *[1] * (latents.dim() - 1))
    return levels.sqrt(), (1.0 - levels).sqrt()


# ---------------------------------------------------------------------------------------------------------- audio token


def l1(embedding: Tensor) -> Tensor:
    """Mean absolute entry of audio tokens (B, D)."""
    return embedding.abs().mean()


def squared_l2(embedding: Tensor) -> Tensor:
    """Mean over the batch of the squared length of audio tokens (B, D)."""
    return embedding.square().sum(dim=1).mean()


def label_embeddings(rows: Tensor, token_ids: Tensor, mask: Tensor) -> Tensor:
    """The names of classes as means of their words' rows, without positions and without the encoder.

    Args:
        rows: (V, D), the text encoder's table.
        token_ids: (B, L), without the tokens that begin and end a text; what stands where padded does not matter.
        mask: (B, L), True = real. Every label has a token.

    Returns:
        (B, D)
    """
    words = F.embedding(token_ids.masked_fill(~mask, 0), rows)
    return words.masked_fill(~mask[:, :, None], 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def classification(embedding: Tensor, labels: Tensor) -> Tensor:
    """Pulls audio tokens (B, D) towards :func:`label_embeddings` (B, D) of what is heard, by their direction.

    (1 - mean cosine) squared: the mean is taken first, so this is not a mean over items, and depends on how items are
    put into batches.
    """
    return (1.0 - F.cosine_similarity(embedding, labels, dim=1).mean()).square()


# ---------------------------------------------------------------------------------------------------------- all of them


def losses(predicted: Tensor, target: Tensor, embedding: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
    """All terms, not weighted; arguments as of the functions above. Without labels there is no classification term."""
    terms = {
        "diffusion": diffusion_loss(predicted, target),
        "l1": l1(embedding),
        "squared_l2": squared_l2(embedding),
    }
    if labels is not None:
        terms["classification"] = classification(embedding, labels)
    return terms


def loss_weights(config: LossConfig, *, labels: bool) -> dict[str, float]:
    """Weight of each of :func:`losses`, with labels or without, in the training objective."""
    weights = {"diffusion": 1.0, "l1": config.l1, "squared_l2": config.squared_l2}
    return weights | ({"classification": config.classification} if labels else {})
