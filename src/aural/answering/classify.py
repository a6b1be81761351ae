"""Closed questions: which of given labels a recording fits, in two ways, with calibrated probabilities.

- ``likelihood``: how probable the model finds each label as its answer to "this is a sound of". The log-likelihoods,
  end of the answer included, are divided by a temperature that was fitted on held-out recordings, and a softmax makes
  probabilities of them.
- ``text``: as in the paper, the model writes its answer freely, and each label is compared with it in the sentence
  encoder's space; the cosines go through a softmax with a temperature of their own.

With ``multi``, labels do not exclude one another. Each has a probability of its own: that the answer to "question: is
there {label}" is yes rather than no (``likelihood``), or its cosine to the written answer, above 0 (``text``).
A long recording's probabilities are the means over its windows; with ``multi``, their maxima: it is there if it is
there anywhere.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from aural.answering.answer import QUESTION, AnsweringModel, _windows
from aural.answering.decoding import beam
from aural.answering.scoring import log_likelihoods
from aural.answering.tokenizer import STOP
from aural.audio import Sound, Window
from aural.errors import AuralError, UsageError
from aural.networks.sentence_encoder import SentenceEncoder, load_sentence_encoder

Way = Literal["likelihood", "text"]
WAYS: tuple[Way, ...] = ("likelihood", "text")
PROMPT = "this is a sound of"
TEXT_TEMPERATURE = 0.1


def classify_each(
    sounds: Iterable[Sound],
    labels: Sequence[str],
    model: AnsweringModel,
    *,
    way: Way = "likelihood",
    multi: bool = False,
    prompt: str = PROMPT,
    sentence_encoder: SentenceEncoder | None = None,
) -> Iterator[tuple[Sound, dict[str, float] | AuralError]]:
    """Probabilities of labels for each sound, the highest first; one that cannot be read gives its error.

    Args:
        sounds: any number; they are read as they are needed.
        labels: what a sound may be.
        model: from :func:`aural.answering.answer.load`.
        way: see the module's docstring.
        multi: several labels may hold at once.
        prompt: what the model is asked; ``multi`` with ``likelihood`` asks for each label whether it is there.
        sentence_encoder: for ``text``; None: the bundled one.

    Yields:
        Each sound with its labels.

    Raises:
        UsageError: an unknown way, fewer than two labels, or the same one twice.
    """
    if way not in WAYS:
        raise UsageError(f"unknown way {way!r}; there are {', '.join(WAYS)}")
    if len(labels) < (1 if multi else 2) or len(set(labels)) < len(labels):
        raise UsageError(f"{len(labels)} labels were given: two different ones are needed at least")
    if way == "text":
        encoder = sentence_encoder or model.tokenizers.sentences or load_sentence_encoder()
        meanings = encoder.encode(labels)
    for sound in sounds:
        windows = _windows(model, sound, None)
        if isinstance(windows, AuralError):
            yield sound, windows
            continue
        if way == "text":
            each = [_by_text(model, window, prompt, encoder, meanings, multi) for window in windows]
        elif multi:
            each = [_by_questions(model, window, labels) for window in windows]
        else:
            each = [_by_likelihood(model, window, labels, prompt) for window in windows]
        pooled = torch.stack(each).amax(0) if multi else torch.stack(each).mean(0)
        found = dict(zip(labels, pooled.tolist(), strict=True))
        yield sound, dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _by_likelihood(model: AnsweringModel, window: Window, labels: Sequence[str], prompt: str) -> Tensor:
    prefix = model.prefix(model.hear([window]), model.read([prompt]))
    texts = [model.tokenizers.ids(label + STOP)[:-1] for label in labels]
    scores = log_likelihoods(model.model, prefix, texts)
    return (scores / model.model.config.label_temperature).softmax(0).cpu()


def _by_questions(model: AnsweringModel, window: Window, labels: Sequence[str]) -> Tensor:
    heard = model.hear([window])
    answers = [model.tokenizers.ids(word + STOP)[:-1] for word in ("yes", "no")]
    found = []
    for label in labels:
        prefix = model.prefix(heard, model.read([QUESTION.format(question=f"is there {label}")]))
        found.append(log_likelihoods(model.model, prefix, answers).softmax(0)[0])
    return torch.stack(found).cpu()


def _by_text(
    model: AnsweringModel, window: Window, prompt: str, encoder: SentenceEncoder, meanings: Tensor, multi: bool
) -> Tensor:
    prefix = model.prefix(model.hear([window]), model.read([prompt]))
    written = model.tokenizers.text_of(beam(model.model, prefix)[0][0].token_ids)
    similarity = meanings @ encoder.encode([written])[0]
    return similarity.clamp(0, 1) if multi else (similarity / TEXT_TEMPERATURE).softmax(0)
