"""Going through a pool again and again, each turn in another order."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
def order(n: int, *, seed: int, stream: int, turn: int) -> np.ndarray:
    """The numbers 0 .. n-1 (n,) in the order of a turn; not to be written to. It is drawn once, and not for each index.

    Args:
        n: size of the pool.
        seed: of the training.
        stream: tells pools of one seed apart.
        turn: from 0 on.
    """
    drawn = np.random.default_rng([seed, stream, turn]).permutation(n)
    drawn.flags.writeable = False
    return drawn
