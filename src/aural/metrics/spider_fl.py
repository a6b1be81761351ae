"""SPIDEr (Liu et al., ICCV 2017) and SPIDEr-FL (DCASE 2023, task 6a): how they are put together.

SPIDEr is the mean of CIDEr-D and SPICE, of an item and of the corpus. SPIDEr-FL of an item is SPIDEr * (1 - 0.9 e),
e = 1 where the error detector gives the caption a probability of an error above 0.9, else 0; of the corpus it is the
mean of the items.

SPICE parses scene graphs by Java and models of hundreds of megabytes, and nothing else is SPICE: its scores come from
outside, one an item, or there is no SPIDEr. The published detector is FENSE's (echecker_clotho_audiocaps_base); with
another one, say so.
"""

import math
from collections.abc import Sequence

from aural.errors import UsageError
from aural.metrics.pairs import Scores

ERROR_THRESHOLD = 0.9
PENALTY = 0.9


def spider(cider_d: Sequence[float], spice: Sequence[float]) -> Scores:
    """SPIDEr.

    Args:
        cider_d: of each item, 0 to 10.
        spice: of each item, 0 to 1.

    Raises:
        UsageError: no items, not as many of one as of the other, or a value out of range.
    """
    _check("CIDEr-D", cider_d, len(cider_d), 10.0)
    _check("SPICE", spice, len(cider_d), 1.0)
    items = [(one + other) / 2 for one, other in zip(cider_d, spice, strict=True)]
    return Scores((math.fsum(cider_d) + math.fsum(spice)) / len(items) / 2, items)


def spider_fl(cider_d: Sequence[float], spice: Sequence[float], error_probability: Sequence[float]) -> Scores:
    """SPIDEr-FL.

    Args:
        cider_d: of each item, 0 to 10.
        spice: of each item, 0 to 1.
        error_probability: that the caption has an error, of each item, 0 to 1.

    Raises:
        UsageError: no items, not as many of one as of the other, or a value out of range.
    """
    _check("error probability", error_probability, len(cider_d), 1.0)
    items = [
        score * (1 - PENALTY * (probability > ERROR_THRESHOLD))
        for score, probability in zip(spider(cider_d, spice).per_item, error_probability, strict=True)
    ]
    return Scores(math.fsum(items) / len(items), items)


def _check(name: str, values: Sequence[float], n: int, most: float) -> None:
    if not values or len(values) != n:
        raise UsageError(f"{len(values)} values of {name} for {n} captions; give one for each")
    # Rounding may carry the CIDEr-D of identical captions over 10; NaN fails any comparison.
    if not all(0 <= value <= most + 1e-6 for value in values):
        raise UsageError(f"a value of {name} is not between 0 and {most:g}; check where it comes from")
