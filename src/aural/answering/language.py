"""The language side of the embedded default: it learns to answer from facts in words, and its GPT-2 is then frozen.

It is the model itself, with words in place of sound: the prefix is the facts of a scene, each at a place of its own
(:class:`aural.soundscapes.facts.FactSheet`), and then the prompt. So it comes to know how an answer follows from facts
and prompt, over many more scenes than anybody could render. What is left for the audio mapper is to say in GPT-2's
terms what is heard.

GPT-2 has the form and the reader of tokens of the published one, so that everything that works over that works over it:
a target ends with " <|endoftext|>", whose first token, the lone space, is where an answer stops.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from aural.answering.asked import Told
from aural.answering.model import AnsweringConfig, AudioLanguageModel, Gpt2Config, SentencesConfig
from aural.answering.tokenizer import END, STOP, TOKENIZER, Tokenizers, find_gpt2
from aural.checkpoint import load_config, load_weights, save_model
from aural.errors import CheckpointError
from aural.soundscapes.facts import FactSheet
from aural.soundscapes.questions import SO
from aural.training import TrainConfig, train
from aural.whitening import start_white

SYSTEM = "language"
PAD = "<|pad|>"
"""Token 0, which no text holds; GPT-2 has "!" there."""
MEASURED = 500
"""Answers of a kind whose length is looked at."""
MATCHING = 2
"""Layers of GPT-2 that start by attending to what is alike."""
FIRST_KIND, FIRST_SHARE = "presence", 0.1
"""Kind of question that it begins with, and for which share of the steps: all else builds on telling whether what is
asked for is among what is known."""
OFTEN = 4.0
"""How much more often than others those questions come whose answer takes a reason, about two sounds: the hardest."""
UNREAD = 0.3
"""Share of prompts of which the words themselves are hidden and their states alone are read: other words for the same
question have other vectors and much the same states."""
WHITENED = 2000
"""Prompts, and facts of scenes, at most, by which the reading of them starts."""

FORM = 2
"""Of the facts that it reads and of the answers that it learns; another number whenever either changes."""
PARTS = ("gpt2.", "prompt_rows.")
"""What of an audio language model is learned from words."""

CARD = """# A small language model

GPT-2's form at a small size and what reads prompts for it, trained from scratch by `aural train answering` on captions,
questions and answers; part of an audio language model, and of little use alone.
"""


@dataclass(frozen=True)
class LanguageConfig:
    """Sizes of the language side, named as in :class:`AnsweringConfig`."""

    gpt2: Gpt2Config
    sentences: SentencesConfig
    prompt_length: int
    prefix_length: int
    form: int = 1  # of folders that do not say


def language_side(config: AnsweringConfig) -> LanguageConfig:
    """What of a config the language side is made by; it must be of those over a sentence encoder."""
    assert config.sentences is not None
    return LanguageConfig(config.gpt2, config.sentences, config.prompt_length, config.prefix_length, FORM)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE: whatever text comes later, every byte of it has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class _OverFacts(nn.Module):
    """What the loop trains: the likelihood of answers after facts and prompt."""

    def __init__(self, model: AudioLanguageModel) -> None:
        super().__init__()
        self.model = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(PARTS))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        words, states = batch["prompts"].chunk(2, dim=2)
        words = words * (torch.rand(len(words), 1, 1, device=words.device) >= UNREAD)
        asked = self.model.prompt_prefix(torch.cat((words, states), 2))
        return self.model.losses(torch.cat((self.model.prompt_prefix(batch["facts"]), asked), 1), batch["targets"])


@torch.no_grad()
def _start_matching(model: AudioLanguageModel) -> None:
    """Let like attend to like in the first layers of GPT-2, whose queries start as its keys do.

    Whether what is asked for is among what is known is a comparison, and yes or no is little to learn one by.
    """
    width = model.config.gpt2.width
    for layer in model.gpt2.transformer.h[:MATCHING]:
        weight = layer.attn.c_attn.weight  # (E, 3 E): queries, keys, values
        nn.init.normal_(weight[:, width : 2 * width], std=width**-0.5)
        weight[:, :width] = weight[:, width : 2 * width]


def train_language_model(
    model: AudioLanguageModel,
    texts: Sequence[Told],
    reader: Tokenizers,
    read: Callable[[Sequence[str]], Tensor],
    read_facts: Callable[[Sequence[FactSheet]], Tensor],
    *,
    training: TrainConfig,
    out: Path,
    resume: bool = False,
    of: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Train the language side of ``model``, keep it in ``out``, and return the weights of :data:`PARTS`.

    Args:
        model: over a sentence encoder; what it has for sound stays as it is.
        texts: what it learns from; all kinds about equally often, however rare they are, but those with a reason more
            often and those with long answers the more seldom: every token counts alike, and a yes or a no is one
            token, and the hardest to know.
        reader: of the model.
        read: prompts -> rows (B, L, W) of the sentence encoder, as :meth:`Tokenizers.prompts`.
        read_facts: facts -> rows (B, P, W) in place of the audio's part of the prefix.
        training: how.
        out: folder of the training.
        resume: go on where an earlier run stopped.
        of: see :func:`aural.training.train`.
        device: see :func:`aural.processes.joined`.
        progress: show a progress bar on a terminal.
    """
    config = model.config
    pad = config.pad_token_id

    def collate(some: list[Told]) -> dict[str, Tensor]:
        return {
            "facts": read_facts([told.facts for told in some]),
            "prompts": read([told.prompt for told in some]),
            "targets": reader.targets([told.answer for told in some]),
        }

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        own = {name.removeprefix("model."): value for name, value in weights.items()}
        own = {name: value for name, value in own.items() if name.startswith(PARTS)}
        files = {TOKENIZER: reader.gpt2.to_str()}
        save_model(folder, system=SYSTEM, config=language_side(config), weights=own, card=CARD, files=files)

    of_kind: dict[tuple[str, bool], list[Told]] = {}
    for told in texts:
        of_kind.setdefault((told.kind, SO in told.answer), []).append(told)
    kinds = [some for _, some in sorted(of_kind.items())]
    n_tokens = [np.mean([len(reader.ids(told.answer + STOP)) for told in some[:MEASURED]]) for some in kinds]
    shares = np.array(n_tokens) ** -0.5 * [OFTEN if reasoned else 1.0 for _, reasoned in sorted(of_kind)]
    shares /= shares.sum()
    first = of_kind.get((FIRST_KIND, False), [])
    n_first = round(FIRST_SHARE * training.steps) * training.batch_size if first else 0

    def example(index: int) -> Told:
        generator = np.random.default_rng([training.seed, 8, index])
        some = first if index < n_first else kinds[int(generator.choice(len(kinds), p=shares))]
        return some[int(generator.integers(len(some)))]

    def counts(batch: Any) -> dict[str, float]:
        return {"cross_entropy": int((batch["targets"] != pad).sum())}

    torch.manual_seed(training.seed)
    prompts, sheets = sorted({told.prompt for told in texts}), list(dict.fromkeys(told.facts for told in texts))
    some = (read(prompts[:: -(-len(prompts) // WHITENED)]), read_facts(sheets[:: -(-len(sheets) // WHITENED)]))
    start_white(model.prompt_rows.linear, torch.cat([rows.flatten(0, 1) for rows in some]))
    _start_matching(model)
    train(
        _OverFacts(model),
        example=example,
        collate=collate,
        counts=counts,
        loss_weights=model.loss_weights,
        config=training,
        out=out,
        save=save,
        resume=resume,
        of=of,
        device=device,
        progress=progress,
    )
    return load_weights(out)


def trained_before(folder: Path, config: AnsweringConfig) -> tuple[Tokenizer, dict[str, Tensor]]:
    """Tokenizer and weights of a language side that an earlier training left in its ``OUT/language``.

    It learned from words alone, so that it may serve any encoder and any split that is held out.

    Raises:
        CheckpointError: it is no such folder, its sizes are not those of ``config``, or it learned other answers.
    """
    words = find_gpt2(folder)
    known = load_config(folder, LanguageConfig, SYSTEM)
    if known != language_side(replace(config, gpt2=replace(config.gpt2, vocab_size=words.get_vocab_size()))):
        raise CheckpointError(
            f"{folder}: its sizes or the answers it learned are not those of this recipe and version: leave out --gpt2"
        )
    return words, load_weights(folder)
