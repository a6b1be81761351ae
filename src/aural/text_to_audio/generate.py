"""Sounds from texts: what the command line, the demo page and the tests call.

A sound depends on its prompt, its seed and the settings, and not on what is generated beside it. It comes as a whole,
the best of several candidates (:func:`generate_audio`, :func:`generate_each`, :mod:`.reranking`), or in pieces while
the rest is still being made (:func:`stream`). What goes beyond full scale is bent, sample by sample, so that pieces and
whole are alike.

Shapes: B items, C channels, K codebooks of all channels together, T frames, P frames that are given, N samples.
"""

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from aural import __version__
from aural.audio import Sound, read, read_mono
from aural.checkpoint import find_model
from aural.codec_folder import OWN_CODEC, Codec, load_codec
from aural.device import choose_device
from aural.embedding import ListeningModel, load as load_listener
from aural.errors import CheckpointError, UsageError
from aural.networks.encodec import interleave, separate
from aural.networks.sentence_encoder import load_sentence_encoder
from aural.text_to_audio.captions import keywords
from aural.text_to_audio.convert import SYSTEM, load_model
from aural.text_to_audio.decoding import DecodingConfig, Text, stream as stream_codes
from aural.text_to_audio.model import TokenLanguageModel
from aural.text_to_audio.quantized import PackedModel, Weights, pack
from aural.text_to_audio.reranking import candidates, nearest
from aural.text_to_audio.text_encoder import ReadTexts, SentenceText

KNEE = 0.9
"""Samples up to this level are left as they are; louder ones are bent so that none reaches full scale."""

CHUNK = 0.2
"""Seconds of sound that are decoded at a time in a stream."""

Progress = Callable[[int, int], None]
"""Told after each frame how many are done, of all; what it raises ends the generation."""


@dataclass(frozen=True)
class Settings:
    """How to generate; the defaults are the published ones."""

    duration: float | None = None  # seconds, of the whole; None = as long as the clips of training
    cfg_scale: float = 3.0  # how strongly the text guides; 1 = not beyond what the model says
    temperature: float = 1.0  # 0 = the most probable code each time
    top_k: int | None = 250
    top_p: float | None = None  # where it is set, top_k does not count
    negative_prompt: str | None = None  # guidance leads away from this instead of from no text
    best_of: int | None = None  # sounds drawn for each one, of which the best is kept; None = as the model has it

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            UsageError: says which, and what to give.
        """
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise UsageError(f"a duration of {self.duration:g} s: give one above 0, such as 5")
        if not 0 <= self.cfg_scale < math.inf:
            raise UsageError(f"a guidance (cfg scale) of {self.cfg_scale:g}: give 0 or more, such as 3")
        if self.negative_prompt is not None and self.cfg_scale == 1:
            raise UsageError("a negative prompt acts through guidance: give a cfg scale other than 1, such as 3")
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"a temperature of {self.temperature:g}: give 0 or more, such as 1")
        if self.best_of is not None and self.best_of < 1:
            raise UsageError(f"the best of {self.best_of} sounds: give 1 or more, such as 4")
        if self.best_of is not None and self.best_of > 1 and not self.random:
            raise UsageError(
                f"nothing is drawn at temperature {self.temperature:g} with top_k {self.top_k}, so that all "
                f"{self.best_of} sounds would be the same: leave best_of out"
            )
        try:
            self.decoding()
        except ValueError as error:
            raise UsageError(str(error)) from None

    @property
    def random(self) -> bool:
        """Whether another seed makes another sound."""
        return self.temperature > 0 and (self.top_p is not None or self.top_k != 1)

    def decoding(self) -> DecodingConfig:
        """What of it the search for codes goes by."""
        return DecodingConfig(guidance=self.cfg_scale, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


@dataclass(frozen=True)
class Request:
    """One sound that is wanted."""

    prompt: str
    seed: int = 0


@dataclass(frozen=True)
class Audio:
    """A sound from a text."""

    prompt: str
    seed: int
    waveform: np.ndarray
    """(C, N) float32, between -1 and 1."""
    sample_rate: int
    codes: Tensor
    """(K, T)."""
    took: float
    """Seconds of computing, its share of those of its batch; of the best of several candidates, those of all."""
    drawn_by: int
    """The seed that makes it without other candidates."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.waveform.shape[1] / self.sample_rate


@dataclass(frozen=True)
class GenerationModel:
    """A token language model with its reader of texts and its codec."""

    name: str
    model: TokenLanguageModel
    read: ReadTexts
    codec: Codec
    device: torch.device
    weights: Weights | PackedModel = "float32"
    """What single steps read, see :mod:`.quantized`."""

    @property
    def channels(self) -> int:
        """C of the sounds: 1, or 2 for left and right."""
        return self.model.config.channels

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> Text:
        """What the language model is shown of prompts."""
        if self.model.config.keywords:
            prompts = [keywords(prompt) or prompt for prompt in prompts]
        states, mask = self.read(prompts)
        mask = mask.to(self.device)
        return Text(self.model.condition(states.to(self.device), mask), mask)

    def n_samples(self, settings: Settings) -> int:
        """N of the sounds."""
        config = self.model.config
        duration = config.seconds if settings.duration is None else settings.duration
        return max(1, round(duration * config.sample_rate))

    def n_frames(self, settings: Settings) -> int:
        """T of the sounds; the last one may be of less than a hop."""
        return -(-self.n_samples(settings) // self.codec.hop)

    def best_of(self, settings: Settings) -> int:
        """Sounds that are drawn for each one; a single one where nothing is left to chance."""
        return settings.best_of or (self.model.config.best_of if settings.random else 1)

    @cached_property
    def listener(self) -> ListeningModel:
        """What chooses among candidates, the one in the box; loaded when it is first needed."""
        return load_listener(device=str(self.device))

    def given(self, sound: Sound, settings: Settings) -> Tensor:
        """The codes (1, K, P) of a sound to go on from, of its whole frames.

        In stereo, what has two channels keeps them; anything else is heard as mono, on both sides.

        Raises:
            AudioError: it cannot be read.
            UsageError: it is shorter than a frame, or not shorter than what is wanted.
        """
        waveform = _channels(sound, self.codec.sample_rate, self.channels)
        whole = waveform.shape[1] // self.codec.hop
        seconds = waveform.shape[1] / self.codec.sample_rate
        if whole == 0:
            raise UsageError(f"there are only {seconds:.3f} s to go on from: give at least a frame")
        if whole >= self.n_frames(settings):
            wanted = self.n_samples(settings) / self.codec.sample_rate
            raise UsageError(
                f"{seconds:g} s to go on from, and {wanted:g} s wanted of the whole: give a longer duration"
            )
        codes = self.codec.encode(torch.from_numpy(waveform[:, : whole * self.codec.hop]))
        return interleave(codes, self.channels).cpu()


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    codec: str | os.PathLike[str] | None = None,
    device: str = "auto",
    offline: bool = False,
    weights: Weights = "float32",
) -> GenerationModel:
    """Load a token language model, the embedded default, a folder or a hub id, and the codec of its codes.

    Args:
        model: the model.
        codec: likewise; None: the one that lies in the model's folder as ``codec``, or else the one in the box.
        device: "auto", "cpu", "cuda", ...
        offline: take hub models from the local cache only.
        weights: "int8" and "int4" are quicker on a CPU and not quite the same, see :mod:`.quantized`.

    Raises:
        UsageError: unknown model or codec, or rounded weights are not to be had here.
        CheckpointError: a folder's config or weights do not fit, or the codec is not the one of the model.
    """
    where = choose_device(device)
    folder = find_model(model, SYSTEM, offline=offline)
    network, t5 = load_model(folder)
    own = folder / OWN_CODEC
    coder = load_codec(own if codec is None and own.is_dir() else codec, device=device, offline=offline)
    config = network.config
    fits = (coder.sample_rate, coder.frame_rate, config.channels * coder.n_codebooks, coder.codebook_size) == (
        *(config.sample_rate, config.frame_rate),
        *(config.codebooks, config.codebook_size),
    )
    if not fits or config.codec not in (None, coder.digest):
        raise CheckpointError(
            f"{model or 'the default model'} writes the codes of another codec than {coder.name}: pass --codec with "
            "the one it was trained over"
        )
    read: ReadTexts = SentenceText(load_sentence_encoder(offline=offline)) if t5 is None else t5.to(where)
    network.requires_grad_(False).to(where)
    packed = weights if weights == "float32" else pack(network, weights)
    return GenerationModel(str(model or "default"), network, read, coder, where, packed)


@overload
def generate_audio(prompts: str, **options: Any) -> Audio: ...
@overload
def generate_audio(prompts: list[str], **options: Any) -> list[Audio]: ...
def generate_audio(
    prompts: Any,
    *,
    model: "GenerationModel | str | os.PathLike[str] | None" = None,
    seed: int | Sequence[int] = 0,
    batch_size: int = 4,
    continue_from: "Sound | None" = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Any:
    """Make a sound of a text, or one of each of a list of texts.

    Args:
        prompts: what is to be heard, such as "a dog barks".
        model: a loaded model, or what :func:`load` takes.
        seed: the same one gives the same sound; one for all, or one for each text.
        batch_size: sounds computed at a time.
        continue_from: a sound with which the generated ones begin, as the codec has it.
        progress: see :data:`Progress`.
        settings: see :class:`Settings`.

    Returns:
        A :class:`Audio` for each text.

    Raises:
        AuralError: the model or the sound to go on from cannot be read, or the settings do not fit.
    """
    texts = [prompts] if isinstance(prompts, str) else prompts
    seeds = [seed] * len(texts) if isinstance(seed, int) else seed
    if len(seeds) != len(texts):
        raise UsageError(f"{len(seeds)} seeds for {len(texts)} texts: give one for all, or one for each")
    loaded = model if isinstance(model, GenerationModel) else load(model)
    made = generate_each(
        [Request(text, one) for text, one in zip(texts, seeds, strict=True)],
        loaded,
        Settings(**settings),
        batch_size=batch_size,
        continue_from=continue_from,
        progress=progress,
    )
    return next(made) if isinstance(prompts, str) else list(made)


def generate_each(
    requests: Sequence[Request],
    model: GenerationModel,
    settings: Settings | None = None,
    *,
    batch_size: int = 4,
    continue_from: "Sound | None" = None,
    progress: Progress | None = None,
) -> Iterator[Audio]:
    """Make a sound of each request, in order; see :func:`generate_audio`.

    Raises:
        UsageError: a prompt is empty, or the settings do not fit.
        AudioError: the sound to go on from cannot be read.
    """
    settings = settings or Settings()
    _check(requests)
    given = None if continue_from is None else model.given(continue_from, settings)
    n = model.best_of(settings)
    made = _draw(
        [one for request in requests for one in candidates(request, n)], model, settings, batch_size, given, progress
    )
    for request in requests:
        drawn = list(islice(made, n))
        best = nearest(drawn, model.listener) if n > 1 else drawn[0]
        yield replace(best, seed=request.seed, took=sum(one.took for one in drawn))


def _draw(
    requests: Sequence[Request],
    model: GenerationModel,
    settings: Settings,
    batch_size: int,
    given: Tensor | None,
    progress: Progress | None,
) -> Iterator[Audio]:
    per_sound = model.n_frames(settings) - (0 if given is None else given.shape[2])
    done, remaining = 0, iter(requests)
    while batch := list(islice(remaining, batch_size)):
        written: list[Tensor] = []
        start = time.perf_counter()
        for piece in _codes(model, batch, settings, given):
            if given is None or written:  # the first piece is what was given
                done += len(batch)
                if progress is not None:
                    progress(done, per_sound * len(requests))
            written.append(piece)
        codes = torch.cat(written, dim=2)
        # Each is decoded alone, so that not even its rounding depends on the others.
        decoded = (model.codec.decode(separate(row[None], model.channels)) for row in codes)
        waveforms = [bent(waveform.cpu())[:, : model.n_samples(settings)] for waveform in decoded]
        took = (time.perf_counter() - start) / len(batch)
        for request, waveform, row in zip(batch, waveforms, codes, strict=True):
            rate = model.codec.sample_rate
            yield Audio(request.prompt, request.seed, waveform.numpy(), rate, row, took, request.seed)


def stream(
    request: Request,
    model: GenerationModel,
    settings: Settings | None = None,
    *,
    continue_from: "Sound | None" = None,
    progress: Progress | None = None,
) -> Generator[np.ndarray, None, None]:
    """Make a sound and give away its pieces (C, any number of samples) as soon as they are certain, in order.

    Joined, they are what :func:`generate_audio` makes of one candidate, but for rounding: what plays while the rest is
    being made cannot be chosen by how it ends. To cancel, stop asking for more.

    Raises:
        UsageError: the prompt is empty, the settings do not fit, or there are to be several candidates.
        AudioError: the sound to go on from cannot be read.
    """
    settings = settings or Settings()
    _check([request])
    if settings.best_of is not None and settings.best_of > 1:
        raise UsageError("what plays while it is being made has no other candidates: leave --best-of out, or give 1")
    given = None if continue_from is None else model.given(continue_from, settings)
    return _pieces(request, model, settings, given, progress)


def _pieces(
    request: Request, model: GenerationModel, settings: Settings, given: Tensor | None, progress: Progress | None
) -> Generator[np.ndarray, None, None]:
    at_once = max(1, round(CHUNK * model.codec.frame_rate))
    left = model.n_samples(settings)
    total = model.n_frames(settings) - (0 if given is None else given.shape[2])

    def blocks() -> Iterator[Tensor]:
        held: list[Tensor] = []
        for number, piece in enumerate(_codes(model, [request], settings, given), start=1 if given is None else 0):
            if progress is not None and number:
                progress(number, total)
            held.append(piece)
            if len(held) == at_once:
                yield torch.cat(held, dim=2)
                held = []
        if held:
            yield torch.cat(held, dim=2)

    for waveform in model.codec.decode_stream(separate(block, model.channels) for block in blocks()):
        piece = bent(waveform.cpu())[:, :left].numpy()
        left -= piece.shape[1]
        if piece.size:
            yield piece


def sidecar(made: Audio, model: GenerationModel, settings: Settings, continued: str | None = None) -> dict[str, Any]:
    """All that is needed to make a sound again, as plain data: what lies beside it as JSON.

    Args:
        made: the sound.
        model: that made it.
        settings: with which.
        continued: name of the sound it goes on from.
    """
    fields = asdict(settings) | {"duration": made.seconds, "best_of": model.best_of(settings)}
    return {
        "prompt": made.prompt,
        "seed": made.seed,
        **fields,
        "drawn_by": made.drawn_by,
        "continue_from": continued,
        "sample_rate": made.sample_rate,
        "model": model.name,
        "weights": model.weights if isinstance(model.weights, str) else model.weights.weights,
        "codec": model.codec.name,
        "codec_digest": model.codec.digest,
        "aural": __version__,
        "torch": torch.__version__,
    }


def bent(waveform: Tensor) -> Tensor:
    """A waveform whose samples stay below full scale: those beyond :data:`KNEE` are bent, by themselves."""
    beyond = waveform.abs().sub(KNEE).clamp(min=0)
    return waveform.clamp(-KNEE, KNEE) + waveform.sign() * (1 - KNEE) * torch.tanh(beyond / (1 - KNEE))


def _channels(sound: Sound, sample_rate: int, channels: int) -> np.ndarray:
    """A sound (C, N)."""
    if channels == 1:
        return read_mono(sound, sample_rate)[None]
    waveform, _ = read(sound, sample_rate)
    return waveform if len(waveform) == channels else np.repeat(waveform.mean(axis=0, keepdims=True), channels, axis=0)


def _check(requests: Sequence[Request]) -> None:
    if not requests:
        raise UsageError("nothing to generate: give a prompt, such as 'a dog barks'")
    if any(not request.prompt.strip() for request in requests):
        raise UsageError("a prompt is empty: say what is to be heard, such as 'a dog barks'")


def _codes(
    model: GenerationModel, requests: Sequence[Request], settings: Settings, given: Tensor | None
) -> Iterator[Tensor]:
    """What was given (B, K, P), if anything, and then frame by frame (B, K, 1) what is written."""
    text = model.texts([request.prompt for request in requests])
    negative = None if settings.negative_prompt is None else model.texts([settings.negative_prompt])
    prompt, before = None, 0
    if given is not None:
        prompt = given.expand(len(requests), -1, -1)
        yield prompt
        # Of what is longer than a window, the end alone is seen, as of the windows that follow one another.
        window = model.model.config.window_frames
        if prompt.shape[2] > window:
            before = prompt.shape[2] - (window - max(1, window // 5))
            prompt = prompt[:, :, before:]
    yield from stream_codes(
        model.model,
        text,
        model.n_frames(settings) - before,
        settings.decoding(),
        seeds=[request.seed for request in requests],
        negative=negative,
        prompt=prompt,
        weights=model.weights,
    )
