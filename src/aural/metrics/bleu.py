"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) with the conventions of coco-caption.

- A run of words counts as often as it stands in the one reference that has it most (clipping).
- The reference length is that of the reference closest to the candidate in length, the shorter of two as close.
- Nothing is smoothed; precision k is (hits + 1e-15) / (runs + 1e-9), so that 0/0 is about 0 and no logarithm fails.
  A caption of one word therefore has a BLEU-4 that is not quite 0.
- BLEU-k is the geometric mean of the first k precisions, times exp(1 - reference length / length) if that is below 1.
- The corpus score is made of the sums of hits, runs and lengths; it is not the mean of the items.
"""

import math
from collections.abc import Sequence

from aural.metrics.pairs import Scores, Words, check_pairs, ngram_counts

ORDERS = 4
TINY = 1e-15
SMALL = 1e-9


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[Scores, Scores, Scores, Scores]:
    """BLEU-1, BLEU-2, BLEU-3 and BLEU-4, between 0 and 1.

    Args:
        candidates: one caption an item, in words.
        references: the captions it is compared with, at least one an item.

    Raises:
        UsageError: what :func:`aural.metrics.pairs.check_pairs` refuses.
    """
    check_pairs(candidates, references)
    counts = [_counts(*pair) for pair in zip(candidates, references, strict=True)]
    items = [_score(each) for each in counts]
    corpus = _score([sum(column) for column in zip(*counts, strict=True)])
    first, second, third, fourth = (Scores(corpus[k], [item[k] for item in items]) for k in range(ORDERS))
    return first, second, third, fourth


def _counts(candidate: Words, references: Sequence[Words]) -> list[int]:
    """Length, length of the closest reference, hits of order 1 to 4, runs of order 1 to 4."""
    found = ngram_counts(candidate)
    most = ngram_counts(())
    for reference in references:
        most |= ngram_counts(reference)
    hits, runs = [0] * ORDERS, [0] * ORDERS
    for ngram, count in found.items():
        runs[len(ngram) - 1] += count
        hits[len(ngram) - 1] += min(count, most[ngram])
    length = runs[0]
    lengths = [len(" ".join(reference).split()) for reference in references]
    return [length, min(lengths, key=lambda each: (abs(each - length), each)), *hits, *runs]


def _score(counts: Sequence[int]) -> list[float]:
    """BLEU-1 to BLEU-4."""
    length, closest, *rest = counts
    product, scores = 1.0, []
    for k, (hits, runs) in enumerate(zip(rest[:ORDERS], rest[ORDERS:], strict=True), start=1):
        product *= (hits + TINY) / (runs + SMALL)
        scores.append(product ** (1 / k))
    ratio = (length + TINY) / (closest + SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return [score * penalty for score in scores]
