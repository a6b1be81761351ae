"""EnCodec: a waveform as a few integers a frame, and back.

Defossez et al., "High Fidelity Neural Audio Compression", arXiv 2210.13438, in the form that MusicGen (arXiv
2306.05284) and AudioGen (arXiv 2209.15352) are built on: convolutions that lower the rate level by level, an LSTM, a
residual quantiser, and the same in reverse.

A codec for use has plain weights. One for training has them as length times direction (Salimans & Kingma, arXiv
1602.07868): :func:`add_weight_norm` and :func:`fold_weight_norm` lead from one to the other. Names of parameters are
those of transformers' EnCodec, in both forms.

Shapes: B clips, C channels of sound, N samples, T frames (N / hop, rounded up), D latent width, K codebooks, W channels
of a layer, L steps of a layer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from aural.networks.residual_quantizer import Quantized, QuantizerConfig, ResidualQuantizer

LENGTH, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
"""Ends of the names of a weight in the form for training."""

Network = TypeVar("Network", bound=nn.Module)
LstmState = tuple[Tensor, Tensor]
"""Hidden and cell state of an LSTM, each (layers, B, W)."""


@dataclass(frozen=True)
class EncodecConfig:
    """Sizes of a codec; the defaults are those of AudioGen's: 16 kHz, 50 frames a second, 2.2 kbit/s."""

    sample_rate: int = 16000
    channels: int = 1
    ratios: tuple[int, ...] = (8, 5, 4, 2)  # of the rates from level to level, in the decoder's order
    n_filters: int = 64  # channels at the full rate; doubled at every level
    dimension: int = 128  # D
    residual_layers: int = 1  # blocks a level
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2  # block j of a level is dilated by its j-th power
    compress: int = 2  # by how much a block is narrower inside
    lstm_layers: int = 2
    true_skip: bool = True  # blocks pass their input on; False: through a convolution of size 1
    causal: bool = False  # nothing looks ahead
    pad_mode: Literal["constant", "reflect", "replicate"] = "constant"
    trim_right_ratio: float = 1.0  # if causal: how much of what the decoder has too much is taken off the end
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self) -> None:
        """Refuse what is no codec.

        Raises:
            ValueError: says which setting.
        """
        if not self.ratios or min(self.ratios) < 1:
            raise ValueError(f"ratios are whole numbers from 1, not {self.ratios}")
        if self.n_filters % self.compress:
            raise ValueError(f"{self.n_filters} filters cannot be compressed by {self.compress}")
        if not 0.0 <= self.trim_right_ratio <= 1.0:
            raise ValueError(f"trim_right_ratio lies between 0 and 1, not at {self.trim_right_ratio}")

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    @property
    def kilobits_per_second(self) -> float:
        """Of the codes of one channel."""
        return self.quantizer.n_codebooks * self.quantizer.bits_per_code * self.frame_rate / 1000

    def n_frames(self, n_samples: int) -> int:
        """T of a clip of N samples; the last frame may be of less than a hop."""
        return -(-n_samples // self.hop)


class Encodec(nn.Module):
    """Encoder, quantiser, decoder."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = ResidualQuantizer(config.quantizer, config.dimension)
        self.decoder = Decoder(config)

    def encode(self, waveform: Tensor, n_codebooks: int | None = None) -> Tensor:
        """Waveforms (B, C, N) at ``config.sample_rate`` -> codes (B, k, T) of the first codebooks; None = of all.

        Clips of a batch are not masked: what is shorter than N is followed by zeros, and is heard as followed by them.

        Raises:
            ValueError: there are not as many codebooks.
        """
        return self.quantizer.encode(self.encoder(waveform), n_codebooks)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, k, T), k <= K -> waveforms (B, C, T hop), cut neither to what was encoded nor to -1..1.

        Raises:
            ValueError: there are not as many codebooks.
        """
        return self.decoder(self.quantizer.decode(codes))

    def forward(
        self, waveform: Tensor, n_codebooks: int | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Quantized]:
        """There and back, for training: (B, C, N) -> (B, C, N), and what the quantiser made of it.

        Args:
            waveform: (B, C, N)
            n_codebooks: how many; None = all, or as ``config.quantizer.codebook_dropout`` has it.
            generator: of what the quantiser draws in training mode; None = torch's global one.
        """
        quantized = self.quantizer(self.encoder(waveform), n_codebooks, generator=generator)
        return self.decoder(quantized.vectors)[..., : waveform.shape[2]], quantized

    def encode_stereo(self, waveform: Tensor) -> Tensor:
        """Two channels (B, 2, N) through a codec of one -> codes (B, 2 K, T), left and right of each codebook in turn.

        Raises:
            ValueError: other than two channels, or a codec of more than one.
        """
        if self.config.channels != 1 or waveform.shape[1] != 2:
            raise ValueError(f"stereo is two channels through a codec of one, not {tuple(waveform.shape)}")
        codes = self.encode(waveform.flatten(0, 1)[:, None])
        return interleave(codes, 2)

    def decode_stereo(self, codes: Tensor) -> Tensor:
        """The inverse of :meth:`encode_stereo`: (B, 2 k, T) -> (B, 2, T hop).

        Raises:
            ValueError: an odd number of rows, or a codec of more than one channel.
        """
        if self.config.channels != 1 or codes.shape[1] % 2:
            raise ValueError(f"stereo is pairs of codes through a codec of one channel, not {tuple(codes.shape)}")
        return self.decode(separate(codes, 2)).unflatten(0, (-1, 2)).flatten(1, 2)


def interleave(codes: Tensor, channels: int) -> Tensor:
    """Codes of channels that went through a codec of one, (B channels, K, T) -> (B, K channels, T).

    The rows of each codebook follow one another, one for each channel: left 0, right 0, left 1, right 1, ...
    """
    return codes.unflatten(0, (-1, channels)).transpose(1, 2).flatten(1, 2)


def separate(codes: Tensor, channels: int) -> Tensor:
    """The inverse of :func:`interleave`: (B, K channels, T) -> (B channels, K, T)."""
    return codes.unflatten(1, (-1, channels)).transpose(1, 2).flatten(0, 1)


# ------------------------------------------------------------------------------------------------------------ two ways


class Encoder(nn.Module):
    """(B, C, N) -> (B, D, T)."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        width = config.n_filters
        layers: list[nn.Module] = [PaddedConv(config, config.channels, width, config.kernel_size)]
        for ratio in reversed(config.ratios):
            layers += _residual_blocks(config, width)
            layers += [nn.ELU(), PaddedConv(config, width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        layers += _lstm(config, width)
        layers += [nn.ELU(), PaddedConv(config, width, config.dimension, config.last_kernel_size)]
        self.layers = nn.ModuleList(layers)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, C, N) -> (B, D, T)."""
        x = waveform
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """(B, D, T) -> (B, C, T hop)."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        width = config.n_filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [PaddedConv(config, config.dimension, width, config.kernel_size)]
        layers += _lstm(config, width)
        for ratio in config.ratios:
            layers += [nn.ELU(), TrimmedConvTranspose(config, width, width // 2, ratio)]
            width //= 2
            layers += _residual_blocks(config, width)
        layers += [nn.ELU(), PaddedConv(config, width, config.channels, config.last_kernel_size)]
        self.layers = nn.ModuleList(layers)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D, T) -> (B, C, T hop)."""
        x = vectors
        for layer in self.layers:
            x = layer(x)
        return x


def _residual_blocks(config: EncodecConfig, width: int) -> list[nn.Module]:
    return [ResidualBlock(config, width, config.dilation_base**j) for j in range(config.residual_layers)]


def _lstm(config: EncodecConfig, width: int) -> list[nn.Module]:
    return [ResidualLstm(width, config.lstm_layers)] if config.lstm_layers else []


# -------------------------------------------------------------------------------------------------------------- layers


class PaddedConv(nn.Module):
    """A convolution that gives ceil(L / stride) steps: it sees what lies around its step, or only what lies before."""

    def __init__(
        self, config: EncodecConfig, c_in: int, c_out: int, kernel_size: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, kernel_size, stride, dilation=dilation)
        self.span = (kernel_size - 1) * dilation + 1
        self.stride = stride
        self.pad_mode = config.pad_mode
        around = self.span - stride
        self.right = 0 if config.causal else around // 2
        self.left = around - self.right  # an odd one goes to the left

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, L) -> (B, W', ceil(L / stride))."""
        to_fill = -x.shape[2] % self.stride  # so that the last step has a whole window
        return self.conv(_pad(x, self.left, self.right + to_fill, self.pad_mode))


class TrimmedConvTranspose(nn.Module):
    """The transposed convolution of twice the stride's size, (B, W, L) -> (B, W', L stride)."""

    def __init__(self, config: EncodecConfig, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(c_in, c_out, 2 * stride, stride)
        self.right = math.ceil(stride * config.trim_right_ratio) if config.causal else stride // 2
        self.left = stride - self.right

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, L) -> (B, W', L stride)."""
        y = self.conv(x)
        return y[..., self.left : y.shape[2] - self.right]


class ResidualBlock(nn.Module):
    """(B, W, L) -> (B, W, L): a dilated convolution to a narrower layer, one of size 1 back, and the input added."""

    def __init__(self, config: EncodecConfig, width: int, dilation: int) -> None:
        super().__init__()
        hidden = width // config.compress
        first = PaddedConv(config, width, hidden, config.residual_kernel_size, dilation=dilation)
        self.block = nn.ModuleList([nn.ELU(), first, nn.ELU(), PaddedConv(config, hidden, width, 1)])
        self.shortcut = nn.Identity() if config.true_skip else PaddedConv(config, width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, L) -> (B, W, L)."""
        y = x
        for layer in self.block:
            y = layer(y)
        return self.shortcut(x) + y


class ResidualLstm(nn.Module):
    """(B, W, L) -> (B, W, L): an LSTM over the steps, and its input added."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)

    def forward(self, x: Tensor) -> Tensor:
        """A whole clip (B, W, L)."""
        return self.go_on(x, None)[0]

    def go_on(self, x: Tensor, state: LstmState | None) -> tuple[Tensor, LstmState]:
        """The next steps (B, W, L) of a clip, after those that led to ``state``; None = the first ones."""
        steps = x.permute(2, 0, 1)
        y, state = self.lstm(steps, state)
        return (y + steps).permute(1, 2, 0), state


def _pad(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad the steps of (B, W, L). As published, a clip too short to be mirrored is first followed by zeros."""
    missing = max(left, right) + 1 - x.shape[2] if mode == "reflect" else 0
    if missing <= 0:
        return F.pad(x, (left, right), mode=mode)
    padded = F.pad(F.pad(x, (0, missing)), (left, right), mode=mode)
    return padded[..., : padded.shape[2] - missing]


# ---------------------------------------------------------------------------------------------------------- weight norm


def add_weight_norm(codec: Encodec) -> Encodec:
    """Give every convolution its weight as length times direction, for training; in place."""
    for module in codec.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            parametrizations.weight_norm(module)
    return codec


def fold_weight_norm(network: Network) -> Network:
    """Undo :func:`add_weight_norm`, here or in a discriminator; in place."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a codec for training -> those of one for use; others are left as they are.

    The length is that over all dimensions but the first, which are the outputs of a convolution, but the inputs of a
    transposed one.
    """
    plain = {}
    for name, tensor in weights.items():
        if name.endswith(DIRECTION):
            base = name.removesuffix(DIRECTION)
            norm = torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.dim())), keepdim=True)
            plain[f"{base}weight"] = tensor * (weights[base + LENGTH] / norm)
        elif not name.endswith(LENGTH):
            plain[name] = tensor
    return plain
