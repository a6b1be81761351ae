"""From prefixes to token ids: beam search by the released rules, greedy, and sampling.

A prefix goes through the language model once. All beams of an item attend to the same keys and values of it, which are
never copied: the beams are the queries of one attention call. Beams that have stopped cost nothing any more, and an
item whose beams have all stopped leaves the batch.

Shapes: B items, Q rows of a prefix, R rows (sequences) being written, K beams, L tokens so far, E width of the language
model, H heads, d = E / H, V vocabulary. Masks are boolean, True = real; None = all real.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.answering.model import AudioLanguageModel
from aural.beam_search import Hypothesis
from aural.networks.bart_decoder import group_rows
from aural.sampling import NEVER, SamplingConfig, sample as draw, shortlist, uniforms


def greedy(
    model: AudioLanguageModel, prefix: Tensor, mask: Tensor | None = None, *, max_tokens: int = 30
) -> list[Hypothesis]:
    """The most probable token at each step; one answer for each item. Arguments as for :func:`beam`."""
    return [found[0] for found in beam(model, prefix, mask, beams=1, max_tokens=max_tokens)]


def search(model: AudioLanguageModel, prefix: Tensor, *, max_tokens: int = 30) -> list[Hypothesis]:
    """One answer for each item, searched for as the model's config says. Arguments as for :func:`beam`."""
    if model.config.search == "greedy":
        return greedy(model, prefix, max_tokens=max_tokens)
    return [found[0] for found in beam(model, prefix, max_tokens=max_tokens)]


@torch.inference_mode()
def beam(
    model: AudioLanguageModel,
    prefix: Tensor,
    mask: Tensor | None = None,
    *,
    beams: int = 3,
    max_tokens: int = 30,
    temperature: float = 1.0,
) -> list[list[Hypothesis]]:
    """Beam search by the rules of the released code, which are those of ClipCap.

    - The beams of the next step are the ``beams`` continuations with the largest *mean* log-probability of a token.
    - A beam that has stopped stays as it is, and competes on.
    - The search of an item ends when all of its beams have stopped, or are ``max_tokens`` long.

    Args:
        model: in evaluation mode.
        prefix: (B, Q, E).
        mask: (B, Q), the real rows of each prefix first.
        beams: answers pursued for an item, and returned.
        max_tokens: length of an answer at most, the stop token included.
        temperature: logits are divided by it if it is above 0.

    Returns:
        For each item ``beams`` answers, the best first. ``score`` is the mean log-probability of a token, at this
        temperature; the stop token counts.

    Raises:
        ValueError: the model is in training mode, prefix and answer are longer than its positions, or there are fewer
            tokens than beams.
    """
    if beams < 1 or max_tokens < 1 or beams > model.config.gpt2.vocab_size:
        raise ValueError(f"beams {beams} and max_tokens {max_tokens} must be at least 1, and beams at most the tokens")
    stop = model.config.stop_token_id
    n_items, device = len(prefix), prefix.device
    writer = Writer(model, prefix, mask, max_tokens=max_tokens, max_rows=n_items * beams)
    totals, tokens = _best(writer.first_logits(), beams, temperature)  # (B, K) each
    written = torch.zeros(n_items, beams, max_tokens, dtype=torch.long, device=device)
    written[:, :, 0] = tokens
    lengths = torch.ones_like(tokens)
    stopped = tokens == stop
    row_of = torch.arange(n_items, device=device)[:, None].expand(-1, beams)  # of each beam in the writer's last step
    item = torch.arange(n_items)
    found: list[list[Hypothesis]] = [[] for _ in range(n_items)]
    for length in range(1, max_tokens):
        done = stopped.all(dim=1)
        if done.any():
            _keep(found, item[done.cpu()], totals[done], lengths[done], written[done])
            item = item[~done.cpu()]
            totals, lengths, written, stopped, row_of = (
                each[~done] for each in (totals, lengths, written, stopped, row_of)
            )
        if len(item) == 0:
            return found
        live = ~stopped
        logits = writer.step(written[live][:, length - 1], row_of[live])
        lengths = lengths + live
        # The best `beams` of each beam are enough for the best `beams` of all; a stopped one has a single continuation,
        # which is free.
        gains = totals.new_full((*stopped.shape, beams), NEVER)
        gains[:, :, 0] = 0.0
        tokens = torch.zeros_like(gains, dtype=torch.long)
        gains[live], tokens[live] = _best(logits, beams, temperature)
        candidates = totals[:, :, None] + gains
        chosen = (candidates / lengths[:, :, None]).flatten(1).topk(beams).indices
        source = chosen // beams
        totals = candidates.flatten(1).gather(1, chosen)
        written = written.gather(1, source[:, :, None].expand_as(written))
        written[:, :, length] = tokens.flatten(1).gather(1, chosen)
        lengths = lengths.gather(1, source)
        stopped = stopped.gather(1, source) | (written[:, :, length] == stop)
        row_of = (live.flatten().cumsum(0) - 1).view_as(live).gather(1, source)
    _keep(found, item, totals, lengths, written)
    return found


def _best(logits: Tensor, n: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities (R, n) of the n best tokens of each row (R, V), and these tokens (R, n)."""
    if temperature > 0 and temperature != 1.0:
        logits = logits / temperature
    values, tokens = logits.topk(n)
    return values - logits.logsumexp(dim=1, keepdim=True), tokens


def _keep(found: list[list[Hypothesis]], item: Tensor, totals: Tensor, lengths: Tensor, written: Tensor) -> None:
    """Put the beams (items, K) of finished items into their places, the best first."""
    scores = totals / lengths
    order = scores.argsort(dim=1, descending=True, stable=True).tolist()
    for index, ranks, *beams in zip(
        item.tolist(), order, scores.tolist(), totals.tolist(), lengths.tolist(), written.tolist(), strict=True
    ):
        own_scores, own_totals, own_lengths, own_written = beams
        found[index] = [
            Hypothesis(tuple(own_written[k][: own_lengths[k]]), own_scores[k], own_totals[k]) for k in ranks
        ]


@torch.inference_mode()
def sample(
    model: AudioLanguageModel,
    prefix: Tensor,
    mask: Tensor | None = None,
    *,
    config: SamplingConfig | None = None,
    max_tokens: int = 30,
    seeds: Sequence[int] | None = None,
) -> list[Hypothesis]:
    """Draw an answer for each item.

    Args:
        model: in evaluation mode.
        prefix: (B, Q, E).
        mask: (B, Q), the real rows of each prefix first.
        config: temperature, top-k, top-p and rules; its lengths count the prefix as a token that starts each answer.
        max_tokens: length of an answer at most, the stop token included.
        seeds: one for each item, by default 0. An answer depends on its seed and not on the batch.

    Returns:
        The answers; ``score`` is the mean log-probability of a token, before any rule.

    Raises:
        ValueError: as for :func:`beam`, or seeds and items do not match.
    """
    config = config or SamplingConfig()
    stop, n_items = model.config.stop_token_id, len(prefix)
    seeds = [0] * n_items if seeds is None else seeds
    if len(seeds) != n_items or max_tokens < 1:
        raise ValueError(f"{len(seeds)} seeds for {n_items} items, and at most {max_tokens} tokens")
    uniform = torch.stack([uniforms(seed, (max_tokens,)) for seed in seeds])
    writer = Writer(model, prefix, mask, max_tokens=max_tokens, max_rows=n_items)
    written = torch.full((n_items, 1 + max_tokens), -1)  # the first column stands for the prefix
    totals = torch.zeros(n_items, dtype=torch.float64)
    lengths = torch.zeros(n_items, dtype=torch.long)
    going = torch.arange(n_items)
    logits = writer.first_logits()
    for length in range(1, 1 + max_tokens):
        log_total = logits.logsumexp(dim=1).cpu()
        values, choices = (each.cpu() for each in shortlist(logits.clone(), written[going, :length], config, stop))
        tokens = choices.gather(1, draw(values, uniform[going, length - 1])[:, None])[:, 0]
        own = logits.gather(1, tokens[:, None].to(logits.device))[:, 0].cpu()
        written[going, length] = tokens
        totals[going] += own - log_total
        lengths[going] = length
        unended = (tokens != stop).nonzero()[:, 0]
        going = going[unended]
        if len(going) == 0 or length == max_tokens:
            break
        logits = writer.step(tokens[unended].to(prefix.device), unended.to(prefix.device))
    return [
        Hypothesis(tuple(row[1 : 1 + n].tolist()), float(total) / int(n), float(total))
        for row, n, total in zip(written, lengths, totals, strict=True)
    ]


class Writer:
    """GPT-2 writing on from prefixes: a step costs one token a row, whatever stands before it.

    It begins with one row an item. Each step says which rows go on; the others cost nothing any more, nor does an item
    without rows.
    """

    def __init__(
        self, model: AudioLanguageModel, prefix: Tensor, mask: Tensor | None, *, max_tokens: int, max_rows: int
    ) -> None:
        """Read prefixes (B, Q, E), with real rows (B, Q) first; reserve room for rows of ``max_tokens`` tokens.

        Raises:
            ValueError: the model is in training mode, or has too few positions.
        """
        if model.training:
            raise ValueError("the audio language model is in training mode: call its eval() before it writes")
        config = model.config.gpt2
        if prefix.shape[1] + max_tokens - 1 > config.max_positions:
            raise ValueError(
                f"a prefix of {prefix.shape[1]} rows and {max_tokens} tokens are more than the language model's "
                f"{config.max_positions} positions"
            )
        self._gpt2: Any = model.gpt2
        self._heads, self._scale = config.heads, (config.width // config.heads) ** -0.5
        self._prefix_lengths = torch.full((len(prefix),), prefix.shape[1], device=prefix.device)
        self._hidden_places: Tensor | None = None  # (B, 1, 1, Q), rows of prefixes that are no rows
        if mask is not None and not mask.all():
            self._prefix_lengths = mask.sum(dim=1)
            self._hidden_places = ~mask[:, None, None]
        self._item_of_row = torch.arange(len(prefix), device=prefix.device)
        self._length = 0  # tokens written
        # The last token is never read: one less than max_tokens is enough.
        size = (config.layers, 2, max_rows, config.heads, max_tokens - 1, config.width // config.heads)
        self._written = prefix.new_empty(size)  # 2: keys, values
        self._prefixes: list[tuple[Tensor, Tensor]] = []  # keys and values of each layer, (B, H, Q, d)
        self._last = self._read(prefix)

    def first_logits(self) -> Tensor:
        """Logits (B, V) of the first token."""
        return self._gpt2.lm_head(self._last)

    def step(self, token_ids: Tensor, parents: Tensor) -> Tensor:
        """Go on from the rows ``parents`` (R,) of the last step (at first: the items) with ``token_ids`` (R,).

        Returns:
            Logits (R, V) of the tokens to follow.
        """
        self._select(parents)
        gpt2, rows, now = self._gpt2.transformer, len(token_ids), self._length
        groups = group_rows(rows, len(self._prefix_lengths), self._item_of_row, token_ids.device)
        hidden = gpt2.wte(token_ids) + gpt2.wpe(self._prefix_lengths[self._item_of_row] + now)  # (R, E)
        for block, (prefix_keys, prefix_values), written in zip(gpt2.h, self._prefixes, self._written, strict=True):
            queries, keys, values = block.attn.c_attn(block.ln_1(hidden)).view(rows, 3, self._heads, -1).unbind(1)
            written[0, :rows, :, now], written[1, :rows, :, now] = keys, values
            own_keys, own_values = written[:, :rows, :, : now + 1]
            # All rows of an item ask its prefix at once; what a row has written it asks alone.
            asking = groups.gather(queries * self._scale).transpose(1, 2)  # (B, H, rows of an item, d)
            scores = asking @ prefix_keys.transpose(2, 3)
            if self._hidden_places is not None:
                scores = scores.masked_fill(self._hidden_places, NEVER)
            own_scores = own_keys @ (queries * self._scale)[..., None]  # (R, H, L, 1)
            scores = torch.cat((groups.scatter(scores.transpose(1, 2)), own_scores[..., 0]), dim=2)  # (R, H, Q + L)
            of_prefix, own = scores.softmax(dim=2).split((prefix_keys.shape[2], now + 1), dim=2)
            mixed = groups.scatter((groups.gather(of_prefix).transpose(1, 2) @ prefix_values).transpose(1, 2))
            mixed = mixed + (own[:, :, None] @ own_values)[:, :, 0]
            hidden = hidden + block.attn.c_proj(mixed.flatten(1))
            hidden = hidden + block.mlp(block.ln_2(hidden))
        self._length += 1
        return self._gpt2.lm_head(gpt2.ln_f(hidden))

    def _read(self, prefix: Tensor) -> Tensor:
        """Run the prefixes (B, Q, E), keep their keys and values -> the last real state of each (B, E)."""
        gpt2 = self._gpt2.transformer
        hidden = prefix + gpt2.wpe.weight[: prefix.shape[1]]
        for block in gpt2.h:
            projected = block.attn.c_attn(block.ln_1(hidden)).unflatten(2, (3, self._heads, -1))
            queries, keys, values = projected.permute(2, 0, 3, 1, 4).contiguous()
            self._prefixes.append((keys, values))
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            hidden = hidden + block.attn.c_proj(mixed.transpose(1, 2).flatten(2))
            hidden = hidden + block.mlp(block.ln_2(hidden))
        return gpt2.ln_f(hidden[self._item_of_row, self._prefix_lengths - 1])

    def _select(self, parents: Tensor) -> None:
        """Row i goes on from what is now row ``parents[i]`` (R,)."""
        written = self._written[:, :, :, :, : self._length]
        if self._length and not torch.equal(parents, torch.arange(len(parents), device=parents.device)):
            written[:, :, : len(parents)] = written[:, :, parents]
        self._item_of_row = self._item_of_row[parents]
        items, self._item_of_row = self._item_of_row.unique(return_inverse=True)
        if len(items) < len(self._prefix_lengths):
            self._prefixes = [(keys[items], values[items]) for keys, values in self._prefixes]
            self._prefix_lengths = self._prefix_lengths[items]
            self._hidden_places = None if self._hidden_places is None else self._hidden_places[items]
