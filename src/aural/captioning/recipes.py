"""How to train a captioner: plain functions that return settings; ``RECIPES`` is what the command line knows."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from aural.captioning.conformer import ConformerConfig
from aural.captioning.data import DataSettings
from aural.captioning.model import CaptionerConfig, paper as paper_model
from aural.networks.bart_decoder import BartDecoderConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.soundscapes.compose import Kind, SoundscapeSettings
from aural.soundscapes.examples import ExampleSettings
from aural.spec_augment import SpecAugmentConfig
from aural.training import TrainConfig


@dataclass(frozen=True)
class Stage:
    """One run of the training loop."""

    name: str
    data: DataSettings | ExampleSettings
    """Recordings and mixtures of two with the captions of the manifest, or soundscapes with exact ones besides."""
    train: TrainConfig
    pool: int | None = None
    """Encode this many examples once and learn from their features; None: every step has new ones. For soundscapes."""
    pool_captions: int = 2
    """True captions of each, which take turns."""
    pool_response_db: float = 0.0
    """Each is heard as by another microphone (:func:`aural.spec_augment.frequency_response`)."""


@dataclass(frozen=True)
class Recipe:
    """The stages of a training and the model they make."""

    model: CaptionerConfig
    stages: tuple[Stage, ...]
    bundled_encoder: bool = False
    """Over the listener in the box, if no other encoder is given (``--encoder``)."""
    vocab_size: int | None = None
    """Train a byte-level BPE tokenizer of at most this size on the captions; None: one is given (``--tokenizer``)."""


COUNTED: tuple[tuple[Kind, float], ...] = (
    ("single", 0.12),
    ("counted", 0.42),
    ("rhythm", 0.03),
    ("sequence", 0.25),
    ("overlap", 0.06),
    ("background", 0.06),
    ("noise", 0.03),
    ("silence", 0.03),
)
"""Kinds of soundscapes among the recordings of the last stage."""


def default() -> Recipe:
    """The embedded default: a small captioner over the listener in the box, frozen.

    On soundscapes with recordings among them first, on recordings with soundscapes among them last. Half an hour
    to an hour on one core for 416 clips of ESC-10 and instruments.
    """
    width = 192
    model = CaptionerConfig(
        conv_encoder=ConvEncoderConfig(),
        downsample_rate=4,  # 0.32 s
        conformer=ConformerConfig(
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=384,
            conv_depthwise_kernel_size=7,  # 2.2 s
            hidden_dropout=0.0,
            activation_dropout=0.0,
        ),
        decoder=BartDecoderConfig(d_model=width, layers=3, heads=4, ffn_dim=512, max_positions=48),
        max_cross_positions=34,
        min_length=2,  # whole words are tokens here: "rain falls" is complete
        min_seconds=4.0,
        embedding_ffn_dim=768,
        embedding_dim=384,
        contrastive_temperature=0.1,
        duplicate_captions_are_negatives=False,
        spec_augment=None,  # the features of the pool are computed once
    )
    first = TrainConfig(
        steps=3000,
        batch_size=32,
        learning_rate=1e-3,
        warmup_steps=200,
        weight_decay=0.05,
        ema_decay=0.995,
        save_every=500,
        validate_every=500,
        best="token_accuracy",
        best_is="max",
    )
    second = replace(first, steps=800, learning_rate=5e-4, warmup_steps=50, save_every=400, validate_every=100)
    # The listener knows by heart what it learned from, and is surer of it than of anything it will ever hear. So its
    # recordings come changed by more than it is used to, until it knows them about as well as it knows strangers.
    soundscapes = SoundscapeSettings(seconds=(4.0, 10.0), group=first.batch_size, speed_octaves=0.6)
    few = ExampleSettings(soundscapes, recordings=0.25, speed_octaves=0.6)
    counted = replace(soundscapes, kinds=COUNTED)  # numbers are what it learns last
    many = ExampleSettings(counted, recordings=0.5, speed_octaves=0.6)
    return Recipe(
        model,
        stages=(
            Stage("soundscapes", few, first, pool=10_000, pool_captions=3, pool_response_db=6.0),
            Stage("recordings", many, second, pool=8_000, pool_captions=3, pool_response_db=6.0),
        ),
        bundled_encoder=True,
        vocab_size=800,
    )


def tiny() -> Recipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    model = CaptionerConfig(
        conv_encoder=ConvEncoderConfig(channels=(4, 4, 8, 8, 16)),
        downsample_rate=3,
        conformer=ConformerConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_depthwise_kernel_size=3,
        ),
        decoder=BartDecoderConfig(d_model=16, layers=1, heads=2, ffn_dim=16, max_positions=40),
        max_cross_positions=16,
        min_length=2,
        min_seconds=2.0,
        embedding_ffn_dim=16,
        embedding_dim=384,
        spec_augment=SpecAugmentConfig(n_freq_masks=1, max_freq_width=8, n_time_masks=1),
    )
    train = TrainConfig(
        steps=4, batch_size=4, learning_rate=1e-3, ema_decay=0.9, log_every=1, best="token_accuracy", best_is="max"
    )
    soundscapes = ExampleSettings(SoundscapeSettings(seconds=(2.0, 2.5), group=train.batch_size))
    return Recipe(
        model,
        stages=(
            Stage("soundscapes", soundscapes, train, pool=8),
            Stage("recordings", DataSettings(seconds=2.0), train),
        ),
        vocab_size=300,
    )


def paper() -> Recipe:
    """Wu et al. 2023: frozen BEATs (``--encoder``), BART's tokenizer (``--tokenizer``), AudioCaps and mix-ups, Clotho.

    Stage 2 is as released (batch 32 twice accumulated, 2e-5, linear decay, 1000 steps of warm-up, 100 epochs of the
    3839 clips). The learning rate of stage 1 is not published; 2e-4 and ten epochs of 100,000 clips are our reading.
    The text embeddings are INSTRUCTOR-XL's (``--text-encoder``).
    """
    augmented = DataSettings(seconds=10.0, mix_probability=0.5, speed_octaves=0.0, gain_db=0.0)
    first = TrainConfig(
        steps=15600,
        batch_size=64,
        micro_batch_size=32,
        learning_rate=2e-4,
        schedule="linear",
        warmup_steps=1000,
        weight_decay=1e-3,
        validate_every=1560,
        save_every=1560,
        precision="bfloat16",
        workers=4,
        best="token_accuracy",
        best_is="max",
    )
    second = TrainConfig(
        steps=6000,
        batch_size=64,
        micro_batch_size=32,
        learning_rate=2e-5,
        schedule="linear",
        warmup_steps=1000,
        weight_decay=1e-3,
        validate_every=60,
        save_every=60,
        precision="bfloat16",
        workers=4,
        best="token_accuracy",
        best_is="max",
    )
    clotho = DataSettings(seconds=30.0, mix_probability=0.0, speed_octaves=0.0, gain_db=0.0)
    return Recipe(paper_model(), stages=(Stage("mixtures", augmented, first), Stage("recordings", clotho, second)))


RECIPES: dict[str, Callable[[], Recipe]] = {"default": default, "tiny": tiny, "paper": paper}
