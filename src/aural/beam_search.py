"""Beam search over any step function, for a batch of items at once.

The rules are those of the library release behind the published captioner (transformers 4.22). They decide which
sentence wins, so each is spelt out:

- each step ranks the best ``2 * beams`` continuations of an item by (beam score + log-probability);
- an end token finishes a sentence only if it ranks among the first ``beams``;
- the others, in order, fill the ``beams`` places of the next step;
- a finished sentence scores its summed log-probability / (length of what precedes the end token, start token included)
  ** length penalty;
- an item is done as soon as ``beams`` sentences are finished ("early stopping");
- sentences still unfinished at ``max_length`` compete with those finished.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
"""Last token of each row (R,), the row of the step before that it continues (R,) -> log-probabilities (R, V)."""

Constrain = Callable[[Tensor, Tensor], Tensor]
"""Log-probabilities (R, V), rows so far with the start token (R, L) -> the same, -inf where a token may not come."""


@dataclass(frozen=True)
class Hypothesis:
    """A sentence found."""

    token_ids: tuple[int, ...]  # without the start token, with the end token
    score: float  # what it was ranked by
    log_prob: float  # summed log-probability of all its tokens, before any constraint


@dataclass(frozen=True)
class _Row:
    """A sentence being pursued."""

    token_ids: tuple[int, ...]  # with the start token
    score: float
    log_prob: float
    parent: int  # its row in the step before


@dataclass
class _Item:
    """The search for one item."""

    rows: list[_Row]
    finished: list[Hypothesis]


def beam_search(
    step: Step,
    n_items: int,
    *,
    start_token_id: int,
    eos_token_id: int,
    max_length: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    constrain: Constrain | None = None,
) -> list[list[Hypothesis]]:
    """Find the best sentences of each item.

    Args:
        step: called with one row an item first, later with up to ``beams`` rows for each item that is not done, those
            of an item side by side. Parents are numbered as the rows of its last call (the first time, as the items).
        n_items: independent searches.
        start_token_id: begins each row.
        eos_token_id: ends a sentence.
        max_length: tokens of a sentence at most, start and end token included.
        beams: sentences pursued for an item, and returned.
        length_penalty: exponent of the length in the score.
        constrain: what may come next; it may change its argument in place.

    Returns:
        For each item up to ``beams`` hypotheses, the best first.

    Raises:
        ValueError: the vocabulary is smaller than ``2 * beams``.
    """
    items = [_Item([_Row((start_token_id,), 0.0, 0.0, i)], []) for i in range(n_items)]
    for _ in range(1, max_length):
        searching = [item for item in items if len(item.finished) < beams]
        if not searching:
            break
        rows = [row for item in searching for row in item.rows]
        prefix = torch.tensor([row.token_ids for row in rows])
        log_probs = step(prefix[:, -1], torch.tensor([row.parent for row in rows]))
        if log_probs.shape[1] < 2 * beams:
            raise ValueError(f"a vocabulary of {log_probs.shape[1]} tokens is too small for {beams} beams")
        allowed = log_probs if constrain is None else constrain(log_probs.clone(), prefix)
        first = 0
        for item in searching:
            own = slice(first, first + len(item.rows))
            _advance(item, allowed[own], log_probs[own], first, beams, length_penalty, eos_token_id)
            first = own.stop
    for item in items:
        if len(item.finished) < beams:
            item.finished += [
                _finished(row, row.token_ids, row.score, row.log_prob, length_penalty) for row in item.rows
            ]
    # The later of two equal scores comes first: the library sorts ascending and takes from the end.
    return [sorted(item.finished, key=lambda found: found.score)[::-1][:beams] for item in items]


def _advance(
    item: _Item,
    allowed: Tensor,
    log_probs: Tensor,
    first_row: int,
    beams: int,
    length_penalty: float,
    eos_token_id: int,
) -> None:
    """One step of one item: finish sentences, and replace its rows by the best continuations.

    Args:
        item: changed in place.
        allowed: (rows, V) constrained log-probabilities.
        log_probs: (rows, V) the model's own.
        first_row: number of the item's first row in the step.
        beams: as in :func:`beam_search`, like the rest.
    """
    totals = allowed + allowed.new_tensor([row.score for row in item.rows])[:, None]
    scores, indices = totals.flatten().topk(2 * beams)
    chosen = log_probs.flatten()[indices]
    going: list[_Row] = []
    for rank, (score, index, log_prob) in enumerate(
        zip(scores.tolist(), indices.tolist(), chosen.tolist(), strict=True)
    ):
        i, token = divmod(index, allowed.shape[1])
        row = item.rows[i]
        if score == float("-inf") or len(going) == beams:
            break
        if token != eos_token_id:
            going.append(_Row((*row.token_ids, token), score, row.log_prob + log_prob, first_row + i))
        elif rank < beams:
            token_ids = (*row.token_ids, token)
            item.finished.append(_finished(row, token_ids, score, row.log_prob + log_prob, length_penalty))
    item.rows = going


def _finished(
    row: _Row, token_ids: tuple[int, ...], score: float, log_prob: float, length_penalty: float
) -> Hypothesis:
    """``row`` with the tokens it ends up with; its score is divided by the length of what came before the end token."""
    return Hypothesis(token_ids[1:], score / len(row.token_ids) ** length_penalty, log_prob)
