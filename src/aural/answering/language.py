"""The small language model of the embedded default: it learns to answer from facts in words, and is then frozen.

What it reads is laid out as the prefix will be later: in ``prefix_length`` places the facts of a scene (see
:mod:`aural.soundscapes.facts`), in as many a prompt, behind them the answer. So it comes to know how an answer follows
from facts and prompt, and what is left for the mappers is to say in its terms what is heard and what is asked.

It has the form of GPT-2 and the same reader of tokens, so that everything that works over the published one works over
it: a target ends with " <|endoftext|>", whose first token, the lone space, is where an answer stops.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from aural.answering.model import Gpt2Config, make_gpt2
from aural.answering.tokenizer import END, STOP, TOKENIZER, find_gpt2
from aural.checkpoint import load_config, load_into, load_weights, save_model
from aural.errors import CheckpointError
from aural.training import TrainConfig, train

SYSTEM = "language"
PAD = "<|pad|>"
"""Token 0, which no text holds; GPT-2 has "!" there."""
IGNORED = -100

CARD = """# A small language model

GPT-2's form at a small size, trained from scratch by `aural train answering` on captions, questions and answers; part
of an audio language model, and of little use alone.
"""


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


@dataclass(frozen=True)
class Told:
    """An answer, what it answers, and what it can be known from."""

    facts: str
    prompt: str
    answer: str
    kind: str
    """Of what is asked."""


class _Answering(nn.Module):
    """What the loop trains: the likelihood of each token of an answer after facts, prompt and the tokens before it."""

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.gpt2 = make_gpt2(config)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens, labels = batch["tokens"], batch["labels"][:, 1:]
        states = self.gpt2.transformer(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        written = labels != IGNORED
        return {"cross_entropy": F.cross_entropy(self.gpt2.lm_head(states[written]), labels[written])}


def train_language_model(
    texts: Sequence[Told],
    tokenizer: Tokenizer,
    config: Gpt2Config,
    *,
    prefix_length: int,
    training: TrainConfig,
    out: Path,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> nn.Module:
    """GPT-2 of the sizes of ``config``, trained to answer; kept in ``out``.

    Args:
        texts: what it learns from; of a kind that there is a hundredth of, a tenth as often as of another.
        tokenizer: of :func:`train_tokenizer`.
        config: sizes.
        prefix_length: places for facts, and for a prompt; what is longer is cut.
        training: how.
        out: folder of the training.
        resume: go on where an earlier run stopped.
        device: see :func:`aural.processes.joined`.
        progress: show a progress bar on a terminal.
    """
    pad = int(tokenizer.token_to_id(PAD) or 0)
    longest = config.max_positions + 1
    ids = {text: tokenizer.encode(text).ids for told in texts for text in (told.facts, told.prompt)}
    ids |= {told.answer + STOP: tokenizer.encode(told.answer + STOP).ids for told in texts}

    def placed(text: str) -> list[int]:
        some = ids[text][:prefix_length]
        return some + [pad] * (prefix_length - len(some))

    def collate(some: list[Told]) -> dict[str, Tensor]:
        rows = [[*placed(told.facts), *placed(told.prompt), *ids[told.answer + STOP]][:longest] for told in some]
        tokens = torch.full((len(rows), max(map(len, rows))), pad)
        for row, own in zip(tokens, rows, strict=True):
            row[: len(own)] = torch.tensor(own)
        labels = tokens.masked_fill(tokens == pad, IGNORED)
        labels[:, : 2 * prefix_length] = IGNORED
        return {"tokens": tokens, "labels": labels}

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        weights = {name.removeprefix("gpt2."): value for name, value in weights.items()}
        files = {TOKENIZER: tokenizer.to_str()}
        save_model(folder, system=SYSTEM, config=config, weights=weights, card=CARD, files=files)

    of_kind: dict[str, list[Told]] = {}
    for told in texts:
        of_kind.setdefault(told.kind, []).append(told)
    kinds = [some for _, some in sorted(of_kind.items())]
    shares = np.sqrt([len(some) for some in kinds])
    shares /= shares.sum()

    def example(index: int) -> Told:
        generator = np.random.default_rng([training.seed, 8, index])
        some = kinds[int(generator.choice(len(kinds), p=shares))]
        return some[int(generator.integers(len(some)))]

    def counts(batch: Any) -> dict[str, float]:
        return {"cross_entropy": int((batch["labels"][:, 1:] != IGNORED).sum())}

    torch.manual_seed(training.seed)
    module = _Answering(config)
    train(
        module,
        example=example,
        collate=collate,
        counts=counts,
        loss_weights={"cross_entropy": 1.0},
        config=training,
        out=out,
        save=save,
        resume=resume,
        device=device,
        progress=progress,
    )
    load_into(module.gpt2, load_weights(out))
    return module.gpt2


def trained_before(folder: Path, config: Gpt2Config) -> tuple[Tokenizer, dict[str, Tensor]]:
    """Tokenizer and weights of a language model that an earlier training left in its ``OUT/language``.

    It learned from words alone, so that it may serve any encoder and any split that is held out.

    Raises:
        CheckpointError: it is no such folder, or its sizes are not those of ``config``.
    """
    words = find_gpt2(folder)
    known = load_config(folder, Gpt2Config, SYSTEM)
    if known != replace(config, vocab_size=words.get_vocab_size()):
        raise CheckpointError(f"{folder}: its sizes are not those of the recipe: train one with --recipe of this name")
    return words, load_weights(folder)
