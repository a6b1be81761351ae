"""What a training of the published kind changes from step to step: the learning rate, the average, the dropped texts.

:mod:`aural.training` counts its warm-up from one and weighs its average otherwise; these are the rules of the code that
the published models were trained with, so that a training can follow it exactly.
"""

import math

import torch
from torch import Tensor


def cosine_factor(step: int, *, warmup_steps: int = 4000, steps: int = 100_000, final: float = 0.0) -> float:
    """Share of the learning rate in the update after ``step`` finished ones: a line up, half a cosine down.

    The first update of all has rate 0; from the one after ``steps`` on it is ``final``.
    """
    if step < warmup_steps:
        return step / warmup_steps
    done = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def inverse_sqrt_factor(step: int, *, warmup_steps: int = 3000) -> float:
    """Share of the learning rate in the update after ``step`` finished ones: a line up, then falling as 1 / sqrt(step).

    AudioGen's schedule (arXiv 2209.15352).
    """
    return step / warmup_steps if step < warmup_steps else math.sqrt(warmup_steps / max(1, step))


def average_decay(decay: float, updates: int) -> float:
    """Weight of the old average of the weights after ``updates`` earlier ones; 0 at first, ``decay`` in the end.

    The average is then that of all weights so far, each weighing ``decay`` times the one after it: nothing is left of
    what it began with.
    """
    return 1 - (1 - decay) / (1 - decay ** (updates + 1))


def dropping_draws(steps: int, seed: int = 1234) -> Tensor:
    """One number in [0, 1) for each step, (steps,); a step's texts are all dropped where it is below the share.

    The numbers of more steps begin with those of fewer, and are the same in every process.
    """
    return torch.rand(steps, generator=torch.Generator().manual_seed(seed))
