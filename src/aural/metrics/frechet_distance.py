"""Frechet distance between two sets of vectors, as if both were normal: how far a set of sounds lies from another.

Heusel et al., arXiv 1706.08500, for images; Kilgour et al., arXiv 1812.08466 (FAD), for sounds. It grows as sets become
smaller, so that only distances between sets of equal sizes can be compared.
"""

import torch
from torch import Tensor

FEWEST = 32
"""Vectors of a set; the covariance of fewer says next to nothing."""


def frechet_distance(some: Tensor, others: Tensor) -> float:
    """Squared distance of the means, plus trace(A + B - 2 (A B) ** 0.5) of the covariances A and B.

    The trace of that root is the sum of the singular values of X Y^T, where A = X^T X and B = Y^T Y: of the centred
    vectors themselves, divided by sqrt(n - 1), without any root of a matrix.

    Args:
        some: (n, D).
        others: (m, D).

    Raises:
        ValueError: a set has fewer than 32 vectors, or the widths differ.
    """
    if min(len(some), len(others)) < FEWEST or some.shape[1] != others.shape[1]:
        raise ValueError(f"sets {tuple(some.shape)} and {tuple(others.shape)}: {FEWEST} vectors of one width at least")
    means, centred = [], []
    for vectors in (some.double(), others.double()):
        means.append(vectors.mean(0))
        centred.append((vectors - means[-1]) / (len(vectors) - 1) ** 0.5)
    root = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    spread = sum(each.square().sum() for each in centred) - 2 * root
    return float((means[0] - means[1]).square().sum() + spread)
