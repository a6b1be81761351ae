"""ROUGE-L (Lin, ACL workshop 2004) with the conventions of coco-caption.

The longest common subsequence with each reference gives a precision and a recall; the best precision and the best
recall, which may come from different references, are joined to an F of beta = 1.2. The corpus score is the mean of the
items. An empty caption counts as one empty word: it scores 1 against an empty reference, and else 0.
"""

from collections.abc import Sequence

from aural.metrics.pairs import Scores, Words, check_pairs

BETA = 1.2


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """ROUGE-L, between 0 and 1.

    Args:
        candidates: one caption an item, in words.
        references: the captions it is compared with, at least one an item.

    Raises:
        UsageError: what :func:`aural.metrics.pairs.check_pairs` refuses.
    """
    check_pairs(candidates, references)
    items = [_score(*pair) for pair in zip(candidates, references, strict=True)]
    return Scores(sum(items) / len(items), items)


def _score(candidate: Words, references: Sequence[Words]) -> float:
    words = list(candidate) or [""]
    others = [list(reference) or [""] for reference in references]
    common = [_common(words, other) for other in others]
    precision = max(common) / len(words)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(some: Words, others: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(others) + 1)
    for word in some:
        above = row
        row = [0]
        for place, other in enumerate(others):
            row.append(above[place] + 1 if word == other else max(row[place], above[place + 1]))
    return row[-1]
