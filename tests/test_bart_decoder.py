"""The caption decoder against transformers' BART, and writing with a cache against whole sequences at once."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from transformers import BartConfig
from transformers.models.bart.modeling_bart import BartDecoder as TransformersDecoder

from aural.networks.bart_decoder import BartDecoder, BartDecoderConfig, group_rows, settled

VOCAB = 37
TINY = BartDecoderConfig(vocab_size=VOCAB, d_model=24, layers=2, heads=3, ffn_dim=40, max_positions=12)


def decoder_of(config: BartDecoderConfig = TINY) -> BartDecoder:
    """Random weights, none of them at a value that would hide a mistake."""
    torch.manual_seed(0)
    decoder = BartDecoder(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


def memory_of(n: int, steps: int = 7) -> tuple[Tensor, Tensor]:
    """Memories (n, steps, D) and their mask: each one step shorter than the one before."""
    generator = torch.Generator().manual_seed(1)
    lengths = steps - torch.arange(n)
    return torch.randn(n, steps, TINY.d_model, generator=generator), torch.arange(steps) < lengths[:, None]


def ids_of(rows: int, length: int) -> Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("scale_embedding", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_equals_transformers(scale_embedding: bool, activation: str) -> None:
    config = BartDecoderConfig(**{**vars(TINY), "scale_embedding": scale_embedding, "activation": activation})
    ours = decoder_of(config)
    theirs = TransformersDecoder(
        BartConfig(
            vocab_size=VOCAB,
            d_model=config.d_model,
            decoder_layers=config.layers,
            decoder_attention_heads=config.heads,
            decoder_ffn_dim=config.ffn_dim,
            max_position_embeddings=config.max_positions,
            activation_function=activation,
            scale_embedding=scale_embedding,
            attn_implementation="eager",
        )
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    memory, mask = memory_of(3)
    input_ids = ids_of(3, 9)
    with torch.no_grad():
        states = ours.hidden_states(input_ids, memory, mask)
        expected = theirs(
            input_ids=input_ids,
            encoder_hidden_states=memory,
            encoder_attention_mask=mask.long(),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
    assert len(states) == len(expected) == config.layers + 1
    for state, reference in zip(states, expected, strict=True):
        torch.testing.assert_close(state, reference, atol=1e-5, rtol=1e-5)


def test_no_token_sees_a_later_one() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(2)
    input_ids = ids_of(2, 8)
    changed = input_ids.clone()
    changed[:, 5:] = 4
    before, after = decoder(input_ids, memory, mask), decoder(changed, memory, mask)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_masked_memory_is_as_if_cut_off() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(3)
    input_ids = ids_of(3, 5)
    together = decoder(input_ids, memory, mask)
    for i, length in enumerate(mask.sum(dim=1).tolist()):
        alone = decoder(input_ids[i : i + 1], memory[i : i + 1, :length])
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory_of_row", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [2, 0, 2, 2, 1], [1, 1, 1]])
def test_rows_that_share_a_memory_are_as_if_each_had_its_own(memory_of_row: list[int]) -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(3)
    which = torch.tensor(memory_of_row)
    input_ids = ids_of(len(which), 6)
    shared = decoder(input_ids, memory, mask, which)
    torch.testing.assert_close(shared, decoder(input_ids, memory[which], mask[which]), atol=1e-5, rtol=1e-5)


def test_groups_give_back_what_they_gathered() -> None:
    rows = torch.arange(10.0).view(5, 2)
    for memory_of_row in ([0, 0, 1, 2, 2], [2, 0, 1, 0, 2], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]):
        groups = group_rows(5, 3, torch.tensor(memory_of_row), rows.device)
        grouped = groups.gather(rows)
        assert grouped.shape[0] == 3
        assert torch.equal(groups.scatter(grouped), rows)


def test_step_by_step_equals_all_at_once() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(3)
    input_ids = ids_of(3, 9)
    with torch.inference_mode():
        writing = decoder.start(memory, mask, max_length=9, max_rows=3)
        steps = [writing.step(input_ids[:, i]) for i in range(9)]
        torch.testing.assert_close(torch.stack(steps, dim=1), decoder(input_ids, memory, mask), atol=1e-5, rtol=1e-5)


def test_rows_are_copied_dropped_and_reordered() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(2)
    selections = [[0, 1], [0, 0, 0, 1, 1], [4, 2, 2, 0, 1], [1, 3, 0], [2, 1], [1]]
    generator = torch.Generator().manual_seed(5)
    with torch.inference_mode():
        writing = decoder.start(memory, mask, max_length=6, max_rows=5)
        prefix, which = torch.empty(2, 0, dtype=torch.long), torch.arange(2)
        for selection in selections:
            parents = torch.tensor(selection)
            appended = torch.randint(3, VOCAB, (len(parents),), generator=generator)
            prefix = torch.cat((prefix[parents], appended[:, None]), dim=1)
            which = which[parents]
            writing.select(parents)
            assert torch.equal(writing.memory_of_row, which)
            expected = decoder(prefix, memory[which], mask[which])[:, -1]
            torch.testing.assert_close(writing.step(appended), expected, atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=10))
def test_settled_moves_as_few_rows_as_possible(numbers: list[int]) -> None:
    parents = torch.tensor(sorted(numbers))
    order = settled(parents)
    assert sorted(order.tolist()) == list(range(len(parents)))
    in_place = int((parents[order] == torch.arange(len(parents))).sum())
    assert in_place == len({parent for parent in numbers if parent < len(numbers)})


def test_padding_embedding_is_not_trained() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(2)
    input_ids = ids_of(2, 5)
    input_ids[:, 3:] = TINY.pad_token_id
    decoder(input_ids, memory, mask).square().sum().backward()
    gradient = decoder.embed_tokens.weight.grad
    assert gradient is not None
    assert not gradient[TINY.pad_token_id].any()
    assert gradient[input_ids[0, 0]].any()


def test_dropout_acts_in_training_only() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(2)
    input_ids = ids_of(2, 5)
    assert torch.equal(decoder(input_ids, memory, mask), decoder(input_ids, memory, mask))
    decoder.train()
    assert not torch.equal(decoder(input_ids, memory, mask), decoder(input_ids, memory, mask))


def test_what_does_not_fit_is_refused() -> None:
    decoder, (memory, mask) = decoder_of(), memory_of(2)
    with pytest.raises(ValueError, match="13 tokens are more than the decoder's 12 positions"):
        decoder(ids_of(2, 13), memory, mask)
    with pytest.raises(ValueError, match="5 rows and 2 memories"):
        decoder(ids_of(5, 3), memory, mask)
    with pytest.raises(ValueError, match="no multiple of heads"):
        BartDecoderConfig(d_model=10, heads=3)
    with pytest.raises(ValueError, match="13 tokens are more than the decoder's 12 positions"):
        decoder.start(memory, mask, max_length=13, max_rows=2)
    writing = decoder.start(memory, mask, max_length=1, max_rows=2)
    with torch.inference_mode():
        writing.step(torch.tensor([2, 2]))
        with pytest.raises(ValueError, match="made for 1 tokens"):
            writing.step(torch.tensor([3, 3]))
