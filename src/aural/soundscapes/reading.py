"""What a caption says of its sounds: which, how many, in which order. It reads back what ``wording.py`` writes.

It reads any caption, by the whole words of :mod:`aural.sound_phrases`, number words and connectives, and so judges what
a captioner writes against the truth about a soundscape.
"""

import re

from aural.metrics.events import Mention, Reading
from aural.sound_phrases import SILENCE, named_sounds
from aural.soundscapes.wording import NUMBERS

CONNECTIVES = {
    "and then": "then",
    "and finally": "then",
    "followed by": "then",
    "then": "then",
    "before": "then",
    "after": "after",
    "while": "at once",
    "as": "at once",
    "and": "at once",
    "with": "at once",
    "over": "at once",
}
"""What each says about the clauses on its two sides."""

_CONNECTIVE = re.compile(rf"\b(?:{'|'.join(sorted(CONNECTIVES, key=len, reverse=True))})\b")
_COUNTS = {"once": 1, "twice": 2, "a single": 1, **{word: number for number, word in enumerate(NUMBERS) if number}}
_COUNT = re.compile(rf"\b(?:{'|'.join(_COUNTS)})\b")


def read(caption: str) -> Reading:
    """The sounds that a caption names, each with the number it gives, and the pairs it puts in an order.

    "rain falls while a dog barks twice and then a bell rings": rain, two dog barks, a bell; the dog before the bell.
    A sound named in two clauses that follow one another is mentioned once.
    """
    text = " ".join(caption.lower().replace(",", " ").replace(".", " ").split())
    relations = [CONNECTIVES[found] for found in _CONNECTIVE.findall(text)]
    clauses = [_mentions(clause) for clause in _CONNECTIVE.split(text)]
    mentions: dict[str, Mention] = {}
    for clause in clauses:
        for mention in clause:
            known = mentions.get(mention.label)
            if known is None or known.count is None:
                mentions[mention.label] = mention
    if len(mentions) > 1:
        mentions.pop(SILENCE, None)  # "a dog barks and then there is silence" is about a dog
    return Reading(tuple(mentions.values()), _order(clauses, relations))


def _mentions(clause: str) -> list[Mention]:
    counts = [_COUNTS[word] for word in _COUNT.findall(clause)]
    # "once" may be all there is to a clause; two numbers in one clause are beyond this grammar
    count = counts[0] if len(counts) == 1 else None
    return [Mention(label, count) for label in sorted(named_sounds(clause))]


def _order(clauses: list[list[Mention]], relations: list[str]) -> tuple[tuple[str, str], ...]:
    """Pairs (earlier, later) that are said: of the two sides of "after", and along chains of "then"."""
    chains: list[list[str]] = [[]]
    pairs: list[tuple[str, str]] = []
    relation = "at once"
    for clause, before in zip(clauses, ["at once", *relations], strict=True):
        relation = before if relation == "at once" else relation  # a clause that names no sound joins its neighbours
        labels = [mention.label for mention in clause]
        if not labels:
            continue
        if relation == "then":
            chains[-1] += labels
        else:
            if relation == "after":
                pairs += [(earlier, later) for earlier in labels for later in chains[-1]]
            chains.append(labels)
        relation = "at once"
    for chain in chains:
        pairs += [(a, b) for place, a in enumerate(chain) for b in chain[place + 1 :]]
    return tuple(dict.fromkeys((a, b) for a, b in pairs if a != b))
