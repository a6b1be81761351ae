"""Clips of different lengths as one batch, and the mask that remembers which samples are real.

Masks are boolean, True = real; the real part of a clip stands first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def pad(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack clips of different lengths, shorter ones followed by zeros.

    Args:
        clips: at least one tensor (time_i, ...), alike in dtype and in all but the first dimension.

    Returns:
        The batch (B, T, ...), T the largest time_i, and its mask (B, T), True = real.

    Raises:
        ValueError: there are no clips.
    """
    if not clips:
        raise ValueError("nothing to pad: give at least one clip")
    lengths = torch.tensor([len(clip) for clip in clips], device=clips[0].device)
    batch = clips[0].new_zeros(len(clips), int(lengths.max()), *clips[0].shape[1:])
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, lengths_to_mask(lengths, batch.shape[1])


def lengths_to_mask(lengths: Tensor, size: int) -> Tensor:
    """Lengths (B,) -> mask (B, size): True in the first ``lengths[b]`` places of row b."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
