"""The token language model: text and the codes so far become the next code of each codebook.

Copet et al., "Simple and Controllable Music Generation", arXiv 2306.05284 (MusicGen); Kreuk et al., arXiv 2209.15352
(AudioGen). A causal transformer reads the summed embeddings of a step's K codes, attends to the states of a frozen text
encoder, and predicts with K linear layers the codes of the step after it. Which code stands at which step is told by
:mod:`.delay_pattern`. The regulariser of arXiv 2309.08773 acts in training, on what is dropped there.

Parameters bear the names of audiocraft's checkpoints, but for ``text_projection``.

Shapes: B items, K codebooks, T frames, S = T + 1 steps, V codes of a codebook, D width, H heads, d = D / H, L tokens of
a text, C width of the text encoder. Masks are boolean, True = real.
"""

from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.padding import lengths_to_mask
from aural.text_to_audio.delay_pattern import delay, undelay
from aural.text_to_audio.representation_regularization import RegularizationConfig, representation_loss
from aural.text_to_audio.text_encoder import T5Config

CrossMask = Literal["mask", "none"]
"""What cross-attention does with the padding of texts. ``"mask"``: leaves it out, as in the transformers library.
``"none"``: attends to it, as in audiocraft, with which the published models were trained. Padding is zeros there, of
score 0 and value 0, so that it dilutes the attention of shorter texts, and results depend on the longest text of the
batch. Without padding the two are the same."""


@dataclass(frozen=True)
class GenerationConfig:
    """Sizes of a token language model; the defaults are those of the "300 M" model for sounds, over t5-base."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    ffn_dim: int = 4096
    codebook_size: int = 2048
    delays: tuple[int, ...] = (0, 1, 2, 3)  # in frames, one for each codebook
    text_width: int = 768
    t5: T5Config | None = field(default_factory=T5Config)  # None: states of texts come from elsewhere
    cross_mask: CrossMask = "mask"
    sample_rate: int = 16000
    frame_rate: int = 50
    seconds: float = 10.0  # of the clips of training, and of a window in generation
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    keywords: bool = False  # texts are read as the keywords that :mod:`.captions` makes of them
    codec: str | None = None  # digest of the codebooks that the codes are of, see :mod:`.encoded`; None: not known
    best_of: int = 1  # sounds that are drawn for each one wanted, if nothing else is said, see :mod:`.reranking`
    channels: int = 1  # 2: codebooks come in pairs, of the left and of the right channel of one codebook of the codec

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ValueError: says which settings do not fit.
        """
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise ValueError(f"width {self.width} must be even, at least 4, and a multiple of the {self.heads} heads")
        if not self.delays or min(self.delays) != 0:
            raise ValueError(f"delays {self.delays} must name one delay for each codebook, the least of them 0")
        if self.channels not in (1, 2) or self.codebooks % self.channels:
            raise ValueError(f"channels are 1 or 2, and {self.codebooks} codebooks do not go with {self.channels}")
        if self.t5 is not None and self.t5.width != self.text_width:
            raise ValueError(f"text_width is {self.text_width}, but the text encoder's width {self.t5.width}")

    @property
    def codebooks(self) -> int:
        """K."""
        return len(self.delays)

    @property
    def special(self) -> int:
        """The token that stands where there is no code; it is read, and never predicted."""
        return self.codebook_size

    @property
    def window_frames(self) -> int:
        """Frames of the clips of training."""
        return round(self.seconds * self.frame_rate)


class TokenLanguageModel(nn.Module):
    """Embeddings, transformer, K heads, and the projection of texts."""

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__()
        self.config = config
        self.emb = nn.ModuleList(_embedding(config.codebook_size + 1, config.width) for _ in config.delays)
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(Layer(config) for _ in range(config.layers))})
        self.out_norm = nn.LayerNorm(config.width)
        self.linears = nn.ModuleList(nn.Linear(config.width, config.codebook_size, bias=False) for _ in config.delays)
        self.text_projection = nn.Linear(config.text_width, config.width)
        self.initialise()

    @property
    def blocks(self) -> list["Layer"]:
        """The transformer's layers, in order."""
        return cast("list[Layer]", list(cast(nn.ModuleList, self.transformer["layers"])))

    def initialise(self, generator: torch.Generator | None = None) -> None:
        """The reference's random weights: normal ones cut at 3 deviations, 1 / sqrt(inputs), smaller the deeper.

        In layer l from 1 on the deviation is divided by sqrt(2 l), but not where queries, keys and values are made:
        those weights are uniform between +-1 / sqrt(inputs), and so is the projection of texts.

        Args:
            generator: None = torch's global one.
        """
        for table in (*self.emb.parameters(), *self.linears.parameters()):
            _cut_normal(table, self.config.width, 1.0, generator)
        for depth, layer in enumerate(self.blocks, start=1):
            for attention in (layer.self_attn, layer.cross_attention):
                _uniform(attention.in_proj_weight, self.config.width, generator)
            for linear in (layer.self_attn.out_proj, layer.cross_attention.out_proj, layer.linear1, layer.linear2):
                _cut_normal(linear.weight, linear.in_features, (2 * depth) ** -0.5, generator)
        _uniform(self.text_projection.weight, self.config.text_width, generator)
        _uniform(self.text_projection.bias, self.config.text_width, generator)

    # ----------------------------------------------------------------------------------------------------- from text on

    def condition(self, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """States (B, L, C) of a text encoder and their mask (B, L) -> memory (B, L, D) for cross-attention.

        The memory is zero where the mask is False, in spite of the projection's bias. A dropped text is one of whose
        tokens none is real.
        """
        return self.text_projection(text_states).masked_fill(~text_mask[:, :, None], 0.0)

    def embed(self, sequence: Tensor, positions: Tensor) -> Tensor:
        """Steps (B, K, S) at places with these vectors (S, D) -> the transformer's input (B, S, D)."""
        return reduce(torch.add, (table(sequence[:, k]) for k, table in enumerate(self.emb))) + positions

    def transform(self, sequence: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
        """The transformer's output before its last LayerNorm (B, S, D); arguments as for :meth:`forward`."""
        positions = sinusoids(sequence.shape[2], self.config.width, sequence.device)
        hidden = self.embed(sequence, positions)
        if memory is None:
            memory, memory_mask = hidden.new_zeros(len(hidden), 1, self.config.width), None
        allowed = None if self.config.cross_mask == "none" else attendable(memory_mask)
        for layer in self.blocks:
            hidden = layer(hidden, memory, allowed)
        return hidden

    def forward(self, sequence: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None) -> Tensor:
        """Whole sequences at once, each step seeing those before it.

        Args:
            sequence: (B, K, S), a form of the delay pattern.
            memory: (B, L, D) of :meth:`condition`, zero where it is not real; None = no text.
            memory_mask: (B, L); None = all real. ``config.cross_mask`` says whether it matters here.

        Returns:
            States (B, S, D): what the heads read, and what the regulariser compares.
        """
        return self.out_norm(self.transform(sequence, memory, memory_mask))

    def logits(self, states: Tensor) -> Tensor:
        """States (B, S, D) -> logits (B, K, S, V) of the codes of the step after each."""
        return torch.stack([head(states) for head in self.linears], dim=1)

    # ----------------------------------------------------------------------------------------------------------- losses

    def losses(
        self,
        codes: Tensor,
        text_states: Tensor,
        text_mask: Tensor,
        *,
        dropped: Tensor | None = None,
        frames: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Equations 1, 2 and 5 of arXiv 2309.08773.

        Args:
            codes: (B, K, T).
            text_states: (B, L, C), of dropped texts, too: the regulariser compares with them.
            text_mask: (B, L).
            dropped: (B,), items which the model is to predict without their text; the paper drops whole batches. Only
                they are regularised. None = none.
            frames: (B,), the real frames of each clip, which stand first; None = all T.

        Returns:
            ``cross_entropy``: mean over a codebook's real places, then over codebooks, in nats;
            ``representation_regularization``: see :func:`.representation_loss`; 0 with fewer than two dropped texts.
        """
        config = self.config
        shown = text_mask if dropped is None else text_mask & ~dropped[:, None]
        memory = self.condition(text_states, shown)
        inputs = codes if frames is None else pad_codes(codes, frames, config.special)
        states = self(delay(inputs, config.delays, config.special)[0], memory, shown)
        predictions, mask = undelay(self.logits(states)[:, :, :-1], config.delays, codes.shape[2])
        real = mask.expand_as(codes) if frames is None else mask & lengths_to_mask(frames, codes.shape[2])[:, None]
        return {
            "cross_entropy": codebook_losses(predictions, codes, real).mean(),
            "representation_regularization": self._regularization(text_states, text_mask, states, dropped, frames),
        }

    def _regularization(
        self, text_states: Tensor, text_mask: Tensor, states: Tensor, dropped: Tensor | None, frames: Tensor | None
    ) -> Tensor:
        """Equation 5 over the items with dropped text. Of a clip of n real frames its first n + 1 steps count."""
        config = self.config.regularization
        if config.weight == 0 or dropped is None:
            return states.new_zeros(())
        return representation_loss(
            self.text_projection(text_states) if config.text == "projected" else text_states.detach(),
            states,
            text_mask,
            None if frames is None else lengths_to_mask(frames + 1, states.shape[1]),
            keep=dropped,
            pooling=config.pooling,
            exponent=config.exponent,
            across_processes=config.across_processes,
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each of :meth:`losses` in the training objective, equation 6."""
        return {"cross_entropy": 1.0, "representation_regularization": self.config.regularization.weight}


class Layer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each reading its input through a LayerNorm."""

    def __init__(self, config: GenerationConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.self_attn = Attention(config.width, config.heads)
        self.norm_cross = nn.LayerNorm(config.width)
        self.cross_attention = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width)
        self.linear1 = nn.Linear(config.width, config.ffn_dim, bias=False)
        self.linear2 = nn.Linear(config.ffn_dim, config.width, bias=False)

    def forward(self, hidden: Tensor, memory: Tensor, allowed: Tensor | None) -> Tensor:
        """(B, S, D) -> (B, S, D), causally.

        Args:
            hidden: (B, S, D).
            memory: (B, L, D).
            allowed: (B, 1, 1, L), what may be attended to; None = all.
        """
        hidden = hidden + self.self_attn.attend(
            *self.self_attn.queries_keys_values(self.norm1(hidden)), causal=hidden.shape[1] > 1
        )
        queries = self.cross_attention.queries(self.norm_cross(hidden))
        keys, values = self.cross_attention.keys_and_values(memory)
        hidden = hidden + self.cross_attention.attend(queries, keys, values, allowed=allowed)
        return hidden + self.feed_forward(hidden)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """What the last third of the layer adds to (B, S, D)."""
        return self.linear2(F.gelu(self.linear1(self.norm2(hidden))))


class Attention(nn.Module):
    """Queries, keys and values from one packed matrix, and the projection of what was found; no biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.out_proj = nn.Linear(width, width, bias=False)

    def queries_keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, D) -> queries, keys and values of the same, each (B, H, S, d)."""
        queries, keys, values = self._project(hidden, self.in_proj_weight, 3)
        return queries, keys, values

    def queries(self, hidden: Tensor) -> Tensor:
        """(B, S, D) -> (B, H, S, d)."""
        return self._project(hidden, self.in_proj_weight[: self.width], 1)[0]

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) -> keys and values, each (B, H, L, d)."""
        keys, values = self._project(memory, self.in_proj_weight[self.width :], 2)
        return keys, values

    def _project(self, rows: Tensor, weight: Tensor, parts: int) -> tuple[Tensor, ...]:
        projected = F.linear(rows, weight).unflatten(2, (parts, self.heads, -1))
        return projected.permute(2, 0, 3, 1, 4).unbind(0)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, allowed: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Queries (B, H, S, d) over keys and values (B, H, L, d), of which ``allowed`` (B, 1, 1, L) -> (B, S, D)."""
        found = F.scaled_dot_product_attention(queries, keys, values, allowed, is_causal=causal)
        return self.out_proj(found.transpose(1, 2).flatten(2))


# --------------------------------------------------------------------------------------------------------------- pieces


def sinusoids(count: int, width: int, device: torch.device) -> Tensor:
    """Vectors (count, width) of the positions from 0 on: the cosines of all frequencies, then the sines.

    The frequencies are 10000 ** -(j / (width / 2 - 1)), so that the last is 1 / 10000 exactly.
    """
    half = width // 2
    positions = torch.arange(count, device=device, dtype=torch.float32)[:, None]
    angles = positions / 10000.0 ** (torch.arange(half, device=device, dtype=torch.float32) / (half - 1))
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def attendable(memory_mask: Tensor | None) -> Tensor | None:
    """Mask (B, L) of a memory -> (B, 1, 1, L), what may be attended to.

    A memory without anything real is attended to as a whole: it is zero, and so is what is found.
    """
    if memory_mask is None:
        return None
    return (memory_mask | ~memory_mask.any(dim=1, keepdim=True))[:, None, None]


def pad_codes(codes: Tensor, frames: Tensor, special: int) -> Tensor:
    """Codes (B, K, T) of which the first ``frames`` (B,) are real, the others replaced by the special token."""
    return codes.masked_fill(~lengths_to_mask(frames, codes.shape[2])[:, None], special)


def codebook_losses(logits: Tensor, codes: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of each codebook, (K,), in nats; 0 for one without any real place.

    Args:
        logits: (B, K, T, V).
        codes: (B, K, T).
        mask: (B, K, T), the places that count.
    """
    wanted = codes.masked_fill(~mask, 0)
    each = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view_as(codes)
    return (each * mask).sum(dim=(0, 2)) / mask.sum(dim=(0, 2)).clamp(min=1)


def _embedding(rows: int, width: int) -> nn.Embedding:
    """A table whose numbers are yet to come: drawing them twice takes its time."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def _cut_normal(weight: Tensor, inputs: int, factor: float, generator: torch.Generator | None) -> None:
    deviation = factor * inputs**-0.5
    nn.init.trunc_normal_(weight, 0.0, deviation, -3 * deviation, 3 * deviation, generator)


def _uniform(weight: Tensor, inputs: int, generator: torch.Generator | None) -> None:
    nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5, generator)
