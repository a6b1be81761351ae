"""How to train a codec: plain functions that return settings; ``RECIPES`` is what the command line knows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aural.codec.data import CutSettings
from aural.codec.losses import MelConfig
from aural.features import SAMPLE_RATE
from aural.networks.encodec import EncodecConfig
from aural.networks.residual_quantizer import QuantizerConfig
from aural.networks.stft_discriminator import StftDiscriminatorConfig
from aural.soundscapes.compose import SoundscapeSettings
from aural.training import TrainConfig


@dataclass(frozen=True)
class LossWeights:
    """Parts of the gradient that come from each loss, see :class:`aural.codec.losses.GradientBalancer`."""

    waveform: float = 0.1
    """Distance of samples."""
    mel: float = 2.0
    """Distance of mel spectrograms of several sizes of window."""
    adversarial: float = 4.0
    """What the discriminator takes for made."""
    features: float = 4.0
    """Distance of the discriminator's features."""


@dataclass(frozen=True)
class Phase:
    """A part of a training, in which other losses count than before."""

    share: float
    """Of all steps."""
    weights: LossWeights = field(default_factory=LossWeights)
    quantised: bool = True
    """False: decoder and encoder meet without the quantiser."""

    @property
    def judged(self) -> bool:
        """Whether there is a discriminator in it; without, a step costs half as much."""
        return self.weights.adversarial > 0 or self.weights.features > 0


@dataclass(frozen=True)
class Recipe:
    """Model, data and training of a codec."""

    model: EncodecConfig
    discriminator: StftDiscriminatorConfig
    data: CutSettings
    train: TrainConfig
    phases: tuple[Phase, ...] = (Phase(1.0),)
    """One after the other."""
    mel: MelConfig = field(default_factory=MelConfig)
    start_cuts: int = 0
    """Cuts that the codebooks start from; 0: the batch at hand, which should hold more frames than they have entries.
    """
    decoder_alone: bool = False
    """Of a codec that is given the decoder learns on; its codes of a sound stay what they are."""
    half: bool = False
    """Keep the finished weights in 16 bits."""

    def __post_init__(self) -> None:
        """Refuse a codec that this training has no sounds for.

        Raises:
            ValueError: another sample rate, several channels, a cut shorter than the discriminator's windows, or
                phases that are more or less than the whole.
        """
        if self.model.sample_rate != SAMPLE_RATE or self.model.channels != 1:
            raise ValueError(f"codecs are trained on one channel at {SAMPLE_RATE} Hz")
        if self.data.n_samples < max(self.discriminator.win_lengths):
            raise ValueError("a cut is shorter than the discriminator's longest window")
        if not math.isclose(sum(phase.share for phase in self.phases), 1.0):
            raise ValueError("the shares of the phases do not add up to 1")


def default() -> Recipe:
    """The embedded default: 50 frames a second, 4 kbit/s, 3.6 M parameters, about 45 minutes on one core.

    The discriminator doubles the cost of a step, and has little to say before there is a likeness: it comes late, is
    small, and looks half as often as in the paper. A young encoder changes faster than codebooks can follow, and most
    entries would fall out of use: they start later, from more frames than a batch holds, and learn faster. Samples come
    first: from spectra it learns envelopes in a few hundred steps, and no harmonics. Muon uses all dimensions of the
    latents alike, so that there must be no more than codebooks can follow (docs/text_to_audio.md).
    """
    quantizer = QuantizerConfig(n_codebooks=8, codebook_size=1024, kmeans_iterations=20, decay=0.97)
    model = EncodecConfig(n_filters=16, dimension=32, quantizer=quantizer)
    discriminator = StftDiscriminatorConfig(
        n_filters=16,
        n_ffts=(1024, 512, 256),
        hop_lengths=(512, 256, 128),
        win_lengths=(1024, 512, 256),
        stride=(1, 3),
    )
    train = TrainConfig(
        steps=5200,
        batch_size=8,
        optimizer="muon",
        learning_rate=2e-3,
        final_learning_rate=5e-5,
        warmup_steps=100,
        weight_decay=0.0,
        betas=(0.8, 0.99),
        clip_norm=200.0,  # quiet cuts, whose spectra have steep logarithms, now and then give ten times the usual norm
        ema_decay=0.99,
        save_every=250,
        precision="bfloat16",
    )
    samples_first = LossWeights(waveform=3.0, mel=2.0, adversarial=0.0, features=0.0)
    return Recipe(
        model,
        discriminator,
        CutSettings(),
        train,
        phases=(
            Phase(0.05, samples_first, quantised=False),
            Phase(0.21, samples_first),
            Phase(0.14, LossWeights(waveform=1.0, mel=4.0, adversarial=0.0, features=0.0)),
            Phase(0.60, LossWeights(waveform=0.5, mel=3.0, adversarial=1.5, features=3.0)),
        ),
        mel=MelConfig(floor=1e-7),
        start_cuts=128,
        half=True,
    )


def decoder() -> Recipe:
    """The decoder of a trained codec learns on, while its codes, and what writes them, stay what they are.

    The discriminator begins anew, and has no say before it has learned something.
    """
    recipe = default()
    looking_on = LossWeights(waveform=0.3, mel=3.0, adversarial=0.01, features=0.01)
    return replace(
        recipe,
        train=replace(recipe.train, steps=3000, learning_rate=1e-3),
        phases=(Phase(0.1, looking_on), Phase(0.9, replace(looking_on, adversarial=1.5, features=3.0))),
        decoder_alone=True,
    )


def tiny() -> Recipe:
    """A few steps with toy sizes, in seconds: for tests, and to see the whole road once."""
    quantizer = QuantizerConfig(n_codebooks=2, codebook_size=16, kmeans_iterations=4, codebook_dropout=True)
    model = EncodecConfig(n_filters=4, dimension=8, lstm_layers=1, quantizer=quantizer)
    discriminator = StftDiscriminatorConfig(n_filters=2, n_ffts=(256,), hop_lengths=(128,), win_lengths=(256,))
    data = CutSettings(n_samples=3200, soundscapes=SoundscapeSettings(seconds=(2.0, 2.5)))
    train = TrainConfig(
        steps=4, batch_size=2, learning_rate=1e-3, weight_decay=0.0, clip_norm=None, ema_decay=0.9, log_every=1
    )
    alone = LossWeights(adversarial=0.0, features=0.0)
    phases = (Phase(0.2, alone, quantised=False), Phase(0.3, alone), Phase(0.5))
    return Recipe(model, discriminator, data, train, phases, start_cuts=8, half=True)


def paper() -> Recipe:
    """The codec of AudioGen at 16 kHz, as audiocraft trains it (arXiv 2210.13438, sections 3.3, 3.4 and 4.3).

    Adam at 3e-4, which is AdamW without decay, for 200 times 2000 updates of 64 clips of 1 s, no quantiser dropout, and
    a discriminator of five windows from the first update on. Codebooks are kept in use, which the original meant to do;
    codec and discriminator start as :func:`aural.codec.train.awake` and
    :func:`aural.codec.train.awake_judge` make them.
    """
    train = TrainConfig(
        steps=400_000,
        batch_size=64,
        learning_rate=3e-4,
        final_learning_rate=3e-4,
        weight_decay=0.0,
        betas=(0.5, 0.9),
        clip_norm=None,
        ema_decay=0.99,
        save_every=2000,
        workers=4,
    )
    data = CutSettings(recordings=1.0, speed_octaves=0.0)
    return Recipe(EncodecConfig(), StftDiscriminatorConfig(), data, train)


RECIPES: dict[str, Callable[[], Recipe]] = {"default": default, "decoder": decoder, "tiny": tiny, "paper": paper}
