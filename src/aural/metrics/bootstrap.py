"""Intervals by the bootstrap over groups: clips of one recording are not independent, so recordings are drawn."""

from collections.abc import Hashable, Sequence

import numpy as np

RESAMPLES = 2000


def interval(
    values: Sequence[float],
    groups: Sequence[Hashable],
    *,
    weights: Sequence[float] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[float]:
    """95 % percentile interval of the mean of ``values``; groups are drawn with replacement, each with all it holds.

    Args:
        values: one an item; with ``weights`` a numerator each, and the statistic is sum(values) / sum(weights).
        groups: what each item belongs to, such as its recording.
        weights: denominator of each item; None: 1.
        n_resamples: how often to draw.
        seed: of the draws.

    Returns:
        [2.5 % quantile, 97.5 % quantile].

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    if not values or len(values) != len(groups):
        raise ValueError(f"one group for each value is needed, and at least one: {len(values)} and {len(groups)}")
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([places[group] for group in groups])
    sums = np.bincount(group_of, weights=np.asarray(values, float), minlength=len(places))
    counts = np.bincount(group_of, weights=None if weights is None else np.asarray(weights, float))
    draws = np.random.default_rng(seed).integers(len(places), size=(n_resamples, len(places)))
    return np.quantile(sums[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975]).tolist()
