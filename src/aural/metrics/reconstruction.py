"""How close a sound is to the one it was made from: SI-SDR of samples, distance of mel spectrograms.

Shapes: N samples of one channel.
"""

import math

import torch
from torch import Tensor

from aural.features import kaldi_fbank

N_MELS = 64
RANGE_DB = 80.0
"""What lies further below the loudest band of the true sound counts as lying there: nobody would hear it."""


def si_sdr(estimate: Tensor, truth: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., arXiv 1811.02508), means taken off before.

    Args:
        estimate: (N,)
        truth: (N,), not silent.

    Returns:
        The ratio; -inf where the estimate has nothing of the truth.

    Raises:
        ValueError: the truth is silent, or the lengths differ.
    """
    if estimate.shape != truth.shape or truth.dim() != 1:
        raise ValueError(f"two sounds of one length are compared, not {tuple(estimate.shape)} and {tuple(truth.shape)}")
    estimate, truth = (sound.double() - sound.double().mean() for sound in (estimate, truth))
    if not truth.any():
        raise ValueError("the true sound is silent: there is nothing to compare with")
    target = torch.dot(estimate, truth) / torch.dot(truth, truth) * truth
    noise = estimate - target
    signal_power, noise_power = float(torch.dot(target, target)), float(torch.dot(noise, noise))
    if not signal_power:
        return -math.inf
    return math.inf if not noise_power else 10 * math.log10(signal_power / noise_power)


def mel_distance(estimate: Tensor, truth: Tensor, sample_rate: int) -> float:
    """Mean distance in dB of the power in 64 mel bands, frames of 25 ms every 10 ms (Kaldi's filter bank).

    Args:
        estimate: (N,)
        truth: (N,), of at least a frame.
        sample_rate: in Hz.

    Raises:
        ValueError: the lengths differ, or there is no frame.
    """
    if estimate.shape != truth.shape or truth.dim() != 1:
        raise ValueError(f"two sounds of one length are compared, not {tuple(estimate.shape)} and {tuple(truth.shape)}")
    levels = kaldi_fbank(torch.stack([estimate, truth]).float(), n_mels=N_MELS, sample_rate=sample_rate) * (
        10 / math.log(10)
    )
    if not levels.shape[1]:
        raise ValueError(f"{len(truth)} samples are no frame of 25 ms at {sample_rate} Hz")
    made, true = levels.clamp_min(levels[1].max() - RANGE_DB)
    return float((made - true).abs().mean())
