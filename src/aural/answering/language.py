"""The small language model of the embedded default: it learns to write what is said and asked here, and is then frozen.

It has the form of GPT-2 and the same reader of tokens, so that everything that works over the published one works over
it: a target ends with " <|endoftext|>", whose first token, the lone space, is where an answer stops.

A text is read from where answers will stand later, behind a prefix: position 0 is the prefix's first row, and tokens
begin at ``2 * prefix_length``.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from aural.answering.model import Gpt2Config, make_gpt2
from aural.answering.tokenizer import END, STOP
from aural.checkpoint import load_into, load_weights, save_model
from aural.training import TrainConfig, train

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


class _Reading(nn.Module):
    """What the loop trains: the likelihood of each token of a text after those before it."""

    def __init__(self, config: Gpt2Config, first_position: int) -> None:
        super().__init__()
        self.gpt2 = make_gpt2(config)
        self.first_position = first_position

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens = batch["tokens"]
        positions = self.first_position - 1 + torch.arange(tokens.shape[1] - 1, device=tokens.device)
        logits = self.gpt2(input_ids=tokens[:, :-1], position_ids=positions[None], use_cache=False).logits
        labels = batch["labels"][:, 1:]
        return {"cross_entropy": F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)}


def train_language_model(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    config: Gpt2Config,
    *,
    first_position: int,
    training: TrainConfig,
    out: Path,
    resume: bool = False,
    device: str | None = None,
    progress: bool = True,
) -> nn.Module:
    """GPT-2 of the sizes of ``config``, trained on ``texts`` from the beginning of each; kept in ``out``.

    Args:
        texts: captions, answers, questions with their answers; each is one example.
        tokenizer: of :func:`train_tokenizer`.
        config: sizes.
        first_position: where texts begin, which leaves room for a prefix.
        training: how.
        out: folder of the training.
        resume: go on where an earlier run stopped.
        device: see :func:`aural.processes.joined`.
        progress: show a progress bar on a terminal.
    """
    end, pad = (int(tokenizer.token_to_id(token) or 0) for token in (END, PAD))
    rows = [[end, *tokenizer.encode(text + STOP).ids] for text in texts]
    longest = config.max_positions - first_position + 1

    def collate(some: list[list[int]]) -> dict[str, Tensor]:
        length = min(longest, max(map(len, some)))
        tokens = torch.full((len(some), length), pad)
        for row, ids in zip(tokens, some, strict=True):
            row[: len(ids)] = torch.tensor(ids[:length])
        return {"tokens": tokens, "labels": tokens.masked_fill(tokens == pad, IGNORED)}

    def save(weights: Mapping[str, Tensor], folder: Path, metrics: Mapping[str, float]) -> None:
        weights = {name.removeprefix("gpt2."): value for name, value in weights.items()}
        save_model(folder, system="language", config=config, weights=weights, card=CARD)

    @lru_cache(maxsize=2)
    def order(turn: int) -> list[int]:
        return np.random.default_rng([training.seed, turn]).permutation(len(rows)).tolist()

    def example(index: int) -> list[int]:
        turn, place = divmod(index, len(rows))
        return rows[order(turn)[place]]

    def counts(batch: Any) -> dict[str, float]:
        return {"cross_entropy": int((batch["labels"][:, 1:] != IGNORED).sum())}

    torch.manual_seed(training.seed)
    module = _Reading(config, first_position)
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
