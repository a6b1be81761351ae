"""A discriminator that looks at spectrograms of several sizes: Defossez et al., arXiv 2210.13438, section 3.4.

Used in training alone, hence always with weights as length times direction. Names of parameters are those of
audiocraft's discriminator, of which :func:`official_weights` makes these.

Shapes: B clips, C channels, N samples, T frames, F frequencies, W filters.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


@dataclass(frozen=True)
class StftDiscriminatorConfig:
    """Sizes; the defaults are those that MusicGen's and AudioGen's codecs were trained with."""

    channels: int = 1  # of sound
    out_channels: int = 1
    n_filters: int = 32
    n_ffts: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    hop_lengths: tuple[int, ...] = (256, 512, 128, 64, 32)
    win_lengths: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    kernel_size: tuple[int, int] = (3, 9)  # time, frequency
    stride: tuple[int, int] = (1, 2)
    dilations: tuple[int, ...] = (1, 2, 4)  # in time, of the strided layers
    negative_slope: float = 0.3
    normalized: bool = True  # divide spectra by the window's root of summed squares

    def __post_init__(self) -> None:
        """Refuse lists that do not fit.

        Raises:
            ValueError: they differ in length.
        """
        if not len(self.n_ffts) == len(self.hop_lengths) == len(self.win_lengths):
            raise ValueError("n_ffts, hop_lengths and win_lengths must be equally many")


@dataclass(frozen=True)
class Judged:
    """What one scale makes of waveforms."""

    logits: Tensor
    """(B, out_channels, T, F'), above 0 for what it takes to be real."""
    features: tuple[Tensor, ...]
    """Outputs of its layers but the last, each (B, W, T, F')."""


class StftDiscriminator(nn.Module):
    """Several independent discriminators, one for each size of window."""

    def __init__(self, config: StftDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminators = nn.ModuleList(_Scale(config, index) for index in range(len(config.n_ffts)))

    def forward(self, waveform: Tensor) -> list[Judged]:
        """Waveforms (B, C, N), N of at least the longest window -> what each scale makes of them."""
        return [discriminator(waveform) for discriminator in self.discriminators]


class _Scale(nn.Module):
    """One size of window."""

    window: Tensor

    def __init__(self, config: StftDiscriminatorConfig, index: int) -> None:
        super().__init__()
        self.config = config
        self.n_fft, self.hop_length = config.n_ffts[index], config.hop_lengths[index]
        self.register_buffer("window", torch.hann_window(config.win_lengths[index]), persistent=False)
        kernel, width = config.kernel_size, config.n_filters
        square = (kernel[0], kernel[0])
        layers = [_Conv(2 * config.channels, width, kernel)]
        layers += [_Conv(width, width, kernel, config.stride, dilation) for dilation in config.dilations]
        layers += [_Conv(width, width, square)]
        for layer in layers[1:]:
            weight_norm(layer.conv)
        self.convs = nn.ModuleList(layers)
        self.conv_post = _Conv(width, config.out_channels, square)
        weight_norm(self.conv_post.conv)

    def forward(self, waveform: Tensor) -> Judged:
        # channels innermost: few filters over large pictures take half the time that way on a processor
        x = self.spectrum(waveform).contiguous(memory_format=torch.channels_last)
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.config.negative_slope)
            features.append(x)
        return Judged(self.conv_post(x), tuple(features))

    def spectrum(self, waveform: Tensor) -> Tensor:
        """(B, C, N) -> (B, 2 C, T, F): real parts of all channels, then imaginary ones; frames lie inside the clip."""
        spectrum = torch.stft(
            waveform.flatten(0, 1),
            self.n_fft,
            self.hop_length,
            len(self.window),
            self.window,
            center=False,
            return_complex=True,
        )
        if self.config.normalized:
            spectrum = spectrum / self.window.pow(2).sum().sqrt()
        spectrum = spectrum.unflatten(0, waveform.shape[:2]).transpose(2, 3)
        return torch.cat([spectrum.real, spectrum.imag], dim=1)


class _Conv(nn.Module):
    """Exists for the published names; keeps the size where the stride is 1."""

    def __init__(
        self, c_in: int, c_out: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), dilation: int = 1
    ) -> None:
        super().__init__()
        padding = ((kernel[0] - 1) * dilation // 2, (kernel[1] - 1) // 2)
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, (dilation, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def official_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of audiocraft's discriminator under our names; windows are left out, as they follow from the sizes."""
    return {our_name(name): tensor for name, tensor in released.items() if not name.endswith(".spec_transform.window")}


def our_name(released: str) -> str:
    """What we call a parameter of audiocraft's discriminator."""
    base, _, kind = released.rpartition(".")
    halves = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return f"{base}.{halves.get(kind, kind)}"
