"""BEATs: a transformer that reads sound as 16 x 16 patches of a log-mel filterbank.

Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", arXiv 2212.09058 (ICML 2023). Parameters bear the
names of the released checkpoints, which load as they are:

>>> model = BEATs.from_checkpoint("BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt1.pt").eval()
>>> with torch.inference_mode():
...     tokens = model(waveform)                              # (batch, samples) at 16 kHz, in [-1, 1]
...     probabilities = model.classify(waveform)              # (batch, 527)
>>> tokens.hidden.shape                                       # 10 s: 62 columns of 160 ms by 8 bands
torch.Size([1, 496, 768])
>>> model.config.labels[int(probabilities[0].argmax())]
'/m/09x0r'

A clip's way: waveform -> log-mel -> patches, time first, the 8 bands of a column next to one another -> convolutional
positions -> post-norm layers whose attention adds a relative bias, gated by the query.

Shapes: B clips, N samples, T frames (100 a second), L tokens (49.6 a second), D width, H heads, d = D / H. Masks are
boolean, True = real, and the real part of a clip stands first.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.checkpoint import find_model, load_config, load_into, load_weights, read_foreign
from aural.config import config_from_dict
from aural.errors import CheckpointError
from aural.features import FRAME_LENGTH, HOP_LENGTH, N_MELS, beats_fbank, frame_count
from aural.padding import lengths_to_mask

INIT_STD = 0.02
BIAS_AT_ONCE = 2**22
"""Numbers of gated bias made at a time on the CPU (16 MB, all of a clip of 13 s)."""


@dataclass(frozen=True)
class BeatsConfig:
    """The ``cfg`` of a released checkpoint under its own names, with the defaults of its code; :data:`BASE` is what was
    released, and several of the defaults are not.
    """

    input_patch_size: int = -1  # frames and mel bands of a patch; must be given, released: 16
    embed_dim: int = 512  # width of a patch before it is brought to the encoder's
    conv_bias: bool = False  # whether the patch convolution has one
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: Literal["gelu", "gelu_accurate", "gelu_fast", "relu", "tanh", "swish", "linear", "glu"] = "gelu"
    layer_wise_gradient_decay_ratio: float = 1.0  # gradients shrink by this on their way through each layer
    layer_norm_first: bool = False
    deep_norm: bool = False  # residuals weighted as in DeepNet, arXiv 2203.00555
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0  # probability of skipping a whole layer in training
    dropout_input: float = 0.0
    conv_pos: int = 128  # kernel of the positional convolution
    conv_pos_groups: int = 16
    relative_position_embedding: bool = False
    num_buckets: int = 320
    max_distance: int = 1280
    gru_rel_pos: bool = False  # whether queries gate the relative bias
    finetuned_model: bool = False  # whether there is a classifier
    predictor_dropout: float = 0.1
    predictor_class: int = 527
    # False: a padded clip gives the numbers it gives alone. True: the released rules, by which masks are rounded and
    # frames at the end of a clip see the padding.
    released_padding: bool = False
    labels: tuple[str, ...] = ()  # what the classifier's outputs are called; () = unknown

    def __post_init__(self) -> None:
        """Refuse what no network can be built from.

        Raises:
            ValueError: says which settings do not fit.
        """
        if self.input_patch_size < 1 or N_MELS % self.input_patch_size:
            raise ValueError(
                f"input_patch_size must divide {N_MELS}, got {self.input_patch_size}: it comes with a checkpoint, 16 "
                "in all that were released"
            )
        if self.encoder_embed_dim % self.encoder_attention_heads:
            raise ValueError(
                f"{self.encoder_attention_heads} heads do not divide the encoder_embed_dim {self.encoder_embed_dim}"
            )
        if self.encoder_embed_dim % self.conv_pos_groups:
            raise ValueError(
                f"{self.conv_pos_groups} conv_pos_groups do not divide the encoder_embed_dim {self.encoder_embed_dim}"
            )
        if self.deep_norm and self.layer_norm_first:
            raise ValueError("deep_norm and layer_norm_first exclude each other")
        if self.labels and len(self.labels) != self.predictor_class:
            raise ValueError(f"{len(self.labels)} labels for {self.predictor_class} classes")

    @property
    def bands(self) -> int:
        """Tokens of a column of patches: 8."""
        return N_MELS // self.input_patch_size


BASE = BeatsConfig(
    input_patch_size=16,
    layer_wise_gradient_decay_ratio=0.6,
    deep_norm=True,
    dropout=0.0,
    attention_dropout=0.0,
    encoder_layerdrop=0.05,
    relative_position_embedding=True,
    max_distance=800,
    gru_rel_pos=True,
    finetuned_model=True,
    predictor_dropout=0.0,
)
"""The released base model, fine-tuned on AudioSet: 90.7 M parameters."""


@dataclass(frozen=True)
class BeatsOutput:
    """What :class:`BEATs` makes of a batch; rows at padded tokens mean nothing."""

    hidden: Tensor  # (B, L, D); token t * 8 + f is column t, band f
    mask: Tensor  # (B, L)
    hidden_states: tuple[Tensor, ...] | None = None  # the first layer's input, then each layer's output, if asked for


class BEATs(nn.Module):
    """Waveform -> tokens, and for fine-tuned models the probability of each class."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj: nn.Linear | None = None
        if config.embed_dim != config.encoder_embed_dim:
            self.post_extract_proj = nn.Linear(config.embed_dim, config.encoder_embed_dim)
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Encoder(config)
        self.predictor: nn.Linear | None = None
        if config.finetuned_model:
            self.predictor_dropout = nn.Dropout(config.predictor_dropout)
            self.predictor = nn.Linear(config.encoder_embed_dim, config.predictor_class)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], *, released_padding: bool = False) -> "BEATs":
        """Load released weights, in evaluation mode.

        Args:
            path: a released ``.pt`` file, or what ``aural convert`` made of it: a model folder, its name or its hub id.
            released_padding: see :class:`BeatsConfig`.

        Raises:
            CheckpointError: not such a file, settings that this package lacks, or tensors that do not fit them.
            UsageError: there is nothing of that name.
        """
        if Path(path).is_file():
            content = read_foreign(path)
            if not isinstance(content.get("cfg"), dict) or not isinstance(content.get("model"), dict):
                raise CheckpointError(f"{path} is no BEATs checkpoint: it should hold cfg and model")
            config = official_config(content["cfg"], content.get("label_dict"))
            weights = content["model"]
        else:
            folder = find_model(path, "beats")
            config, weights = load_config(folder, BeatsConfig, "beats"), load_weights(folder)
        with torch.device("meta"):
            model = cls(replace(config, released_padding=released_padding))
        load_into(model, weights)
        return model.eval()

    @property
    def min_samples(self) -> int:
        """Samples that fill one column of patches: 2800."""
        return FRAME_LENGTH + (self.config.input_patch_size - 1) * HOP_LENGTH

    def max_samples(self, n_tokens: int) -> int:
        """Longest clip, in samples, that gives at most n_tokens tokens."""
        n_frames = (n_tokens // self.config.bands + 1) * self.config.input_patch_size - 1
        return FRAME_LENGTH + n_frames * HOP_LENGTH - 1

    def forward(
        self,
        waveform: Tensor,
        mask: Tensor | None = None,
        *,
        tapped_layer: int | None = None,
        hidden_states: bool = False,
    ) -> BeatsOutput:
        """Encode clips.

        Args:
            waveform: (B, N) at 16 kHz in [-1, 1]. A clip under 2800 samples is followed by silence up to there, which
                counts as real.
            mask: (B, N); None = all real.
            tapped_layer: run so many layers and give the last one's output as it is; 0 is the first layer's input.
                None = all of them, and the final LayerNorm if the model has one.
            hidden_states: keep the first layer's input and each layer's output.

        Raises:
            ValueError: there is no such layer.
        """
        fbank, frame_mask = self.fbank(waveform, mask)
        return self.encode_fbank(fbank, frame_mask, tapped_layer, hidden_states=hidden_states)

    def fbank(self, waveform: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Waveform (B, N) and its mask (B, N) -> normalised log-mel (B, T, 128) and its mask (B, T)."""
        if mask is None:
            mask = torch.ones_like(waveform, dtype=torch.bool)
        missing = max(0, self.min_samples - waveform.shape[1])
        waveform = F.pad(waveform.masked_fill(~mask, 0.0), (0, missing))
        fbank = beats_fbank(waveform)
        if self.config.released_padding:
            return fbank, reduce_mask(F.pad(mask, (0, missing), value=True), fbank.shape[1])
        n_frames = frame_count(mask.sum(dim=1).clamp_min(self.min_samples))
        return fbank, lengths_to_mask(n_frames, fbank.shape[1])

    def encode_fbank(
        self,
        fbank: Tensor,
        mask: Tensor | None = None,
        tapped_layer: int | None = None,
        *,
        hidden_states: bool = False,
    ) -> BeatsOutput:
        """Encode (B, T, 128) of :meth:`fbank`, perhaps spoilt by SpecAugment, and its mask (B, T); see :meth:`forward`.

        Raises:
            ValueError: not 128 bands, too few frames for one patch, or no such layer.
        """
        patch = self.config.input_patch_size
        if fbank.shape[1] < patch or fbank.shape[2] != N_MELS:
            raise ValueError(f"fbank must be at least {patch} frames of {N_MELS} bands, got {tuple(fbank.shape[1:])}")
        tokens = self.embed_patches(fbank)
        if mask is None:
            token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        elif self.config.released_padding:
            token_mask = reduce_mask(mask, tokens.shape[1])
        else:
            n_columns = (mask.sum(dim=1) // patch).clamp_min(1)
            token_mask = lengths_to_mask(n_columns * self.config.bands, tokens.shape[1])
        tokens = tokens.masked_fill(~token_mask.unsqueeze(2), 0.0)
        states: list[Tensor] | None = [] if hidden_states else None
        hidden = self.encoder(tokens, token_mask, tapped_layer, states)
        return BeatsOutput(hidden, token_mask, None if states is None else tuple(states))

    def embed_patches(self, fbank: Tensor) -> Tensor:
        """(B, T, 128) -> (B, L, D), L = floor(T / 16) * 8; the frames left over are dropped."""
        patch, bands = self.config.input_patch_size, self.config.bands
        n_columns = fbank.shape[1] // patch
        # A convolution whose patches do not overlap is a product of matrices; its rows come in the order of the tokens.
        patches = fbank[:, : n_columns * patch].reshape(-1, n_columns, patch, bands, patch).transpose(2, 3).flatten(3)
        weight = self.patch_embedding.weight.flatten(1)
        tokens = self.layer_norm(F.linear(patches.flatten(1, 2).flatten(2), weight, self.patch_embedding.bias))
        if self.post_extract_proj is not None:
            tokens = self.post_extract_proj(tokens)
        return self.dropout_input(tokens)

    def classify(self, waveform: Tensor, mask: Tensor | None = None) -> Tensor:
        """Probability of each class, independent of each other, (B, predictor_class); arguments as of :meth:`forward`.

        Raises:
            ValueError: the model has no classifier.
        """
        return self.probabilities(self(waveform, mask))

    def probabilities(self, output: BeatsOutput) -> Tensor:
        """:meth:`classify` from tokens: logits of each token, their mean over real tokens, sigmoid.

        Raises:
            ValueError: the model has no classifier.
        """
        if self.predictor is None:
            raise ValueError("this BEATs has no classifier: use a fine-tuned checkpoint (finetuned_model=True)")
        logits = self.predictor(self.predictor_dropout(output.hidden))
        logits = logits.masked_fill(~output.mask.unsqueeze(2), 0.0)
        return torch.sigmoid(logits.sum(dim=1) / output.mask.sum(dim=1, keepdim=True))


class Encoder(nn.Module):
    """Positional convolution and transformer layers; all layers share one table of relative biases."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv = nn.Sequential(PositionalConv(config))
        self.dropout = nn.Dropout(config.dropout)
        table = None
        if config.relative_position_embedding:
            table = nn.Embedding(config.num_buckets, config.encoder_attention_heads)
            nn.init.normal_(table.weight, std=INIT_STD)
        self.layers = nn.ModuleList(EncoderLayer(config, table) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)

    def forward(
        self, x: Tensor, mask: Tensor, tapped_layer: int | None = None, states: list[Tensor] | None = None
    ) -> Tensor:
        """Tokens (B, L, D), zero where padded, and mask (B, L) -> (B, L, D); see :meth:`BEATs.forward`.

        Args:
            x: the tokens.
            mask: of the tokens.
            tapped_layer: run so many layers only.
            states: a list to which the first layer's input and each layer's output are added.

        Raises:
            ValueError: there is no such layer.
        """
        n_layers = len(self.layers) if tapped_layer is None else tapped_layer
        if not 0 <= n_layers <= len(self.layers):
            raise ValueError(f"tapped_layer must lie in 0..{len(self.layers)}, got {tapped_layer}")
        x = x + self.pos_conv(x)
        if not self.config.layer_norm_first:
            x = self.layer_norm(x)
        x = self.dropout(x)
        bias = self.relative_bias(x.shape[1])
        if states is not None:
            states.append(x)
        for layer in self.layers[:n_layers]:
            if not self.training or torch.rand(()).item() >= self.config.encoder_layerdrop:
                x = layer(_shrink_gradient(x, self.config.layer_wise_gradient_decay_ratio), mask, bias)
            if states is not None:
                states.append(x)
        if self.config.layer_norm_first and tapped_layer is None:
            x = self.layer_norm(x)
        return x

    def relative_bias(self, n_tokens: int) -> Tensor | None:
        """The bias (H, L, L) of head, query and key before gating; None if the model has no such bias."""
        if not self.config.relative_position_embedding or not self.layers:
            return None
        table = self.get_parameter("layers.0.self_attn.relative_attention_bias.weight")
        distances = torch.arange(1 - n_tokens, n_tokens, device=table.device)
        buckets = relative_bucket(distances, self.config.num_buckets, self.config.max_distance)
        # It depends on key minus query alone: the row of query i is the window that begins at distance -i.
        return F.embedding(buckets, table).t().contiguous().unfold(1, n_tokens, 1).flip(1)


class PositionalConv(nn.Module):
    """GELU of a grouped convolution along the tokens, its weight normalised tap by tap: g_k * V_k / |V_k|."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        size, self.groups = config.encoder_embed_dim, config.conv_pos_groups
        self.bias = nn.Parameter(torch.zeros(size))
        weight = torch.empty(size, size // self.groups, config.conv_pos)
        nn.init.normal_(weight, std=math.sqrt(4 / (config.conv_pos * size)))
        self.weight_g = nn.Parameter(weight.norm(dim=(0, 1), keepdim=True))
        self.weight_v = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); an even kernel sees one token more of the past than of the future."""
        norm = self.weight_v.flatten(0, 1).square().sum(dim=0).sqrt()
        weight = self.weight_v * (self.weight_g / norm)
        # As an image one pixel high: tokens beside one another in memory are then what the fast kernels want as it is,
        # which takes the CPU two thirds of the time of conv1d.
        image = x.transpose(1, 2).unsqueeze(2)
        padding = (0, weight.shape[2] // 2)
        y = F.conv2d(image, weight.unsqueeze(2), self.bias, padding=padding, groups=self.groups)
        return F.gelu(y[:, :, 0, : x.shape[1]].transpose(1, 2))


class EncoderLayer(nn.Module):
    """Attention and feed-forward network, each with a residual and a LayerNorm."""

    def __init__(self, config: BeatsConfig, relative_attention_bias: nn.Embedding | None) -> None:
        super().__init__()
        size, hidden = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.norm_first = config.layer_norm_first
        self.alpha = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0
        self.activation = ACTIVATIONS[config.activation_fn]
        self.self_attn = SelfAttention(config, relative_attention_bias)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.fc1: nn.Linear | GatedLinear
        self.fc1 = GatedLinear(size, hidden) if config.activation_fn == "glu" else nn.Linear(size, hidden)
        self.fc2 = nn.Linear(hidden, size)
        self.final_layer_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self._initialise(config)

    def _initialise(self, config: BeatsConfig) -> None:
        """As BERT; with DeepNorm, Xavier-normal, smaller the deeper the stack (DeepNet, arXiv 2203.00555)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
        if not config.deep_norm:
            return
        attention, gain = self.self_attn, (8 * config.encoder_layers) ** -0.25
        fc1 = self.fc1.linear if isinstance(self.fc1, GatedLinear) else self.fc1
        for linear in (attention.q_proj, attention.k_proj):
            nn.init.xavier_normal_(linear.weight)
        for linear in (attention.v_proj, attention.out_proj, fc1, self.fc2):
            nn.init.xavier_normal_(linear.weight, gain)

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        """(B, L, D), mask (B, L) -> (B, L, D)."""
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), mask, bias))
            return x + self.feed_forward(self.final_layer_norm(x))
        attended = self.dropout(self.self_attn(x, mask, bias))
        x = self.self_attn_layer_norm(torch.add(attended, x, alpha=self.alpha))
        return self.final_layer_norm(torch.add(self.feed_forward(x), x, alpha=self.alpha))

    def feed_forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        if torch.is_grad_enabled() or self.training or not x.is_cpu or isinstance(self.fc1, GatedLinear):
            return self.dropout(self.fc2(self.activation_dropout(self.activation(self.fc1(x)))))
        # Laid out with tokens beside one another, the same product takes the CPU up to a tenth less time.
        hidden = torch.addmm(self.fc1.bias.unsqueeze(1), self.fc1.weight, x.flatten(0, 1).t())
        return self.fc2(self.activation(hidden).t()).view_as(x)


class GatedLinear(nn.Module):
    """``fc1`` under ``activation_fn="glu"``: one half of a linear function, times swish of the other."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., hidden)."""
        value, gate = self.linear(x).chunk(2, dim=-1)
        return value * F.silu(gate)


class SelfAttention(nn.Module):
    """Attention with a relative bias that each query turns up or down (Chi et al., arXiv 2106.16138)::

    score(i, j) = q_i . k_j / sqrt(d) + gate_i * R(j - i)
    gate_i = a * (b * grep_a - 1) + 2,   a, b = sigmoid(two linear functions of the unscaled q_i)
    """

    def __init__(self, config: BeatsConfig, relative_attention_bias: nn.Embedding | None) -> None:
        super().__init__()
        size = config.encoder_embed_dim
        self.n_heads = config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)
        self.relative_attention_bias = relative_attention_bias  # the encoder reads it, once for all layers
        self.gated = config.gru_rel_pos
        if self.gated:
            self.grep_linear = nn.Linear(size // self.n_heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.n_heads, 1, 1))

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        """(B, L, D), mask (B, L) of the keys -> (B, L, D)."""
        query, key, value = (
            projection(x).unflatten(2, (self.n_heads, -1)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, L, H, d)
        gate = self.gate(query) if self.gated and bias is not None else None
        mixed = attend(query, key, value, mask, bias, gate, self.dropout if self.training else 0.0)
        return self.out_proj(mixed.flatten(2))

    def gate(self, query: Tensor) -> Tensor:
        """Unscaled queries (B, L, H, d) -> gates (B, H, L, 1)."""
        # Each of a and b is the sum of four outputs of grep_linear: summed beforehand.
        weight = self.grep_linear.weight.unflatten(0, (2, 4)).sum(dim=1)
        bias = self.grep_linear.bias.unflatten(0, (2, 4)).sum(dim=1)
        a, b = F.linear(query, weight, bias).sigmoid().transpose(1, 2).split(1, dim=3)
        return a * (b * self.grep_a - 1) + 2


# ----------------------------------------------------------------------------------------------------------- functions


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax attention with an additive bias.

    Args:
        query: (B, L, H, d), unscaled.
        key: (B, L, H, d).
        value: (B, L, H, d).
        mask: (B, L), of the keys.
        bias: (H, L, L), added to the scores; None = 0.
        gate: (B, H, L, 1), factor of each query's bias; None = 1.
        dropout: probability of dropping an attention weight.

    Returns:
        (B, L, H, d).
    """
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if bias is None or query.is_cuda or torch.is_grad_enabled():
        added = mask[:, None, None, :]
        if bias is not None:
            added = torch.where(added, bias if gate is None else bias * gate, -torch.inf)
        return F.scaled_dot_product_attention(query, key, value, added, dropout).transpose(1, 2)
    # The gated bias of a whole batch would go out to main memory and back: that of some heads of a clip does not.
    mixed = torch.empty_like(query)
    n_tokens = query.shape[2]
    for clip, n_keys in enumerate(mask.sum(dim=1).tolist()):
        own, n_heads = slice(clip, clip + 1), max(1, BIAS_AT_ONCE // (n_tokens * n_keys))
        for first in range(0, query.shape[1], n_heads):
            heads = slice(first, first + n_heads)
            added = bias[None, heads, :, :n_keys]
            added = added if gate is None else added * gate[own, heads]
            mixed[own, heads] = F.scaled_dot_product_attention(
                query[own, heads], key[own, heads, :n_keys], value[own, heads, :n_keys], added, dropout
            )
    return mixed.transpose(1, 2)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_accurate": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
    "swish": F.silu,
    "linear": nn.Identity(),
    "glu": nn.Identity(),  # GatedLinear has it
}


def relative_bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each distance (key minus query), as in T5 (Raffel et al., arXiv 1910.10683).

    Half of the buckets are for keys to the right. Of each half, half hold one distance each; the others grow wider and
    wider up to max_distance, and the last holds all beyond.
    """
    half = num_buckets // 2
    exact = half // 2
    far = distance.abs()
    # float32 throughout: the rounding decides in which bucket the borders fall
    widening = torch.log(far.clamp_min(1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    wide = (exact + widening.long()).clamp_max(half - 1)
    return torch.where(far < exact, far, wide) + half * (distance > 0)


def reduce_mask(mask: Tensor, size: int) -> Tensor:
    """The released rule to bring a mask (B, n) to a shorter length (B, size).

    Each place stands for floor(n / size) entries and is real if one of them is; the last n mod size are ignored.
    """
    width = mask.shape[1] // size
    return mask[:, : size * width].unflatten(1, (size, width)).any(dim=2)


def official_config(cfg: Mapping[str, Any], label_dict: Mapping[int, str] | None = None) -> BeatsConfig:
    """The config of a released checkpoint from its ``cfg`` and ``label_dict``; settings of its training are ignored.

    Raises:
        CheckpointError: a value that this package does not know.
    """
    known = {field.name for field in fields(BeatsConfig)}
    labels = [label_dict[index] for index in sorted(label_dict)] if label_dict else []
    values = {name: value for name, value in cfg.items() if name in known} | {"labels": labels}
    return config_from_dict(BeatsConfig, values, where="BEATs cfg")


def _shrink_gradient(x: Tensor, ratio: float) -> Tensor:
    """x itself, whose gradient is multiplied by ratio on its way back."""
    if ratio == 1.0 or not x.requires_grad:
        return x
    x = x.view_as(x)
    x.register_hook(lambda gradient: gradient * ratio)
    return x
