"""How to train an audio language model: plain functions that return settings; ``RECIPES`` is what the commands know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from aural.answering.model import AnsweringConfig, Gpt2Config, SentencesConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.examples import ExampleSettings
from aural.training import TrainConfig


@dataclass(frozen=True)
class LanguageRecipe:
    """The language side, which is trained first, on text alone: facts of scenes, what is asked, and the answers."""

    vocab_size: int
    """At most; of its byte-level BPE."""
    imagined: int
    """Scenes without sound that it learns from besides those of the pool."""
    train: TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Model, data and training. Over the listener in the box, or over a released or given audio encoder."""

    model: AnsweringConfig
    train: TrainConfig
    tasks: Mapping[str, float] = field(default_factory=dict)
    """Which tasks are learned, and in which proportion; empty: all that the clips allow, in equal parts. Tasks of a
    user's own table that are not named here come as often as these do on average."""
    soundscapes: ExampleSettings | None = None
    """Learn from these besides recordings, encoded once; None: from the clips of the manifest alone."""
    pool: int = 0
    """How many of them."""
    pools: int = 1
    """How many such pools follow one another while facts are learned; answers are learned over the last."""
    pool_response_db: float = 0.0
    """Each is heard as by another microphone (:func:`aural.spec_augment.frequency_response`)."""
    n_asked: int = 4
    """Prompts put to each in one step."""
    facts: TrainConfig | None = None
    """The audio mapper first learns what the facts are, as the language model reads them; None: it does not."""
    language: LanguageRecipe | None = None
    """None: the language model is given (``--language-model``)."""


TASKS = {
    "audio captioning": 0.15,
    "sound event classification": 0.2,
    "metadata": 0.15,  # all facts of a scene: more words to learn from than any other answer
    "audio question answering": 0.5,
}


def default() -> Recipe:
    """The embedded default: a mapper between a listener (``robust``) and a small language model, both frozen."""
    width = 192
    model = AnsweringConfig(
        htsat=None,
        conv_encoder=ConvEncoderConfig(),
        audio_rows=32,
        freeze_audio_encoder=True,
        seconds=10.0,
        min_seconds=4.0,
        text_encoder=None,
        sentences=SentencesConfig(),
        gpt2=Gpt2Config(vocab_size=800, width=width, layers=4, heads=4, max_positions=96),
        prefix_length=24,
        mapper_layers=3,
        mapper_heads=4,
        prompt_length=24,
        target_length=40,
        # The released beam search ranks by the mean log-probability of a token, so that a long answer whose end is
        # certain once it is begun ("there is no ...") beats an answer of one token that is the more probable by far.
        search="greedy",
    )
    train = TrainConfig(
        steps=1500,
        batch_size=32,
        optimizer="muon",
        learning_rate=3e-4,
        warmup_steps=100,
        weight_decay=0.05,
        ema_decay=0.995,
        save_every=500,
    )
    facts = replace(train, steps=17_500, batch_size=64, learning_rate=2e-3, warmup_steps=200, weight_decay=0.01)
    text = replace(facts, steps=6000, optimizer="adamw", learning_rate=5e-4, weight_decay=0.05, ema_decay=None)
    # Changed as much as what the listener learned from: what it knows by heart is no measure.
    soundscapes = SoundscapeSettings(seconds=(4.0, 10.0), group=train.batch_size, speed_octaves=0.9)
    return Recipe(
        model,
        train,
        tasks=TASKS,
        soundscapes=ExampleSettings(soundscapes, recordings=0.35, speed_octaves=0.9, bandwidth=0.4),
        # of fewer, it learns the very scenes by heart
        pool=80_000,
        pools=2,
        pool_response_db=10.0,
        facts=facts,
        language=LanguageRecipe(vocab_size=800, imagined=30_000, train=text),
    )


def tiny() -> Recipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    model = AnsweringConfig(
        htsat=None,
        conv_encoder=ConvEncoderConfig(channels=(4, 4, 8, 8, 16)),
        audio_rows=6,
        freeze_audio_encoder=True,
        seconds=4.0,
        min_seconds=2.0,
        text_encoder=None,
        sentences=SentencesConfig(),
        gpt2=Gpt2Config(vocab_size=300, width=16, layers=1, heads=2, max_positions=48),
        prefix_length=3,
        mapper_layers=1,
        mapper_heads=2,
        prompt_length=12,
        target_length=24,
    )
    train = TrainConfig(steps=4, batch_size=4, learning_rate=1e-3, ema_decay=0.9, log_every=1)
    text = TrainConfig(steps=4, batch_size=8, learning_rate=1e-3, log_every=1)
    soundscapes = ExampleSettings(SoundscapeSettings(seconds=(2.0, 2.5), group=train.batch_size))
    return Recipe(
        model,
        train,
        tasks=TASKS,
        soundscapes=soundscapes,
        pool=8,
        pools=2,
        facts=train,
        language=LanguageRecipe(vocab_size=300, imagined=20, train=text),
    )


def paper() -> Recipe:
    """Deshmukh et al. 2023: HTS-AT trained on, CLIP and GPT-2 given and frozen; 60 epochs of 3.4 M pairs.

    Adam in batches of 384, with 2000 steps of warm-up to 1e-4 and a linear decay, on 20 GPUs.
    """
    train = TrainConfig(
        steps=531_250,
        batch_size=384,
        micro_batch_size=48,
        learning_rate=1e-4,
        schedule="linear",
        warmup_steps=2000,
        weight_decay=0.0,
        precision="bfloat16",
        workers=8,
        validate_every=8854,
        save_every=8854,
    )
    return Recipe(AnsweringConfig(), train)


RECIPES: dict[str, Callable[[], Recipe]] = {"default": default, "tiny": tiny, "paper": paper}
