"""Facts and prompts as rows of the sentence encoder, each read once: the same come back many times in a training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aural.answering.tokenizer import Tokenizers
from aural.soundscapes.facts import FactSheet

MOST_WORDS = 2
"""At one place of a fact sheet: a name, and what is said of it."""


class RememberedPrompts:
    """A reader of prompts that reads each once."""

    def __init__(self, reader: Tokenizers) -> None:
        self.reader = reader
        self.known: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """As :meth:`aural.answering.tokenizer.Tokenizers.prompts`."""
        new = sorted({prompt for prompt in prompts if prompt not in self.known})
        if new:
            self.known.update(zip(new, self.reader.prompts(new).half(), strict=True))
        return torch.stack([self.known[prompt] for prompt in prompts]).float()


class FactRows:
    """A reader of fact sheets: in each place, the sum of what its words are, which are the means of their tokens."""

    def __init__(self, reader: Tokenizers) -> None:
        self.reader = reader
        assert reader.config.sentences is not None
        self.ids: dict[str, int] = {}
        self.words = [torch.zeros(reader.config.sentences.width)]  # the first is no word
        self.sheets: dict[FactSheet, Tensor] = {}

    def __call__(self, sheets: Sequence[FactSheet]) -> Tensor:
        """(B, P, W); places that there are none of are zeros, and so are all beyond those of a sheet."""
        ids = torch.stack([self._ids(sheet) for sheet in sheets])
        return torch.stack(self.words)[ids].sum(2)

    def known(self, sheets: Sequence[FactSheet]) -> Tensor:
        """(B, P), which of these rows are known."""
        length = self.reader.config.prefix_length
        return torch.tensor([(*sheet.known, *((True,) * length))[:length] for sheet in sheets])

    def _ids(self, sheet: FactSheet) -> Tensor:
        if sheet not in self.sheets:
            ids = torch.zeros(self.reader.config.prefix_length, MOST_WORDS, dtype=torch.long)
            for row, words in zip(ids, sheet.places, strict=False):
                for place, word in enumerate(words):
                    row[place] = self._id(word)
            self.sheets[sheet] = ids
        return self.sheets[sheet]

    def _id(self, word: str) -> int:
        if word not in self.ids:
            tokens = self.reader.prompts([word])[0]
            self.ids[word] = len(self.words)
            self.words.append(tokens[tokens.ne(0).any(1)].mean(0))
        return self.ids[word]
