"""All caption metrics of a set of captions at once, with the protocol that makes the numbers comparable."""

import platform
from collections.abc import Hashable, Sequence
from typing import Any

from aural import __version__
from aural.errors import UsageError
from aural.metrics.bleu import bleu
from aural.metrics.bootstrap import RESAMPLES, interval
from aural.metrics.cider_d import cider_d
from aural.metrics.ptb_tokenizer import tokenize
from aural.metrics.rouge_l import rouge_l
from aural.metrics.spider_fl import spider, spider_fl

NO_SPICE = "needs the Java tool and its models; score it there and pass its values: SPIDEr is not approximated"
NO_DETECTOR = "no error probabilities were given"


def caption_scores(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    groups: Sequence[Hashable] | None = None,
    spice: Sequence[float] | None = None,
    error_probability: Sequence[float] | None = None,
) -> dict[str, Any]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D as coco-caption computes them; SPIDEr and SPIDEr-FL if SPICE is given.

    Args:
        candidates: one caption an item, as written.
        references: the captions it is compared with, at least one an item.
        groups: the recording of each item, for the interval; None: every item is one of its own.
        spice: the SPICE of each item, computed elsewhere.
        error_probability: of each item, by an error detector (see :mod:`aural.metrics.spider_fl`).

    Returns:
        ``bleu_1`` ... ``cider_d`` of the corpus, ``cider_d_interval_95``, ``per_item`` (metric -> values),
        ``left_out`` (metric -> why) and ``protocol``.

    Raises:
        UsageError: fewer than two items, not as many of one as of the other, or an item without a reference.
    """
    if any(isinstance(those, str) for those in references):
        raise UsageError("references are text; give a list of references for each caption")
    if len(candidates) < 2:
        raise UsageError(f"{len(candidates)} captions: CIDEr-D weighs words over the items; give at least two")
    groups = range(len(candidates)) if groups is None else groups
    if len(groups) != len(candidates):
        raise UsageError(f"{len(groups)} groups for {len(candidates)} captions; give one for each")
    words = [tokenize(caption) for caption in candidates]
    others = [[tokenize(caption) for caption in those] for those in references]
    scores = {f"bleu_{n}": score for n, score in enumerate(bleu(words, others), start=1)}
    scores |= {"rouge_l": rouge_l(words, others), "cider_d": cider_d(words, others)}
    consensus = scores["cider_d"].per_item
    left_out = {}
    if spice is None:
        left_out = {"spice": NO_SPICE}
    else:
        scores["spider"] = spider(consensus, spice)
        if error_probability is None:
            left_out = {"spider_fl": NO_DETECTOR}
        else:
            scores["spider_fl"] = spider_fl(consensus, spice, error_probability)
    counts = [len(those) for those in references]
    return {
        **{name: score.corpus for name, score in scores.items()},
        "cider_d_interval_95": interval(consensus, groups),
        "per_item": {name: score.per_item for name, score in scores.items()},
        "left_out": left_out,
        "protocol": {
            "tokenizer": "PTB (CoreNLP 3.4.1), lower case, without the punctuation of coco-caption",
            "conventions": "coco-caption (pycocoevalcap 1.2); document frequencies over these references",
            "interval": f"percentile bootstrap over groups, {RESAMPLES} resamples, seed 0, document frequencies fixed",
            "n_items": len(candidates),
            "n_groups": len(set(groups)),
            "n_references": [min(counts), max(counts)],
            "versions": {"aural": __version__, "python": platform.python_version()},
        },
    }
