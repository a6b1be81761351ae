"""The small text-to-image diffusion model of the default: pictures of glyphs from words, in pixels.

Built like Stable Diffusion (Rombach et al., arXiv 2112.10752), out of the same parts of the diffusers library, so that
one and the same code paints with either: a U-Net that reads the states of a frozen text encoder by cross-attention.
What is small about it: patches of pixels are its latents (no autoencoder), its words come from the bundled sentence
encoder, and it foretells the picture itself rather than the noise, which gave cleaner shapes for the same steps.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

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
    channels: tuple[int, ...] = (96, 128, 192)
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
    guidance: float = 2.0
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598), unless said otherwise; 1 = none."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ValueError: says what.
        """
        coarsest = self.patch * 2 ** (len(self.channels) - 1)
        if self.side % coarsest:
            raise ValueError(f"side {self.side} is no multiple of {coarsest}, the pixels of a place of the coarsest")
        if wrong := [n for n in self.channels if n % self.groups or n % self.head_width]:
            raise ValueError(f"channels {wrong} are no multiples of groups {self.groups} and head_width")

    @property
    def patch_channels(self) -> int:
        """Numbers of a patch: 48."""
        return 3 * self.patch**2


def build_unet(config: PictureModelConfig) -> UNet2DConditionModel:
    """The U-Net, at random. Attention is at all resolutions but the finest, where it would cost most."""
    n_coarser = len(config.channels) - 1
    return UNet2DConditionModel(
        sample_size=config.side // config.patch,
        in_channels=config.patch_channels,
        out_channels=config.patch_channels,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * n_coarser),
        up_block_types=(*["CrossAttnUpBlock2D"] * n_coarser, "UpBlock2D"),
        layers_per_block=config.layers,
        cross_attention_dim=config.words_width,
        encoder_hid_dim=config.words_width,  # a linear layer in front of all that read the words
        class_embed_type="projection",  # of all words together, beside the step of the noise, to every block
        projection_class_embeddings_input_dim=config.words_width,
        attention_head_dim=tuple(
            n // config.head_width for n in config.channels
        ),  # which is a number of heads, in fact
        norm_num_groups=config.groups,
    )


def foretell(unet: Any, noisy: Tensor, steps: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """What a U-Net, ours or another, makes of noisy pictures (B, C, H, W) at steps (B,): (B, C, H, W).

    Args:
        unet: of the diffusers library.
        noisy: pictures or latents.
        steps: of the noise.
        states: (B, L, D) of the words; ours also reads their mean.
        mask: (B, L), True = real; None: all are.
    """
    together = None
    if unet.config.class_embed_type == "projection":
        together = states.mean(1) if mask is None else (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    foretold: Tensor = unet(
        noisy, steps, class_labels=together, encoder_hidden_states=states, encoder_attention_mask=mask
    ).sample
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
