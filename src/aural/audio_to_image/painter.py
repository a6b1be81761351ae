"""A frozen text-to-image diffusion model, whoever made it: its parts, and how a picture is painted with them.

Any Stable Diffusion 1.x or 2.x in the folder layout of the diffusers library will do, or our own small model.

Shapes: B pictures, C channels, H and W of what is diffused (latents, or patches of pixels), L tokens, D their width.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from torch import Tensor

from aural.audio_to_image.losses import draw_latents
from aural.audio_to_image.picture_model import SYSTEM, build_scheduler, foretell, load_picture_model
from aural.audio_to_image.words import ClipWords, SentenceWords, Words, padded
from aural.checkpoint import find_model, system_of
from aural.errors import CheckpointError, UsageError
from aural.networks.sentence_encoder import load_sentence_encoder

SchedulerName = Literal["ddim", "pndm", "dpm", "euler", "lms", "unipc"]
SCHEDULERS: dict[SchedulerName, Any] = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "dpm": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "lms": LMSDiscreteScheduler,
    "unipc": UniPCMultistepScheduler,
}
"""Ways from noise to a picture. None of them draws noise on its way: a seed makes a picture, whatever its company."""

INDEX = "model_index.json"
"""What makes a folder one of the diffusers library."""
HUB_FILES = [INDEX, *(f"{part}/*" for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"))]
HUB_SPARED = ["*.fp16.*", "*.non_ema.*", "*.msgpack", "*.ckpt", "*.bin"]
PUBLISHED_STEPS, PUBLISHED_GUIDANCE = 50, 7.5
"""Of AudioToken's inference over Stable Diffusion."""


class Canvas(Protocol):
    """What is diffused instead of pixels, and the way back."""

    def moments(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, side, side) in -1..1 -> all there is to know of their latents, to be kept."""

    def draw(self, moments: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Moments -> latents (B, C, H, W)."""

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, H, W) of a picture of so many pixels."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) -> pictures (B, 3, height, width) in -1..1."""

    def to(self, device: torch.device) -> "Canvas":
        """Move what there is to move, and return itself."""


@dataclass(frozen=True)
class PixelCanvas:
    """Patches of pixels."""

    patch: int

    def moments(self, pictures: Tensor) -> Tensor:
        """See :meth:`Canvas.moments`."""
        return F.pixel_unshuffle(pictures, self.patch)

    def draw(self, moments: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :meth:`Canvas.draw`: there is nothing to draw."""
        return moments

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """See :meth:`Canvas.shape`."""
        return 3 * self.patch**2, height // self.patch, width // self.patch

    def decode(self, latents: Tensor) -> Tensor:
        """See :meth:`Canvas.decode`."""
        return F.pixel_shuffle(latents, self.patch)

    def to(self, device: torch.device) -> "PixelCanvas":
        """See :meth:`Canvas.to`."""
        return self


@dataclass(frozen=True)
class LatentCanvas:
    """Latents of a variational autoencoder."""

    vae: Any

    def moments(self, pictures: Tensor) -> Tensor:
        """See :meth:`Canvas.moments`: means and logarithms of variances (B, 2 C, H, W)."""
        with torch.no_grad():
            moments: Tensor = self.vae.encode(pictures.to(self.vae.dtype)).latent_dist.parameters
        return moments

    def draw(self, moments: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :meth:`Canvas.draw`."""
        shape = (len(moments), moments.shape[1] // 2, *moments.shape[2:])
        noise = torch.randn(shape, generator=generator, device=moments.device, dtype=moments.dtype)
        return draw_latents(moments, noise, self.vae.config.scaling_factor)

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """See :meth:`Canvas.shape`."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.vae.config.latent_channels, height // factor, width // factor

    def decode(self, latents: Tensor) -> Tensor:
        """See :meth:`Canvas.decode`."""
        pictures: Tensor = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
        return pictures

    def to(self, device: torch.device) -> "LatentCanvas":
        """See :meth:`Canvas.to`."""
        self.vae.to(device)
        return self


@dataclass(frozen=True)
class Painter:
    """A text-to-image diffusion model whose weights stay as they are."""

    name: str
    words: Words
    unet: Any
    scheduler: Any
    canvas: Canvas
    side: int
    """Pixels of a picture's side, unless said otherwise."""
    multiple: int
    """Pixels of which sides must be a multiple."""
    steps: int
    guidance: float

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return next(self.unet.parameters()).device

    def to(self, device: torch.device | str) -> "Painter":
        """Move all parts, and return itself."""
        device = torch.device(device)
        self.words.to(device)
        self.canvas.to(device)
        self.unet.to(device)
        return self

    def predict(self, noisy: Tensor, steps: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        """What the U-Net foretells: (B, C, H, W), steps (B,), states (B, L, D) and mask (B, L) -> (B, C, H, W)."""
        return foretell(self.unet, noisy, steps, states, mask)


@dataclass(frozen=True)
class Painting:
    """How to paint."""

    steps: int
    guidance: float
    height: int
    width: int
    scheduler: SchedulerName | None = None
    """None = the model's own."""


def painting(
    painter: Painter,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    scheduler: SchedulerName | None = None,
    size: tuple[int, int] | None = None,
) -> Painting:
    """How to paint with a model: what is not given is as the model would have it.

    Args:
        painter: the model.
        steps: from noise to a picture.
        guidance: how much the prompt counts; 1 = as the model says, and twice as fast.
        scheduler: one of ``SCHEDULERS``.
        size: height and width in pixels.

    Raises:
        UsageError: what is given does not fit the model.
    """
    height, width = size or (painter.side, painter.side)
    how = Painting(steps or painter.steps, painter.guidance if guidance is None else guidance, height, width, scheduler)
    settings = painter.scheduler.config
    n_steps = settings.num_train_timesteps - settings.get("steps_offset", 0)  # which shifts them all
    if not 1 <= how.steps <= n_steps:
        raise UsageError(f"{how.steps} steps: give 1 to {n_steps}")
    if not 0 <= how.guidance < 1000:
        raise UsageError(f"a guidance of {how.guidance:g}: give 0 or more, such as {painter.guidance:g}")
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise UsageError(f"unknown scheduler {scheduler!r}; there are {', '.join(SCHEDULERS)}")
    if scheduler == "pndm" and painter.scheduler.config.prediction_type == "sample":
        raise UsageError("pndm cannot paint with a model that foretells the picture itself: take ddim, dpm or euler")
    side = painter.side
    if hasattr(painter.unet, "sketch") and (height, width) != (side, side):  # sketches, laid beside, have one size
        raise UsageError(f"{height} by {width} pixels: this model paints {side} by {side} alone: leave the size out")
    if min(height, width) < 1 or height % painter.multiple or width % painter.multiple:
        raise UsageError(f"{height} by {width} pixels: this model paints multiples of {painter.multiple}")
    return how


def painted_at_once(painter: Painter, batch_size: int) -> int:
    """How many pictures to paint at a time: on a CPU one, guided a batch of two.

    Products of matrices there are cut differently for other numbers of rows: a picture would depend on its company in
    its last bits, by a level here and there. Eight pictures of the model in the box take 1.4 times as long for it.
    """
    return 1 if painter.device.type == "cpu" else batch_size


@torch.inference_mode()
def paint(
    painter: Painter,
    states: Tensor,
    mask: Tensor | None,
    seeds: Sequence[int],
    how: Painting,
    *,
    negative_prompt: str = "",
) -> Tensor:
    """Paint a picture for each prompt.

    Args:
        painter: the model.
        states: (B, L, D) of :meth:`Words.states`.
        mask: (B, L), or None.
        seeds: of the noise of each picture, which is drawn on the CPU: a seed means the same on every device.
        how: from :func:`painting`.
        negative_prompt: what the guidance leads away from; the released AudioToken leads away from the empty prompt.

    Returns:
        (B, 3, height, width) in -1..1, float32, on the CPU.
    """
    kind = type(painter.scheduler) if how.scheduler is None else SCHEDULERS[how.scheduler]
    scheduler = kind.from_config(painter.scheduler.config)  # anew: it remembers the pictures of its last steps
    scheduler.set_timesteps(how.steps)
    guided = how.guidance != 1
    if guided:
        blank, blank_mask = painter.words.states([negative_prompt])
        repeated = None if blank_mask is None else blank_mask.expand(len(states), -1)
        states, mask = padded((blank.expand(len(states), -1, -1), states), (repeated, mask))
    dtype = next(painter.unet.parameters()).dtype
    states = states.to(dtype)
    shape = painter.canvas.shape(how.height, how.width)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.stack(noise).to(painter.device, dtype) * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        seen = scheduler.scale_model_input(torch.cat((latents, latents)) if guided else latents, step)
        foretold = painter.predict(seen, step.expand(len(seen)).to(painter.device), states, mask)
        if guided:
            without, with_prompt = foretold.chunk(2)
            foretold = without + how.guidance * (with_prompt - without)
        latents = scheduler.step(foretold, step, latents).prev_sample
    return painter.canvas.decode(latents).float().clamp(-1, 1).cpu()


# -------------------------------------------------------------------------------------------------------------- loading


def load_painter(
    name: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    offline: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Painter:
    """A picture model: the small one in the box, a folder of one, or a Stable Diffusion, folder or hub id.

    Args:
        name: None = the one in the box. A folder with ``model_index.json`` is a Stable Diffusion, and so is a hub id.
        device: where to.
        offline: take hub models from the local cache only.
        dtype: of a Stable Diffusion's weights.

    Raises:
        UsageError: there is no such model.
        CheckpointError: the folder lacks a part, or has one that is not known here.
    """
    if name is None or system_of(name) == SYSTEM:
        return _small_painter(find_model(name, SYSTEM, offline=offline), str(name or "default"), offline).to(device)
    folder = Path(name).expanduser()
    if not (folder / INDEX).is_file():
        if folder.exists():
            raise UsageError(f"{folder} is no picture model: it has neither {INDEX}, as a Stable Diffusion, nor ours")
        folder = _from_hub(os.fspath(name), offline)
    return _stable_diffusion(folder, str(name), dtype).to(device)


def _small_painter(folder: Path, name: str, offline: bool) -> Painter:
    config, unet = load_picture_model(folder)
    words = SentenceWords(load_sentence_encoder(config.text_encoder, offline=offline))
    if words.width != config.words_width:
        raise CheckpointError(f"{folder} reads words of width {config.words_width}, not of {words.width}")
    coarsest = config.patch * 2 ** (len(config.channels) - 1)
    canvas = PixelCanvas(config.patch)
    return Painter(name, words, unet, build_scheduler(), canvas, config.side, coarsest, config.steps, config.guidance)


def _stable_diffusion(folder: Path, name: str, dtype: torch.dtype) -> Painter:
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype, local_files_only=True)
        vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype, local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        settings = DDIMScheduler.load_config(folder / "scheduler", local_files_only=True)
    except Exception as error:  # damaged or missing parts raise whatever the libraries below raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder} is no whole Stable Diffusion in diffusers' layout ({why})") from error
    unet.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    vae.requires_grad_(False).eval()
    kinds = {kind.__name__: kind for kind in SCHEDULERS.values()}
    settings = _corrected(settings)
    kind = kinds.get(settings.get("_class_name"), DDIMScheduler)  # the others draw noise on their way
    length = encoder.config.max_position_embeddings
    words = ClipWords(tokenizer.backend_tokenizer, encoder, pad_id=tokenizer.pad_token_id, length=length)
    if words.width != unet.config.cross_attention_dim:
        raise CheckpointError(f"{folder}: its U-Net does not read words of width {words.width}")
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    multiple = factor * 2 ** (len(unet.config.block_out_channels) - 1)
    return Painter(
        name,
        words,
        unet,
        kind.from_config(settings),
        LatentCanvas(vae),
        unet.config.sample_size * factor,
        multiple,
        PUBLISHED_STEPS,
        PUBLISHED_GUIDANCE,
    )


def _corrected(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a Stable Diffusion's scheduler with what folders leave out or have wrong."""
    settings = dict(settings)
    # As diffusers' own pipeline does: latents are no pixels, to be clipped to -1..1, and steps are counted from 1.
    settings |= {"clip_sample": False, "steps_offset": 1}
    # As all of Stable Diffusion's folders of PNDM say. Those of other schedulers do not, and --scheduler pndm would
    # then begin with Runge-Kutta steps: 59 calls of the U-Net for 50 steps, and an error for fewer than 4.
    settings["skip_prk_steps"] = True
    # The stochastic solvers draw from torch's global generator: a seed would not make a picture again.
    if settings.get("algorithm_type", "").startswith("sde-"):
        settings["algorithm_type"] = "dpmsolver++"
    return settings


def _from_hub(name: str, offline: bool) -> Path:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise UsageError(f"no picture model {name}: give a folder, or a hub id such as org/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=HUB_SPARED, local_files_only=offline)
        )
    except Exception as error:  # what the network raises differs with every version of the hub's library
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the picture model {name} is no folder and cannot be fetched ({why}): give its folder"
        ) from error


def check_width(painter: Painter, width: int) -> None:
    """Refuse an audio token that is no word of a painter's.

    Raises:
        UsageError: it is ``width`` wide, and the painter's words are not.
    """
    if painter.words.width != width:
        raise UsageError(
            f"this audio token is {width} wide and the words of {painter.name} are {painter.words.width}: pass "
            "--painter with the picture model that it was trained with"
        )
