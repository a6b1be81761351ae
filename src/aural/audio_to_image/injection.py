"""An audio token in a prompt: a reserved word gives its place, in the input of any frozen text encoder.

Yariv et al., arXiv 2305.13050: of the prompt "a photo of <*>" the row of ``<*>`` is the audio token, where those of the
other words come from the encoder's table. All that the encoder does with a row of its table, it does with the audio
token: a position is added to it, and in some encoders it is normalised. Gradients reach it through the encoder.

Shapes: B prompts, L tokens, D width of the table's rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn

SLOT = "<*>"
STAND_IN_ID = 5
"""The word that is looked up in the slot's place, in vain: any but the first few, which end or pad in some tables."""


def reserve_slot(tokenizer: Tokenizer, slot: str = SLOT) -> int:
    """Make ``slot`` a word of a tokenizer, which is changed: the id it has from now on, by default the first free one.

    The encoder's table needs no row for it.
    """
    tokenizer.add_special_tokens([AddedToken(slot, normalized=False)])
    slot_id = tokenizer.token_to_id(slot)
    assert slot_id is not None
    return slot_id


def token_width(text_encoder: Any) -> int:
    """D of a text encoder of the transformers library, which an audio token for it must have."""
    table: nn.Embedding = text_encoder.get_input_embeddings()
    return table.embedding_dim


@contextmanager
def slots_filled(table: nn.Module, token_ids: Tensor, slot_id: int, embedding: Tensor) -> Iterator[Tensor]:
    """Within it, looking prompts up in an encoder's table finds audio tokens in their slots.

    No weight is changed: it is the table's output that gets other rows. Calls on one encoder must follow one another.

    >>> with slots_filled(encoder.get_input_embeddings(), token_ids, slot_id, embedding) as readable_ids:
    ...     states = encoder(input_ids=readable_ids).last_hidden_state

    Args:
        table: the encoder's module that turns ids (B, L) into rows (B, L, D).
        token_ids: (B, L), left as they are. A prompt may have its slot anywhere, several of them, or none.
        slot_id: which token is the slot; the table need not have it.
        embedding: the audio token of each prompt (B, D), or one for all of them (1, D).

    Yields:
        Ids (B, L) to give to the encoder, all of them in its table.

    Raises:
        ValueError: no prompt has a slot, or there is not one audio token for each prompt.
    """
    slots = token_ids == slot_id
    if not slots.any():
        raise ValueError(f"none of the prompts has the slot, token {slot_id}: the sound would not be heard")
    if len(embedding) not in (1, len(token_ids)):
        raise ValueError(f"{len(embedding)} audio tokens for {len(token_ids)} prompts")

    def fill(_: nn.Module, __: Any, rows: Tensor) -> Tensor:
        return torch.where(slots[:, :, None], embedding[:, None].to(rows), rows)

    hook = table.register_forward_hook(fill)
    try:
        yield token_ids.masked_fill(slots, STAND_IN_ID)
    finally:
        hook.remove()


def prompt_states(
    text_encoder: Any, token_ids: Tensor, slot_id: int, embedding: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Prompts with audio tokens -> last hidden states (B, L, D) of a text encoder of the transformers library.

    Args:
        text_encoder: frozen, such as CLIP's text model or BERT. Parameters that are frozen let gradients through.
        token_ids: see :func:`slots_filled`, as for ``slot_id`` and ``embedding``.
        slot_id: which token is the slot.
        embedding: (B, D) or (1, D).
        mask: (B, L), True = real, for encoders whose tokens look ahead; None, as in Stable Diffusion, where padding is
            read as words are: all of it is real.

    Raises:
        ValueError: as :func:`slots_filled`.
    """
    seen = {} if mask is None else {"attention_mask": mask.long()}
    with slots_filled(text_encoder.get_input_embeddings(), token_ids, slot_id, embedding) as readable_ids:
        states: Tensor = text_encoder(input_ids=readable_ids, **seen).last_hidden_state
    return states
