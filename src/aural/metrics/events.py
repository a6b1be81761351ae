"""What a caption says of its sounds, judged against the exact truth: which, in which order, how many.

Sounds are compared as sets of labels: precision, recall and F1 are micro averages over clips. Order is judged where the
truth holds exactly two sounds and all of the one is over before the other begins: right when the caption states that
order and not its reverse. Counts are judged for every label of a clip whose events are single ones: right when the
stated number equals theirs; a caption that states none is wrong.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aural.manifest import Event


@dataclass(frozen=True)
class Mention:
    """A sound that a caption names."""

    label: str
    count: int | None
    """How many, if the caption says so."""


@dataclass(frozen=True)
class Reading:
    """What a caption says of its sounds."""

    mentions: tuple[Mention, ...]
    order: tuple[tuple[str, str], ...]
    """Pairs of labels (earlier, later) that it states."""

    @property
    def labels(self) -> frozenset[str]:
        """What it names."""
        return frozenset(mention.label for mention in self.mentions)


def label_scores(readings: Sequence[Reading], truths: Sequence[Collection[str]]) -> dict[str, Any]:
    """Precision, recall and F1 of the labels named; of each item its F1, and how many are right, named and there.

    Args:
        readings: one a clip.
        truths: the labels of each clip.

    Raises:
        ValueError: none, or not as many of one as of the other.
    """
    _check(readings, truths)
    hits = [len(reading.labels & set(truth)) for reading, truth in zip(readings, truths, strict=True)]
    named = [len(reading.labels) for reading in readings]
    there = [len(set(truth)) for truth in truths]
    return {
        "precision": sum(hits) / max(1, sum(named)),
        "recall": sum(hits) / max(1, sum(there)),
        "f1": f1(sum(hits), sum(named), sum(there)),
        "n": len(readings),
        "per_item": [f1(*counts) for counts in zip(hits, named, there, strict=True)],
        "counts": list(zip(hits, named, there, strict=True)),
    }


def f1(n_hits: int, n_named: int, n_there: int) -> float:
    """Harmonic mean of precision and recall; 1 where nothing is there and nothing is named."""
    return 2 * n_hits / (n_named + n_there) if n_named + n_there else 1.0


def order_of(events: Sequence["Event"]) -> tuple[str, str] | None:
    """(earlier, later) where exactly two sounds follow one another without overlap; else None."""
    spans: dict[str, tuple[float, float]] = {}
    for event in events:
        start, end = spans.get(event.label, (event.start, event.end))
        spans[event.label] = (min(start, event.start), max(end, event.end))
    if len(spans) != 2:
        return None
    (a, (a_start, a_end)), (b, (b_start, b_end)) = spans.items()
    return (a, b) if a_end <= b_start else (b, a) if b_end <= a_start else None


def order_right(reading: Reading, events: Sequence["Event"]) -> bool | None:
    """Whether the caption states the order of two sounds; None where there is no order to state."""
    order = order_of(events)
    return None if order is None else order in reading.order and order[::-1] not in reading.order


def counts_right(reading: Reading, events: Sequence["Event"]) -> dict[str, tuple[int, bool]]:
    """For each counted label of a clip: how many there are, and whether the caption says so."""
    uncounted = {event.label for event in events if not event.single}
    numbers = Counter(event.label for event in events if event.label not in uncounted)
    stated = {mention.label: mention.count for mention in reading.mentions}
    return {label: (number, stated.get(label) == number) for label, number in numbers.items()}


def _check(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"one reading for each truth is needed, and at least one: {len(ours)} and {len(theirs)}")
