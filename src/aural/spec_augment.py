"""What is done to spectrograms in training only: SpecAugment, and another frequency response for every clip.

SpecAugment warps time and blanks bands and spans.

Park et al., arXiv 1904.08779, with the settings and distributions of Wu et al. (arXiv 2309.17352): time warp, then
frequency masks, then time masks. Drawing is separate from applying, so that the same draws can be applied again.

Shapes: B batch, T frames, M mel bands. Lengths are those of the padded batch: a mask may fall on padding.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.features import FBANK_STD

RESPONSE_POINTS = 5
"""Frequencies, evenly spaced on the mel scale, at which a random frequency response has gains of its own."""


@dataclass(frozen=True)
class SpecAugmentConfig:
    """How much to spoil; the defaults are the released captioner's. A count or limit of 0 turns its step off."""

    time_warp_window: int = 5  # frames by which the warp centre may move
    n_freq_masks: int = 2
    max_freq_width: int = 64  # bands; widths are 0 .. max_freq_width - 1
    n_time_masks: int = 5
    max_time_width_ratio: float = 0.12  # of the frames; widths are 0 .. floor(ratio * T) - 1


@dataclass(frozen=True)
class Draws:
    """The random choices for one batch."""

    warp: tuple[int, int] | None  # (centre, new position) in frames, one for the whole batch; None = too short to warp
    freq_widths: Tensor  # (B, n_freq_masks), bands
    freq_starts: Tensor  # (B, n_freq_masks)
    time_widths: Tensor  # (B, n_time_masks), frames
    time_starts: Tensor  # (B, n_time_masks)


def draw(
    config: SpecAugmentConfig, n_clips: int, n_frames: int, n_mels: int, generator: torch.Generator | None = None
) -> Draws:
    """Draw what happens to a batch of (n_clips, n_frames, n_mels), from ``generator`` (None: torch's global one)."""
    warp = None
    window = config.time_warp_window
    if window > 0 and n_frames - window > window:
        centre = _uniform(window, n_frames - window, (), generator)
        warp = int(centre), 1 + int(_uniform(int(centre) - window, int(centre) + window, (), generator))
    freq_widths, freq_starts = _draw_spans(n_clips, config.n_freq_masks, config.max_freq_width, n_mels, generator)
    max_time_width = int(config.max_time_width_ratio * n_frames)
    time_widths, time_starts = _draw_spans(n_clips, config.n_time_masks, max_time_width, n_frames, generator)
    return Draws(warp, freq_widths, freq_starts, time_widths, time_starts)


def apply(fbank: Tensor, draws: Draws) -> Tensor:
    """Warp and blank (B, T, M) as drawn. The fill is 0, the mean of the data once the spectrogram is normalised."""
    if draws.warp is not None:
        fbank = time_warp(fbank, *draws.warp)
    blank_bands = _covered(draws.freq_starts, draws.freq_widths, fbank.shape[2]).to(fbank.device)  # (B, M)
    blank_frames = _covered(draws.time_starts, draws.time_widths, fbank.shape[1]).to(fbank.device)  # (B, T)
    return fbank.masked_fill(blank_bands.unsqueeze(1) | blank_frames.unsqueeze(2), 0.0)


def time_warp(fbank: Tensor, centre: int, position: int) -> Tensor:
    """Resize frames [0, centre) to ``position`` frames and the rest to fill, bicubic; (B, T, M) -> (B, T, M)."""
    n_frames, n_mels = fbank.shape[1:]
    image = fbank.unsqueeze(1)
    left = F.interpolate(image[:, :, :centre], (position, n_mels), mode="bicubic", align_corners=False)
    right = F.interpolate(image[:, :, centre:], (n_frames - position, n_mels), mode="bicubic", align_corners=False)
    return torch.cat((left, right), dim=2).squeeze(1)


def _uniform(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Integers in low .. high - 1."""
    return torch.randint(low, high, shape, generator=generator)


def _draw_spans(
    n_clips: int, n_masks: int, max_width: int, size: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Widths and starts, each (n_clips, n_masks); the widest mask of the batch bounds every start."""
    shape = (n_clips, n_masks)
    if max_width < 1 or n_masks < 1:
        return torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    widths = _uniform(0, max_width, shape, generator)
    return widths, _uniform(0, max(1, size - int(widths.max())), shape, generator)


def _covered(starts: Tensor, widths: Tensor, size: int) -> Tensor:
    """Spans (B, n) -> (B, size), True where any span lies."""
    cells = torch.arange(size, device=starts.device)
    inside = (cells >= starts.unsqueeze(-1)) & (cells < (starts + widths).unsqueeze(-1))
    return inside.any(dim=1)


def frequency_response(n_clips: int, n_mels: int, gain_db: float, generator: torch.Generator | None = None) -> Tensor:
    """Responses (n_clips, 1, n_mels) to add to normalised log-mel features, as if every clip had another microphone.

    Gains at :data:`RESPONSE_POINTS` frequencies are N(0, gain_db), in dB; between these the response is a line.
    """
    natural_log = gain_db * math.log(10) / 10  # of power
    gains = torch.randn(n_clips, 1, RESPONSE_POINTS, generator=generator) * (natural_log / (2 * FBANK_STD))
    return F.interpolate(gains, n_mels, mode="linear", align_corners=True)
