"""From logits to the next token: rules on what may come next, temperature, top-k, top-p, and the draw.

Two ways lead to the same distribution. :func:`warp` states it over the whole vocabulary, one rule after the other;
:func:`shortlist` keeps only the ``top_k`` best entries, which is all that a draw needs, and is what decoding uses.

Shapes: R rows, L tokens so far, **the start token included**, V vocabulary, k entries kept. Functions whose names end
in an underscore change their first argument in place.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = float("-inf")


@dataclass(frozen=True)
class SamplingConfig:
    """Rules in the order of their application; the defaults switch each of them off.

    Lengths count the start token: ``max_length`` 30 is the start token, at most 28 others, and the end token.
    """

    no_repeat_ngram: int = 0  # no n-gram of this size comes twice
    min_length: int = 0  # no end token before this length
    max_length: int | None = None  # the end token is forced so that no sequence is longer
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ValueError: says which.
        """
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}; for greedy decoding use top_k 1")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length must be at least 2 (start and end token), got {self.max_length}")


def no_repeat_ngram_(logits: Tensor, prefix: Tensor, size: int) -> Tensor:
    """Forbid each token that would complete an n-gram of ``size`` that the prefix (R, L) already has; logits (R, V)."""
    length = prefix.shape[1]
    if size < 1 or length < size:
        return logits
    ngrams = prefix.unfold(1, size, 1)  # (R, L - size + 1, size)
    tail = prefix[:, None, length - size + 1 :]
    rows, starts = (ngrams[:, :, :-1] == tail).all(dim=2).nonzero(as_tuple=True)
    logits[rows.to(logits.device), ngrams[rows, starts, -1].to(logits.device)] = NEVER
    return logits


def min_length_(logits: Tensor, length: int, minimum: int, eos_token_id: int) -> Tensor:
    """Forbid the end token while the prefix is shorter than ``minimum``."""
    if length < minimum:
        logits[:, eos_token_id] = NEVER
    return logits


def forced_end_(logits: Tensor, length: int, maximum: int | None, eos_token_id: int) -> Tensor:
    """Leave only the end token, at logit 0, when it must come next for a sequence of ``maximum`` tokens."""
    if maximum is not None and length >= maximum - 1:
        logits.fill_(NEVER)
        logits[:, eos_token_id] = 0.0
    return logits


def constrain_(logits: Tensor, prefix: Tensor, config: SamplingConfig, eos_token_id: int) -> Tensor:
    """The rules that look at the prefix (R, L): no repeated n-grams, least length, forced end. Logits (R, V)."""
    length = prefix.shape[1]
    no_repeat_ngram_(logits, prefix, config.no_repeat_ngram)
    min_length_(logits, length, config.min_length, eos_token_id)
    return forced_end_(logits, length, config.max_length, eos_token_id)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest of each row (R, V) and any that equal the smallest of them; the rest becomes -inf."""
    smallest = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < smallest, NEVER)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the most probable tokens up to and including the first at which their sum exceeds ``p`` (R, V).

    Nucleus sampling: Holtzman et al., arXiv 1904.09751.
    """
    ordered, order = logits.sort(descending=True, stable=True)
    return torch.empty_like(logits).scatter_(1, order, top_p_of_sorted(ordered, p))


def top_p_of_sorted(descending: Tensor, p: float) -> Tensor:
    """:func:`top_p` of rows (R, k) that are in descending order already."""
    exceeded = descending.softmax(dim=1).cumsum(dim=1)[:, :-1] > p
    kept = descending.clone()
    kept[:, 1:].masked_fill_(exceeded, NEVER)
    return kept


def warp(logits: Tensor, prefix: Tensor, config: SamplingConfig, eos_token_id: int) -> Tensor:
    """All rules over the whole vocabulary: no-repeat, least length, forced end, temperature, top-k, top-p.

    Args:
        logits: (R, V), left as they are.
        prefix: (R, L) token ids so far, the start token included.
        config: the rules.
        eos_token_id: the end token.

    Returns:
        (R, V), -inf where a token may not come; its softmax is the distribution to draw from.
    """
    warped = constrain_(logits.clone(), prefix, config, eos_token_id) / config.temperature
    if config.top_k is not None:
        warped = top_k(warped, config.top_k)
    return warped if config.top_p is None else top_p(warped, config.top_p)


def shortlist(logits: Tensor, prefix: Tensor, config: SamplingConfig, eos_token_id: int) -> tuple[Tensor, Tensor]:
    """The finite entries of :func:`warp` in descending order, at the cost of one ``topk`` over the vocabulary.

    It differs from :func:`warp` only where several logits equal the ``top_k``-th: that keeps them all, this ``top_k``.

    Args:
        logits: (R, V); entries of forbidden tokens are overwritten by -inf, all others stay as they are.
        prefix: (R, L).
        config: the rules.
        eos_token_id: the end token.

    Returns:
        Warped logits (R, k), -inf behind the last that may come, and their token ids (R, k); k = ``top_k``, or V
        without it, or 1 where the end is forced.
    """
    n_rows, length = prefix.shape
    if config.max_length is not None and length >= config.max_length - 1:
        return logits.new_zeros(n_rows, 1), torch.full((n_rows, 1), eos_token_id, device=logits.device)
    constrain_(logits, prefix, config, eos_token_id)
    values, token_ids = logits.topk(min(config.top_k or logits.shape[1], logits.shape[1]))
    values = values / config.temperature
    return values if config.top_p is None else top_p_of_sorted(values, config.top_p), token_ids


def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw from the softmax of each row by its inverse distribution function.

    One given number decides a draw, so it does not depend on what else is in the batch.

    Args:
        logits: (R, k).
        uniform: (R,) in [0, 1), float64.

    Returns:
        (R,) the index drawn in each row; one of probability 0 is never drawn.
    """
    # Not softmax, nor exp: for these MKL wakes its threads, which then keep a core busy that the next step has use for.
    likeliest = logits.amax(dim=1, keepdim=True)
    probability = ((logits - likeliest).double() * math.log2(math.e)).exp2()
    cumulative = probability.cumsum(dim=1)
    index = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(dim=1)
    last_possible = logits.shape[1] - 1 - (probability > 0).flip(1).byte().argmax(dim=1)
    return torch.minimum(index, last_possible)


def uniforms(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Numbers in [0, 1), float64, from a generator of their own: the same on every device and in every batch."""
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
