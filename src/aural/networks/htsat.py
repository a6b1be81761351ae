"""HTS-AT: a Swin transformer that reads a log-mel spectrogram as a square picture of 4 x 4 patches.

Chen et al., "HTS-AT: A Hierarchical Token-Semantic Audio Transformer for Sound Classification and Detection",
arXiv 2202.00874 (ICASSP 2022), over Liu et al., "Swin Transformer", arXiv 2103.14030. It is the ear of CLAP and of
Pengi (Deshmukh et al., arXiv 2305.11834). Parameters bear the published names:

>>> model = Htsat(HtsatConfig())
>>> load_into(model.eval(), official_weights(read_foreign("base.pth")["model"], model.config))
>>> output = model(waveform)                              # (batch, samples) at config.sample_rate, in [-1, 1]
>>> output.hidden.shape, output.embedding.shape           # up to 7.4 s: 32 steps
(torch.Size([1, 32, 768]), torch.Size([1, 768]))
>>> probabilities = model.classify(output)                # (batch, 527)

A clip's way: waveform -> log-mel in dB -> each band normalised over the training set (``bn0``) -> windows of at most
``target_frames``, each stretched to exactly that many -> a square picture, in which consecutive strips of time lie
below one another -> patches -> stages of attention inside 8 x 8 windows, every other one shifted by 4, between which
2 x 2 tokens become one -> tokens, put back into the order of time.

A clip's windows share its real frames evenly, and steps their window's, so the steps of a stretched clip are shorter. A
clip in a padded batch gives what it gives alone, and bn0 learns from real frames only.

Shapes: B clips, N samples, T frames, M mel bands, I pictures (one a window), R tokens along a side of the picture,
w tokens along a side of an attention window, C width of a stage, H heads, K windows of a clip, S steps of a window,
F token rows of a step, D final width, L classes. Masks are boolean, True = real, and the real part stands first.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from aural import spec_augment
from aural.errors import CheckpointError
from aural.features import log_mel, slaney_mel_filters
from aural.padding import lengths_to_mask

INIT_STD = 0.02
FORBIDDEN = -100.0
"""What the shift mask adds to scores; the published weights were trained with it, not with minus infinity."""
RELEASED_WINDOW, RELEASED_HOP = 689, 344
"""Frames of the released code's windows over long clips, and from one to the next."""
STRIPES, TIME_STRIPE, BAND_STRIPE = 2, 64, 8
"""SpecAugment of the released training: stripes along each axis, and the width (frames, bands) they stay under."""
ANCHOR = "patch_embed.proj.weight"
"""A name that no other network of a checkpoint has."""
KERNEL_TOLERANCE = 1e-4
"""Of the released DFT kernels, whose values lie in -1..1."""


@dataclass(frozen=True)
class HtsatConfig:
    """Sizes of :class:`Htsat`; the defaults are those of Pengi's, 31 M parameters."""

    sample_rate: int = 44100  # of the waveforms, in Hz; 32000 in HTS-AT itself
    filter_rate: int = 32000  # for which the mel filters are made; Pengi uses those of 32 kHz at 44.1 kHz
    n_fft: int = 1024
    hop_length: int = 320
    mel_bins: int = 64
    low_hz: float = 50.0
    high_hz: float = 14000.0
    spec_size: int = 256  # side of the picture, a multiple of mel_bins
    patch_size: int = 4
    patch_stride: int = 4
    embed_dim: int = 96  # width of the first stage; it doubles from each to the next
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window_size: int = 8
    mlp_ratio: float = 4.0
    drop_path: float = 0.1  # probability of skipping the last block in training, falling linearly to 0 at the first
    spec_augment: bool = True  # blank stripes in training; False where the training loop does it
    # False: a long clip is cut into as few even windows as will do. True: the released rules, windows of 689 frames
    # every 344 with the rest unheard, and in training one random window.
    released_windows: bool = False
    num_classes: int = 527  # 0 = no classifier
    labels: tuple[str, ...] = ()  # what the classifier's outputs are called; () = unknown

    def __post_init__(self) -> None:
        """Refuse what no network can be built from.

        Raises:
            ValueError: says which settings do not fit.
        """
        if len(self.depths) != len(self.num_heads) or not self.depths:
            raise ValueError(f"depths {self.depths} and num_heads {self.num_heads} must name as many stages")
        if self.spec_size % self.mel_bins:
            raise ValueError(f"spec_size {self.spec_size} must be a multiple of the {self.mel_bins} mel_bins")
        if self.mel_bins % (self.patch_stride * 2 ** (len(self.depths) - 1)):
            raise ValueError(f"{len(self.depths)} stages do not divide {self.mel_bins} mel_bins into whole tokens")
        if (self.patch_size - self.patch_stride) % 2 or self.patch_size < self.patch_stride:
            raise ValueError(f"patch_size {self.patch_size} must be patch_stride {self.patch_stride} or an even more")
        for stage, heads in enumerate(self.num_heads):
            width, side, window = self.embed_dim * 2**stage, self.side(stage), self.window(stage)
            if width % heads:
                raise ValueError(f"{heads} heads do not divide the width {width} of stage {stage}")
            if side % window:
                raise ValueError(f"windows of {window} do not divide the {side} x {side} tokens of stage {stage}")
        if self.released_windows and self.target_frames < RELEASED_WINDOW:
            raise ValueError(f"a picture of {self.target_frames} frames is too small for released_windows")
        if self.labels and len(self.labels) != self.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.num_classes} classes")

    @property
    def width(self) -> int:
        """D: 768."""
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    @property
    def strips(self) -> int:
        """Strips of time in a picture: 4."""
        return self.spec_size // self.mel_bins

    @property
    def target_frames(self) -> int:
        """Frames that fill a picture: 1024."""
        return self.spec_size * self.strips

    @property
    def steps(self) -> int:
        """S, steps of a window: 32."""
        return self.side(len(self.depths) - 1) * self.strips

    @property
    def bands(self) -> int:
        """F, rows of tokens of a step: 2."""
        return self.side(len(self.depths) - 1) // self.strips

    def side(self, stage: int) -> int:
        """R of a stage: 64, 32, 16, 8."""
        return self.spec_size // self.patch_stride // 2**stage

    def window(self, stage: int) -> int:
        """w of a stage: window_size, or the whole picture where that is no larger."""
        return min(self.window_size, self.side(stage))

    def shift(self, stage: int, block: int) -> int:
        """By how many tokens the windows of a block are shifted: every other block by w / 2, if there are several."""
        return self.window(stage) // 2 if block % 2 and self.side(stage) > self.window(stage) else 0


def small(labels: tuple[str, ...] = ()) -> HtsatConfig:
    """A config of 0.84 M parameters for 16 kHz; without labels it has no classifier.

    It keeps the published geometry (10.24 s to a picture, four stages, heads of 24) and has a quarter of the width and
    seven blocks for twelve. A clip of 5 s costs 0.55 GFLOP by ``torch.utils.flop_counter`` (attention by its plain
    formula, or it is not counted) and one of 10 s 0.58, since the shorter one is stretched.
    (:class:`aural.networks.conv_encoder.ConvEncoder`: 0.83 M parameters, 0.41 GFLOP for 5 s, 0.81 for 10 s.)
    """
    return HtsatConfig(
        sample_rate=16000,
        filter_rate=16000,
        n_fft=512,
        hop_length=160,
        high_hz=8000.0,
        embed_dim=24,
        depths=(2, 2, 2, 1),
        num_heads=(1, 2, 4, 8),
        spec_augment=False,
        num_classes=len(labels),
        labels=labels,
    )


@dataclass(frozen=True)
class HtsatOutput:
    """What :class:`Htsat` makes of a batch; padded windows mean nothing."""

    tokens: Tensor
    """(B, K, S, F, D), in the order of time; the low bands stand first."""
    window_mask: Tensor
    """(B, K), True = real."""

    @property
    def hidden(self) -> Tensor:
        """(B, K * S, D): each step's mean over its bands."""
        return self.tokens.mean(dim=3).flatten(1, 2)

    @property
    def mask(self) -> Tensor:
        """(B, K * S), of ``hidden``."""
        return self.window_mask.repeat_interleave(self.tokens.shape[2], dim=1)

    @property
    def embedding(self) -> Tensor:
        """(B, D), the mean over real tokens: ``latent_output`` of the published code, and all that Pengi hears."""
        return _mean_over_windows(self.tokens.mean(dim=(2, 3)), self.window_mask)


class Htsat(nn.Module):
    """Waveform -> tokens, and with a classifier the probability of each class."""

    def __init__(self, config: HtsatConfig) -> None:
        super().__init__()
        self.config = config
        self.logmel_extractor = MelFilters(config)
        self.bn0 = nn.BatchNorm1d(config.mel_bins)
        self.patch_embed = PatchEmbedding(config)
        n_blocks = sum(config.depths)
        rates = [config.drop_path * block / max(1, n_blocks - 1) for block in range(n_blocks)]
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            self.layers.append(Stage(config, stage, rates[:depth]))
            rates = rates[depth:]
        self.norm = nn.LayerNorm(config.width)
        self.tscam_conv: nn.Conv2d | None = None
        if config.num_classes:
            self.tscam_conv = nn.Conv2d(config.width, config.num_classes, (config.bands, 3), padding=(0, 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def max_samples(self, n_steps: int) -> int:
        """Longest clip, in samples, that gives at most n_steps steps; 0 if none does."""
        n_frames = n_steps // self.config.steps * self.config.target_frames
        return max(0, n_frames * self.config.hop_length - 1)

    def forward(self, waveform: Tensor, mask: Tensor | None = None) -> HtsatOutput:
        """Encode clips (B, N) at ``config.sample_rate`` in [-1, 1], of which mask (B, N) is real; None = all."""
        return self.encode_fbank(*self.fbank(waveform, mask))

    def fbank(self, waveform: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Waveform (B, N) and its mask (B, N) -> log-mel after bn0 (B, T, M), T = 1 + floor(N / hop), and its mask.

        A clip shorter than a frame is followed by silence up to there, which counts as real. Padding is 0.
        """
        n_samples = [waveform.shape[1]] * len(waveform) if mask is None else mask.sum(dim=1).tolist()
        if mask is not None:
            waveform = waveform.masked_fill(~mask, 0.0)
        waveform = F.pad(waveform, (0, max(0, self.config.n_fft - waveform.shape[1])))
        # Each by itself: the first and last frames see their clip mirrored at its own ends.
        clips = [clip[None, : max(self.config.n_fft, n)] for clip, n in zip(waveform, n_samples, strict=True)]
        mel, frame_mask = _padded([self.log_mel(clip)[0] for clip in clips])
        fbank = torch.zeros_like(mel)
        fbank[frame_mask] = self.bn0(mel[frame_mask]).to(fbank.dtype)
        return fbank, frame_mask

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Waveform (B, N), all of it real, -> log-mel before bn0 (B, T, M), in dB."""
        n_fft, hop_length = self.config.n_fft, self.config.hop_length
        return log_mel(waveform, n_fft=n_fft, hop_length=hop_length, mel_filters=self.logmel_extractor.melW)

    def encode_fbank(
        self,
        fbank: Tensor,
        mask: Tensor | None = None,
        tapped_layer: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> HtsatOutput:
        """Encode (B, T, M) of :meth:`fbank`, perhaps spoilt by SpecAugment, and its mask (B, T); None = all real.

        The generator (None: torch's global one) is that of SpecAugment and of ``released_windows`` in training mode.

        Raises:
            ValueError: not ``mel_bins`` bands, no frames, or a tapped layer, of which there are none.
        """
        if tapped_layer is not None:
            raise ValueError("an Htsat has one output: leave tapped_layer at None")
        if fbank.shape[1] < 1 or fbank.shape[2] != self.config.mel_bins:
            raise ValueError(f"fbank must be frames of {self.config.mel_bins} bands, got {tuple(fbank.shape[1:])}")
        n_clips, n_frames, n_mels = fbank.shape
        if self.training and self.config.spec_augment:
            fbank = spec_augment.apply(fbank, draw_stripes(n_clips, n_frames, n_mels, generator))
        lengths = [n_frames] * n_clips if mask is None else mask.sum(dim=1).clamp_min(1).tolist()
        spans = [self._spans(length, generator) for length in lengths]
        pictures = [
            fold(stretch(clip[None, start:stop], self.config.target_frames), self.config.spec_size)
            for clip, own in zip(fbank, spans, strict=True)
            for start, stop in own
        ]
        tokens = self.encode_pictures(torch.cat(pictures))
        return HtsatOutput(*_padded(tokens.split([len(own) for own in spans])))

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Pictures (I, spec_size, spec_size) -> tokens (I, S, F, D) in the order of time."""
        x = self.patch_embed(pictures)
        for stage in self.layers:
            x = stage(x)
        x = self.norm(x).unflatten(1, (self.config.strips, self.config.bands))
        return x.transpose(2, 3).flatten(1, 2)

    def step_logits(self, output: HtsatOutput) -> Tensor:
        """The token-semantic classifier: logits of each class in each step, (B, K * S, L), independent of each other.

        Raises:
            ValueError: the model has no classifier.
        """
        if self.tscam_conv is None:
            raise ValueError("this Htsat has no classifier: build it with num_classes")
        # Windows are classified one by one: neither do published ones see their neighbours.
        maps = output.tokens.flatten(0, 1).permute(0, 3, 2, 1)  # (B * K, D, F, S)
        logits = self.tscam_conv(maps).squeeze(2).transpose(1, 2)  # (B * K, S, L)
        return logits.unflatten(0, output.window_mask.shape).flatten(1, 2)

    def classify(self, output: HtsatOutput) -> Tensor:
        """Probability of each class, independent of each other, (B, L): ``clipwise_output`` of the published code.

        Of each window the sigmoid of its steps' mean, and of these the mean over windows.

        Raises:
            ValueError: the model has no classifier.
        """
        logits = self.step_logits(output).unflatten(1, (-1, self.config.steps))
        return _mean_over_windows(logits.mean(dim=2).sigmoid(), output.window_mask)

    def _spans(self, n_frames: int, generator: torch.Generator | None) -> list[tuple[int, int]]:
        """First frame and end of each window of a clip."""
        target = self.config.target_frames
        if n_frames <= target or not self.config.released_windows:
            return even_spans(n_frames, target)
        if self.training:
            start = int(torch.randint(n_frames - target, (), generator=generator))
            return [(start, start + target)]
        starts = range(0, n_frames - RELEASED_WINDOW - 1, RELEASED_HOP)
        return [(start, start + RELEASED_WINDOW) for start in starts]


class MelFilters(nn.Module):
    """Mel filters, which come with published weights; computed, they differ from those by rounding."""

    melW: Tensor  # noqa: N815, its name in published weights

    def __init__(self, config: HtsatConfig) -> None:
        super().__init__()
        filters = slaney_mel_filters(config.mel_bins, config.n_fft, config.filter_rate, config.low_hz, config.high_hz)
        self.register_buffer("melW", filters.float())


class PatchEmbedding(nn.Module):
    """Pictures to tokens; there are no positions but the relative ones of the attention."""

    def __init__(self, config: HtsatConfig) -> None:
        super().__init__()
        padding = (config.patch_size - config.patch_stride) // 2
        self.proj = nn.Conv2d(1, config.embed_dim, config.patch_size, config.patch_stride, padding)
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """(I, spec_size, spec_size) -> (I, R, R, C)."""
        return self.norm(self.proj(pictures[:, None]).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """Blocks, and between this stage and the next the merging of 2 x 2 tokens."""

    def __init__(self, config: HtsatConfig, stage: int, drop_path: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, stage, block, rate) for block, rate in enumerate(drop_path))
        self.downsample: PatchMerging | None = None
        if stage < len(config.depths) - 1:
            self.downsample = PatchMerging(config.embed_dim * 2**stage)

    def forward(self, x: Tensor) -> Tensor:
        """(I, R, R, C) -> (I, R / 2, R / 2, 2 C), or as it came in the last stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchMerging(nn.Module):
    """Four neighbours to one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(I, R, R, C) -> (I, R / 2, R / 2, 2 C)."""
        # The lower neighbour is the second of the four, the right one the third.
        neighbours = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.reduction(self.norm(torch.cat(neighbours, dim=3)))


class Block(nn.Module):
    """Window attention and feed-forward network, each normalised first, with a residual that training may drop."""

    def __init__(self, config: HtsatConfig, stage: int, block: int, drop_path: float) -> None:
        super().__init__()
        width = config.embed_dim * 2**stage
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, config.num_heads[stage], config.window(stage), config.shift(stage, block))
        self.norm2 = nn.LayerNorm(width)
        hidden = int(width * config.mlp_ratio)
        feed_forward = {"fc1": nn.Linear(width, hidden), "gelu": nn.GELU(), "fc2": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(feed_forward))

    def forward(self, x: Tensor) -> Tensor:
        """(I, R, R, C) -> (I, R, R, C)."""
        x = x + self._dropped(self.attn(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        """In training a branch is left out of some pictures (stochastic depth, Huang et al., arXiv 1603.09382)."""
        if not self.training or self.drop_path == 0.0:
            return branch
        return branch * F.dropout(branch.new_ones(len(branch), 1, 1, 1), self.drop_path)


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a bias for each difference of places."""

    def __init__(self, width: int, n_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.n_heads, self.window, self.shift = n_heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, n_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INIT_STD)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(I, R, R, C) -> (I, R, R, C)."""
        side = x.shape[1]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = to_windows(x, self.window)
        # Each window of a shifted picture has a mask of its own: it counts as so many heads more.
        group = windows.shape[1] if self.shift else 1
        qkv = self.qkv(windows).unflatten(3, (3, self.n_heads, -1)).flatten(0, 1).unflatten(0, (-1, group))
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # each (I * windows / group, group * H, w^2, d)
        added = self.bias(side)[None].to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value, added)
        mixed = mixed.unflatten(1, (group, self.n_heads)).transpose(2, 3).reshape(windows.shape)
        x = from_windows(self.proj(mixed), side)
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x

    def bias(self, side: int) -> Tensor:
        """What is added to the scores: (H, w^2, w^2), or of a shifted picture (windows * H, w^2, w^2)."""
        table = self.relative_position_bias_table
        bias = table[relative_index(self.window, table.device)].permute(2, 0, 1)
        if not self.shift:
            return bias
        return (shift_mask(side, self.window, self.shift, table.device)[:, None] + bias).flatten(0, 1)


# ----------------------------------------------------------------------------------------------------------- functions


def even_spans(n_frames: int, longest: int) -> list[tuple[int, int]]:
    """First frame and end of each of the fewest windows of at most ``longest`` frames, as even as can be."""
    n_windows = math.ceil(n_frames / longest)
    bounds = [n_frames * number // n_windows for number in range(n_windows + 1)]
    return list(pairwise(bounds))


def stretch(fbank: Tensor, n_frames: int) -> Tensor:
    """(B, T, M) -> (B, n_frames, M), bicubic, the first and last frame staying where they are."""
    if fbank.shape[1] == n_frames:
        return fbank
    size = (n_frames, fbank.shape[2])
    return F.interpolate(fbank[:, None], size, mode="bicubic", align_corners=True)[:, 0]


def fold(fbank: Tensor, size: int) -> Tensor:
    """(B, T, M) -> pictures (B, size, size), T * M = size^2: strips of ``size`` frames from top to bottom.

    In each strip the lowest band is on top, and time runs to the right.
    """
    return fbank.unflatten(1, (-1, size)).transpose(2, 3).flatten(1, 2)


def to_windows(x: Tensor, window: int) -> Tensor:
    """(I, R, R, C) -> (I, (R / w)^2, w^2, C), row by row."""
    return x.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def from_windows(windows: Tensor, side: int) -> Tensor:
    """The inverse of :func:`to_windows`: (I, (R / w)^2, w^2, C) -> (I, R, R, C), R = side."""
    window = math.isqrt(windows.shape[2])
    x = windows.unflatten(2, (window, window)).unflatten(1, (side // window, side // window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept may later be used in training
def relative_index(window: int, device: torch.device) -> Tensor:
    """(w^2, w^2): row of the table of biases for tokens p and q, by the differences of their rows and columns."""
    places = torch.arange(window, device=device)
    difference = places[:, None] - places + window - 1
    index = difference[:, None, :, None] * (2 * window - 1) + difference[None, :, None, :]
    return index.flatten(2, 3).flatten(0, 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def shift_mask(side: int, window: int, shift: int, device: torch.device) -> Tensor:
    """((R / w)^2, w^2, w^2): 0 between tokens that were neighbours before the picture was rolled, else -100."""
    places = torch.arange(side, device=device)
    region = (places >= side - window).int() + (places >= side - shift).int()
    regions = to_windows((3 * region[:, None] + region)[None, :, :, None], window)[0, :, :, 0]
    return torch.where(regions[:, :, None] == regions[:, None, :], 0.0, FORBIDDEN)


def draw_stripes(
    n_clips: int, n_frames: int, n_mels: int, generator: torch.Generator | None = None
) -> spec_augment.Draws:
    """The released training's SpecAugment: two stripes of 0..63 frames and two of 0..7 bands, for each clip."""

    def stripes(limit: int, size: int) -> tuple[Tensor, Tensor]:
        widths = torch.randint(min(limit, size), (n_clips, STRIPES), generator=generator)
        starts = torch.rand(n_clips, STRIPES, generator=generator) * (size - widths)
        return widths, starts.long()

    band_widths, band_starts = stripes(BAND_STRIPE, n_mels)
    time_widths, time_starts = stripes(TIME_STRIPE, n_frames)
    return spec_augment.Draws(None, band_widths, band_starts, time_widths, time_starts)


def _padded(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors (n_i, ...) -> (B, n, ...) and its mask (B, n); unlike :func:`aural.padding.pad`, with gradients."""
    batch = pad_sequence(list(clips), batch_first=True)
    return batch, lengths_to_mask(torch.tensor([len(clip) for clip in clips], device=batch.device), batch.shape[1])


def _mean_over_windows(values: Tensor, mask: Tensor) -> Tensor:
    """(B, K, ...) and mask (B, K) -> (B, ...)."""
    real = mask[..., None]
    return values.masked_fill(~real, 0.0).sum(dim=1) / real.sum(dim=1)


# ------------------------------------------------------------------------------------------------- other people's files


def official_weights(weights: Mapping[str, Tensor], config: HtsatConfig) -> dict[str, Tensor]:
    """Published weights under our names, for :func:`aural.checkpoint.load_into`.

    What precedes the names (``audio_encoder.base.htsat.`` in Pengi) is found and taken off, and tensors outside of it
    are left. Constants that we compute (DFT kernels, ``relative_position_index``, ``attn_mask``) are compared with ours
    and left out, and so is ``head``, which the published code never uses.

    Raises:
        CheckpointError: there is no HTS-AT in it, or a constant is none of such a model.
    """
    prefixes = [name.removesuffix(ANCHOR) for name in weights if name.endswith(ANCHOR)]
    if len(prefixes) != 1:
        raise CheckpointError(f"{len(prefixes)} tensors called {ANCHOR}, it should be one: these are no HTS-AT weights")
    own = {name.removeprefix(prefixes[0]): tensor for name, tensor in weights.items() if name.startswith(prefixes[0])}
    constants = official_constants(config)
    wrong = [
        name
        for name in own.keys() & constants.keys()
        if own[name].shape != constants[name].shape
        or not torch.allclose(own[name].double().cpu(), constants[name].double(), rtol=0.0, atol=KERNEL_TOLERANCE)
    ]
    if wrong:
        raise CheckpointError(f"{', '.join(sorted(wrong))} differ from what the config says: give the weights' own")
    unused = {*constants, "head.weight", "head.bias"}
    return {name: tensor for name, tensor in own.items() if name not in unused}


def official_constants(config: HtsatConfig) -> dict[str, Tensor]:
    """The constants of published weights, by name."""
    cpu = torch.device("cpu")
    bins = torch.arange(config.n_fft // 2 + 1)[:, None]
    # The product is taken modulo n_fft so that large angles keep their precision.
    angles = (bins * torch.arange(config.n_fft) % config.n_fft).double() * (2 * math.pi / config.n_fft)
    window = torch.hann_window(config.n_fft, dtype=torch.float64)
    stft = "spectrogram_extractor.stft."
    constants = {
        f"{stft}conv_real.weight": (angles.cos() * window)[:, None],
        f"{stft}conv_imag.weight": (-angles.sin() * window)[:, None],
    }
    for stage, depth in enumerate(config.depths):
        side, size = config.side(stage), config.window(stage)
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            constants[f"{name}.attn.relative_position_index"] = relative_index(size, cpu)
            if shift := config.shift(stage, block):
                constants[f"{name}.attn_mask"] = shift_mask(side, size, shift, cpu)
    return constants
