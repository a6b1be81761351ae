"""Ask a recording: what the command line, the demo page and the tests call.

A recording longer than the model hears at once is covered whole by windows of equal length (:mod:`waveform`), and each
window gives its best answer. Which of them is the answer of the recording is decided by all windows together: the
answers that came best in most windows (:data:`CANDIDATES` of them at most, among equals those of earlier windows) are
scored under every window, and the one whose mean log-probability a token, averaged over the windows, is highest is
taken. It is what fits the recording as a whole; with ``windows`` the answer of each stretch is given instead, with its
times, and one longer than the model hears at once is answered as a recording of its own.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, inf
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from aural.answering.convert import SYSTEM, load_model
from aural.answering.decoding import beam, greedy, sample
from aural.answering.model import AudioLanguageModel
from aural.answering.scoring import log_likelihoods
from aural.answering.tasks import is_of, placeholders, plain_question, read_tasks
from aural.answering.tokenizer import Tokenizers
from aural.answering.waveform import windows as repeated_windows
from aural.audio import Sound, Window
from aural.beam_search import Hypothesis
from aural.checkpoint import find_model
from aural.device import choose_device
from aural.errors import AuralError, UsageError
from aural.padding import pad
from aural.sampling import SamplingConfig
from aural.sound_source import rewindable
from aural.window_batches import Piece, Stretch, batches, even_windows, pieces, stretches

Method = Literal["beam", "greedy", "sample"]
METHODS: tuple[Method, ...] = ("beam", "greedy", "sample")
Found = TypeVar("Found")

CANDIDATES = 16
"""Answers of windows among which that of a long recording is chosen, at most: each is scored under every window."""

QUESTION = "question: {question}"
"""How a question is put to the model (Table 1 of the paper)."""


@dataclass(frozen=True)
class Answer:
    """What a recording, or a window of it, answers."""

    text: str
    score: float
    """Mean log-probability of a token, in nats; over several windows, their mean."""
    start: float | None = None
    """Seconds; None where the answer is for the whole sound."""
    end: float | None = None


@dataclass(frozen=True)
class AnsweringModel:
    """An audio language model with its readers of text."""

    name: str
    model: AudioLanguageModel
    tokenizers: Tokenizers
    device: torch.device
    normalize_prompt: bool = True
    """Whether prompts have length 1, as in training, or are left as they are, as in the released inference code."""

    def windows(self, sound: Sound) -> Iterator[Window]:
        """The windows of a sound that are heard at once: as few as cover it."""
        config = self.model.config
        if config.htsat is not None:
            return repeated_windows(rewindable(sound), config.sample_rate, config.seconds)
        return even_windows(sound, config.sample_rate, config.seconds)

    def stretches(self, sound: Sound, length: float | None = None) -> Iterator[tuple[Stretch, Iterator[Window]]]:
        """What has an answer each, a whole sound or every ``length`` seconds of it, with its windows."""
        config = self.model.config
        return stretches(sound, config.sample_rate, length, longest=config.seconds, whole=self.windows)

    @torch.inference_mode()
    def hear(self, windows: Sequence[Window]) -> Tensor:
        """The audio's half of the prefix of each window, (windows, P, E)."""
        config = self.model.config
        waveforms = [torch.from_numpy(window.waveform) for window in windows]
        if config.htsat is not None:  # it hears windows of one length only
            waveforms = [one.repeat(ceil(config.n_samples / len(one)))[: config.n_samples] for one in waveforms]
        waveform, mask = pad(waveforms)
        waveform, mask = waveform.to(self.device), mask.to(self.device)
        return self.model.audio_prefix(self.model.embed_audio(waveform, None if mask.all() else mask))

    @torch.inference_mode()
    def read(self, prompts: Sequence[str]) -> Tensor:
        """The prompt's half of the prefix of each prompt, (prompts, P, E)."""
        states = self.tokenizers.prompts(prompts).to(self.device)
        return self.model.prompt_prefix(states, normalize_prompt=self.normalize_prompt)

    def prefix(self, heard: Tensor, read: Tensor, added: str | None = None) -> Tensor:
        """Both halves, of which one may be for all, and text that the answer is to go on from: (B, Q, E)."""
        size = max(len(heard), len(read))
        parts = [heard.expand(size, -1, -1), read.expand(size, -1, -1)]
        if added:
            ids = torch.tensor([self.tokenizers.ids(added)], device=self.device)
            parts.append(self.model.gpt2.transformer.wte(ids).expand(size, -1, -1))
        return torch.cat(parts, dim=1)

    def room(self, added: str | None = None) -> int:
        """How many tokens an answer may have: the positions that the prefix leaves, and the text added to it.

        Raises:
            UsageError: the text leaves none.
        """
        config = self.model.config
        n_added = len(self.tokenizers.ids(added)) if added else 0
        left = config.gpt2.max_positions - config.prefix_rows - n_added
        if left < 1:
            raise UsageError(f"{n_added} tokens to go on from leave no room for an answer: shorten them by {1 - left}")
        return left


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    offline: bool = False,
    normalize_prompt: bool = True,
) -> AnsweringModel:
    """Load an audio language model: the embedded default, a folder, or a hub id.

    Raises:
        UsageError: unknown model.
        CheckpointError: the folder's config or weights do not fit.
    """
    where = choose_device(device)
    folder = find_model(model, SYSTEM, offline=offline)
    network, tokenizers = load_model(folder, offline=offline)
    return AnsweringModel(
        str(model or "default"),
        network.requires_grad_(False).to(where),
        tokenizers,
        torch.device(where),
        normalize_prompt,
    )


@overload
def answer(sounds: Sound, question: str, **options: Any) -> Answer: ...
@overload
def answer(sounds: list[Sound], question: str, **options: Any) -> list[Answer]: ...
def answer(
    sounds: Any,
    question: str,
    *,
    model: "AnsweringModel | str | os.PathLike[str] | None" = None,
    tasks: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Put a question to a sound or to each of a list of sounds.

    Args:
        sounds: a path, a binary file object, or an array or tensor with its sample rate; or a list of these.
        question: in words, or the prompt of a task; see :func:`as_prompt`.
        model: a loaded model, or what :func:`load` takes.
        tasks: a table of tasks beyond the built-in ones, see :mod:`aural.answering.tasks`.
        options: see :func:`answer_each`.

    Returns:
        An :class:`Answer` for each sound; with ``windows``, a list of them for each sound.

    Raises:
        AuralError: a sound cannot be read, or the options do not fit.
    """
    prompt = as_prompt(question, task_prompts(tasks))
    loaded = model if isinstance(model, AnsweringModel) else load(model)
    alone = not isinstance(sounds, list)
    found = [
        of_prompt for (of_prompt,) in all_found(answer_each([sounds] if alone else sounds, [prompt], loaded, **options))
    ]
    results = found if options.get("windows") is not None else [whole for (whole,) in found]
    return results[0] if alone else results


def all_found(results: Iterable[tuple[Sound, Found | AuralError]]) -> list[Found]:
    """What was found for each sound, where one that cannot be read ends the call.

    Raises:
        AuralError: that of the first such sound.
    """
    found = []
    for _, one in results:
        if isinstance(one, AuralError):
            raise one
        found.append(one)
    return found


def task_prompts(tasks: str | os.PathLike[str] | None = None) -> list[str]:
    """The templates of prompts of the built-in tasks and of a table of one's own, for :func:`as_prompt`.

    Raises:
        UsageError: it is no such table.
    """
    return [task.prompt for task in read_tasks(tasks).values()]


def as_prompt(text: str, prompts: Iterable[str]) -> str:
    """What a person writes as what the model is given: a question without its mark, and told to be one.

    Args:
        text: a question, or one of ``prompts``.
        prompts: templates of tasks. A text that is one of them filled in ("count the dogs" of "count the {thing}") is
            left as it is, but for the mark of a question and the capital it begins with, where only without these it
            is one; so is what begins with ``question:``.

    Raises:
        UsageError: there is no text.
    """
    text, templates = text.strip(), list(prompts)
    bare, asked = text.rstrip("?").rstrip(), plain_question(text)
    if not asked:
        raise UsageError("nothing is asked: write a question, such as 'is there a dog?'")
    # Word for word first, for a prompt may end in a mark; then without it, which no name in braces is to take in.
    if any(is_of(text, template) for template in templates if not placeholders(template)):
        return text
    if bare.startswith(QUESTION.split("{", maxsplit=1)[0]):
        return bare
    for one in (asked, bare, text):
        if any(is_of(one, template) for template in templates):
            return one
    return QUESTION.format(question=asked)


def answer_each(
    sounds: Iterable[Sound],
    prompts: Sequence[str],
    model: AnsweringModel,
    *,
    method: Method | None = None,
    beams: int = 3,
    max_tokens: int = 30,
    temperature: float = 1.0,
    add_text: str | None = None,
    seed: int = 0,
    windows: float | None = None,
    batch_size: int = 8,
) -> Iterator[tuple[Sound, list[list[Answer]] | AuralError]]:
    """Put every prompt to every sound, in order; a sound that cannot be read gives its error, and the rest goes on.

    Args:
        sounds: any number; they are read as they are needed.
        prompts: what the model is given.
        model: from :func:`load`.
        method: "beam", "greedy" or "sample"; None: ``search`` of the model's config.
        beams: of the beam search.
        max_tokens: length of an answer at most.
        temperature: of beam search and sampling.
        add_text: text that the answers go on from.
        seed: of the sampling.
        windows: seconds; an answer for every stretch of that length, however long, instead of one for the whole.
        batch_size: windows read, heard and answered at a time; of those before only what was heard is kept.

    Yields:
        Each sound with a list for each prompt: the one answer, or one for each stretch.

    Raises:
        UsageError: an option that does not fit.
    """
    config = model.model.config
    method = config.search if method is None else method
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if windows is not None and not 0 < windows < inf:
        raise UsageError(f"windows of {windows:g} s: give a number of seconds above 0")
    if not 1 <= beams <= config.gpt2.vocab_size:
        raise UsageError(f"{beams} beams: give 1 or more, up to the {config.gpt2.vocab_size} tokens of this model")
    if max_tokens < 1 or not 0 < temperature < inf:
        raise UsageError(f"{max_tokens} tokens at temperature {temperature:g}: give 1 or more, at more than 0")
    limit = min(max_tokens, model.room(add_text))
    read = model.read(prompts)

    def written(prefix: Tensor, numbers: Sequence[int]) -> list[Hypothesis]:
        if method == "beam":
            return [one[0] for one in beam(model.model, prefix, beams=beams, max_tokens=limit, temperature=temperature)]
        if method == "greedy":
            return greedy(model.model, prefix, max_tokens=limit)
        # every window of a sound has a seed of its own, whatever stands beside it in the batch
        seeds = [seed + 1_000_003 * number for number in numbers]
        return sample(
            model.model, prefix, config=SamplingConfig(temperature=temperature), max_tokens=limit, seeds=seeds
        )

    def answered(batch: Sequence[Piece]) -> list[_Answered]:
        some = [(piece.window, piece.number) for piece in batch if piece.window is not None]
        if not some:
            return []
        heard, numbers = model.hear([window for window, _ in some]), [number for _, number in some]
        found = zip(*(written(model.prefix(heard, asked[None], add_text), numbers) for asked in read), strict=True)
        return [_Answered(rows, of_prompts) for rows, of_prompts in zip(heard, found, strict=True)]

    def whole(of_stretch: Sequence[_Answered], place: int) -> Answer:
        """What a stretch, or all of a sound, answers to one of the prompts."""
        found = [one.found[place] for one in of_stretch]
        if len(found) == 1:
            return Answer(model.tokenizers.text_of(found[0].token_ids), found[0].score)
        prefixes = (model.prefix(one.heard[None], read[place][None], add_text)[0] for one in of_stretch)
        return combined(model, prefixes, found)

    remaining = iter(sounds)
    while chunk := list(islice(remaining, batch_size)):
        of_stretch: list[_Answered] = []
        of_sound: list[list[Answer]] = [[] for _ in read]
        for batch in batches(pieces(chunk, lambda sound: model.stretches(sound, windows)), batch_size):
            fresh = iter(answered(batch))
            for piece in batch:
                if piece.window is not None:
                    of_stretch.append(next(fresh))
                    continue
                if piece.stretch is not None:
                    for place, answers in enumerate(of_sound):
                        answers.append(replace(whole(of_stretch, place), **vars(piece.stretch)))
                else:
                    yield piece.sound, piece.error or of_sound
                    of_sound = [[] for _ in read]
                of_stretch = []
            del batch, piece  # or their windows would be kept while the next ones are read


@dataclass(frozen=True)
class _Answered:
    """What is kept of a window."""

    heard: Tensor
    """(P, E), the audio's half of the prefix."""
    found: tuple[Hypothesis, ...]
    """The best answer to each prompt."""


def combined(model: AnsweringModel, prefixes: Iterable[Tensor], found: Sequence[Hypothesis]) -> Answer:
    """The answer of a recording from those of its windows: the one that fits them best on average.

    Of more than :data:`CANDIDATES` different ones those are candidates that are the answers of most windows, among
    equals those of earlier windows; so many rows are computed at once at most, those of one window.

    Args:
        model: from :func:`load`.
        prefixes: (Q, E) of each window.
        found: the best answer of each window.
    """
    n_windows = Counter(one.token_ids for one in found)  # in the order in which they first come
    kept = {*sorted(n_windows, key=lambda ids: -n_windows[ids])[:CANDIDATES]}  # sorting keeps that order among equals
    candidates = [ids for ids in n_windows if ids in kept]
    scores = torch.stack([log_likelihoods(model.model, one[None], candidates, mean=True) for one in prefixes]).mean(0)
    best = int(scores.argmax())
    return Answer(model.tokenizers.text_of(candidates[best]), float(scores[best]))
