"""A small convolutional audio encoder: the listener of the embedded default.

With a few hundred recordings to learn from, convolutions, which already know that a sound stays itself when it moves in
time or pitch, hear better than a patch transformer of the same cost. It offers the same two methods as
:class:`aural.networks.beats.BEATs` (``fbank`` and ``encode_fbank``), so either can stand at the head of the captioner.

Shapes: B clips, N samples, T fbank frames (100 a second), F mel bands, S output steps (12.5 a second), D channels.
Masks are True where the clip is real and False where it is padding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aural.features import FBANK_STD, beats_fbank, frame_count

TIME_STRIDE = 8
"""fbank frames (10 ms each) per output step."""

MIN_SAMPLES = 400 + (TIME_STRIDE - 1) * 160
"""Shortest clip (samples at 16 kHz) that fills one output step; shorter ones are padded with silence."""

MEAN_BELOW_LEVEL = 0.3
"""A clip's mean log energy lies about this much (normalised units) below the log of its mean energy. With it added, the
mean of the features is near 0, which is what SpecAugment fills its masks with."""


LOWEST_LEVEL = -0.66
"""Level (normalised units) of white noise at about -72 dBFS. Clips below it are not brought up to the common level:
what is left in them is the silence of a recorder, and should look like silence."""


FAINTEST_PEAK = 0.3
"""A label that nowhere in the clip is at least this probable is not brought up to be counted."""

LITTLE, MUCH = 0.2, 0.5
"""Parts of a label's peak between which it sets in. Chosen on counted soundscapes of recordings that listeners had not
heard: with 0.35 and 0.65, one event in ten more was counted twice, as it is not equally probable throughout."""

HIGHEST_COUNT = 5
"""Events of a label are told apart up to this number; more are as many."""


@dataclass(frozen=True)
class ConvEncoderConfig:
    """Sizes of :class:`ConvEncoder`; kept with the weights."""

    channels: tuple[int, int, int, int, int] = (16, 32, 64, 128, 192)
    labels: tuple[str, ...] = ()
    """What each step is said to hold; empty: no such head."""

    @property
    def width(self) -> int:
        """D, channels of an output step: features; of each label, and of any, what :func:`said_of` says."""
        return self.channels[-1] + ((2 + HIGHEST_COUNT) * (len(self.labels) + 1) if self.labels else 0)


@dataclass(frozen=True)
class ConvEncoderOutput:
    hidden: Tensor
    """(batch, steps, D): features, then what is said of labels, through which no gradient flows."""
    mask: Tensor
    """(batch, steps), True = real"""
    features: Tensor
    """(batch, steps, channels[-1])"""


class ConvNorm(nn.Module):
    """3x3 convolution, batch normalisation, ReLU; steps that are padding are zero on the way in and on the way out."""

    def __init__(self, c_in: int, c_out: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a strided 1x1 shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.first = ConvNorm(c_in, c_out, stride)
        self.conv = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        x = F.relu(self.norm(self.conv(_kept(self.first(x), real))) + self.shortcut(x), inplace=True)
        return _kept(x, real)


class ConvEncoder(nn.Module):
    """Log-mel filterbank -> five convolution stages -> one vector per 80 ms."""

    def __init__(self, config: ConvEncoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.stem = ConvNorm(1, c[0])
        self.stage1 = ConvNorm(c[0], c[1], 2)
        self.stage2 = ConvNorm(c[1], c[2], 2)
        self.stage3 = ResidualBlock(c[2], c[3], (1, 2))
        self.stage4 = ResidualBlock(c[3], c[4], (1, 2))
        self.step_classifier = nn.Linear(c[4], len(config.labels)) if config.labels else None

    def max_samples(self, n_steps: int) -> int:
        """Longest clip, in samples, that gives at most n_steps output steps."""
        return 400 + n_steps * TIME_STRIDE * 160

    def fbank(self, waveform: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """BEATs' log-mel filterbank with the clip's own level taken out: a quiet copy of a sound is the same sound.

        Only what is below ``LOWEST_LEVEL`` stays where it is, so that silence does not become loud noise.

        Args:
            waveform: (batch, samples), 16 kHz, in -1..1.
            mask: (batch, samples), True = real; None: all of it is.

        Returns:
            fbank (batch, frames, 128) and its mask (batch, frames).
        """
        if waveform.shape[1] < MIN_SAMPLES:
            waveform = F.pad(waveform, (0, MIN_SAMPLES - waveform.shape[1]))
        fbank = beats_fbank(waveform)
        n_samples = torch.full((len(waveform),), waveform.shape[1]) if mask is None else mask.sum(1).cpu()
        n_frames = torch.tensor([frame_count(max(MIN_SAMPLES, int(n))) for n in n_samples], device=fbank.device)
        frame_mask = torch.arange(fbank.shape[1], device=fbank.device) < n_frames[:, None]
        return fbank - _level(fbank, frame_mask)[:, None, None], frame_mask

    def encode_fbank(
        self, fbank: Tensor, mask: Tensor | None = None, tapped_layer: int | None = None
    ) -> ConvEncoderOutput:
        """(batch, frames, 128) -> hidden (batch, ceil(frames // 2 / 4), D). A padded clip gives what it gives alone."""
        if tapped_layer is not None:
            raise ValueError("a ConvEncoder has one output: leave tapped_layer at None")
        if mask is None:
            mask = torch.ones(fbank.shape[:2], dtype=torch.bool, device=fbank.device)
        padded = not mask.all()
        # 20 ms by 64 bands: half the cost of the first stages, and what is lost does not tell sounds apart
        x = F.avg_pool2d(fbank[:, None], 2).contiguous(memory_format=torch.channels_last)
        lengths = mask.sum(1) // 2
        real = _real(lengths, x) if padded else None
        x = _kept(self.stem(_kept(x, real)), real)
        for stage in (self.stage1, self.stage2):
            lengths = (lengths + 1) // 2
            x = stage(x)
            real = _real(lengths, x) if padded else None
            x = _kept(x, real)
        x = self.stage4(self.stage3(x, real), real)
        features, mask = x.mean(3).transpose(1, 2), _real(lengths, x)[:, 0, :, 0].bool()
        if self.step_classifier is None:
            return ConvEncoderOutput(features, mask, features)
        with torch.no_grad():
            said = said_of(self.step_classifier(features).float(), mask)
        hidden = torch.cat([features, said.to(features.dtype)], dim=2)
        return ConvEncoderOutput(hidden, mask, features)

    def forward(self, waveform: Tensor, mask: Tensor | None = None) -> ConvEncoderOutput:
        """(batch, samples) at 16 kHz -> :class:`ConvEncoderOutput`."""
        return self.encode_fbank(*self.fbank(waveform, mask))


def _kept(x: Tensor, real: Tensor | None) -> Tensor:
    """What is real of x; None: all of it, which saves a pass over the memory."""
    return x if real is None else x * real


def said_of(logits: Tensor, mask: Tensor) -> Tensor:
    """What the captioner is told of each step beyond features: of each label, and of any label at all,

    how probable it is now, how often it has set in so far, and whether it sets in at least once, twice, ... up to
    HIGHEST_COUNT times in the whole clip.

    Args:
        logits: (batch, steps, labels)
        mask: (batch, steps), True = real

    Returns:
        (batch, steps, (2 + HIGHEST_COUNT) (labels + 1)), zero where the clip is padding.
    """
    real = mask[..., None]
    # what it is may be uncertain where it is certain that something is: that is counted even then
    something = 1 - (1 - logits.sigmoid()).prod(2, keepdim=True)
    sounding = torch.cat([logits.sigmoid(), something], dim=2) * real
    counts = counts_so_far(sounding)
    # a number as one channel is drowned by normalisation; as a row of yes and no it is not
    levels = torch.arange(1, HIGHEST_COUNT + 1, device=logits.device) - 0.5
    at_least = ((counts[:, -1, :, None] - levels) / 0.5 + 0.5).clamp(0, 1).flatten(1)
    return torch.cat([sounding, counts, at_least[:, None].expand(-1, len(mask[0]), -1)], dim=2) * real


def counts_so_far(sounding: Tensor) -> Tensor:
    """Probabilities of labels (batch, steps, labels) -> how often each has set in up to each step.

    Attention averages, and an average does not know how many there were; a running sum of all rises does. A rise leads
    from little to much of the label's own peak in this clip, so that it counts whether or not the label is certain.
    """
    peak = sounding.amax(1, keepdim=True).clamp_min(FAINTEST_PEAK)
    on = ((sounding / peak - LITTLE) / (MUCH - LITTLE)).clamp(0, 1)
    return (on - F.pad(on, (0, 0, 1, 0))[:, :-1]).clamp_min(0).cumsum(1)


def _level(fbank: Tensor, mask: Tensor) -> Tensor:
    """(batch,): log of the mean mel energy over real frames, less MEAN_BELOW_LEVEL, in normalised units."""
    energy = (fbank * (2 * FBANK_STD)).masked_fill(~mask[..., None], -torch.inf)
    n_cells = (mask.sum(1) * fbank.shape[2]).clamp_min(1)
    level = (energy.flatten(1).logsumexp(1) - n_cells.log()) / (2 * FBANK_STD) - MEAN_BELOW_LEVEL
    return level.clamp_min(LOWEST_LEVEL)


def _real(lengths: Tensor, x: Tensor) -> Tensor:
    """(batch, 1, time, 1) of ones and zeros for the time axis of x (batch, channels, time, frequency)."""
    return (torch.arange(x.shape[2], device=x.device) < lengths[:, None]).to(x.dtype)[:, None, :, None]
