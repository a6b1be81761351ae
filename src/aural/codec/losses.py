"""What a codec is trained by: distances between waveforms, a discriminator's verdicts, and the balance between them.

Defossez et al., arXiv 2210.13438, sections 3.3 and 3.4, with the details of audiocraft's training, in which MusicGen's
and AudioGen's codecs were made. Feature matching is a plain mean there, not divided by the size of real features as in
the paper's equation 2.

Shapes: B clips, C channels, N samples, T frames, M mel bands. Waveforms are (B, C, N).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from aural.networks.stft_discriminator import Judged

# -------------------------------------------------------------------------------------------------------------- mel


@dataclass(frozen=True)
class MelConfig:
    """Mel spectrograms for losses, of one or several sizes of window."""

    sample_rate: int = 16000
    n_mels: int = 64
    low_hz: float = 64.0
    high_hz: float | None = None  # None = half the sample rate
    normalized: bool = True  # divide spectra by the window's root of summed squares
    floor: float = 1e-5  # added before the logarithm
    first_power: int = 6  # windows of 2^6 ...
    last_power: int = 10  # ... to 2^10 samples, in :func:`multi_scale_mel_loss`
    heavier_logs: bool = False  # weigh the log part of a window n by sqrt(n - 1) instead of 1


def mel_spectrogram(waveform: Tensor, n_fft: int, hop_length: int, config: MelConfig) -> Tensor:
    """Waveforms (B, C, N) -> mel power (B, C M, T), T = N / hop, rounded up.

    The clip is mirrored by (n_fft - hop) / 2 at both ends, then followed by zeros until the last frame is full.

    Raises:
        ValueError: a clip that is too short to be mirrored.
    """
    around = (n_fft - hop_length) // 2
    if waveform.shape[2] <= around:
        raise ValueError(f"{waveform.shape[2]} samples are too few for windows of {n_fft}: {around + 1} at least")
    padded = F.pad(waveform, (around, around), mode="reflect")
    padded = F.pad(padded, (0, -(padded.shape[2] - n_fft) % hop_length))
    window = _hann_window(n_fft).to(waveform)
    spectrum = torch.stft(
        padded.flatten(0, 1), n_fft, hop_length, window=window, center=False, return_complex=True
    )  # (B C, F, T)
    power = spectrum.real.square() + spectrum.imag.square()
    if config.normalized:
        power = power / window.square().sum()
    high_hz = config.sample_rate / 2 if config.high_hz is None else config.high_hz
    filters = mel_filters(config.n_mels, n_fft, config.sample_rate, config.low_hz, high_hz).to(waveform)
    return (filters.T @ power).unflatten(0, waveform.shape[:2]).flatten(1, 2)


@lru_cache(maxsize=32)
def mel_filters(n_mels: int, n_fft: int, sample_rate: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangles of height 1 on the scale 2595 log10(1 + f / 700), (n_fft / 2 + 1, M).

    With small windows many of them lie between two frequencies and are zero; so it is in the original.
    """
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (low_hz, high_hz))
    edges = 700 * (10 ** (torch.linspace(low, high, n_mels + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0).float()


def multi_scale_mel_loss(predicted: Tensor, target: Tensor, config: MelConfig) -> Tensor:
    """The mean over sizes of window of the distance of mel power and the squared distance of its logarithm.

    Each size counts with the weights of both parts, (1 + alpha); if ``config.normalized`` their sum divides the loss.

    Args:
        predicted: (B, C, N)
        target: (B, C, N)
        config: see there.
    """
    powers = range(config.first_power, config.last_power + 1)
    alphas = [math.sqrt(2**power - 1) if config.heavier_logs else 1.0 for power in powers]
    loss = predicted.new_zeros(())
    for power, alpha in zip(powers, alphas, strict=True):
        linear, logarithmic = mel_distances(predicted, target, 2**power, config)
        loss = loss + linear + alpha * logarithmic
    return loss / sum(1 + alpha for alpha in alphas) if config.normalized else loss


def mel_distances(predicted: Tensor, target: Tensor, n_fft: int, config: MelConfig) -> tuple[Tensor, Tensor]:
    """At one size of window, which moves by a quarter: mean distance of mel power, mean squared one of its log10."""
    a, b = (mel_spectrogram(waveform, n_fft, n_fft // 4, config) for waveform in (predicted, target))
    return F.l1_loss(a, b), F.mse_loss((config.floor + a).log10(), (config.floor + b).log10())


def log_mel_loss(
    predicted: Tensor, target: Tensor, config: MelConfig, n_fft: int = 1024, hop_length: int = 256
) -> Tensor:
    """Mean distance of log10 mel power at one size of window. Reported, not trained by."""
    a, b = (mel_spectrogram(waveform, n_fft, hop_length, config) for waveform in (predicted, target))
    return F.l1_loss((config.floor + a).log10(), (config.floor + b).log10())


@lru_cache(maxsize=16)
def _hann_window(length: int) -> Tensor:
    return torch.hann_window(length)


# ---------------------------------------------------------------------------------------------------------- waveforms


def l1_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance of samples."""
    return F.l1_loss(predicted, target)


def negative_si_snr(
    predicted: Tensor, target: Tensor, sample_rate: int, *, seconds: float = 5.0, overlap: float = 0.5
) -> Tensor:
    """Scale-invariant signal-to-noise ratio in dB, its sign turned: the mean over segments. Reported, not trained by.

    Segments that reach beyond the clip are followed by zeros; each is centred.

    Args:
        predicted: (B, C, N)
        target: (B, C, N)
        sample_rate: in Hz.
        seconds: of a segment.
        overlap: of a segment with the next, as a part of it.
    """
    size = int(seconds * sample_rate)
    step = int(size * (1 - overlap))
    missing = (math.ceil(target.shape[2] / step) - 1) * step + size - target.shape[2]
    cut = [F.pad(waveform, (0, missing)).unfold(2, size, step) for waveform in (predicted, target)]
    estimate, truth = (segments - segments.mean(3, keepdim=True) for segments in cut)
    epsilon = torch.finfo(torch.float32).eps * size
    scale = (estimate * truth).sum(3, keepdim=True) / (epsilon + truth.square().sum(3, keepdim=True))
    signal, noise = scale * truth, estimate - scale * truth
    ratio = (epsilon + signal.square().sum(3)).log10() - (epsilon + noise.square().sum(3)).log10()
    return -10 * ratio.mean()


# ------------------------------------------------------------------------------------------------------ discriminator


def discriminator_loss(fake: Sequence[Judged], real: Sequence[Judged]) -> Tensor:
    """Hinge loss that teaches the discriminator: real above 1, fake below -1; the mean over scales."""
    scales = [
        F.relu(1 - true.logits).mean() + F.relu(1 + false.logits).mean() for false, true in zip(fake, real, strict=True)
    ]
    return torch.stack(scales).mean()


def adversarial_loss(fake: Sequence[Judged]) -> Tensor:
    """What teaches the codec to be taken for real: the mean verdict, its sign turned, over scales."""
    return torch.stack([-scale.logits.mean() for scale in fake]).mean()


def feature_matching_loss(fake: Sequence[Judged], real: Sequence[Judged]) -> Tensor:
    """Mean distance of the discriminator's features for both, over layers and then scales."""
    scales = [
        torch.stack([F.l1_loss(a, b) for a, b in zip(false.features, true.features, strict=True)]).mean()
        for false, true in zip(fake, real, strict=True)
    ]
    return torch.stack(scales).mean()


# ------------------------------------------------------------------------------------------------------------ balance


@dataclass(frozen=True)
class Balanced:
    """What a :class:`GradientBalancer` did."""

    loss: Tensor
    """The losses' sum, each at the scale it was given. To be reported: its gradient has already been sent."""
    ratios: dict[str, float]
    """Each loss's part in the averaged norms before they were balanced."""


class GradientBalancer(nn.Module):
    """Weights that say how much of the gradient comes from each loss, however large the losses are.

    Section 3.4 of the paper, "Loss balancer": the gradient of each loss with respect to the codec's output is divided
    by its norm, averaged over updates, and multiplied by the loss's part of the weights. The averages are buffers, so
    that they are saved and resumed with other states.
    """

    norms: Tensor
    """(losses,), decayed sums of norms."""
    updates: Tensor
    """(), the decayed number of updates, by which the sums are divided."""

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        decay: float = 0.999,
        total_norm: float = 1.0,
        per_item: bool = True,
        epsilon: float = 1e-12,
    ) -> None:
        """Begin without any averages.

        Args:
            weights: name of each loss -> its weight; they count in proportion.
            decay: of the averages.
            total_norm: of the gradient in all.
            per_item: take the mean over clips of each one's norm; False: the norm of the whole batch.
            epsilon: added to norms.
        """
        super().__init__()
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(f"weights of losses are from 0, and not all 0: {dict(weights)}")
        self.weights = dict(weights)
        self.decay, self.total_norm, self.per_item, self.epsilon = decay, total_norm, per_item, epsilon
        self.register_buffer("norms", torch.zeros(len(weights), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))

    def backward(self, losses: Mapping[str, Tensor], output: Tensor) -> Balanced:
        """Send the balanced gradient of ``losses`` back from ``output``, through what it was made by.

        Args:
            losses: scalars, by the names of the weights.
            output: what they were all computed from, (B, ...).

        Raises:
            ValueError: the names differ from those of the weights.
        """
        gradient, balanced = self.balance(losses, output)
        output.backward(gradient)
        return balanced

    def balance(self, losses: Mapping[str, Tensor], output: Tensor) -> tuple[Tensor, Balanced]:
        """The gradient that :meth:`backward` sends, of the shape of ``output``, and the rest; the graph is kept."""
        if losses.keys() != self.weights.keys():
            raise ValueError(f"the losses are {sorted(losses)}, the weights {sorted(self.weights)}")
        gradients = torch.stack(
            [torch.autograd.grad(losses[name], output, retain_graph=True)[0] for name in self.weights]
        )
        average = self._averaged(gradients)
        weights = average.new_tensor(list(self.weights.values()))
        scales = weights / weights.sum() * self.total_norm / (self.epsilon + average)
        values = torch.stack([losses[name].detach() for name in self.weights]).double()
        ratios = dict(zip(self.weights, (average / average.sum()).tolist(), strict=True))
        gradient = torch.einsum("l,l...->...", scales.to(gradients), gradients)
        return gradient, Balanced((scales * values).sum().to(output.dtype), ratios)

    def _averaged(self, gradients: Tensor) -> Tensor:
        """(losses, B, ...) -> (losses,): norms averaged over clips, processes and updates, all alike."""
        flat = gradients.double().flatten(2) if self.per_item else gradients.double().flatten(1)[:, None]
        norms = flat.norm(dim=2).mean(1)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(norms)
            norms /= dist.get_world_size()
        self.norms.mul_(self.decay).add_(norms)
        self.updates.mul_(self.decay).add_(1.0)
        return self.norms / self.updates
