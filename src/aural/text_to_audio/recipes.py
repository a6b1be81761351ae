"""How to train a token language model: plain functions that return settings; ``RECIPES`` is what the commands know."""

from collections.abc import Callable
from dataclasses import dataclass

from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.examples import ExampleSettings
from aural.text_to_audio.data import MixingSettings
from aural.text_to_audio.model import GenerationConfig
from aural.text_to_audio.representation_regularization import RegularizationConfig
from aural.training import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Model, data and training. Rates and codebooks are the codec's, whatever the model says of them here."""

    model: GenerationConfig
    train: TrainConfig
    soundscapes: ExampleSettings | None = None
    """Learn from these and from recordings among them, read by the sentence encoder in the box; None: from the clips of
    the manifest alone, read by a T5 that is given (``--text-encoder``)."""
    mixing: MixingSettings | None = None
    """Of the clips of the manifest."""
    pool: int = 0
    """Encode this many examples once; 0: encode those of each step."""
    n_texts: int = 3
    """True captions of each example of soundscapes, which take turns."""
    text_dropping: float = 0.1
    """Share of the steps in which no text is shown."""
    half: bool = False
    """Store the weights in half precision."""


def _scenes(seconds: float) -> ExampleSettings:
    """What prompts ask for: one sound, or two together, near and without noise."""
    soundscapes = SoundscapeSettings(
        seconds=(seconds, seconds),
        kinds=(("single", 0.15), ("overlap", 0.35), ("background", 0.35), ("sequence", 0.15)),
        synthesised=0.15,
        distant=0.0,
        contrast=0.0,
        speed_octaves=0.1,
        noise_floor=0.0,
        gain_db=3.0,
    )
    return ExampleSettings(soundscapes, recordings=0.55, speed_octaves=0.1, bandwidth=0.0)


def default() -> Recipe:
    """The embedded default: five seconds over the codec in the box, prompts read by the sentence encoder."""
    model = GenerationConfig(
        width=256, layers=7, heads=4, ffn_dim=1024, codebook_size=1024, text_width=384, t5=None, seconds=5.0, best_of=8
    )
    train = TrainConfig(
        steps=1150,
        batch_size=16,
        optimizer="muon",
        learning_rate=2e-3,
        warmup_steps=143,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        ema_decay=0.995,
        save_every=250,
        precision="bfloat16",
    )
    return Recipe(model, train, soundscapes=_scenes(5.0), pool=6000, half=True)


def tiny() -> Recipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    model = GenerationConfig(
        width=16, layers=1, heads=2, ffn_dim=32, codebook_size=16, text_width=384, t5=None, seconds=1.0
    )
    train = TrainConfig(steps=4, batch_size=4, learning_rate=1e-3, betas=(0.9, 0.95), ema_decay=0.9, log_every=1)
    return Recipe(model, train, soundscapes=_scenes(1.0), pool=8, text_dropping=0.5)


def paper() -> Recipe:
    """Shi et al. 2023 (arXiv 2309.08773), for sounds: 24 layers of 1024 over 4 x 2048 codes, ten seconds at 16 kHz.

    100,000 steps of 192 on 16 GPUs, texts dropped in a tenth of the steps, lambda 3 with the maximum. The paper does
    not give the learning rate; 1e-4 is the reference's general one. Unlike there, weights of one dimension do not
    decay and the average begins as :func:`aural.training.ema_decay` has it.
    """
    model = GenerationConfig(
        regularization=RegularizationConfig(weight=3.0, pooling="max"), cross_mask="none", keywords=True
    )
    train = TrainConfig(
        steps=100_000,
        batch_size=192,
        micro_batch_size=12,
        learning_rate=1e-4,
        warmup_steps=4000,
        weight_decay=0.1,
        betas=(0.9, 0.95),
        clip_norm=1.0,
        ema_decay=0.99,
        save_every=2000,
        precision="bfloat16",
        parallel="fsdp",
        workers=8,
    )
    return Recipe(model, train, mixing=MixingSettings())


RECIPES: dict[str, Callable[[], Recipe]] = {"default": default, "tiny": tiny, "paper": paper}
