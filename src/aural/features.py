"""Waveform -> mel filterbanks: Kaldi's, as BEATs hears, and the decibel log-mel of HTS-AT and Pengi.

Shapes: B clips, N samples, T frames, M mel bands. Frames never look beyond their own samples, so one that lies wholly
inside a clip is the same whether the clip stands alone or padded in a batch: :func:`frame_count` says how many do.
Everything here is differentiable and runs in the dtype and on the device of the waveform.
"""

from functools import lru_cache
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SAMPLE_RATE = 16000
"""Samples a second that BEATs' filterbank expects."""
FRAME_LENGTH = 400
"""Samples in a frame of :func:`beats_fbank`: 25 ms."""
HOP_LENGTH = 160
"""Samples from one frame to the next: 10 ms."""
N_MELS = 128

FBANK_MEAN = 15.41663
FBANK_STD = 6.55582
"""Mean and standard deviation of the log-mel over AudioSet, by BEATs' authors, who divide by twice the deviation."""

PRE_EMPHASIS = 0.97
POVEY_POWER = 0.85
INT16_RANGE = 2.0**15
"""Kaldi counts a waveform in steps of 16-bit samples; here it is given in -1..1."""
SMALLEST_ENERGY = torch.finfo(torch.float32).eps
"""Kaldi's floor before the logarithm, 1.19e-7: the value of digital silence is ln of it, -15.94."""

BLOCK_FRAMES = 512
"""Frames transformed at once: what they need (about 4 MB) stays in the caches of one core, however long the batch."""


@overload
def frame_count(n_samples: int) -> int: ...
@overload
def frame_count(n_samples: Tensor) -> Tensor: ...
def frame_count(n_samples: int | Tensor) -> int | Tensor:
    """Frames of :func:`beats_fbank` that lie wholly inside n samples at 16 kHz: 1 + floor((n - 400) / 160), or 0."""
    n_steps = (n_samples - FRAME_LENGTH) // HOP_LENGTH + 1
    return n_steps.clamp_min(0) if isinstance(n_steps, Tensor) else max(0, n_steps)


def beats_fbank(waveform: Tensor) -> Tensor:
    """The input of BEATs: :func:`kaldi_fbank` at 16 kHz, normalised by constants.

    Args:
        waveform: (B, N) in [-1, 1] at 16 kHz.

    Returns:
        (B, frame_count(N), 128), about -2.4 (digital silence) to 1.
    """
    return (kaldi_fbank(waveform) - FBANK_MEAN) / (2 * FBANK_STD)


def kaldi_fbank(
    waveform: Tensor,
    *,
    n_mels: int = N_MELS,
    sample_rate: int = SAMPLE_RATE,
    low_hz: float = 20.0,
    high_hz: float = 0.0,
) -> Tensor:
    """Log-mel filterbank as Kaldi's ``compute-fbank-feats`` makes it, without dither.

    Frames of 25 ms every 10 ms, none of them padded; from each its mean is taken, then 0.97 of the previous sample;
    Povey window; power spectrum; triangles on the scale 1127 ln(1 + f/700); natural logarithm, floored at 1.19e-7.

    Args:
        waveform: (B, N) in [-1, 1]; scaled to 16-bit steps inside.
        n_mels: bands.
        sample_rate: in Hz.
        low_hz: lower edge of the first band.
        high_hz: upper edge of the last band; 0 or less counts from half the sample rate.

    Returns:
        (B, T, n_mels), T = 1 + floor((N - length) / hop), 0 for a clip shorter than a frame.
    """
    frame_length, hop_length = sample_rate * 25 // 1000, sample_rate * 10 // 1000
    n_fft = 2 ** (frame_length - 1).bit_length()
    top_hz = high_hz if high_hz > 0 else sample_rate / 2 + high_hz
    mel = _on(waveform, kaldi_mel_filters(n_mels, n_fft, sample_rate, low_hz, top_hz))
    window = _on(waveform, _povey_window(frame_length))
    if waveform.shape[1] < frame_length:
        return waveform.new_zeros(len(waveform), 0, n_mels)
    # Pre-emphasis is the same for all frames but in their first sample, which the window sets to zero; and of the mean
    # it leaves 1 - 0.97.
    previous = F.pad(waveform[:, :-1], (1, 0))
    emphasised = torch.sub(waveform, previous, alpha=PRE_EMPHASIS).unfold(1, frame_length, hop_length)
    means = waveform.unfold(1, frame_length, hop_length).mean(dim=2, keepdim=True) * (1 - PRE_EMPHASIS)
    blocks = [
        _mel_energy(frames, mean, window, mel, n_fft)
        for clip, clip_means in zip(emphasised, means, strict=True)
        for frames, mean in zip(clip.split(BLOCK_FRAMES), clip_means.split(BLOCK_FRAMES), strict=True)
    ]
    energy = torch.cat(blocks).view(len(waveform), -1, n_mels)
    return energy.clamp_min(SMALLEST_ENERGY).log()


def log_mel(
    waveform: Tensor,
    *,
    sample_rate: int = 32000,
    n_fft: int = 1024,
    hop_length: int = 320,
    n_mels: int = 64,
    low_hz: float = 50.0,
    high_hz: float = 14000.0,
    smallest: float = 1e-10,
    mel_filters: Tensor | None = None,
) -> Tensor:
    """Log-mel in decibel, the front end of HTS-AT (Chen et al., arXiv 2202.00874) and of Pengi; defaults are HTS-AT's.

    Frames are centred on multiples of the hop, the ends of the clip mirrored; periodic Hann window; power spectrum;
    Slaney filters. Pengi feeds it 44.1 kHz with filters made for 32 kHz: ``sample_rate`` is only that of the filters.

    Args:
        waveform: (B, N) in [-1, 1], N > n_fft / 2.
        sample_rate: in Hz, for which the filters are made.
        n_fft: samples of a frame and of its transform.
        hop_length: samples from one frame to the next.
        n_mels: bands.
        low_hz: lower edge of the first band.
        high_hz: upper edge of the last band.
        smallest: mel energy floor; 1e-10 is -100 dB.
        mel_filters: (n_fft / 2 + 1, n_mels) of a checkpoint, instead of those computed.

    Returns:
        (B, 1 + floor(N / hop_length), n_mels), in dB.
    """
    if mel_filters is None:
        mel_filters = slaney_mel_filters(n_mels, n_fft, sample_rate, low_hz, high_hz)
    mel = _on(waveform, mel_filters)
    window = _on(waveform, _hann_window(n_fft))
    mirrored = F.pad(waveform[:, None], (n_fft // 2, n_fft // 2), mode="reflect")[:, 0]
    blocks = [
        _mel_energy(frames, None, window, mel, n_fft)
        for clip in mirrored.unfold(1, n_fft, hop_length)
        for frames in clip.split(BLOCK_FRAMES)
    ]
    energy = torch.cat(blocks).view(len(waveform), -1, mel.shape[1])
    return energy.clamp_min(smallest).log10() * 10


def _mel_energy(frames: Tensor, mean: Tensor | None, window: Tensor, mel: Tensor, n_fft: int) -> Tensor:
    """(T, length) less mean (T, 1) -> mel energies (T, M)."""
    windowed = frames * window if mean is None else torch.mul(frames - mean, window)
    if n_fft > len(window):
        windowed = F.pad(windowed, (0, n_fft - len(window)))
    spectrum = torch.view_as_real(torch.fft.rfft(windowed)).flatten(1)  # (T, 2 * bins): real, imaginary, real, ...
    return spectrum.square() @ mel.repeat_interleave(2, dim=0)  # |X|^2 is summed by the matrix product


# ------------------------------------------------------------------------------------------------------------ constants


@lru_cache(maxsize=16)
def kaldi_mel_filters(n_mels: int, n_fft: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """(n_fft / 2 + 1, n_mels) triangles, linear and equally spaced in 1127 ln(1 + f/700); none sees the last bin."""
    edges = np.linspace(_htk_mel(low_hz), _htk_mel(high_hz), n_mels + 2)
    bins = _htk_mel(np.arange(n_fft // 2 + 1) * sample_rate / n_fft)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[-1] = 0.0
    return torch.from_numpy(filters)


@lru_cache(maxsize=16)
def slaney_mel_filters(n_mels: int, n_fft: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """(n_fft / 2 + 1, n_mels) triangles of equal area, linear in Hz, on Slaney's scale (Auditory Toolbox, 1998).

    That scale is linear with 3 mel to 200 Hz up to 1 kHz, and logarithmic above with 27 mel to a factor of 6.4.
    """
    edges = _slaney_hz(np.linspace(_slaney_mel(low_hz), _slaney_mel(high_hz), n_mels + 2))
    bins = (np.arange(n_fft // 2 + 1) * sample_rate / n_fft)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    return torch.from_numpy(filters)


def _htk_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def _slaney_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    hz = np.asarray(hz)
    return np.where(hz < 1000.0, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000.0) / 1000) / np.log(6.4))


def _slaney_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15.0, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@lru_cache(maxsize=16)
def _povey_window(length: int) -> Tensor:
    """Symmetric Hann to the power of 0.85, times the scale of 16-bit samples; it begins and ends with 0."""
    return torch.hann_window(length, periodic=False, dtype=torch.float64).pow(POVEY_POWER) * INT16_RANGE


@lru_cache(maxsize=16)
def _hann_window(length: int) -> Tensor:
    return torch.hann_window(length, dtype=torch.float64)


def _on(waveform: Tensor, constant: Tensor) -> Tensor:
    return constant.to(waveform.device, waveform.dtype)
