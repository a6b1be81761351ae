"""The decoder half of BART (Lewis et al., arXiv 1910.13461), for teacher forcing and for writing token by token.

Parameters bear the names of the published checkpoints below ``decoder.``. The layers normalise after each residual sum;
positions are learned.

Many sequences may attend to one memory (50 candidate captions of one clip). Its cross-attention keys and values are
computed once, and the sequences are the *queries* of one attention call: nothing is ever copied per sequence.

Shapes: R rows (sequences), L tokens, B memories, S memory steps, D model width, H heads, d = D / H, G rows a memory.
Masks are boolean, True = real; None = all real.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITION_OFFSET = 2  # the position table begins with two rows that are never used

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True)
class BartDecoderConfig:
    """Sizes and dropouts; the defaults are those of the published captioner."""

    vocab_size: int = 50265
    d_model: int = 768
    layers: int = 6
    heads: int = 16
    ffn_dim: int = 3072
    max_positions: int = 128  # tokens at most
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    scale_embedding: bool = False  # multiply token embeddings by sqrt(d_model)
    activation: Literal["gelu", "relu"] = "gelu"
    pad_token_id: int = 1  # its embedding receives no gradient
    init_std: float = 0.02

    def __post_init__(self) -> None:
        """Refuse widths that the heads do not divide.

        Raises:
            ValueError: ``d_model`` is no multiple of ``heads``.
        """
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is no multiple of heads {self.heads}")


class BartDecoder(nn.Module):
    """Token ids and memory to hidden states; the caller owns the output layer."""

    def __init__(self, config: BartDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.embed_positions = nn.Embedding(config.max_positions + POSITION_OFFSET, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx].detach())

    def embed(self, input_ids: Tensor, first_position: int = 0) -> Tensor:
        """Token ids (R, L) at positions ``first_position`` onwards -> (R, L, D), normalised.

        Raises:
            ValueError: a position is beyond the table.
        """
        end = first_position + input_ids.shape[1]
        if end > self.config.max_positions:
            raise ValueError(f"{end} tokens are more than the decoder's {self.config.max_positions} positions")
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        positions = self.embed_positions.weight[POSITION_OFFSET + first_position : POSITION_OFFSET + end]
        return self.layernorm_embedding(self.embed_tokens(input_ids) * scale + positions)

    def hidden_states(
        self, input_ids: Tensor, memory: Tensor, memory_mask: Tensor | None = None, memory_of_row: Tensor | None = None
    ) -> list[Tensor]:
        """All states of :meth:`forward`: the embedding and the output of each layer, ``layers + 1`` times (R, L, D)."""
        groups = group_rows(len(input_ids), len(memory), memory_of_row, memory.device)
        hidden = F.dropout(self.embed(input_ids), self.config.dropout, self.training)
        states = [hidden]
        for layer in cast("list[DecoderLayer]", list(self.layers)):
            hidden = layer(hidden, layer.encoder_attn.keys_and_values(memory), broadcastable(memory_mask), groups)
            states.append(hidden)
        return states

    def forward(
        self, input_ids: Tensor, memory: Tensor, memory_mask: Tensor | None = None, memory_of_row: Tensor | None = None
    ) -> Tensor:
        """Whole sequences at once, each token seeing those before it.

        Args:
            input_ids: (R, L). Padding on the right needs no mask: no real token sees it.
            memory: (B, S, D).
            memory_mask: (B, S).
            memory_of_row: (R,), which memory each row attends to; None = row i to memory i, so R = B.

        Returns:
            Hidden states (R, L, D).

        Raises:
            ValueError: more tokens than positions, or rows and memories that do not fit.
        """
        return self.hidden_states(input_ids, memory, memory_mask, memory_of_row)[-1]

    def start(
        self, memory: Tensor, memory_mask: Tensor | None = None, *, max_length: int, max_rows: int
    ) -> "CachedDecoding":
        """Begin to write, with one row for each memory; see :class:`CachedDecoding`."""
        return CachedDecoding(self, memory, memory_mask, max_length=max_length, max_rows=max_rows)


class DecoderLayer(nn.Module):
    """Self attention, cross attention, feed-forward; a LayerNorm after each residual sum."""

    def __init__(self, config: BartDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self, hidden: Tensor, memory: tuple[Tensor, Tensor], memory_mask: Tensor | None, groups: "Groups"
    ) -> Tensor:
        """(R, L, D) -> (R, L, D), causally.

        Args:
            hidden: (R, L, D).
            memory: the cross attention's keys and values, each (B, H, S, d).
            memory_mask: (B, 1, 1, S).
            groups: which rows attend to which memory.
        """
        keys, values = self.self_attn.keys_and_values(hidden)
        queries = self.self_attn.heads_first(self.self_attn.q_proj(hidden))
        return self.after_self_attention(
            hidden, self.self_attn.attend(queries, keys, values, causal=True), memory, memory_mask, groups
        )

    def after_self_attention(
        self,
        hidden: Tensor,
        attended: Tensor,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor | None,
        groups: "Groups",
    ) -> Tensor:
        """The rest of the layer, given what self attention found: both (R, L, D) -> (R, L, D)."""
        config = self.config
        hidden = self.self_attn_layer_norm(hidden + F.dropout(attended, config.dropout, self.training))

        cross = self.encoder_attn
        grouped = groups.gather(cross.q_proj(hidden))  # (B, G, L, D)
        attended = cross.attend(cross.heads_first(grouped.flatten(1, 2)), *memory, mask=memory_mask)
        attended = groups.scatter(attended.view(grouped.shape))
        hidden = self.encoder_attn_layer_norm(hidden + F.dropout(attended, config.dropout, self.training))

        inner = F.dropout(_ACTIVATIONS[config.activation](self.fc1(hidden)), config.activation_dropout, self.training)
        return self.final_layer_norm(hidden + F.dropout(self.fc2(inner), config.dropout, self.training))


class Attention(nn.Module):
    """The four projections of a multi-head attention."""

    def __init__(self, config: BartDecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def heads_first(self, projected: Tensor) -> Tensor:
        """(N, L, D) -> (N, H, L, d), a view."""
        return projected.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, D) -> keys and values, each (N, H, S, d)."""
        return self.heads_first(self.k_proj(source)), self.heads_first(self.v_proj(source))

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Queries (N, H, L, d), keys and values (N, H, S, d), mask (N, 1, 1, S) -> the projected result (N, L, D)."""
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask, dropout, causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


# ------------------------------------------------------------------------------------------ rows that share a memory


@dataclass(frozen=True)
class Groups:
    """Rows that attend to the same memory stand side by side as the queries of one attention call."""

    shape: tuple[int, int]  # (B, G), G the largest number of rows of one memory
    row_at: Tensor | None  # (B, G): the row at each place, 0 where there is none; None = rows are in order, no gaps
    place_of: Tensor | None  # (R,): the place of each row in the flattened table

    def gather(self, rows: Tensor) -> Tensor:
        """(R, ...) -> (B, G, ...)."""
        return rows.unflatten(0, self.shape) if self.row_at is None else rows[self.row_at]

    def scatter(self, grouped: Tensor) -> Tensor:
        """(B, G, ...) -> (R, ...)."""
        flat = grouped.flatten(0, 1)
        return flat if self.place_of is None else flat[self.place_of]


def group_rows(n_rows: int, n_memories: int, memory_of_row: Tensor | None, device: torch.device) -> Groups:
    """Sort rows by the memory they attend to.

    Args:
        n_rows: R.
        n_memories: B.
        memory_of_row: (R,); None = row i to memory i.
        device: of the tables.

    Raises:
        ValueError: ``memory_of_row`` is None and R is not B.
    """
    if memory_of_row is None:
        if n_rows != n_memories:
            raise ValueError(f"{n_rows} rows and {n_memories} memories: say which row attends to which")
        return Groups((n_memories, 1), None, None)
    if n_memories == 1:
        return Groups((1, n_rows), None, None)
    memory_of_row = memory_of_row.cpu()  # a few hundred numbers: no work for an accelerator
    row = torch.arange(n_rows)
    order = memory_of_row.argsort(stable=True)
    counts = torch.bincount(memory_of_row, minlength=n_memories)
    width = int(counts.max())
    rank = row - (counts.cumsum(0) - counts)[memory_of_row[order]]
    place_of = torch.empty_like(order)
    place_of[order] = memory_of_row[order] * width + rank
    if n_rows == n_memories * width and torch.equal(order, row):
        return Groups((n_memories, width), None, None)
    row_at = order.new_zeros(n_memories * width).index_copy_(0, place_of, row)
    return Groups((n_memories, width), row_at.view(n_memories, width).to(device), place_of.to(device))


def broadcastable(memory_mask: Tensor | None) -> Tensor | None:
    """(B, S) -> (B, 1, 1, S)."""
    return None if memory_mask is None else memory_mask[:, None, None, :]


# ------------------------------------------------------------------------------------------ writing token by token


class CachedDecoding:
    """Sequences being written: a step costs one token a row, whatever has been written before.

    It begins with one row a memory. :meth:`select` says which rows go on: it drops rows, copies them (a beam splits, or
    candidates that agreed so far part) and reorders them. Rows that are dropped cost nothing any more.

    Attributes:
        memory_of_row: (R,) on the CPU, which memory each row attends to.
        length: tokens written so far.
    """

    def __init__(
        self, decoder: BartDecoder, memory: Tensor, memory_mask: Tensor | None, *, max_length: int, max_rows: int
    ) -> None:
        """Compute the memory's keys and values; reserve room for ``max_rows`` rows of ``max_length`` tokens.

        Raises:
            ValueError: ``max_length`` is more than the decoder has positions.
        """
        config = decoder.config
        if max_length > config.max_positions:
            raise ValueError(f"{max_length} tokens are more than the decoder's {config.max_positions} positions")
        self.length = 0
        self._decoder = decoder
        self._layers = cast("list[DecoderLayer]", list(decoder.layers))
        self.memory_of_row = torch.arange(len(memory))
        self._memory_mask = broadcastable(memory_mask)
        self._n_memories = len(memory)
        self._groups = group_rows(len(memory), len(memory), None, memory.device)
        self._memory: list[tuple[Tensor, Tensor]] = []
        self._qkv: list[tuple[Tensor, Tensor]] = []
        for layer in self._layers:
            keys, values = layer.encoder_attn.keys_and_values(memory)
            self._memory.append((keys.contiguous(), values.contiguous()))
            projections = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
            weight = torch.cat([projection.weight for projection in projections])
            self._qkv.append((weight, torch.cat([projection.bias for projection in projections])))
        self._cache = memory.new_empty(config.layers, 2, max_rows, max_length, config.d_model)  # 2: keys, values

    @property
    def n_rows(self) -> int:
        """Rows being written."""
        return len(self.memory_of_row)

    def step(self, token_ids: Tensor) -> Tensor:
        """Append a token to each row: (R,) -> the hidden state (R, D) that predicts the next one.

        Raises:
            ValueError: more tokens than ``max_length``.
        """
        if self.length == self._cache.shape[3]:
            raise ValueError(f"the cache was made for {self.length} tokens")
        n_rows, end = self.n_rows, self.length + 1
        hidden = self._decoder.embed(token_ids[:, None], self.length)  # (R, 1, D)
        for layer, (weight, bias), memory, cache in zip(
            self._layers, self._qkv, self._memory, self._cache, strict=True
        ):
            attention = layer.self_attn
            queries, keys, values = F.linear(hidden, weight, bias).chunk(3, dim=2)
            cache[0, :n_rows, self.length] = keys[:, 0]
            cache[1, :n_rows, self.length] = values[:, 0]
            past_keys, past_values = (attention.heads_first(past) for past in cache[:, :n_rows, :end])
            attended = attention.attend(attention.heads_first(queries), past_keys, past_values)
            hidden = layer.after_self_attention(hidden, attended, memory, self._memory_mask, self._groups)
        self.length = end
        return hidden[:, 0]

    def select(self, parents: Tensor) -> None:
        """Row i goes on from what is now row ``parents[i]`` (R',); rows nobody names are dropped.

        Only rows whose number changes are moved, so an order that leaves most in place is cheap (:func:`settled`).
        """
        parents = parents.cpu()
        moved = (parents != torch.arange(len(parents))).nonzero()[:, 0]
        if len(moved) == 0 and len(parents) == self.n_rows:
            return
        device = self._cache.device
        written = self._cache[:, :, :, : self.length]
        written.index_copy_(2, moved.to(device), written.index_select(2, parents[moved].to(device)))
        self.memory_of_row = self.memory_of_row[parents]
        self._groups = group_rows(len(parents), self._n_memories, self.memory_of_row, device)


def settled(parents: Tensor) -> Tensor:
    """An order of ``parents`` (R,), ascending, that leaves as many rows as it can where they are.

    Returns:
        (R,) indices into ``parents``: ``parents[order][i] == i`` wherever row i goes on and there is such a place.
    """
    n_rows = len(parents)
    first = torch.ones_like(parents, dtype=torch.bool)
    first[1:] = parents[1:] != parents[:-1]
    stays = first & (parents < n_rows)
    free = torch.ones_like(stays)
    free[parents[stays]] = False
    order = torch.empty_like(parents)
    order[parents[stays]] = stays.nonzero()[:, 0]
    order[free] = (~stays).nonzero()[:, 0]
    return order
