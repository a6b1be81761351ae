"""Contrastive loss that pulls a clip's audio embedding towards the sentence embedding of its caption.

Wu et al., arXiv 2309.17352, "text embedding supervision": InfoNCE (van den Oord et al., arXiv 1807.03748) in both
directions with a fixed temperature, which is the loss of CLIP without its learned scale.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def text_embedding_loss(
    audio_embeddings: Tensor,
    text_embeddings: Tensor,
    temperature: float = 0.5,
    *,
    duplicates_are_negatives: bool = True,
    across_processes: bool = True,
) -> Tensor:
    """Symmetric InfoNCE between the two sides of a batch of pairs; neither side need be normalised.

    With unit rows a, c and S = a c^T / temperature: the mean cross entropy of the rows of S and of its columns against
    the diagonal, halved. A batch of one gives 0.

    Args:
        audio_embeddings: (B, K), row i belongs to row i of the other side.
        text_embeddings: (B, K).
        temperature: divides the cosine similarities; fixed, 0.5 in the paper.
        duplicates_are_negatives: True, as in the paper, pushes a clip away from every other row, even where two clips
            of the batch share one caption. False leaves pairs with the same text embedding out of the denominators.
        across_processes: under an initialised ``torch.distributed``, contrast with the rows of every process (gradients
            flow back to their owners). All processes must hold the same number of rows.

    Returns:
        Scalar loss, the same on every process.

    Raises:
        ValueError: the two sides differ in shape.
    """
    if audio_embeddings.shape != text_embeddings.shape:
        raise ValueError(
            f"audio embeddings {tuple(audio_embeddings.shape)} and text embeddings {tuple(text_embeddings.shape)} "
            "differ: set embedding_dim to the sentence encoder's width"
        )
    audio = F.normalize(audio_embeddings.float(), dim=-1)
    text = F.normalize(text_embeddings.float(), dim=-1)
    if across_processes and dist.is_available() and dist.is_initialized():
        audio, text = _gather(audio), _gather(text)
    similarities = audio @ text.T / temperature
    if not duplicates_are_negatives:
        others = ~torch.eye(len(text), dtype=torch.bool, device=text.device)
        similarities = similarities.masked_fill((text @ text.T > 1.0 - 1e-5) & others, float("-inf"))
    pairs = torch.arange(len(text), device=text.device)
    return 0.5 * (F.cross_entropy(similarities, pairs) + F.cross_entropy(similarities.T, pairs))


def _gather(rows: Tensor) -> Tensor:
    """Rows of all processes in rank order, (B, K) -> (W * B, K); only the own ones carry a gradient.

    Every process computes the whole loss, so the gradient of its own rows is complete. It is multiplied by W because
    gradients are averaged over the processes afterwards, and no other process has a share of this one. (PyTorch's own
    differentiable gather exchanges gradients a second time, and processes that used it may abort when they exit.)
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    gathered = [torch.empty_like(rows) for _ in range(size)]
    dist.all_gather(gathered, rows.detach().contiguous())
    own = rows.clone()
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * size)
    return torch.cat([*gathered[:rank], own, *gathered[rank + 1 :]])
