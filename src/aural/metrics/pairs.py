"""Candidates beside their references: what every caption metric is given, and what it gives back."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from aural.errors import UsageError

Words = Sequence[str]
"""A caption in words, as of :func:`aural.metrics.ptb_tokenizer.tokenize`."""


class Scores(NamedTuple):
    """What a metric says of a set of captions."""

    corpus: float
    per_item: list[float]


def check_pairs(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Refuse what cannot be scored.

    Raises:
        UsageError: no item, not as many candidates as sets of references, an item without a reference, or a caption
            that is a string instead of words.
    """
    if len(candidates) != len(references):
        raise UsageError(f"{len(candidates)} captions, but references for {len(references)}; give each its references")
    if not candidates:
        raise UsageError("there is no caption to score; give at least one")
    for i, (candidate, those) in enumerate(zip(candidates, references, strict=True)):
        if isinstance(those, str) or not those:
            raise UsageError(f"caption {i} has no list of references; give each at least one")
        if isinstance(candidate, str) or any(isinstance(words, str) for words in those):
            raise UsageError(f"item {i} is text, not words; split it by aural.metrics.ptb_tokenizer.tokenize")


def ngram_counts(words: Words, longest: int = 4) -> Counter[tuple[str, ...]]:
    """How often each run of 1 to ``longest`` words occurs; a no-break space in a word parts it, as in coco-caption."""
    words = " ".join(words).split()
    return Counter(
        tuple(words[start : start + n]) for n in range(1, longest + 1) for start in range(len(words) - n + 1)
    )
