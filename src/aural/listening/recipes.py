"""How to train a listener: plain functions that return settings; ``RECIPES`` is what the command line knows.

``beats`` and ``htsat`` are ``default`` with another encoder of about the same cost, to compare them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from aural.networks.beats import BeatsConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.networks.htsat import small as small_htsat
from aural.networks.listener import ListenerConfig
from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.examples import ExampleSettings
from aural.spec_augment import SpecAugmentConfig
from aural.training import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Model, data and training of a listener. The labels of the model are filled in from the data."""

    model: ListenerConfig
    data: ExampleSettings
    train: TrainConfig
    spec_augment: SpecAugmentConfig | None = None
    response_db: float = 4.0
    """Every clip is heard as by another microphone (:func:`aural.spec_augment.frequency_response`); 0 leaves it out."""
    step_weight: float = 1.0
    """Of the labels of each step, relative to those of the clip."""
    contrastive_weight: float = 0.1
    """Of the contrast with sentence embeddings; 0 leaves it out."""
    temperature: float = 0.1
    masked_weight: float = 0.0
    """Of the guess at what SpecAugment has blanked; 0 leaves it out, as it brings nothing here (docs/captioning.md)."""


def default() -> Recipe:
    """The embedded default: a convolutional encoder, about 20 minutes on one core in bfloat16.

    Most examples are recordings, which are few; SpecAugment, of which a small network learns less in this time, is left
    out (docs/captioning.md).
    """
    batch_size = 32
    train = TrainConfig(
        steps=2400,
        batch_size=batch_size,
        learning_rate=2e-3,
        warmup_steps=150,
        weight_decay=0.05,
        ema_decay=0.995,
        save_every=250,
    )
    soundscapes = SoundscapeSettings(
        seconds=(4.0, 6.5),
        group=batch_size,
        kinds=(
            *(("single", 0.2), ("counted", 0.2), ("sequence", 0.22), ("overlap", 0.22), ("background", 0.1)),
            *(("noise", 0.03), ("silence", 0.03)),
        ),
    )
    return Recipe(
        ListenerConfig(labels=(), conv_encoder=ConvEncoderConfig()), ExampleSettings(soundscapes, recordings=0.6), train
    )


def beats() -> Recipe:
    """A small BEATs in place of the convolutions."""
    encoder = BeatsConfig(
        encoder_layers=4,
        encoder_embed_dim=144,
        encoder_ffn_embed_dim=432,
        encoder_attention_heads=4,
        embed_dim=96,
        conv_pos=32,
        conv_pos_groups=8,
        input_patch_size=16,
        dropout=0.1,
    )
    recipe = default()
    return replace(
        recipe, model=ListenerConfig(labels=(), beats=encoder), train=replace(recipe.train, learning_rate=1e-3)
    )


def htsat() -> Recipe:
    """A small HTS-AT in place of the convolutions."""
    recipe = default()
    model = ListenerConfig(labels=(), htsat=small_htsat())
    # its features are in other units than those that the responses are for
    return replace(recipe, model=model, train=replace(recipe.train, learning_rate=1e-3), response_db=0.0)


def robust() -> Recipe:
    """``default`` on sounds that are changed by more: of recordings it has not heard it knows more (docs/answering.md).

    What is trained over it hears them changed as much.
    """
    recipe = default()
    soundscapes = replace(recipe.data.soundscapes, speed_octaves=0.9)
    data = replace(recipe.data, soundscapes=soundscapes, speed_octaves=0.9, bandwidth=0.4)
    return replace(recipe, data=data, response_db=10.0)


def judge() -> Recipe:
    """A judge of generated sounds: recordings alone, one or two at a time; what is synthesised here has no say."""
    recipe = default()
    two = replace(recipe.data.soundscapes, kinds=(("overlap", 1.0),), synthesised=0.0)
    return replace(recipe, data=replace(recipe.data, soundscapes=two, recordings=0.45))


def tiny() -> Recipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    return Recipe(
        ListenerConfig(
            labels=(), conv_encoder=ConvEncoderConfig(channels=(4, 4, 8, 8, 16)), embedding_hidden=16, min_seconds=2.0
        ),
        ExampleSettings(SoundscapeSettings(seconds=(2.0, 2.5), group=4)),
        TrainConfig(steps=4, batch_size=4, learning_rate=1e-3, ema_decay=0.9, log_every=1),
        SpecAugmentConfig(n_freq_masks=1, max_freq_width=8, n_time_masks=1),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "default": default,
    "beats": beats,
    "htsat": htsat,
    "judge": judge,
    "robust": robust,
    "tiny": tiny,
}
