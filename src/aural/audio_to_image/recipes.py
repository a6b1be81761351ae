"""How to train: plain functions that return settings; ``PICTURE_RECIPES`` and ``RECIPES`` are what the commands know.

There are two trainings: of the small picture model, on pictures with words, and of the audio token, on sounds with
pictures, through a picture model that is frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aural.audio_to_image.audio_token import AudioTokenConfig
from aural.audio_to_image.losses import LossConfig
from aural.audio_to_image.picture_model import PictureModelConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.training import TrainConfig


@dataclass(frozen=True)
class PictureRecipe:
    """The small text-to-image model, from scratch."""

    model: PictureModelConfig
    train: TrainConfig
    """Of the U-Net."""
    sketch: TrainConfig
    """Of what sketches, which is trained first."""
    sounding: float = 0.75
    """Share of examples that are pictures of what can be heard, those with labels; the others are any pictures."""
    blank: float = 0.1
    """Share of examples without words, for classifier-free guidance."""


@dataclass(frozen=True)
class Recipe:
    """The audio token, over a frozen picture model and a frozen audio encoder."""

    token: AudioTokenConfig
    """Its widths are set from the encoder and the picture model."""
    train: TrainConfig
    losses: LossConfig = field(default_factory=LossConfig)
    seconds: float = 5.0
    """Of a recording that are heard in an example."""
    pool: int = 0
    """So many examples are encoded once, cut, sped up and slowed down at random, and come again and again; 0: every
    example is read and encoded when it is needed, and starts at a whole second."""
    size: tuple[int, int] | None = None
    """Height and width of pictures in pixels; None: as the picture model paints."""
    checkpointing: bool = False
    """Compute the U-Net twice instead of keeping what its gradients need."""


def default_pictures() -> PictureRecipe:
    """The embedded default: glyphs of 64 pixels. In bfloat16, which a processor with matrix units (AMX) is fast in."""
    train = TrainConfig(
        steps=2500,
        batch_size=32,
        learning_rate=5e-4,
        warmup_steps=100,
        ema_decay=0.998,
        save_every=250,
        precision="bfloat16",
    )
    sketch = replace(train, steps=3000, batch_size=64, learning_rate=5e-3, ema_decay=None, save_every=2000)
    return PictureRecipe(PictureModelConfig(), train, sketch)


def tiny_pictures() -> PictureRecipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    model = PictureModelConfig(
        side=16, patch=4, sketch_side=8, sketch_width=32, channels=(16, 32), head_width=16, groups=8, steps=3
    )
    train = TrainConfig(steps=4, batch_size=4, learning_rate=1e-3, ema_decay=0.9, log_every=1)
    return PictureRecipe(model, train, replace(train, ema_decay=None))


def default() -> Recipe:
    """The embedded default: between the listener in the box and the small picture model.

    The classification term is strong here: what a recording is of is known, and the table of words is at hand.
    """
    token = AudioTokenConfig(conv_encoder=ConvEncoderConfig(), layers=(1,), encoder_width=192, min_seconds=4.0)
    train = TrainConfig(
        steps=800,
        batch_size=32,
        learning_rate=1e-3,
        warmup_steps=100,
        ema_decay=0.995,
        save_every=250,
        precision="bfloat16",
    )
    return Recipe(token, train, LossConfig(classification=0.5), pool=3000)


def tiny() -> Recipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    token = AudioTokenConfig(conv_encoder=ConvEncoderConfig(), layers=(1,), encoder_width=192, min_seconds=2.0)
    train = TrainConfig(steps=4, batch_size=4, learning_rate=1e-3, ema_decay=0.9, log_every=1)
    return Recipe(token, train, LossConfig(classification=0.5), seconds=2.0, pool=8)


def paper() -> Recipe:
    """Yariv et al. 2023, over Stable Diffusion and BEATs: 30,000 steps of 16 clips at 1.6e-4, as their command has it.

    What differs from the released code: the rate falls towards the end instead of being constant; gradients are cut at
    a norm of 1; weight decay is on matrices alone; it runs in bfloat16, not in float32; pictures are scaled by Lanczos'
    filter, not by a bicubic one; all channels of a sound are heard, not the first alone, at 16 kHz whatever its own
    rate; and a sound of 10 s may start at its fifth second as well. For frames of videos, see
    :mod:`aural.audio_to_image.video_frames`.
    """
    train = TrainConfig(
        steps=30_000,
        batch_size=16,
        micro_batch_size=4,
        learning_rate=1.6e-4,
        weight_decay=0.01,
        precision="bfloat16",
        workers=8,
        save_every=1000,
    )
    return Recipe(AudioTokenConfig(), train, size=(320, 512), checkpointing=True)


PICTURE_RECIPES: dict[str, Callable[[], PictureRecipe]] = {"default": default_pictures, "tiny": tiny_pictures}
RECIPES: dict[str, Callable[[], Recipe]] = {"default": default, "tiny": tiny, "paper": paper}
