"""Pengi's bridge: a vector into the joint width, and from there to rows that a language model reads as if tokens.

Deshmukh et al., "Pengi: An Audio Language Model for Audio Tasks", arXiv 2305.11834, section 3; the mapping network is
that of ClipCap (Mokady et al., arXiv 2111.09734). Parameters bear the names of the released files.

Shapes: B items, V width of a vector, D joint width, R rows given, P rows returned, E width of the language model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DROPOUT = 0.5


class ProjectionHead(nn.Module):
    """Linear, GELU, linear; the residual sum is normalised. It brings audio and text to one width."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_width, width, bias=False)
        self.linear2 = nn.Linear(width, width, bias=False)
        self.layer_norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, vector: Tensor) -> Tensor:
        """(..., V) -> (..., D)."""
        first: Tensor = self.linear1(vector)
        second = F.dropout(self.linear2(F.gelu(first)), DROPOUT, self.training)
        normalised: Tensor = self.layer_norm(first + second)
        return normalised


class MappingNetwork(nn.Module):
    """What is known about a sound or a prompt -> ``prefix_length`` rows for the language model.

    A transformer reads the rows given and behind them as many learned constants as it is to return; what the constants
    have become is the result. It sees no positions, and all rows see one another.

    In the *vector form* a linear layer makes the rows out of one vector; in the *token form* they are given.
    """

    def __init__(
        self,
        width: int,
        prefix_length: int,
        *,
        layers: int,
        heads: int,
        mlp_ratio: float = 2.0,
        vector_width: int | None = None,
        vector_rows: int = 0,
    ) -> None:
        """Make the vector form, or without ``vector_width`` the token form.

        Args:
            width: E.
            prefix_length: P.
            layers: of the transformer.
            heads: of its attention.
            mlp_ratio: width of its feed-forward networks / E.
            vector_width: D.
            vector_rows: into how many rows the linear layer turns a vector.

        Raises:
            ValueError: the heads do not divide the width.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width} of a mapping network")
        self.width = width
        if vector_width is not None:
            self.linear = nn.Linear(vector_width, vector_rows * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))
        self.transformer = MappingTransformer(width, layers, heads, round(width * mlp_ratio))

    def forward(self, known: Tensor) -> Tensor:
        """Vectors (B, D), or in the token form rows (B, R, E), -> (B, P, E)."""
        rows = self.linear(known).unflatten(1, (-1, self.width)) if known.dim() == 2 else known
        rows = torch.cat((rows, self.prefix_const.expand(len(rows), -1, -1)), dim=1)
        return self.transformer(rows)[:, -len(self.prefix_const) :]


class MappingTransformer(nn.Module):
    """Layers, one after the other, and no norm behind them."""

    def __init__(self, width: int, layers: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MappingLayer(width, heads, hidden) for _ in range(layers))

    def forward(self, rows: Tensor) -> Tensor:
        """(B, R, E) -> (B, R, E)."""
        for layer in self.layers:
            rows = layer(rows)
        return rows


class MappingLayer(nn.Module):
    """Attention and feed-forward network, each normalised first and added."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = MappingAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, rows: Tensor) -> Tensor:
        """(B, R, E) -> (B, R, E)."""
        rows = rows + self.attn(self.norm1(rows))
        return rows + self.mlp["fc2"](F.relu(self.mlp["fc1"](self.norm2(rows))))


class MappingAttention(nn.Module):
    """Multi-head self attention of all rows to all rows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, R, E) -> (B, R, E)."""
        queries = self.to_queries(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
        keys, values = self.to_keys_values(rows).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.project(mixed.transpose(1, 2).flatten(2))
