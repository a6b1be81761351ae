"""Conformer with relative positions: the bridge between the audio encoder and the caption decoder.

Gulati et al., "Conformer", arXiv 2005.08100, with the relative attention of Transformer-XL (Dai et al., arXiv
1901.02860, section 3.3), in the arrangement and with the parameter names of the wav2vec2-Conformer that Wu et al.
(arXiv 2309.17352) put behind BEATs.

Shapes: B batch, T steps, D hidden size, H heads, d = D / H. Masks are boolean (B, T), True = real.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ConformerConfig:
    """Sizes under their published names; the defaults are the released captioner's."""

    hidden_size: int = 768
    num_hidden_layers: int = 2
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    conv_depthwise_kernel_size: int = 31
    layer_norm_eps: float = 1e-5
    hidden_dropout: float = 0.1  # on the input, and after the second linear of each feed-forward block
    activation_dropout: float = 0.1  # after the activation of each feed-forward block
    attention_dropout: float = 0.1  # on attention probabilities and on the attention output
    conformer_conv_dropout: float = 0.1
    layerdrop: float = 0.0  # probability of skipping a whole layer in training
    # Released files carry a positional convolution that no forward pass uses. True keeps its tensors, so that such a
    # file loads strictly and saves unchanged; models trained here do without.
    keep_unused_pos_conv: bool = False
    num_conv_pos_embeddings: int = 128  # kernel of that unused convolution
    num_conv_pos_embedding_groups: int = 16

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide.

        Raises:
            ValueError: heads do not divide the hidden size, or the depthwise kernel is even.
        """
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not divide the hidden size {self.hidden_size}")
        if self.conv_depthwise_kernel_size % 2 == 0:
            raise ValueError(f"conv_depthwise_kernel_size must be odd, got {self.conv_depthwise_kernel_size}")


class Conformer(nn.Module):
    """Stack of Conformer layers with a final LayerNorm.

    With ``released_padding`` False the real steps of a padded batch come out exactly as without padding, and batch
    statistics count real steps only. True reproduces the released code: padded steps leak into their neighbours through
    the depthwise convolutions and count in the batch statistics.
    """

    def __init__(self, config: ConformerConfig, released_padding: bool = False) -> None:
        super().__init__()
        self.released_padding = released_padding
        self.layerdrop = config.layerdrop
        if config.keep_unused_pos_conv:
            self.pos_conv_embed = UnusedPositionalConv(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_hidden_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D), mask (B, T) or None -> (B, T, D). What comes out at padded steps means nothing."""
        if mask is not None:
            hidden = hidden.masked_fill(~mask.unsqueeze(-1), 0.0)
        hidden = self.dropout(hidden)
        positions = relative_positions(hidden.shape[1], hidden.shape[2], hidden.device).to(hidden.dtype)
        conv_mask = None if self.released_padding else mask
        for layer in self.layers:
            if self.training and self.layerdrop > 0.0 and torch.rand(()).item() < self.layerdrop:
                continue
            hidden = layer(hidden, positions, mask, conv_mask)
        return self.layer_norm(hidden)


class ConformerLayer(nn.Module):
    """Half feed-forward, relative attention, convolution, half feed-forward, LayerNorm (Gulati et al., equation 1)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.ffn1_layer_norm = nn.LayerNorm(size, eps=eps)
        self.ffn1 = FeedForward(config)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps=eps)
        self.self_attn = RelativeAttention(config)
        self.self_attn_dropout = nn.Dropout(config.attention_dropout)
        self.conv_module = ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(size, eps=eps)
        self.ffn2 = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(size, eps=eps)

    def forward(self, hidden: Tensor, positions: Tensor, mask: Tensor | None, conv_mask: Tensor | None) -> Tensor:
        """(B, T, D), positions (2T, D), masks (B, T) for the attention and for the convolution -> (B, T, D)."""
        hidden = hidden + 0.5 * self.ffn1(self.ffn1_layer_norm(hidden))
        attended = self.self_attn(self.self_attn_layer_norm(hidden), positions, mask)
        hidden = hidden + self.self_attn_dropout(attended)
        hidden = hidden + self.conv_module(hidden, conv_mask)
        return self.final_layer_norm(hidden + 0.5 * self.ffn2(self.ffn2_layer_norm(hidden)))


class FeedForward(nn.Module):
    """Linear, swish, dropout, linear, dropout."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = self.intermediate_dropout(F.silu(self.intermediate_dense(hidden)))
        return self.output_dropout(self.output_dense(hidden))


class RelativeAttention(nn.Module):
    """Self-attention whose score sees content and distance (Transformer-XL, section 3.3)::

    score(i, j) = ((q_i + u) . k_j + (q_i + v) . P_{i-j}) / sqrt(d)
    """

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.n_heads = config.num_attention_heads
        self.head_size = size // self.n_heads
        self.dropout_probability = config.attention_dropout
        self.linear_q = nn.Linear(size, size)
        self.linear_k = nn.Linear(size, size)
        self.linear_v = nn.Linear(size, size)
        self.linear_out = nn.Linear(size, size)
        self.linear_pos = nn.Linear(size, size, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.n_heads, self.head_size))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.n_heads, self.head_size))

    def forward(self, hidden: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D), positions (2T, D), mask (B, T) or None -> (B, T, D)."""
        query, key, value = (
            self._heads(project(hidden)) for project in (self.linear_q, self.linear_k, self.linear_v)
        )  # each (B, H, T, d)
        projected_positions = self._heads(self.linear_pos(positions))  # (H, 2T, d)
        by_distance = (query + self.pos_bias_v.unsqueeze(1)) @ projected_positions.transpose(-1, -2)  # (B, H, T, 2T)
        bias = distance_to_key(by_distance) / math.sqrt(self.head_size)
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None, :], -math.inf)
        attended = F.scaled_dot_product_attention(
            query + self.pos_bias_u.unsqueeze(1),
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout_probability if self.training else 0.0,
        )
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.n_heads, self.head_size)).transpose(-2, -3)


class ConvolutionModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise, BatchNorm, swish, pointwise, dropout; no biases in the convolutions."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.conv_depthwise_kernel_size
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.pointwise_conv1 = nn.Conv1d(size, 2 * size, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(size, size, kernel, padding=kernel // 2, groups=size, bias=False)
        self.batch_norm = nn.BatchNorm1d(size)
        self.pointwise_conv2 = nn.Conv1d(size, size, 1, bias=False)
        self.dropout = nn.Dropout(config.conformer_conv_dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D), mask (B, T) of the steps that may be seen, None = all -> (B, T, D)."""
        hidden = self.layer_norm(hidden).transpose(1, 2)
        hidden = F.glu(self.pointwise_conv1(hidden), dim=1)
        if mask is not None:
            hidden = hidden.masked_fill(~mask.unsqueeze(1), 0.0)
        hidden = self._normalise(self.depthwise_conv(hidden), mask)
        return self.dropout(self.pointwise_conv2(F.silu(hidden)).transpose(1, 2))

    def _normalise(self, channels: Tensor, mask: Tensor | None) -> Tensor:
        """BatchNorm of (B, D, T); while statistics are gathered, over real steps only. Padded steps become 0."""
        if mask is None or not self.training:
            return self.batch_norm(channels)
        steps = channels.transpose(1, 2)
        normalised = torch.zeros_like(steps)
        normalised[mask] = self.batch_norm(steps[mask]).to(steps.dtype)
        return normalised.transpose(1, 2)


class UnusedPositionalConv(nn.Module):
    """Tensors of the weight-normalised positional convolution that released files store and no forward pass reads."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.num_conv_pos_embeddings
        self.conv = nn.Module()
        shapes = {
            "bias": (size,),
            "weight_g": (1, 1, kernel),
            "weight_v": (size, size // config.num_conv_pos_embedding_groups, kernel),
        }
        for name, shape in shapes.items():
            self.conv.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))


def relative_positions(length: int, size: int, device: torch.device | None = None) -> Tensor:
    """Sinusoids of the distances ``length - 1, ..., 0, ..., -length`` (query minus key) -> (2 * length, size), float32.

    Sine and cosine alternate along the last axis. The last row belongs to no pair of steps; it is there for
    :func:`distance_to_key`.
    """
    distances = torch.arange(length - 1, -length - 1, -1, dtype=torch.float32, device=device)
    frequencies = torch.exp(torch.arange(0, size, 2, dtype=torch.float32, device=device) * (-math.log(10000.0) / size))
    angles = distances.unsqueeze(1) * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def distance_to_key(by_distance: Tensor) -> Tensor:
    """Scores by distance (..., T, 2T), columns as in :func:`relative_positions`, -> scores by key (..., T, T).

    Query i and key j meet in column T-1-i+j, hence at offset (T-1) + i * (2T-1) + j of the flattened rows: the wanted
    matrix is a view of row length 2T-1 from offset T-1. Nothing is copied or gathered.
    """
    length = by_distance.shape[-2]
    rows = by_distance.flatten(-2)[..., length - 1 : length - 1 + length * (2 * length - 1)]
    return rows.unflatten(-1, (length, 2 * length - 1))[..., :length]
