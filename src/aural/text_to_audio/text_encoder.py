"""Texts to states of a frozen encoder: T5 (Raffel et al., arXiv 1910.10683), or the sentence encoder in the box.

The language model asks for states and a mask only: any function from texts to these two can take their place.

Shapes: B texts, L tokens, C width. Masks are boolean, True = real.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from aural.networks.sentence_encoder import SentenceEncoder
from aural.padding import pad

PAD_TOKEN_ID = 0
END_TOKEN_ID = 1

LONGEST = 64
"""Tokens of a text that the sentence encoder's states are taken of."""

ReadTexts = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Texts to states (B, L, C) and their mask (B, L); of an empty text nothing is real."""


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 encoder of the first version; the defaults are those of t5-base."""

    vocab_size: int = 32128
    width: int = 768
    layers: int = 12
    heads: int = 12
    head_width: int = 64
    ffn_dim: int = 3072
    buckets: int = 32  # of distances between tokens
    max_distance: int = 128  # at which the last bucket begins


def make_t5(config: T5Config) -> Any:
    """The encoder with random weights, frozen and in evaluation mode. Importing the library costs seconds."""
    from transformers import T5Config as TheirConfig, T5EncoderModel

    encoder = T5EncoderModel(
        TheirConfig(
            vocab_size=config.vocab_size,
            d_model=config.width,
            num_layers=config.layers,
            num_heads=config.heads,
            d_kv=config.head_width,
            d_ff=config.ffn_dim,
            relative_attention_num_buckets=config.buckets,
            relative_attention_max_distance=config.max_distance,
            feed_forward_proj="relu",
            layer_norm_epsilon=1e-6,
            pad_token_id=PAD_TOKEN_ID,
            eos_token_id=END_TOKEN_ID,
        )
    )
    return encoder.requires_grad_(False).eval()


@torch.no_grad()
def t5_states(encoder: Any, token_ids: Tensor, mask: Tensor) -> Tensor:
    """Token ids (B, L) and their mask (B, L) -> states (B, L, C); those of padding mean nothing."""
    return encoder(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state


@dataclass(frozen=True)
class T5Text:
    """A reader of texts: the encoder, and the tokenizer that its ``tokenizer.json`` holds."""

    encoder: Any
    tokenizer: Tokenizer

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L), each text closed by the end token, and their mask; of an empty text nothing is real."""
        ids = [self.tokenizer.encode(text).ids for text in texts]
        closed = [row if row[-1:] == [END_TOKEN_ID] else [*row, END_TOKEN_ID] for row in ids]
        token_ids, mask = pad([torch.tensor(row) for row in closed])  # the padding token is 0
        said = torch.tensor([bool(text.strip()) for text in texts])
        return token_ids, mask & said[:, None]

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, C) of texts, and their mask (B, L)."""
        token_ids, mask = self.tokens(texts)
        device = self.encoder.device
        return t5_states(self.encoder, token_ids.to(device), mask.to(device)), mask.to(device)

    def to(self, device: torch.device) -> "T5Text":
        """The same reader on a device."""
        self.encoder.to(device)
        return self


@dataclass(frozen=True)
class SentenceText:
    """A reader of texts: the states of the sentence encoder's tokens, special ones included.

    Each text is read once and its states are kept (half precision, 10 kB a text): in a training the same captions come
    back many times.
    """

    encoder: SentenceEncoder
    known: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, C) of texts, and their mask (B, L)."""
        new = sorted({text for text in texts if text not in self.known})
        if new:
            states = self.encoder.token_states(new, LONGEST)
            real = states.ne(0).any(dim=2)  # what follows a text is zeros, and a state never is
            self.known.update((text, row[mask].half().cpu()) for text, row, mask in zip(new, states, real, strict=True))
        states, mask = pad([self.known[text].float() for text in texts])
        said = torch.tensor([bool(text.strip()) for text in texts])
        device = next(self.encoder.parameters()).device
        return states.to(device), (mask & said[:, None]).to(device)

    def to(self, device: torch.device) -> "SentenceText":
        """The same reader on a device."""
        self.encoder.to(device)
        return self
