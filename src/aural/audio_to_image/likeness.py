"""Which of many pictures another one looks most like: a descriptor of colours and edges, fixed and without weights.

A picture is brought to one size and described at several scales, coarse ones counting as much as fine ones:

- *colours*: the mean brightness and the two opponent colours (red against green, yellow against blue) of the cells of a
  grid of 4 by 4, 8 by 8 and 16 by 16;
- *edges*: how strong the brightness changes in four directions, in cells of 8 by 8, after the picture was blurred.

Each part is measured against how much it varies among the pictures that are compared with, so that none drowns another.
It is meant for glyphs on white, which are drawn alike and lie in the middle; photographs need a learnt space.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 64
GRIDS = (4, 8, 16)
EDGE_CELLS = 8
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
"""Brightness, red against green, yellow against blue."""


def describe(pictures: Tensor) -> list[Tensor]:
    """Pictures (B, 3, H, W) in -1..1 -> a description (B, n) of each scale of colours, and of edges."""
    even = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    colours = torch.einsum("oc,bchw->bohw", torch.tensor(OPPONENT), even)
    parts = [F.adaptive_avg_pool2d(colours, grid).flatten(1) for grid in GRIDS]
    bright = F.avg_pool2d(colours[:, :1], 3, stride=1, padding=1, count_include_pad=False)
    bright = F.pad(bright, (1, 1, 1, 1), mode="replicate")
    across = (bright[..., 1:-1, 2:] - bright[..., 1:-1, :-2])[:, 0]
    down = (bright[..., 2:, 1:-1] - bright[..., :-2, 1:-1])[:, 0]
    directions = torch.stack((across, down, (across + down) / 2**0.5, (across - down) / 2**0.5), dim=1)
    return [*parts, F.adaptive_avg_pool2d(directions.abs(), EDGE_CELLS).flatten(1)]


@dataclass(frozen=True)
class Gallery:
    """Pictures to compare with: their descriptions, and how much each part of them varies."""

    parts: list[Tensor]
    spreads: list[float]

    def nearest(self, pictures: Tensor, among: Tensor | None = None) -> Tensor:
        """For each of (B, 3, H, W) in -1..1 the place of the picture it looks most like, (B,).

        Args:
            pictures: of any size.
            among: places (n,) that count; None: all of them.
        """
        total = torch.zeros(len(pictures), len(self.parts[0]))
        for seen, known, spread in zip(describe(pictures), self.parts, self.spreads, strict=True):
            total += torch.cdist(seen, known).square() / spread
        if among is None:
            return total.argmin(dim=1)
        return among[total[:, among].argmin(dim=1)]


def gallery(pictures: Tensor) -> Gallery:
    """Pictures (B, 3, H, W) in -1..1 to compare others with."""
    parts = describe(pictures)
    return Gallery(parts, [float((part - part.mean(0)).square().sum(1).mean()) + 1e-9 for part in parts])
