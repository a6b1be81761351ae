"""Prompts as a picture model reads them: the words of a frozen text encoder, with a slot for audio tokens.

Two kinds of readers do the same: CLIP's, with which Stable Diffusion comes, reads all prompts at one length, padding
included; the sentence encoder of the small model reads prompts as long as they are, and its mask tells what is real.

Shapes: B prompts, L tokens, D width of the text encoder. Masks are boolean, True = real.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from aural.audio_to_image.injection import SLOT, reserve_slot, slots_filled, token_width
from aural.audio_to_image.losses import label_embeddings
from aural.errors import UsageError
from aural.networks.sentence_encoder import SentenceEncoder


class Words(Protocol):
    """A reader of prompts."""

    width: int
    """D, which an audio token must have."""

    def states(self, prompts: Sequence[str], embedding: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Prompts -> states (B, L, D), and their mask (B, L) where not all is real.

        Args:
            prompts: with or without a slot.
            embedding: audio tokens (B, D), or one for all (1, D), for the slots; gradients flow to them.

        Raises:
            UsageError: a sound is given, and a prompt has no slot for it, or only beyond what is read of it; or a
                prompt has a slot, and no sound is given.
        """

    def embeddings(self, names: Sequence[str]) -> Tensor:
        """Names -> means of their words' rows in the table (B, D), which audio tokens can be pulled towards."""

    def to(self, device: torch.device) -> "Words":
        """Move the encoder, and return itself."""


class ClipWords:
    """The tokenizer and the text encoder of a Stable Diffusion."""

    def __init__(self, tokenizer: Tokenizer, encoder: Any, *, pad_id: int, length: int = 77) -> None:
        """Both are changed: the tokenizer gets a slot and the encoder is frozen.

        Args:
            tokenizer: puts begin and end around a prompt.
            encoder: CLIP's text model, of the transformers library.
            pad_id: what fills a prompt up.
            length: L of all prompts.
        """
        self.width = token_width(encoder)
        self.encoder = encoder.requires_grad_(False).eval()
        self.slot_id = reserve_slot(tokenizer)
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=pad_id)

    def states(self, prompts: Sequence[str], embedding: Tensor | None = None) -> tuple[Tensor, None]:
        """See :meth:`Words.states`."""
        device = next(self.encoder.parameters()).device
        ids = torch.tensor([self._tokenizer.encode(prompt).ids for prompt in prompts], device=device)
        _check_slots(prompts, ids, self.slot_id, embedding)
        table = self.encoder.get_input_embeddings()
        filled = nullcontext(ids) if embedding is None else slots_filled(table, ids, self.slot_id, embedding)
        with filled as readable:
            return self.encoder(input_ids=readable).last_hidden_state, None

    def embeddings(self, names: Sequence[str]) -> Tensor:
        """See :meth:`Words.embeddings`."""
        return _name_embeddings(self._tokenizer, self.encoder.get_input_embeddings().weight, names)

    def to(self, device: torch.device) -> "ClipWords":
        """See :meth:`Words.to`."""
        self.encoder.to(device)
        return self


class SentenceWords:
    """A sentence encoder as a reader of prompts: the states of its tokens."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.transformer: Any = encoder.transformer
        self.width = token_width(self.transformer)
        self._tokenizer = encoder.tokenizer
        self.slot_id = reserve_slot(self._tokenizer)

    def states(self, prompts: Sequence[str], embedding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Words.states`. Prompts of one length are read together, as the encoder knows no padding."""
        table = self.transformer.get_input_embeddings()
        rows = [self._tokenizer.encode(prompt).ids for prompt in prompts]
        longest = max(map(len, rows))
        states: list[Tensor] = [torch.empty(0)] * len(rows)
        for length in sorted({len(row) for row in rows}):
            places = [place for place, row in enumerate(rows) if len(row) == length]
            ids = torch.tensor([rows[place] for place in places], device=table.weight.device)
            some = embedding if embedding is None or len(embedding) == 1 else embedding[places]
            _check_slots([prompts[place] for place in places], ids, self.slot_id, some)
            filled = nullcontext(ids) if some is None else slots_filled(table, ids, self.slot_id, some)
            with filled as readable:
                hidden = F.pad(self.transformer(readable), (0, 0, 0, longest - length))
            for place, state in zip(places, hidden, strict=True):
                states[place] = state
        lengths = torch.tensor([len(row) for row in rows], device=table.weight.device)
        return torch.stack(states), torch.arange(longest, device=lengths.device) < lengths[:, None]

    def embeddings(self, names: Sequence[str]) -> Tensor:
        """See :meth:`Words.embeddings`."""
        return _name_embeddings(self._tokenizer, self.transformer.get_input_embeddings().weight, names)

    def to(self, device: torch.device) -> "SentenceWords":
        """See :meth:`Words.to`."""
        self.transformer.to(device)
        return self


def padded(states: Sequence[Tensor], masks: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Several readings by the same reader as one batch: zeros follow what is shorter.

    Args:
        states: (B, L, D) each.
        masks: theirs, (B, L) each; either all of them or none is None.
    """
    longest = max(some.shape[1] for some in states)
    joined = torch.cat([F.pad(some, (0, 0, 0, longest - some.shape[1])) for some in states])
    real = [F.pad(mask, (0, longest - mask.shape[1])) for mask in masks if mask is not None]
    return joined, torch.cat(real) if real else None


def _check_slots(prompts: Sequence[str], ids: Tensor, slot_id: int, embedding: Tensor | None) -> None:
    for prompt, has_slot in zip(prompts, (ids == slot_id).any(dim=1).tolist(), strict=True):
        if embedding is None and has_slot:
            raise UsageError(f"{SLOT} in {prompt!r} stands for a sound, and there is none: leave it out")
        if embedding is not None and SLOT not in prompt:
            raise UsageError(f"the prompt {prompt!r} has no {SLOT}, the place of the sound: write it, as in 'a {SLOT}'")
        if embedding is not None and not has_slot:
            raise UsageError(f"{SLOT} stands beyond the {ids.shape[1]} tokens that are read of a prompt: shorten it")


def _name_embeddings(tokenizer: Tokenizer, table: Tensor, names: Sequence[str]) -> Tensor:
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_padding()
    rows = [torch.tensor(tokenizer.encode(name, add_special_tokens=False).ids) for name in names]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    return label_embeddings(table, ids.to(table.device), mask.to(table.device))
