"""Closed questions: which of given labels a recording fits, in two ways, with probabilities.

- ``likelihood``: how probable the model finds each label as its answer to "this is a sound of". The log-likelihoods,
  end of the answer included, are divided by the model's ``label_temperature`` (1 where none was fitted), and a softmax
  makes probabilities of them.
- ``text``: as in the paper, the model writes its answer freely, and each label is compared with it in the sentence
  encoder's space; the cosines go through a softmax with a temperature of their own.

Unless one is asked for, labels that the model's listener has learned by these names are weighed by ``likelihood``, and
any others by ``text``: a small language model finds words that it was never trained to write improbable whatever it
hears (docs/answering.md). A published model, whose language model knows all words, takes ``likelihood``.

With ``multi``, labels do not exclude one another. Each has a probability of its own: that the answer to "question: is
there {label}" is yes rather than no (``likelihood``; labels with phrases of their own in :mod:`aural.sound_phrases` are
asked for by these, as in training), or its cosine to the written answer, above 0 (``text``).
A long recording's probabilities are the means over its windows; with ``multi``, their maxima: it is there if it is
there anywhere.

:func:`fit_label_temperature` finds the ``label_temperature`` with which the probabilities of ``likelihood`` say how
often a model is right (temperature scaling, Guo et al. 2017, arXiv 1706.04599, section 4.2).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from aural.answering.answer import QUESTION, AnsweringModel, all_found, load
from aural.answering.decoding import search
from aural.answering.scoring import log_likelihoods
from aural.answering.tokenizer import STOP
from aural.audio import Sound
from aural.errors import AudioError, AuralError, UsageError
from aural.manifest import Clip
from aural.networks.sentence_encoder import SentenceEncoder, load_sentence_encoder
from aural.sound_phrases import SOUNDS
from aural.sound_source import part
from aural.window_batches import batches, pieces

Way = Literal["likelihood", "text"]
WAYS: tuple[Way, ...] = ("likelihood", "text")
PROMPT = "this is a sound of"
TEXT_TEMPERATURE = 0.1
TEXT_TOKENS = 30
"""Of the answer that labels are compared with, at most."""
TEMPERATURES = torch.logspace(-1, 1.5, 251)
"""Tried for ``label_temperature``, 2.3 % apart."""

Judge: TypeAlias = Callable[[Tensor], Tensor]
"""The audio's half of a window's prefix (1, P, E) -> the probability of each label (labels,), on the CPU."""


@dataclass(frozen=True)
class Labels:
    """How well labels fit a sound."""

    label: str
    """The most probable one."""
    scores: Mapping[str, float]
    """The probability of each, the highest first; they sum to 1, but with ``multi`` each stands for itself."""

    @property
    def score(self) -> float:
        """The probability of the most probable one."""
        return self.scores[self.label]


@overload
def classify(sounds: Sound, labels: Sequence[str] | None = None, **options: Any) -> Labels: ...
@overload
def classify(sounds: list[Sound], labels: Sequence[str] | None = None, **options: Any) -> list[Labels]: ...
def classify(
    sounds: Any,
    labels: Sequence[str] | None = None,
    *,
    model: "AnsweringModel | str | os.PathLike[str] | None" = None,
    **options: Any,
) -> Any:
    """Say how probable labels are for a sound, or for each of a list of sounds.

    Args:
        sounds: a path, a binary file object, or an array or tensor with its sample rate; or a list of these.
        labels: what a sound may be; None: :func:`known_labels`.
        model: a loaded model, or what :func:`aural.answering.answer.load` takes.
        options: see :func:`classify_each`.

    Returns:
        :class:`Labels` for each sound.

    Raises:
        AuralError: a sound cannot be read, or the options do not fit.
    """
    if isinstance(labels, str):
        raise UsageError(f"labels are a list, such as {labels.split(',')!r}: not one text")
    loaded = model if isinstance(model, AnsweringModel) else load(model)
    alone = not isinstance(sounds, list)
    chosen = known_labels(loaded) if labels is None else labels
    found = all_found(classify_each([sounds] if alone else sounds, chosen, loaded, **options))
    return found[0] if alone else found


def known_labels(model: AnsweringModel) -> tuple[str, ...]:
    """The labels of the listener that a model hears through.

    Raises:
        UsageError: it hears through something that names none.
    """
    encoder = model.model.config.conv_encoder
    if encoder is None or not encoder.labels:
        raise UsageError(f"model {model.name} knows no labels of its own: say which ones to choose from (--labels)")
    return encoder.labels


def usual_way(labels: Sequence[str], model: AnsweringModel, *, multi: bool = False) -> Way:
    """How labels are weighed unless it is said; questions of their own (``multi``) are asked of any."""
    encoder = model.model.config.conv_encoder
    new = encoder is not None and not {_plain(label) for label in labels} <= set(encoder.labels)
    return "text" if new and not multi else "likelihood"


def classify_each(
    sounds: Iterable[Sound],
    labels: Sequence[str],
    model: AnsweringModel,
    *,
    way: Way | None = None,
    multi: bool = False,
    prompt: str = PROMPT,
    sentence_encoder: SentenceEncoder | None = None,
    batch_size: int = 8,
) -> Iterator[tuple[Sound, Labels | AuralError]]:
    """Probabilities of labels for each sound, in order; one that cannot be read gives its error.

    Args:
        sounds: any number; they are read as they are needed.
        labels: what a sound may be.
        model: from :func:`aural.answering.answer.load`.
        way: see the module's docstring; None: as the labels are, by :func:`usual_way`.
        multi: several labels may hold at once.
        prompt: what the model is asked; ``multi`` with ``likelihood`` asks for each label whether it is there.
        sentence_encoder: for ``text``; None: the bundled one.
        batch_size: windows that are heard at a time; on a CPU, where that is no quicker, each by itself, so that not
            even rounding depends on the others.

    Yields:
        Each sound with its labels.

    Raises:
        UsageError: an unknown way; fewer than two labels (one with ``multi``), or one that is empty, too long or given
            twice.
    """
    way = usual_way(labels, model, multi=multi) if way is None else way
    judge = _judge(labels, model, way, multi, prompt, sentence_encoder)
    of_sound: list[Tensor] = []  # probabilities in each window
    for batch in batches(pieces(sounds, model.stretches), 1 if model.device.type == "cpu" else batch_size):
        windows = [piece.window for piece in batch if piece.window is not None]
        fresh = (judge(one) for one in (model.hear(windows).split(1) if windows else ()))
        for piece in batch:
            if piece.window is not None:
                of_sound.append(next(fresh))
            elif piece.ends_sound:
                yield piece.sound, piece.error or _pooled(labels, torch.stack(of_sound), multi)
                of_sound = []


def _pooled(labels: Sequence[str], probabilities: Tensor, multi: bool) -> Labels:
    """Those of a sound from those of its windows (windows, labels)."""
    pooled = probabilities.amax(0) if multi else probabilities.mean(0)
    found = sorted(zip(labels, pooled.tolist(), strict=True), key=lambda pair: -pair[1])
    return Labels(found[0][0], dict(found))


def fit_label_temperature(model: AnsweringModel, clips: Iterable[Clip]) -> float:
    """The ``label_temperature`` under which the right labels of clips are the most probable.

    Args:
        model: from :func:`aural.answering.answer.load`; the temperature that it has does not matter.
        clips: recordings, or parts of them. Those count that have one label, which is not too long to be written; what
            cannot be read is left out.

    Returns:
        The one of :data:`TEMPERATURES` with the least mean negative log-likelihood of the right label among all that
        occur; the model's own where there is nothing to tell apart, and where it would be the lowest: clips that are
        known by heart do not say how sure to be of others.
    """
    room = model.room()
    clips = [clip for clip in clips if len(clip.labels) == 1 and len(_written(model, clip.labels[0])) <= room]
    labels = sorted({clip.labels[0] for clip in clips})
    if len(labels) < 2:
        return model.model.config.label_temperature
    weigh = _weigher(model, labels, PROMPT)
    loss, n_read = torch.zeros(len(TEMPERATURES)), 0
    for clip in clips:
        try:
            sound = part(clip.audio, model.model.config.sample_rate, start=clip.start, duration=clip.duration)
            scores = torch.stack([weigh(model.hear([window])) for window in model.windows(sound)])
        except AudioError:
            continue
        right = (scores / TEMPERATURES[:, None, None]).log_softmax(2)[:, :, labels.index(clip.labels[0])]
        loss -= right.logsumexp(1)  # of the mean over windows, but for a constant
        n_read += 1
    best = int(loss.argmin())
    return float(TEMPERATURES[best]) if n_read and best else model.model.config.label_temperature


def _judge(
    labels: Sequence[str],
    model: AnsweringModel,
    way: Way,
    multi: bool,
    prompt: str,
    sentence_encoder: SentenceEncoder | None,
) -> Judge:
    """What says how probable each label is; texts are read once for all sounds."""
    if way not in WAYS:
        raise UsageError(f"unknown way {way!r}; there are {', '.join(WAYS)}")
    if len(labels) < (1 if multi else 2):
        raise UsageError(f"too few labels to choose from ({len(labels)}): give {'one' if multi else 'two'} at least")
    if twice := [label for place, label in enumerate(labels) if label in labels[:place]]:
        raise UsageError(f"label {twice[0]!r} was given twice: give each once")
    if not all(label.strip() for label in labels):
        raise UsageError("a label is empty: give each some text")
    if way == "text":
        return _by_text(model, labels, prompt, multi, sentence_encoder)
    return _by_questions(model, labels) if multi else _by_likelihood(model, labels, prompt)


def _plain(label: str) -> str:
    """A label as words, such as of ``sea_waves``."""
    return label.replace("_", " ").strip()


def _written(model: AnsweringModel, label: str) -> list[int]:
    """The tokens of a label as an answer, with the stop token at its end."""
    return model.tokenizers.ids(_plain(label) + STOP)[:-1]


def _weigher(model: AnsweringModel, labels: Sequence[str], prompt: str) -> Callable[[Tensor], Tensor]:
    """The audio's half of a window's prefix (1, P, E) -> the log-likelihood of each label (labels,), on the CPU."""
    asked = model.read([prompt])
    texts = [_written(model, label) for label in labels]
    longest, room = max(zip(map(len, texts), labels, strict=True)), model.room()
    if longest[0] > room:
        raise UsageError(
            f"label {longest[1]!r} has {longest[0]} tokens, and this model writes up to {room}: shorten it"
        )

    return lambda heard: log_likelihoods(model.model, model.prefix(heard, asked), texts).cpu()


def _by_likelihood(model: AnsweringModel, labels: Sequence[str], prompt: str) -> Judge:
    weigh = _weigher(model, labels, prompt)
    return lambda heard: (weigh(heard) / model.model.config.label_temperature).softmax(0)


def _by_questions(model: AnsweringModel, labels: Sequence[str]) -> Judge:
    words = [_plain(label) for label in labels]
    things = [SOUNDS[label].noun_phrases[0] if label in SOUNDS else label for label in words]
    asked = model.read([QUESTION.format(question=f"is there {thing}") for thing in things])
    answers = [_written(model, word) for word in ("yes", "no")]

    def judge(heard: Tensor) -> Tensor:
        scores = [log_likelihoods(model.model, model.prefix(heard, one[None]), answers) for one in asked]
        return torch.stack(scores).softmax(1)[:, 0].cpu()

    return judge


def _by_text(
    model: AnsweringModel, labels: Sequence[str], prompt: str, multi: bool, sentence_encoder: SentenceEncoder | None
) -> Judge:
    asked = model.read([prompt])
    encoder = sentence_encoder or model.tokenizers.sentences or load_sentence_encoder()
    meanings, limit = encoder.encode([_plain(label) for label in labels]), min(TEXT_TOKENS, model.room())

    def judge(heard: Tensor) -> Tensor:
        (answer,) = search(model.model, model.prefix(heard, asked), max_tokens=limit)
        similarity = meanings @ encoder.encode([model.tokenizers.text_of(answer.token_ids)])[0]
        return (similarity.clamp(0, 1) if multi else (similarity / TEXT_TEMPERATURE).softmax(0)).cpu()

    return judge
