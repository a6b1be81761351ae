"""The delay pattern: K streams of codes, each a little later than the one before, as one sequence of steps; and back.

Copet et al., "Simple and Controllable Music Generation", arXiv 2306.05284, section 2.2. Step 0 holds nothing but the
special token. Step ``s`` after it holds of codebook k the code of frame ``s - 1 - delays[k]``, or the special token
where there is no such frame. With T = 4 frames, delays 0, 1, 2 and the special token S:

    valid form          full form
    S 1 2 3 4           S 1 2 3 4 S S
    S S 1 2 3           S S 1 2 3 4 S
    S S S 1 2           S S S 1 2 3 4

The valid form is what the language model is trained on: the last frames of late codebooks do not occur in it. The full
form is what it generates.

Shapes: B items, K codebooks, T frames, S steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def usual_delays(codebooks: int, *, stereo: bool = False) -> tuple[int, ...]:
    """The published delays: 0, 1, 2, ...; of stereo, whose codebooks alternate between left and right, 0, 0, 1, 1, ...

    Args:
        codebooks: K, in stereo those of both channels together.
        stereo: whether neighbouring codebooks are the two channels of one.

    Raises:
        ValueError: an odd number of codebooks in stereo.
    """
    if stereo and codebooks % 2:
        raise ValueError(f"stereo has two codebooks for each of a channel, and {codebooks} is odd")
    return tuple(k // 2 if stereo else k for k in range(codebooks))


def delay(codes: Tensor, delays: Sequence[int], special: int, *, full: bool = False) -> tuple[Tensor, Tensor]:
    """Codes to the sequence of steps.

    Args:
        codes: (B, K, T).
        delays: of each codebook, in frames.
        special: stands where there is no code.
        full: go on until the latest codebook has said its last frame; otherwise stop with the first codebook.

    Returns:
        The sequence (B, K, S), S = 1 + T steps, in the full form as many more as the largest delay; and the mask
        (K, S), True where a code stands.

    Raises:
        ValueError: there are no frames, or not as many delays as codebooks.
    """
    _, n_codebooks, n_frames = codes.shape
    if n_codebooks != len(delays) or n_frames < 1:
        raise ValueError(f"{n_codebooks} codebooks of {n_frames} frames do not go with {len(delays)} delays")
    n_steps = 1 + n_frames + (max(delays) if full else 0)
    frame = torch.arange(-1, n_steps - 1, device=codes.device) - _column(delays, codes.device)  # (K, S)
    mask = (frame >= 0) & (frame < n_frames)
    sequence = codes.gather(2, frame.clamp(0, n_frames - 1).expand(len(codes), -1, -1))
    return sequence.masked_fill(~mask, special), mask


def undelay(steps: Tensor, delays: Sequence[int], n_frames: int) -> tuple[Tensor, Tensor]:
    """What stands at the steps after step 0, back at its frames; the inverse of :func:`delay`.

    Args:
        steps: (B, K, S - 1, ...): codes ``sequence[:, :, 1:]``; or predictions ``logits[:, :, :-1]``, since what the
            model says at a step is about the next one.
        delays: of each codebook, in frames.
        n_frames: T.

    Returns:
        (B, K, T, ...), and the mask (K, T): False, and zeros in the former, where the steps end before the frame.
    """
    place = torch.arange(n_frames, device=steps.device) + _column(delays, steps.device)  # (K, T)
    mask = place < steps.shape[2]
    codebook = torch.arange(len(delays), device=steps.device)[:, None]
    frames = steps[:, codebook, place.clamp(max=steps.shape[2] - 1)]
    return frames.masked_fill(~mask.reshape(*mask.shape, *[1] * (steps.dim() - 3)), 0), mask


def _column(delays: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(delays, device=device)[:, None]
