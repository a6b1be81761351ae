"""The listener: an audio encoder that says what it hears, when, and where that lies among the meanings of sentences.

Three heads over one encoder's steps: labels of the whole clip, labels of each step, and an embedding that is compared
with sentence embeddings by cosine. All other systems take the encoder alone, or the embedding.

Shapes: B clips, N samples at 16 kHz, S steps, D encoder width, L labels, K width of the sentence embeddings.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.features import SAMPLE_RATE
from aural.networks.beats import BEATs, BeatsConfig
from aural.networks.conv_encoder import ConvEncoder, ConvEncoderConfig, ConvEncoderOutput
from aural.networks.htsat import Htsat, HtsatConfig

SYSTEM = "listening"
"""Name of the system in the config files of model folders."""


@dataclass(frozen=True)
class ListenerConfig:
    """Sizes of a :class:`Listener`; exactly one of the three encoders is set."""

    labels: tuple[str, ...]
    """What the two label heads name, in the order of their outputs."""
    conv_encoder: ConvEncoderConfig | None = None
    beats: BeatsConfig | None = None
    htsat: HtsatConfig | None = None
    embedding_dim: int = 384
    embedding_hidden: int = 512
    dropout: float = 0.3
    """Before the heads."""
    text_encoder: str | None = None
    """Sentence encoder of the embeddings, a folder or hub id; None = the bundled one."""
    min_seconds: float = 4.0
    """Shorter clips are followed by silence up to this length, as what was seen in training."""

    def __post_init__(self) -> None:
        if sum(encoder is not None for encoder in (self.conv_encoder, self.beats, self.htsat)) != 1:
            raise ValueError("exactly one of conv_encoder, beats and htsat must be set")


@dataclass(frozen=True)
class Heard:
    """What a listener makes of a batch of clips."""

    steps: Tensor
    """(B, S, D), the encoder's features."""
    mask: Tensor
    """(B, S), True = real."""
    pooled: Tensor
    """(B, 2 D): mean and maximum over real steps."""


class Listener(nn.Module):
    """Encoder and heads."""

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: ConvEncoder | BEATs | Htsat
        if config.conv_encoder is not None:
            self.encoder = ConvEncoder(replace(config.conv_encoder, labels=config.labels))
            width = config.conv_encoder.channels[-1]
        elif config.beats is not None:
            self.encoder = BEATs(config.beats)
            width = config.beats.encoder_embed_dim
        else:
            assert config.htsat is not None
            self.encoder = Htsat(config.htsat)
            width = config.htsat.width
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(2 * width, len(config.labels))
        if config.conv_encoder is None:  # that encoder has one itself, and hands on what it says
            self.step_classifier = nn.Linear(width, len(config.labels))
        self.projection = nn.Sequential(
            nn.Linear(2 * width, config.embedding_hidden),
            nn.GELU(),
            nn.Linear(config.embedding_hidden, config.embedding_dim),
        )

    def fbank(self, waveform: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, N) at 16 kHz -> the encoder's features (B, frames, mels) and their mask (B, frames).

        Clips shorter than ``min_seconds`` are followed by silence, which counts as real.
        """
        n_samples = round(self.config.min_seconds * SAMPLE_RATE)
        missing = max(0, n_samples - waveform.shape[1])
        if mask is not None:
            waveform = F.pad(waveform.masked_fill(~mask, 0.0), (0, missing))
            mask = F.pad(mask, (0, missing)) | (torch.arange(waveform.shape[1], device=mask.device) < n_samples)
        else:
            waveform = F.pad(waveform, (0, missing))
        return self.encoder.fbank(waveform, mask)

    def encode_fbank(self, fbank: Tensor, mask: Tensor | None = None) -> Heard:
        """The encoder's features and their mask -> steps and pooled features."""
        output = self.encoder.encode_fbank(fbank, mask)
        steps, mask = output.features if isinstance(output, ConvEncoderOutput) else output.hidden, output.mask
        if mask is None:
            mask = torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device)
        if isinstance(self.encoder, BEATs):  # a token for each patch of time and frequency
            n_bands = fbank.shape[2] // self.encoder.config.input_patch_size
            steps = steps.unflatten(1, (-1, n_bands)).mean(2)
            mask = mask.unflatten(1, (-1, n_bands)).all(2)
        real = mask[..., None]
        mean = (steps * real).sum(1) / real.sum(1).clamp_min(1)
        peak = steps.masked_fill(~real, -torch.inf).amax(1)
        return Heard(steps, mask, torch.cat([mean, peak], dim=1))

    def forward(self, waveform: Tensor, mask: Tensor | None = None) -> Heard:
        """(B, N) at 16 kHz in -1..1, and its mask (B, N), True = real."""
        return self.encode_fbank(*self.fbank(waveform, mask))

    def classify(self, heard: Heard) -> Tensor:
        """Logits (B, L) for the whole clip: one independent yes or no each."""
        return self.classifier(self.dropout(heard.pooled))

    def classify_steps(self, heard: Heard) -> Tensor:
        """Logits (B, S, L): the same for each step."""
        head = self.encoder.step_classifier if isinstance(self.encoder, ConvEncoder) else self.step_classifier
        assert head is not None
        return head(self.dropout(heard.steps))

    def embed(self, heard: Heard) -> Tensor:
        """(B, K) of unit length, to be compared with sentence embeddings by their product."""
        return F.normalize(self.projection(self.dropout(heard.pooled)).float(), dim=-1)
