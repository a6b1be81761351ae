"""Where a layer starts that reads states of an encoder."""

import torch
from torch import nn

from aural.whitening import start_white


def test_all_components_have_about_one_spread() -> None:
    torch.manual_seed(0)
    mixed = torch.randn(6, 6) @ torch.diag(torch.tensor([9.0, 5.0, 3.0, 2.0, 1.5, 1.2]))
    rows = 20.0 + torch.randn(4000, 6) @ mixed
    linear = nn.Linear(6, 4)
    start_white(linear, torch.cat((rows, torch.zeros(1000, 6))))  # padding changes nothing
    white = linear(rows)
    assert white.mean(0).abs().max() < 1e-3
    spread = torch.linalg.svdvals(white - white.mean(0)) / len(white) ** 0.5
    assert spread.max() < 1.0 < 3 * spread.min()


def test_a_layer_may_be_wider_than_there_are_components() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 8)
    start_white(linear, torch.randn(100, 6))
    assert torch.linalg.matrix_rank(linear.weight) == 6
