"""Audio tokens in prompts: the same as a word of the table, in any encoder, batched, and with gradients."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

from aural.answering.tokenizer import find_clip
from aural.audio_to_image.audio_token import AttentivePooling
from aural.audio_to_image.injection import SLOT, prompt_states, reserve_slot, slots_filled, token_width
from aural.networks import sentence_encoder

TOKENIZER = Path(__file__).parent / "golden" / "pengi" / "tokenizer_clip-text"
N_WORDS, WIDTH, SLOT_ID = 30, 8, 30


def clip() -> Any:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=N_WORDS,
        hidden_size=WIDTH,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=9,
        bos_token_id=28,
        eos_token_id=29,
        pad_token_id=29,
    )
    return CLIPTextModel(config).requires_grad_(False).eval()


def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=N_WORDS,
        hidden_size=WIDTH,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=9,
        type_vocab_size=1,
    )
    return BertModel(config, add_pooling_layer=False).requires_grad_(False).eval()


def tokens(n: int, seed: int = 0) -> Tensor:
    return 0.05 * torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


PROMPTS = torch.tensor([[28, 7, 8, SLOT_ID, 29, 29], [28, SLOT_ID, 3, 4, SLOT_ID, 29], [28, 29, 29, 29, 29, 29]])
"""The slot in one place, in two, in none."""


def test_it_is_as_if_the_table_had_a_row_more() -> None:
    encoder, before = clip(), PROMPTS.clone()
    larger = copy.deepcopy(encoder)
    for number, embedding in enumerate(tokens(3)):
        table = larger.get_input_embeddings()
        table.weight = torch.nn.Parameter(torch.cat((encoder.get_input_embeddings().weight, embedding[None])))
        expected = larger(input_ids=PROMPTS[number : number + 1]).last_hidden_state
        states = prompt_states(encoder, PROMPTS, SLOT_ID, tokens(3))  # of all three at once
        torch.testing.assert_close(states[number : number + 1], expected)
    assert torch.equal(PROMPTS, before) and token_width(encoder) == WIDTH
    torch.testing.assert_close(
        prompt_states(encoder, PROMPTS[:2], SLOT_ID, tokens(1)),
        prompt_states(encoder, PROMPTS[:2], SLOT_ID, tokens(1).expand(2, -1)),
    )


def test_what_comes_before_a_slot_does_not_hear() -> None:
    one, other = (prompt_states(clip(), PROMPTS[:1], SLOT_ID, tokens(1, seed)) for seed in (0, 1))
    assert torch.equal(one[:, :3], other[:, :3])
    assert ((one - other)[:, 3:].abs().amax(dim=2) > 1e-3).all()


def test_an_encoder_that_looks_ahead_is_given_the_mask() -> None:
    encoder, ids = bert(), torch.tensor([[1, 9, SLOT_ID, 2, 0, 0], [1, SLOT_ID, 11, 12, 13, 2]])
    mask, embedding = ids != 0, tokens(2)
    rows = encoder.get_input_embeddings()(ids.clamp_max(N_WORDS - 1))
    rows[ids == SLOT_ID] = embedding
    expected = encoder(inputs_embeds=rows, attention_mask=mask.long()).last_hidden_state
    states = prompt_states(encoder, ids, SLOT_ID, embedding, mask)
    torch.testing.assert_close(states, expected)
    alone = prompt_states(encoder, ids[:1, :4], SLOT_ID, embedding[:1])
    torch.testing.assert_close(states[:1, :4], alone)


def test_the_house_s_own_sentence_encoder_hears_too() -> None:
    own = sentence_encoder.Bert(
        sentence_encoder.BertConfig(
            vocab_size=N_WORDS,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=12,
            max_position_embeddings=9,
            type_vocab_size=1,
        )
    )
    theirs = bert()
    own.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if name in own.state_dict()})
    embedding = tokens(2).requires_grad_()
    with slots_filled(own.embeddings.word_embeddings, PROMPTS[:2], SLOT_ID, embedding) as readable_ids:
        states = own(readable_ids)
    torch.testing.assert_close(states, prompt_states(theirs, PROMPTS[:2], SLOT_ID, embedding))
    states.square().sum().backward()
    assert embedding.grad is not None and bool((embedding.grad != 0).all())


def test_gradients_are_those_of_differences() -> None:
    for encoder in (clip().double(), bert().double()):
        embedding = tokens(2).double().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda token, encoder=encoder: prompt_states(encoder, PROMPTS[:2], SLOT_ID, token), (embedding,)
        )
        assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_bridge_learns_to_say_a_word_through_the_frozen_encoder() -> None:
    encoder = clip()
    frozen = copy.deepcopy(encoder.state_dict())
    wanted = encoder(input_ids=PROMPTS[:1].masked_fill(PROMPTS[:1] == SLOT_ID, 17)).last_hidden_state
    torch.manual_seed(0)
    bridge = torch.nn.Sequential(torch.nn.Linear(5, WIDTH), AttentivePooling(WIDTH))
    features = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(bridge.parameters(), lr=0.01)
    history = []
    for _ in range(120):
        states = prompt_states(encoder, PROMPTS[:1], SLOT_ID, bridge(features).embedding)
        loss = (states - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-10:]) < 0.1 * sum(history[:10])
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in encoder.state_dict().items())


def test_a_slot_is_a_word_for_the_tokenizer() -> None:
    tokenizer = find_clip(TOKENIZER)
    n_words = tokenizer.get_vocab_size()
    assert reserve_slot(tokenizer) == reserve_slot(tokenizer) == n_words
    plain, spoken = tokenizer.encode("a photo of").ids, tokenizer.encode(f"a photo of {SLOT}, in colour").ids
    assert spoken.count(n_words) == 1 and spoken.index(n_words) == len(plain) - 1  # in place of the end token


def test_the_encoder_is_as_before_also_after_an_error() -> None:
    encoder, readable = clip(), PROMPTS.clamp_max(N_WORDS - 1)
    before = encoder(input_ids=readable).last_hidden_state
    with pytest.raises(ValueError, match="token 99"):
        prompt_states(encoder, PROMPTS, 99, tokens(3))
    with pytest.raises(ValueError, match="2 audio tokens for 3 prompts"):
        prompt_states(encoder, PROMPTS, SLOT_ID, tokens(2))
    too_long = torch.full((1, 10), SLOT_ID)
    with pytest.raises(ValueError, match="max_position_embeddings"):
        prompt_states(encoder, too_long, SLOT_ID, tokens(1))
    assert torch.equal(encoder(input_ids=readable).last_hidden_state, before)
