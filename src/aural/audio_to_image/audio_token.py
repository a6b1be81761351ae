"""AudioToken's bridge: a recording becomes one vector of the width of a text encoder's words.

Yariv, Gat, Wolf, Adi, Schwartz, "AudioToken: Adaptation of Text-Conditioned Diffusion Models for Audio-to-Image
Generation", Interspeech 2023, arXiv 2305.13050.

A recording's way: waveform -> BEATs, frozen; what its layers 4, 8 and 12 give, side by side -> a perceptron of two
layers -> attentive pooling -> the *audio token*, which :mod:`aural.audio_to_image.injection` puts into a prompt.

The pooling is the factor graph attention of Schwartz et al., "Factor Graph Attention", CVPR 2019, arXiv 1904.05880,
with one modality: what speaks for a vector is a score of its own (the local potential) and how much it resembles all of
them (the self potential).

Shapes: B clips, N samples, T vectors of a clip (one for each 16 x 16 patch of its log-mel), M width of the features of
all layers side by side, D width of the audio token. Masks are boolean, True = real.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.networks.beats import BEATs, BeatsConfig
from aural.networks.conv_encoder import ConvEncoder, ConvEncoderConfig


@dataclass(frozen=True)
class AudioTokenConfig:
    """Sizes of the bridge; the defaults are those for Stable Diffusion 1.x. Version 2.x has a ``token_width`` of 1024.

    ``dropout_rule`` is where the released code misbehaves: it never switches the dropout of its local potential off, so
    that the same recording gives another token each time. ``"training"`` is dropout as usual, ``"always"`` is as
    released; see the ``generator`` of :meth:`AudioToken.forward`.
    """

    beats: BeatsConfig | None = None  # the frozen encoder kept with the weights; None = features come from elsewhere
    conv_encoder: ConvEncoderConfig | None = None  # another one; its single output counts as layer 1
    layers: tuple[int, ...] = (4, 8, 12)  # of the encoder, counted from 1, in the order of their features
    encoder_width: int = 768
    token_width: int = 768  # D: that of the text encoder's table of words
    dropout: float = 0.5  # within the local potential
    dropout_rule: Literal["training", "always"] = "training"
    prompt: str = "a photo of <*>"  # around the token, in training
    seconds: float = 10.0  # heard at once; what is longer is heard in windows of equal length
    min_seconds: float = 1.0  # what is shorter is followed by silence, as in training; over BEATs it is looped instead
    lora_rank: int = 0  # of what the picture model learnt along; 0 = nothing

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ValueError: says what.
        """
        if not self.layers or min(self.layers) < 1:
            raise ValueError(f"layers are counted from 1 and at least one is heard, got {self.layers}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.beats is not None and self.conv_encoder is not None:
            raise ValueError("there are two encoders, BEATs and a convolutional one: set one of them")
        if self.conv_encoder is not None and (self.layers, self.encoder_width) != ((1,), self.conv_encoder.width):
            raise ValueError(
                f"a convolutional encoder has one layer of width {self.conv_encoder.width}, not {self.layers} of "
                f"{self.encoder_width}"
            )
        if self.beats is not None and self.beats.encoder_embed_dim != self.encoder_width:
            raise ValueError(f"encoder_width {self.encoder_width} is not the {self.beats.encoder_embed_dim} of BEATs")
        if self.beats is not None and max(self.layers) > self.beats.encoder_layers:
            raise ValueError(f"BEATs has {self.beats.encoder_layers} layers, and {self.layers} are to be heard")

    @property
    def feature_width(self) -> int:
        """M: 2304."""
        return len(self.layers) * self.encoder_width


@dataclass(frozen=True)
class Pooled:
    """What :class:`AttentivePooling` makes of a batch."""

    embedding: Tensor  # (B, D), the sum of the vectors by their attention
    attention: Tensor  # (B, T), sums to 1 over a clip; 0 where padded
    logits: Tensor  # (B, T), the potentials weighed and added; -inf where padded
    local_potential: Tensor  # (B, T)
    self_potential: Tensor  # (B, T)


class AudioToken(nn.Module):
    """Features of a recording -> its audio token; over the frozen encoder, if the config has one."""

    def __init__(self, config: AudioTokenConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: BEATs | ConvEncoder | None = None
        if config.beats is not None:
            self.encoder = BEATs(config.beats).requires_grad_(False).eval()
        elif config.conv_encoder is not None:
            self.encoder = ConvEncoder(config.conv_encoder).requires_grad_(False).eval()
        self.fc1 = nn.Linear(config.feature_width, config.feature_width)
        self.fc2 = nn.Linear(config.feature_width, config.token_width)
        self.pooling = AttentivePooling(config.token_width, config.dropout, config.dropout_rule)

    def train(self, mode: bool = True) -> "AudioToken":
        """As of every module, but that the frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def features(self, waveform: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the encoder kept with the weights hears: :func:`layer_features` of BEATs, or the steps of another.

        Args:
            waveform: (B, N) at 16 kHz in [-1, 1].
            mask: (B, N), True = real; None: all of it is.

        Returns:
            Features (B, T, M), and their mask (B, T).

        Raises:
            ValueError: there is none.
        """
        if self.encoder is None:
            raise ValueError("this audio token has no encoder: hand the features of yours to it")
        if isinstance(self.encoder, ConvEncoder):
            with torch.no_grad():
                heard = self.encoder(waveform, mask)
            return heard.hidden, heard.mask
        return layer_features(self.encoder, waveform, mask, layers=self.config.layers)

    def tokens(self, features: Tensor) -> Tensor:
        """The perceptron, vector by vector: (B, T, M) -> (B, T, D)."""
        return self.fc2(F.gelu(self.fc1(features)))

    def forward(
        self, features: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Features -> audio tokens (B, D).

        Args:
            features: (B, T, M) of :func:`layer_features`.
            mask: (B, T), True = real; None: all of it is.
            generator: of the dropout; None = torch's global one.
        """
        return self.pooling(self.tokens(features), mask, generator=generator).embedding


class AttentivePooling(nn.Module):
    """Vectors of a clip -> one of them all, weighed by a softmax over a local and a self potential."""

    def __init__(self, width: int, dropout: float = 0.5, dropout_rule: Literal["training", "always"] = "training"):
        super().__init__()
        self.dropout = dropout
        self.dropout_rule = dropout_rule
        self.local_hidden = nn.Linear(width, width)
        self.local_score = nn.Linear(width, 1)  # its bias changes nothing: a softmax does not see what all share
        self.self_left = nn.Linear(width, width)
        self.self_right = nn.Linear(width, width)
        self.fusion = nn.Linear(2, 1, bias=False)  # weights of the local and of the self potential

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        dropout_factors: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pooled:
        """Pool.

        Args:
            tokens: (B, T, D)
            mask: (B, T), True = real; None: all of it is. Every clip must have something real.
            dropout_factors: (B, T, D) by which the local potential's hidden units are multiplied, 0 or
                1 / (1 - dropout). None: drawn where the rule asks for dropout.
            generator: of the drawing; None = torch's global one.
        """
        if dropout_factors is None and self.dropout > 0 and (self.training or self.dropout_rule == "always"):
            drawn = torch.rand(tokens.shape, generator=generator, device=tokens.device)
            dropout_factors = (drawn >= self.dropout).to(tokens) / (1 - self.dropout)
        hidden = F.relu(self.local_hidden(tokens))
        if dropout_factors is not None:
            hidden = hidden * dropout_factors
        local = self.local_score(hidden).squeeze(2)
        resemblance = self._self_potential(tokens, mask)
        logits = self.fusion(torch.stack((local, resemblance), dim=2)).squeeze(2)
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        attention = logits.softmax(dim=1)
        embedding = torch.einsum("bt,btd->bd", attention, tokens)
        return Pooled(embedding, attention, logits, local, resemblance)

    def _self_potential(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T): the mean cosine of a vector, embedded one way, with all real ones, embedded another way.

        The mean of products is the product with the mean, which saves the T x T table.
        """
        left = F.normalize(self.self_left(tokens), dim=2)
        right = F.normalize(self.self_right(tokens), dim=2)
        if mask is None:
            mean = right.mean(dim=1)
        else:
            mean = right.masked_fill(~mask[:, :, None], 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return torch.einsum("btd,bd->bt", left, mean)


@torch.no_grad()
def layer_features(
    encoder: BEATs, waveform: Tensor, mask: Tensor | None = None, *, layers: Sequence[int] = (4, 8, 12)
) -> tuple[Tensor, Tensor]:
    """What layers of a frozen BEATs give, side by side. Only as many layers are run as are needed.

    Args:
        encoder: in evaluation mode.
        waveform: (B, N) at 16 kHz in [-1, 1].
        mask: (B, N), True = real; None: all of it is.
        layers: counted from 1, in the order of their features.

    Returns:
        Features (B, T, M), and their mask (B, T).

    Raises:
        ValueError: there is no such layer.
    """
    output = encoder(waveform, mask, tapped_layer=max(layers), hidden_states=True)
    states = output.hidden_states
    return torch.cat([states[layer] for layer in layers], dim=2), output.mask
