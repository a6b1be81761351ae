"""Representation regularisation: two sounds of a batch should be as alike as their texts are.

Shi et al., "Enhance audio generation controllability through representation similarity regularization", arXiv
2309.08773, equations 3 to 5. Each text and each sound becomes one vector by pooling its states over time; the loss
compares the matrix of cosines between the texts of a batch with that between its sounds. The paper adds it, times 3, in
the steps whose text is dropped (equation 6), and pools by the maximum.

Nothing here knows of a model: two tensors and their masks will do. Masks are boolean, True = real.

Shapes: B items, L text tokens, S audio steps, C and D widths of the two sides, W processes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

Pooling = Literal["max", "mean"]


@dataclass(frozen=True)
class RegularizationConfig:
    """How a training is regularised; the defaults are the paper's."""

    weight: float = 3.0  # lambda; 0 = not at all
    pooling: Pooling = "max"
    exponent: float = 2.0
    text: Literal["encoder", "projected"] = "encoder"  # the text encoder's states, or those the language model is shown
    across_processes: bool = False  # compare with the items of every process, not only of the own

    def __post_init__(self) -> None:
        """Refuse what is no penalty.

        Raises:
            ValueError: says which setting.
        """
        if self.weight < 0 or self.exponent <= 0:
            raise ValueError(f"weight {self.weight} must not be negative, exponent {self.exponent} must be above 0")


def representation_loss(
    text: Tensor,
    audio: Tensor,
    text_mask: Tensor | None = None,
    audio_mask: Tensor | None = None,
    *,
    keep: Tensor | None = None,
    pooling: Pooling = "max",
    exponent: float = 2.0,
    across_processes: bool = False,
) -> Tensor:
    """Equation 5: mean of \\|text cosine - audio cosine\\| ** exponent over all ordered pairs of different items.

    Gradients flow to both sides; where the text encoder is frozen, pass its states without one.

    Args:
        text: (B, L, C) states of a text encoder. Of a step with dropped texts: those of the texts nevertheless.
        audio: (B, S, D) states of the audio model.
        text_mask: (B, L); None = all real.
        audio_mask: (B, S); None = all real.
        keep: (B,), the items that count, such as those whose text was dropped; None = all.
        pooling: over time.
        exponent: 2 in the paper.
        across_processes: under an initialised ``torch.distributed``, compare the items of every process. All must call
            this with the same B; every process gets the same loss, and the gradient of its own items.

    Returns:
        Scalar, at least 0 and at most 2 ** exponent. Items without any real text or audio do not count, and with fewer
        than two that do it is 0.

    Raises:
        ValueError: the sides differ in B, or a mask does not fit.
    """
    if len(text) != len(audio):
        raise ValueError(f"{len(text)} texts and {len(audio)} sounds: give one text for each sound")
    usable = torch.ones(len(text), dtype=torch.bool, device=audio.device) if keep is None else keep
    vectors = []
    for states, mask in ((text, text_mask), (audio, audio_mask)):
        if mask is not None and mask.shape != states.shape[:2]:
            raise ValueError(f"a mask {tuple(mask.shape)} does not fit states {tuple(states.shape)}")
        usable = usable if mask is None else usable & mask.any(dim=1)
        vectors.append(pool(states, mask, pooling))
    text_vectors, audio_vectors = vectors
    if across_processes and dist.is_available() and dist.is_initialized():
        text_vectors, audio_vectors = _gather(text_vectors), _gather(audio_vectors)
        usable = _gather(usable)
    text_vectors, audio_vectors = text_vectors[usable], audio_vectors[usable]
    n = len(text_vectors)
    if n < 2:
        return audio_vectors.sum() * 0.0  # of the graph all the same, so that processes stay in step
    others = ~torch.eye(n, dtype=torch.bool, device=audio.device)
    difference = similarities(text_vectors)[others] - similarities(audio_vectors)[others]
    return difference.abs().pow(exponent).mean()


def pool(states: Tensor, mask: Tensor | None = None, pooling: Pooling = "max") -> Tensor:
    """States over time (B, S, D) -> one vector each (B, D), over the real steps of mask (B, S).

    The maximum is taken channel by channel. An item without a real step gives zeros.
    """
    if mask is None:
        return states.max(dim=1).values if pooling == "max" else states.mean(dim=1)
    mask = mask[:, :, None]
    if pooling == "mean":
        return states.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return states.masked_fill(~mask, float("-inf")).max(dim=1).values.masked_fill(~mask.any(dim=1), 0.0)


def similarities(vectors: Tensor) -> Tensor:
    """Equations 3 and 4: cosines between all vectors (B, D), (B, B); at least in float32."""
    unit = F.normalize(vectors if vectors.dtype == torch.float64 else vectors.float(), dim=1)
    return unit @ unit.T


def _gather(rows: Tensor) -> Tensor:
    """Rows of all processes in rank order, (B, ...) -> (W * B, ...); only the own ones carry a gradient.

    Every process computes the whole loss, so the gradient of its own rows is complete. It is multiplied by W because
    gradients are averaged over the processes afterwards, and no other process has a share of this one.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    gathered = [torch.empty_like(rows) for _ in range(size)]
    dist.all_gather(gathered, rows.detach().contiguous())
    own = rows.clone()
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * size)
    return torch.cat([*gathered[:rank], own, *gathered[rank + 1 :]])
