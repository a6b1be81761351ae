"""HTS-AT as released, as a peer: a Fourier transform by convolution, and attention by matrices of scores.

Written from a description of the released code, not from it. It borrows the parameters of our network. Left out on this
side are things the released code computes and Pengi does not use: class probabilities, and averages of the attention.

Shapes: B clips, N samples, T frames, M bands, R tokens along a side, C width, H heads, G windows of the batch, w tokens
along a side of a window, D final width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.networks.htsat import Block, Htsat


class ExplicitHtsat:
    """Waveforms (B, N), of which none fills more than one picture, to embeddings (B, D)."""

    def __init__(self, htsat: Htsat) -> None:
        config = htsat.config
        self.htsat, self.config = htsat, config
        n_fft = config.n_fft
        samples = torch.arange(n_fft, dtype=torch.float64)
        angles = 2 * math.pi / n_fft * torch.arange(n_fft // 2 + 1)[:, None] * samples
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi / n_fft * samples)
        self.cosines, self.sines = ((wave * hann).float()[:, None] for wave in (angles.cos(), -angles.sin()))
        stages = range(len(config.depths))
        self.indices = [_index(config.window(stage)) for stage in stages]
        self.masks = [_mask(config.side(stage), config.window(stage), config.shift(stage, 1)) for stage in stages]

    @torch.inference_mode()
    def __call__(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, D)."""
        patches = self.htsat.patch_embed
        x = patches.norm(patches.proj(self.picture(waveform)).flatten(2).transpose(1, 2))
        stage: Any
        for number, stage in enumerate(self.htsat.layers):
            side = self.config.side(number)
            for place, block in enumerate(stage.blocks):
                x = self.block(block, x, side, self.indices[number], self.masks[number] if place % 2 else None)
            if stage.downsample is not None:
                x = x.view(len(x), side, side, -1)
                corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
                x = torch.cat(corners, dim=3).view(len(x), (side // 2) ** 2, -1)
                x = stage.downsample.reduction(stage.downsample.norm(x))
        return self.htsat.norm(x).mean(dim=1)

    def picture(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, 1, side, side)."""
        config, norm = self.config, self.htsat.bn0
        mirrored = F.pad(waveform[:, None], (config.n_fft // 2, config.n_fft // 2), mode="reflect")
        real, imaginary = (F.conv1d(mirrored, wave, stride=config.hop_length) for wave in (self.cosines, self.sines))
        power = (real.square() + imaginary.square()).transpose(1, 2)[:, None]  # (B, 1, T, bins)
        mel = 10.0 * torch.log10((power @ self.htsat.logmel_extractor.melW).clamp(min=1e-10))
        mel = F.batch_norm(
            mel.transpose(1, 3), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        mel = mel.transpose(1, 3)  # (B, 1, T, M)
        n_clips, n_bands, strips = len(mel), config.mel_bins, config.spec_size // config.mel_bins
        size = (config.spec_size * strips, n_bands)
        mel = F.interpolate(mel, size, mode="bicubic", align_corners=True)
        folded = mel.transpose(2, 3).reshape(n_clips, n_bands, strips, config.spec_size).transpose(1, 2)
        return folded.reshape(n_clips, 1, config.spec_size, config.spec_size)

    def block(self, block: Block, x: Tensor, side: int, index: Tensor, mask: Tensor | None) -> Tensor:
        """(B, R^2, C) -> (B, R^2, C); a mask (windows, w^2, w^2) is that of shifted windows."""
        n_clips, _, width = x.shape
        window = block.attn.window
        shift, across = (0 if mask is None else window // 2), side // window
        inner = block.norm1(x).view(n_clips, side, side, width)
        if shift:
            inner = torch.roll(inner, (-shift, -shift), dims=(1, 2))
        inner = inner.view(n_clips, across, window, across, window, width).permute(0, 1, 3, 2, 4, 5)
        inner = attend(block, inner.contiguous().view(-1, window**2, width), index, mask)
        inner = inner.view(n_clips, across, across, window, window, width).permute(0, 1, 3, 2, 4, 5)
        inner = inner.contiguous().view(n_clips, side, side, width)
        if shift:
            inner = torch.roll(inner, (shift, shift), dims=(1, 2))
        x = x + inner.view(n_clips, side * side, width)
        return x + block.mlp(block.norm2(x))


def attend(block: Block, x: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
    """(G, w^2, C) -> (G, w^2, C)."""
    n_windows, n_tokens, width = x.shape
    heads = block.attn.n_heads
    qkv = block.attn.qkv(x).reshape(n_windows, n_tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    scores = (query * (width // heads) ** -0.5) @ key.transpose(2, 3)  # (G, H, w^2, w^2)
    bias = block.attn.relative_position_bias_table[index.view(-1)].view(n_tokens, n_tokens, heads)
    scores = scores + bias.permute(2, 0, 1).contiguous()[None]
    if mask is not None:
        scores = scores.view(-1, len(mask), heads, n_tokens, n_tokens) + mask[None, :, None]
        scores = scores.view(n_windows, heads, n_tokens, n_tokens)
    mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(n_windows, n_tokens, width)
    return block.attn.proj(mixed)


def _index(window: int) -> Tensor:
    """(w^2, w^2): the row of the table of biases for tokens p, q."""
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    down, right = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


def _mask(side: int, window: int, shift: int) -> Tensor | None:
    """(windows, w^2, w^2): -100 between tokens that rolling has made neighbours; None where nothing is shifted."""
    if not shift:
        return None
    bounds = (slice(0, side - window), slice(side - window, side - shift), slice(side - shift, side))
    region = torch.zeros(side, side)
    for number, (rows, columns) in enumerate((rows, columns) for rows in bounds for columns in bounds):
        region[rows, columns] = number
    across = side // window
    region = region.view(across, window, across, window).transpose(1, 2).reshape(-1, window * window)
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)
