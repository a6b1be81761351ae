"""Sound in, sentence out: what the command line, the demo page and the tests call.

A recording longer than the model hears at once is covered whole by windows of equal length, and summed up; nothing is
cropped. So is each stretch of it that is to have a caption of its own. The
default method is the paper's (Wu et al. 2023): draw candidates by nucleus sampling and choose by 0.3 x log-likelihood +
0.7 x similarity of the audio and sentence embeddings, passing over what is no grammatical sentence. Every window draws
from a generator of its own, so that the result depends on the seed and the sound, not on what else is in the batch.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf, nan
from typing import Any, Literal, overload

import torch
from tokenizers import Tokenizer
from torch import Tensor

from aural.audio import SHORTEST_WINDOW, Sound
from aural.captioning.decoding import DecodingConfig, Member, beam, greedy, nucleus
from aural.captioning.model import SAMPLE_RATE, Captioner, CaptionerConfig
from aural.captioning.rerank import choose, clean
from aural.captioning.tokenizer import load_tokenizer
from aural.checkpoint import find_model, load_config, load_into, load_weights, uninitialised
from aural.device import choose_device
from aural.errors import AuralError, UsageError
from aural.fluency import is_flawed
from aural.networks.sentence_encoder import SentenceEncoder, load_sentence_encoder
from aural.padding import pad
from aural.window_batches import Piece, batches, even_windows, pieces, stretches

Method = Literal["hybrid", "nucleus", "beam", "greedy"]
METHODS: tuple[Method, ...] = ("hybrid", "nucleus", "beam", "greedy")

LONGEST_WINDOW = 10.0
"""Seconds heard at once where the model would take more: what a sentence can do justice to."""

SUMMARY_SENTENCES = 3
"""Captions that the one result of a long recording is made of, at most."""

SAME_MEANING = 0.6
"""Cosine of sentence embeddings from which two captions say the same: with MiniLM, more than 95 % of the pairs of
phrases for one of ESC-10's sounds lie above it, and none for two."""


@dataclass(frozen=True)
class Candidate:
    """One caption that was considered."""

    caption: str
    log_likelihood: float
    """Mean log-probability of its tokens, in nats."""
    similarity: float
    """Cosine of audio embedding and sentence embedding; NaN where the method does not look at it."""
    score: float
    """What the order is by."""


@dataclass(frozen=True)
class Caption:
    """A sentence about a sound, or about a window of it."""

    text: str
    score: float
    candidates: tuple[Candidate, ...]
    """The chosen one, then the others by score."""
    start: float | None = None
    """Seconds; None where the caption is for the whole sound."""
    end: float | None = None


@dataclass(frozen=True)
class CaptioningModel:
    """A captioner, or a weighted ensemble of several, with what it needs to write and to judge sentences."""

    name: str
    captioners: tuple[Captioner, ...]
    weights: tuple[float, ...]
    tokenizer: Tokenizer
    device: torch.device
    text_encoder: str | None
    """Folder or hub id of the sentence encoder; None = the bundled one."""
    text_instruction: str = ""
    offline: bool = False

    @cached_property
    def sentence_encoder(self) -> SentenceEncoder:
        """Loaded when it is first needed: greedy, beam and nucleus do without it."""
        encoder = load_sentence_encoder(self.text_encoder, instruction=self.text_instruction, offline=self.offline)
        for captioner in self.captioners:
            if captioner.config.embedding_dim != encoder.dim:
                raise UsageError(
                    f"{self.name}: its audio embeddings have {captioner.config.embedding_dim} dimensions, the sentence "
                    f"encoder's {encoder.dim}: pass the one it was trained with (--text-encoder), or --method nucleus"
                )
        return encoder

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> (captions, embedding_dim), unit length."""
        return self.sentence_encoder.encode(captions)

    @property
    def window_seconds(self) -> float:
        """Longest stretch heard at once; what a last window may be longer by is left free."""
        room = 0.001 + SHORTEST_WINDOW
        return min(LONGEST_WINDOW, *(captioner.max_seconds - room for captioner in self.captioners))


@overload
def caption(sounds: Sound, **options: Any) -> Caption: ...
@overload
def caption(sounds: list[Sound], **options: Any) -> list[Caption]: ...
def caption(sounds: Any, *, model: "CaptioningModel | str | os.PathLike[str] | None" = None, **options: Any) -> Any:
    """Describe a sound, or each of a list of sounds.

    Args:
        sounds: a path, a binary file object, or an array or tensor with its sample rate; or a list of these.
        model: a loaded model, or what :func:`load` takes.
        options: see :func:`caption_each`.

    Returns:
        A :class:`Caption` for each sound; with ``windows``, a list of them for each sound.

    Raises:
        AuralError: a sound cannot be read, or the options do not fit.
    """
    loaded = model if isinstance(model, CaptioningModel) else load(model)
    alone = not isinstance(sounds, list)
    results = []
    for _, found in caption_each([sounds] if alone else sounds, loaded, **options):
        if isinstance(found, AuralError):
            raise found
        results.append(found if options.get("windows") is not None else found[0])
    return results[0] if alone else results


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    offline: bool = False,
    text_encoder: str | None = None,
) -> CaptioningModel:
    """Load a captioner: the embedded default, a folder, or a hub id.

    Args:
        model: None for the embedded default; several separated by commas are an ensemble, "A:0.7,B:0.3" a weighted one.
        device: "auto" (cuda, else mps, else cpu) or the name of one.
        offline: never ask a hub.
        text_encoder: folder or hub id of the sentence encoder, where it is not found under the name in the config.

    Raises:
        UsageError: unknown model, or members of an ensemble that do not share a tokenizer.
        CheckpointError: the folder's config or weights do not fit.
    """
    where = choose_device(device)
    members = [_name_and_weight(part) for part in str(model).split(",")] if model is not None else [(None, 1.0)]
    captioners, tokenizers = [], []
    for name, _ in members:
        folder = find_model(name, "captioning", offline=offline)
        config = load_config(folder, CaptionerConfig, "captioning")
        with uninitialised():
            captioner = Captioner(config)
        load_into(captioner, load_weights(folder))
        captioners.append(captioner.eval().requires_grad_(False).to(where))
        tokenizers.append(load_tokenizer(folder))
    config = captioners[0].config
    for tokenizer, captioner in zip(tokenizers, captioners, strict=True):
        if tokenizer.get_vocab() != tokenizers[0].get_vocab() or captioner.config.text_encoder != config.text_encoder:
            raise UsageError(f"{model}: the members of an ensemble must share one tokenizer and one sentence encoder")
    total = sum(weight for _, weight in members)
    return CaptioningModel(
        str(model or "default"),
        tuple(captioners),
        tuple(weight / total for _, weight in members),
        tokenizers[0],
        where,
        text_encoder or config.text_encoder,
        config.text_instruction,
        offline,
    )


def _name_and_weight(part: str) -> tuple[str, float]:
    """ "A:0.7" is A with weight 0.7; anything else, a path with a colon in it too, is a name of weight 1."""
    name, colon, weight = part.strip().rpartition(":")
    try:
        return (name, float(weight)) if colon and float(weight) > 0 else (part.strip(), 1.0)
    except ValueError:
        return part.strip(), 1.0


def caption_each(
    sounds: Iterable[Sound],
    model: CaptioningModel,
    *,
    method: Method = "hybrid",
    n_candidates: int = 50,
    seed: int = 0,
    batch_size: int = 8,
    windows: float | None = None,
) -> Iterator[tuple[Sound, list[Caption] | AuralError]]:
    """Caption sounds in order; one that cannot be read gives its error, and the rest goes on.

    Args:
        sounds: any number; they are read as they are needed.
        model: from :func:`load`.
        method: "hybrid" (sample and rerank), "nucleus" (the first sample), "beam" or "greedy".
        n_candidates: how many captions hybrid draws.
        seed: of the sampling.
        batch_size: windows computed together.
        windows: seconds; a caption for every stretch of that length, however long, instead of one for the whole.

    Yields:
        Each sound with its captions: one for the whole, or one a stretch with its times.

    Raises:
        UsageError: an option that does not fit.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if windows is not None and not 0 < windows < inf:
        raise UsageError(f"windows of {windows:g} s: give a number of seconds above 0")
    embed_text = model.embed_text if method == "hybrid" else None  # the other methods do without a sentence encoder
    stretches_of = partial(
        stretches,
        sample_rate=SAMPLE_RATE,
        length=windows,
        longest=model.window_seconds,
        whole=partial(even_windows, sample_rate=SAMPLE_RATE, longest=model.window_seconds),
    )
    of_stretch: list[Caption] = []
    captions: list[Caption] = []
    for batch in batches(pieces(sounds, stretches_of), batch_size):
        heard = [piece for piece in batch if piece.window is not None]
        found = iter(_caption_windows(heard, model, method, n_candidates, seed))
        for piece in batch:
            if piece.window is not None:
                of_stretch.append(next(found))
                continue
            if piece.stretch is not None:
                captions.append(replace(summarise(of_stretch, embed_text), **vars(piece.stretch)))
            else:
                yield piece.sound, piece.error or captions
                captions = []
            of_stretch = []


@torch.inference_mode()
def _caption_windows(
    pieces: Sequence[Piece], model: CaptioningModel, method: Method, n_candidates: int, seed: int
) -> list[Caption]:
    """A caption for each window, all of them computed together."""
    if not pieces:
        return []
    waveform, mask = pad([torch.from_numpy(piece.window.waveform) for piece in pieces if piece.window])
    waveform, mask = waveform.to(model.device), mask.to(model.device)
    members = [
        Member(captioner, captioner.encode(waveform, None if mask.all() else mask), weight)
        for captioner, weight in zip(model.captioners, model.weights, strict=True)
    ]
    limit = min(captioner.config.decoder.max_positions for captioner in model.captioners)
    config = DecodingConfig(candidates=n_candidates, min_length=model.captioners[0].config.min_length)
    if method == "beam":
        drawn = beam(members, replace(config, max_length=min(100, limit)))
    elif method == "greedy":
        drawn = [[found] for found in greedy(members, config)]
    else:
        config = config if method == "hybrid" else replace(config, candidates=1)
        # every window of a sound has a seed of its own, whatever stands beside it in the batch
        drawn = nucleus(members, config, [seed + 1_000_003 * piece.number for piece in pieces])
    choices = None
    if method == "hybrid":
        weight = sum(m.weight * m.model.config.decoder_weight for m in members) / sum(m.weight for m in members)
        choices = choose(
            *(members, drawn, model.tokenizer, model.embed_text),
            decoder_weight=weight,
            encoder_weight=1 - weight,
            is_flawed=is_flawed,
        )
    captions = []
    for i, piece in enumerate(pieces):
        assert piece.window is not None
        if choices is not None:
            best = choices[i].best
            ranked = sorted(choices[i].ranked, key=lambda one: one is not best)  # the chosen one, then by score
            candidates = tuple(Candidate(**vars(one)) for one in ranked)
        else:
            texts = [(clean(model.tokenizer.decode(list(found.token_ids))), found.score) for found in drawn[i]]
            candidates = tuple(Candidate(text, score, nan, score) for text, score in texts)
        chosen = candidates[0]
        captions.append(Caption(chosen.caption, chosen.score, candidates, piece.window.start, piece.window.end))
    return captions


def summarise(captions: Sequence[Caption], embed_text: Callable[[list[str]], Tensor] | None = None) -> Caption:
    """One caption for a whole recording from those of its windows.

    Windows whose captions say the same are taken together: the same words, or, given a sentence encoder, a cosine of
    at least SAME_MEANING. Of these the SUMMARY_SENTENCES that cover the most time are kept, each in its most frequent
    words, and told in the order in which they first come, with "then" between them. The score is the mean over all
    windows, weighted by their length.
    """
    if len(captions) == 1:
        return replace(captions[0], start=None, end=None)
    lengths = [(one.end or 0.0) - (one.start or 0.0) for one in captions]
    seconds_of: dict[str, float] = {}
    for one, length in zip(captions, lengths, strict=True):
        seconds_of[one.text] = seconds_of.get(one.text, 0.0) + length
    texts = list(seconds_of)
    same = torch.eye(len(texts), dtype=torch.bool)
    if embed_text is not None:
        embeddings = embed_text(texts)
        same = embeddings @ embeddings.T >= SAME_MEANING
    groups: list[list[int]] = []  # the first of each is what the others are compared with
    for i in range(len(texts)):
        fitting = next((group for group in groups if same[group[0], i]), None)
        groups.append([i]) if fitting is None else fitting.append(i)

    def covered(group: list[int]) -> float:
        return sum(seconds_of[texts[i]] for i in group)

    longest = sorted(groups, key=covered, reverse=True)[:SUMMARY_SENTENCES]
    told = [max((texts[i] for i in group), key=lambda text: seconds_of[text]) for group in groups if group in longest]
    score = sum(one.score * length for one, length in zip(captions, lengths, strict=True)) / sum(lengths)
    candidates = tuple(sorted((c for one in captions for c in one.candidates), key=lambda c: -c.score))
    return Caption(" then ".join(told), score, candidates)
