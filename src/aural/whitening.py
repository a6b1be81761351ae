"""Where a linear layer starts that reads what a frozen encoder makes of words or sounds.

States of an encoder are long and much alike: which of two names stands in a prompt is a small part of them, and what
starts at random finds it late.
"""

import torch
from torch import Tensor, nn

LEAST_SPREAD = 0.1
"""Of a component as a part of the widest, below which it is not widened to the same: noise."""


@torch.no_grad()
def start_white(linear: nn.Linear, rows: Tensor) -> None:
    """Let a layer start from the principal components of rows (N, in_features), all of about one spread.

    Rows of zeros are padding, and left out. Directions among the components are drawn at random, so that every part of
    the layer's output (a head of attention, say) has something of all of them.
    """
    rows = rows[rows.ne(0).any(1)].to(linear.weight)
    _, spread, components = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    spread = spread / len(rows) ** 0.5
    n = min(len(components), linear.out_features)
    white = components[:n] / (spread[:n, None] + LEAST_SPREAD * spread[0])
    linear.weight.copy_(nn.init.orthogonal_(linear.weight.new_empty(linear.out_features, n)) @ white)
    linear.bias.copy_(-linear.weight @ rows.mean(0))
