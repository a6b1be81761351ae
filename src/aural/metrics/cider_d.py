"""CIDEr-D (Vedantam et al., CVPR 2015, section 6) with the conventions of coco-caption.

- Runs of n = 1 to 4 words. The term frequency is the raw count, the inverse document frequency is
  ln(number of items) - ln(max(1, number of items with the run in any reference)), over the references given: the same
  caption scores otherwise in another set, and a set of one item scores 0.
- For each n: the candidate's vector, clipped to the reference's, times the reference's, over both lengths; times
  exp(-d² / (2 · 6²)), where d is the difference in length, which is counted in runs of two words.
- The mean over n, the mean over references, times 10. The corpus score is the mean of the items.
"""

import math
from collections import Counter
from collections.abc import Sequence

from aural.metrics.pairs import Scores, Words, check_pairs, ngram_counts

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0

Vector = dict[tuple[str, ...], float]


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """CIDEr-D, between 0 and 10.

    Args:
        candidates: one caption an item, in words.
        references: the captions it is compared with, at least one an item.

    Raises:
        UsageError: what :func:`aural.metrics.pairs.check_pairs` refuses.
    """
    check_pairs(candidates, references)
    counts = [[ngram_counts(words) for words in those] for those in references]
    documents = Counter(ngram for those in counts for ngram in set().union(*those))
    log_items = math.log(len(candidates))

    def vectors(count: Counter[tuple[str, ...]]) -> list[Vector]:
        weights: list[Vector] = [{} for _ in range(ORDERS)]
        for ngram, frequency in count.items():
            weights[len(ngram) - 1][ngram] = frequency * (log_items - math.log(max(1, documents[ngram])))
        return weights

    items = []
    for candidate, those in zip(candidates, counts, strict=True):
        count = ngram_counts(candidate)
        own = vectors(count)
        similarity = 0.0
        for reference in those:
            distance = _pairs_of_words(count) - _pairs_of_words(reference)
            cosines = [_clipped_cosine(*pair) for pair in zip(own, vectors(reference), strict=True)]
            similarity += sum(cosines) / ORDERS * math.exp(-(distance**2) / (2 * SIGMA**2))
        items.append(SCALE * similarity / len(those))
    return Scores(sum(items) / len(items), items)


def _pairs_of_words(count: Counter[tuple[str, ...]]) -> int:
    """The length of a caption as coco-caption measures it here."""
    return sum(frequency for ngram, frequency in count.items() if len(ngram) == 2)


def _clipped_cosine(candidate: Vector, reference: Vector) -> float:
    product = sum(
        min(weight, reference[ngram]) * reference[ngram] for ngram, weight in candidate.items() if ngram in reference
    )
    lengths = math.hypot(*candidate.values()) * math.hypot(*reference.values())
    return product / lengths if lengths else product
