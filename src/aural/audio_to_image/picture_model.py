"""The small text-to-image diffusion model of the default: pictures of glyphs from words, in pixels.

Built like Stable Diffusion (Rombach et al., arXiv 2112.10752), out of the same parts of the diffusers library, so that
one and the same code paints with either: a U-Net that reads the states of a frozen text encoder by cross-attention.
What is small about it: patches of pixels are its latents (no autoencoder), its words come from the bundled sentence
encoder, and it foretells the picture itself rather than the noise, which gave cleaner shapes for the same steps.

And it does not begin with nothing but noise. Which picture a word means is a table that a U-Net learns slowly, through
all its layers and out of noise; so a small network of two layers draws a sketch of the words first, blurred where a
word has several pictures. It lies beside the noisy picture as further channels, as small pictures do in cascades (Ho
et al., arXiv 2106.15282).
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from aural.checkpoint import load_config, load_into, load_weights

SYSTEM = "pictures"
"""Name of the system in the config files of model folders."""


@dataclass(frozen=True)
class PictureModelConfig:
    """Sizes of the U-Net, and how it is painted with."""

    side: int = 64
    """Pixels of a picture's side."""
    patch: int = 4
    """Pixels of a patch's side; patches lie side by side as the channels of one place."""
    sketch_side: int = 32
    """Pixels of a sketch's side."""
    sketch_width: int = 1024
    """Between the two layers of what sketches."""
    channels: tuple[int, ...] = (96, 128, 160)
    """Of each resolution, from fine to coarse, each half as fine as the one before."""
    layers: int = 1
    """Residual blocks of each resolution."""
    head_width: int = 32
    groups: int = 16
    """Of the group normalisation."""
    words_width: int = 384
    """Of the text encoder's states."""
    text_encoder: str | None = None
    """Sentence encoder, a folder or hub id; None = the bundled one."""
    steps: int = 25
    """Of painting, unless said otherwise."""
    guidance: float = 1.4
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598), unless said otherwise; 1 = none."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ValueError: says what.
        """
        coarsest = self.patch * 2 ** (len(self.channels) - 1)
        if self.side % coarsest:
            raise ValueError(f"side {self.side} is no multiple of {coarsest}, the pixels of a place of the coarsest")
        if self.sketch_side % (self.side // self.patch):
            raise ValueError(f"sketch_side {self.sketch_side} is no multiple of {self.side // self.patch}, the patches")
        if wrong := [n for n in self.channels if n % self.groups or n % self.head_width]:
            raise ValueError(f"channels {wrong} are no multiples of groups {self.groups} and head_width")

    @property
    def patch_channels(self) -> int:
        """Numbers of a patch: 48."""
        return 3 * self.patch**2

    @property
    def sketch_patch(self) -> int:
        """Pixels of a sketch on a patch's side."""
        return self.sketch_side * self.patch // self.side


class Sketch(nn.Module):
    """Two layers from the mean state of words to a small picture."""

    def __init__(self, config: PictureModelConfig) -> None:
        super().__init__()
        self.side, self.patch = config.sketch_side, config.sketch_patch
        self.read = nn.Linear(config.words_width, config.sketch_width)
        self.draw = nn.Linear(config.sketch_width, 3 * config.sketch_side**2)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """States (B, L, D) of words and their mask (B, L), True = real -> pictures (B, 3, side, side)."""
        mean = states.mean(1) if mask is None else (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.draw(F.silu(self.read(mean))).unflatten(1, (3, self.side, self.side))


def build_unet(config: PictureModelConfig) -> UNet2DConditionModel:
    """The U-Net, at random, with a :class:`Sketch` as its ``sketch``.

    Attention is at all resolutions but the finest, where it would cost most.
    """
    n_coarser = len(config.channels) - 1
    unet = UNet2DConditionModel(
        sample_size=config.side // config.patch,
        in_channels=config.patch_channels + 3 * config.sketch_patch**2,
        out_channels=config.patch_channels,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * n_coarser),
        up_block_types=(*["CrossAttnUpBlock2D"] * n_coarser, "UpBlock2D"),
        layers_per_block=config.layers,
        cross_attention_dim=config.words_width,
        encoder_hid_dim=config.words_width,  # a linear layer in front of all that read the words
        attention_head_dim=tuple(
            n // config.head_width for n in config.channels
        ),  # which is a number of heads, in fact
        norm_num_groups=config.groups,
    )
    unet.sketch = Sketch(config)
    return unet


def foretell(unet: Any, noisy: Tensor, steps: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """What a U-Net, ours or another, makes of noisy pictures (B, C, H, W) at steps (B,): (B, C, H, W).

    Args:
        unet: of the diffusers library.
        noisy: pictures or latents.
        steps: of the noise.
        states: (B, L, D) of the words.
        mask: (B, L), True = real; None: all are.
    """
    sketch = getattr(unet, "sketch", None)
    if sketch is not None:
        sketched = F.pixel_unshuffle(sketch(states, mask), sketch.patch)
        noisy = torch.cat((noisy, sketched.to(noisy)), dim=1)
    foretold: Tensor = unet(noisy, steps, encoder_hidden_states=states, encoder_attention_mask=mask).sample
    return foretold


def build_scheduler() -> DDIMScheduler:
    """A cosine schedule of noise (Nichol & Dhariwal, arXiv 2102.09672), and DDIM (Song et al., arXiv 2010.02502).

    Steps are counted from the noisiest: the first one starts from noise alone.
    """
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=True, timestep_spacing="trailing"
    )


def load_picture_model(folder: str | os.PathLike[str]) -> tuple[PictureModelConfig, Any]:
    """A model folder as its settings and a frozen U-Net on the CPU.

    Raises:
        CheckpointError: the folder is damaged or for another system.
    """
    config = load_config(folder, PictureModelConfig, SYSTEM)
    with torch.device("meta"):
        unet = build_unet(config)
    load_into(unet, load_weights(folder))
    return config, unet.requires_grad_(False).eval()
