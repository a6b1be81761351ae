"""Captions from encoded clips: against transformers' generation, against the plain way without cache, and reranked."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from aural.beam_search import Hypothesis
from aural.captioning.conformer import ConformerConfig
from aural.captioning.decoding import DecodingConfig, Member, beam, greedy, log_likelihood, nucleus
from aural.captioning.model import Captioner, CaptionerConfig, Encoded
from aural.captioning.rerank import choose, clean, rerank
from aural.captioning.tokenizer import train_tokenizer
from aural.networks.bart_decoder import BartDecoderConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.sampling import sample, uniforms, warp

EOS = START = 2
VOCAB = 300
WIDTH = 24
LIVELY = DecodingConfig(candidates=12, max_length=14)


def captioner(seed: int = 0, sharpness: float = 0.5) -> Captioner:
    """A random captioner that is sure enough of itself to end early now and then, and to say the same thing twice."""
    torch.manual_seed(seed)
    decoder = BartDecoderConfig(
        vocab_size=VOCAB, d_model=WIDTH, layers=2, heads=3, ffn_dim=40, max_positions=32, dropout=0.3
    )
    config = CaptionerConfig(
        conv_encoder=ConvEncoderConfig(channels=(4, 4, 4, 4, WIDTH)),
        downsample_rate=1,
        conformer=ConformerConfig(hidden_size=WIDTH, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1),
        decoder=decoder,
        max_cross_positions=16,
        embedding_ffn_dim=8,
        embedding_dim=6,
    )
    model = Captioner(config).eval()
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            is_scale = "norm" in name and name.endswith("weight")
            is_table = name.startswith(("embed_tokens", "embed_positions"))
            parameter.normal_(mean=1.0 if is_scale else 0.0, std=sharpness if is_table else 0.25)
        model.final_logits_bias.normal_(std=sharpness)
        model.final_logits_bias[:, EOS] = 8 * sharpness
    return model


def clips(n: int, seed: int = 0, width: int = WIDTH) -> Encoded:
    """n clips of different lengths, padded."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(n, 9, width, generator=generator)
    mask = torch.arange(9) < torch.tensor([9, 5, 7, 3, 8, 9, 4])[:n, None]
    return Encoded(states, mask, states, torch.randn(n, 6, generator=generator))


def clip_of(encoded: Encoded, i: int) -> Encoded:
    """One clip alone, without its padding."""
    assert encoded.mask is not None
    length = int(encoded.mask[i].sum())
    memory = encoded.memory[i : i + 1, :length]
    return Encoded(memory, None, memory, encoded.embedding[i : i + 1])


def ids_of(found: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[each.token_ids for each in of_clip] for of_clip in found]


def next_logits(member: Member, prefix: Tensor, clip: int) -> Tensor:
    """Next-token logits (R, V) of one clip, the plain way: every row with a copy of the memory, no cache."""
    alone = clip_of(member.encoded, clip)
    with torch.no_grad():
        return member.model.logits(alone.memory.expand(len(prefix), -1, -1), None, prefix)[:, -1]


def plain_nucleus(member: Member, clip: int, config: DecodingConfig, seed: int) -> list[tuple[int, ...]]:
    """Sampling without cache, sharing, or shortlist: each candidate by itself, over the whole vocabulary."""
    sentences = []
    for uniform in uniforms(seed, (config.candidates, config.max_length - 1)):
        prefix = torch.tensor([[START]])
        while prefix.shape[1] == 1 or prefix[0, -1] != EOS:
            warped = warp(next_logits(member, prefix, clip), prefix, config, EOS)
            values, order = warped.sort(descending=True, stable=True)
            token = order[0, sample(values, uniform[prefix.shape[1] - 1 : prefix.shape[1]])]
            prefix = torch.cat((prefix, token[None]), dim=1)
        sentences.append(tuple(prefix[0, 1:].tolist()))
    return sentences


# ------------------------------------------------------------------------------------------------------- three methods


def transformers_sentences(model: Captioner, encoded: Encoded, config: DecodingConfig, beams: int) -> list[list[int]]:
    """The best sentence of each clip by transformers' generate, on the same weights."""
    decoder = model.config.decoder
    theirs = BartForConditionalGeneration(
        BartConfig(
            vocab_size=VOCAB,
            d_model=WIDTH,
            encoder_layers=1,
            encoder_ffn_dim=8,
            encoder_attention_heads=1,
            decoder_layers=decoder.layers,
            decoder_attention_heads=decoder.heads,
            decoder_ffn_dim=decoder.ffn_dim,
            max_position_embeddings=decoder.max_positions,
        )
    ).eval()
    theirs.model.decoder.load_state_dict(model.decoder.state_dict())
    theirs.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach())
    theirs.final_logits_bias = model.final_logits_bias.detach()
    written = theirs.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded.memory),
        attention_mask=None if encoded.mask is None else encoded.mask.long(),
        decoder_input_ids=torch.full((len(encoded.memory), 1), START),
        do_sample=False,
        num_beams=beams,
        early_stopping=beams > 1,
        length_penalty=0.0 if beams > 1 else 1.0,
        no_repeat_ngram_size=config.no_repeat_ngram,
        min_length=config.min_length,
        max_length=config.max_length,
        forced_eos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=1,
        bos_token_id=0,
    )
    sentences = []
    for row in written.tolist():
        tokens = row[1:]
        sentences.append(tokens[: tokens.index(EOS) + 1])
    return sentences


def test_greedy_equals_transformers() -> None:
    model, encoded = captioner(), clips(5)
    ours = greedy([Member(model, encoded)], LIVELY)
    assert [list(each.token_ids) for each in ours] == transformers_sentences(model, encoded, LIVELY, beams=1)
    assert len({len(each.token_ids) for each in ours}) > 1


@pytest.mark.parametrize("seed", range(3))
def test_beam_search_equals_transformers(seed: int) -> None:
    """Newer releases divide scores by another length than the captioner's; with exponent 0 the rules agree."""
    model, encoded = captioner(seed, sharpness=0.3), clips(5, seed)
    ours = beam([Member(model, encoded)], replace(LIVELY, length_penalty=0.0))
    assert [list(found[0].token_ids) for found in ours] == transformers_sentences(model, encoded, LIVELY, beams=4)


def test_nucleus_equals_the_plain_way() -> None:
    member = Member(captioner(sharpness=0.8), clips(2))
    found = nucleus([member], LIVELY, [7, 8])
    assert ids_of(found) == [plain_nucleus(member, clip, LIVELY, seed) for clip, seed in ((0, 7), (1, 8))]
    # What makes the comparison worth it: repeated sentences, early and late ends.
    assert all(len(set(of_clip)) < len(of_clip) for of_clip in ids_of(found))
    lengths = {len(sentence) for of_clip in ids_of(found) for sentence in of_clip}
    assert {5, 6, 7, 8, 13} <= lengths


def test_a_clip_does_not_depend_on_its_batch() -> None:
    model, seven = captioner(), clips(7)
    seeds = list(range(7))
    together = ids_of(nucleus([Member(model, seven)], LIVELY, seeds))
    assert seven.mask is not None
    four = Encoded(seven.states[:4], seven.mask[:4], seven.memory[:4], seven.embedding[:4])
    assert ids_of(nucleus([Member(model, four)], LIVELY, seeds[:4])) == together[:4]
    for i in range(7):
        alone = [Member(model, clip_of(seven, i))]
        assert ids_of(nucleus(alone, LIVELY, [i])) == together[i : i + 1]
        assert greedy(alone, LIVELY)[0].token_ids == greedy([Member(model, seven)], LIVELY)[i].token_ids
        assert ids_of(beam(alone, LIVELY)) == ids_of(beam([Member(model, seven)], LIVELY))[i : i + 1]


def test_fewer_candidates_are_the_first_of_more_and_seeds_matter() -> None:
    member = Member(captioner(), clips(1))
    many = ids_of(nucleus([member], LIVELY, [3]))[0]
    assert ids_of(nucleus([member], replace(LIVELY, candidates=5), [3]))[0] == many[:5]
    assert ids_of(nucleus([member], LIVELY, [4]))[0] != many


def test_sentences_obey_the_rules() -> None:
    member = Member(captioner(sharpness=0.2), clips(3))
    config = DecodingConfig(candidates=20, no_repeat_ngram=2, min_length=4, max_length=9)
    for found in (nucleus([member], config), beam([member], config), [[each] for each in greedy([member], config)]):
        for sentence in (each.token_ids for of_clip in found for each in of_clip):
            assert sentence.index(EOS) == len(sentence) - 1
            assert 4 <= len(sentence) <= 8
            pairs = list(itertools.pairwise(sentence[:-1]))
            assert len(set(pairs)) == len(pairs)


def test_log_probabilities_are_those_of_the_model_itself() -> None:
    members = [Member(captioner(), clips(3))]
    for found in (nucleus(members, LIVELY), beam(members, LIVELY)):
        scored = log_likelihood(members, ids_of(found))
        for of_clip, log_probs in zip(found, scored, strict=True):
            torch.testing.assert_close(torch.tensor([each.log_prob for each in of_clip]), log_probs, atol=2e-4, rtol=0)


def test_log_likelihood_equals_the_training_loss() -> None:
    member = Member(captioner(), clips(3))
    sentences: list[list[list[int]]] = [[[5, 6, 7, EOS], [9, EOS]], [], [[4, 4, 4, 4, 4, 4, EOS]]]
    scored = log_likelihood([member], sentences)
    assert [len(of_clip) for of_clip in scored] == [2, 0, 1]
    for clip, i in ((0, 0), (0, 1), (2, 0)):
        alone = clip_of(member.encoded, clip)
        labels = torch.tensor([sentences[clip][i]])
        expected = -member.model.negative_log_likelihood(alone.memory, None, labels) * labels.shape[1]
        torch.testing.assert_close(scored[clip][i : i + 1], expected.detach(), atol=1e-4, rtol=1e-5)
    assert [len(each) for each in log_likelihood([member], [[], [], []])] == [0, 0, 0]


def test_what_cannot_write_is_refused() -> None:
    model = captioner()
    with pytest.raises(ValueError, match="2 seeds for 3 clips"):
        nucleus([Member(model, clips(3))], LIVELY, [0, 1])
    with pytest.raises(ValueError, match="33 tokens are more than the decoder's 32 positions"):
        beam([Member(model, clips(1))], replace(LIVELY, max_length=34))
    with pytest.raises(ValueError, match="candidates 0"):
        DecodingConfig(candidates=0)
    with pytest.raises(ValueError, match="training mode"):
        greedy([Member(model.train(), clips(1))], LIVELY)


# ------------------------------------------------------------------------------------------------------------ ensembles


def test_two_of_the_same_are_as_one() -> None:
    member = Member(captioner(), clips(3))
    twice = [replace(member, weight=0.4), replace(member, weight=2.0)]
    assert ids_of(nucleus(twice, LIVELY)) == ids_of(nucleus([member], LIVELY))
    assert ids_of(beam(twice, LIVELY)) == ids_of(beam([member], LIVELY))
    torch.testing.assert_close(
        log_likelihood(twice, [[(5, EOS)], [], []])[0], log_likelihood([member], [[(5, EOS)], [], []])[0]
    )


def test_probabilities_are_averaged_by_weight() -> None:
    members = [Member(captioner(0), clips(1), 3.0), Member(captioner(1), clips(1, seed=5), 1.0)]
    prefix = torch.tensor([[START]])
    expected = (0.75 * next_logits(members[0], prefix, 0).softmax(1)) + 0.25 * next_logits(
        members[1], prefix, 0
    ).softmax(1)
    token = int(expected.argmax())
    assert log_likelihood(members, [[(token,)]])[0].exp().item() == pytest.approx(float(expected[0, token]), abs=1e-5)
    config = replace(LIVELY, min_length=0)
    assert greedy(members, config)[0].token_ids[0] == token
    assert greedy([replace(members[0], weight=1e-9), members[1]], config) != greedy(members[:1], config)
    only_second = greedy([replace(members[0], weight=1e-9), members[1]], config)[0]
    assert only_second.token_ids == greedy(members[1:], config)[0].token_ids


# ------------------------------------------------------------------------------------------------------------ reranking


def test_clean_takes_punctuation_and_outer_space() -> None:
    assert clean(" a dog's bark, twice. ") == "a dogs bark twice"
    assert clean("…—é") == "…—é"  # only ASCII punctuation goes
    assert clean(" ?! ") == ""


def test_rerank_by_hand() -> None:
    nll, cosine = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.1, 0.9, 0.8])
    order, scores = rerank(nll, cosine)
    torch.testing.assert_close(scores, torch.tensor([-0.23, 0.03, -0.64]))
    assert order.tolist() == [1, 0, 2]
    assert rerank(nll, cosine, decoder_weight=1.0, encoder_weight=0.0)[0].tolist() == [0, 1, 2]
    order, scores = rerank(torch.tensor([1.0, 3.0]), torch.tensor([0.2, 0.6]), znorm=True)
    torch.testing.assert_close(scores, torch.tensor([0.3 - 0.7, 0.7 - 0.3]))
    assert order.tolist() == [1, 0]


def test_ties_go_to_the_likelier_caption() -> None:
    nll = torch.tensor([3.0, 1.0, 2.0])
    assert rerank(nll, torch.zeros(3), decoder_weight=0.0)[0].tolist() == [1, 2, 0]


def test_alike_captions_survive_standardising() -> None:
    order, scores = rerank(torch.tensor([2.0]), torch.tensor([0.3]), znorm=True)
    assert order.tolist() == [0]
    assert scores.tolist() == [0.0]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a dog barks", "rain falls on a roof", "birds sing"] * 3, VOCAB)


def encode_text(captions: list[str]) -> Tensor:
    """A stand-in for a sentence encoder: depends on the text alone."""
    generators = (torch.Generator().manual_seed(sum(text.encode())) for text in captions)
    return torch.stack([5 * torch.randn(6, generator=generator) for generator in generators])


def drawn(members: list[Member], tokenizer: Tokenizer, texts: list[list[str]]) -> list[list[Hypothesis]]:
    """Candidates as sampling would give them: the tokens of the texts as they stand, with their log-probabilities."""
    sentences = [[(*tokenizer.encode(text).ids, EOS) for text in of_clip] for of_clip in texts]
    scored = log_likelihood(members, sentences)
    return [
        [Hypothesis(ids, 0.0, float(log_prob)) for ids, log_prob in zip(of_clip, log_probs, strict=True)]
        for of_clip, log_probs in zip(sentences, scored, strict=True)
    ]


def test_choose_scores_what_is_read_once(tokenizer: Tokenizer) -> None:
    encoded = clips(2)
    members = [Member(captioner(), encoded)]
    texts = [["a dog barks", "a dog barks.", "rain", " a dog barks"], ["birds, sing", "rain"]]
    asked: list[str] = []

    def encoder(captions: list[str]) -> Tensor:
        asked.extend(captions)
        return encode_text(captions)

    choices = choose(members, drawn(members, tokenizer, texts), tokenizer, encoder)
    assert sorted(asked) == ["a dog barks", "birds sing", "rain"]
    for clip, distinct in enumerate([["a dog barks", "rain"], ["birds sing", "rain"]]):
        sentences: list[list[tuple[int, ...]]] = [[], []]
        sentences[clip] = [(*tokenizer.encode(text).ids, EOS) for text in distinct]
        nll = -log_likelihood(members, sentences)[clip] / torch.tensor([len(each) for each in sentences[clip]])
        cosine = torch.cosine_similarity(encode_text(distinct), encoded.embedding[clip : clip + 1])
        order, scores = rerank(nll, cosine)
        ranked = choices[clip].ranked
        assert [each.caption for each in ranked] == [distinct[i] for i in order]
        assert choices[clip].best == ranked[0]
        for each, i in zip(ranked, order.tolist(), strict=True):
            assert each.log_likelihood == pytest.approx(-float(nll[i]), abs=1e-5)
            assert each.similarity == pytest.approx(float(cosine[i]), abs=1e-5)
            assert each.score == pytest.approx(float(scores[i]), abs=1e-5)


def test_known_log_probabilities_are_not_computed_again(tokenizer: Tokenizer) -> None:
    members = [Member(captioner(), clips(1))]
    candidate = Hypothesis((*tokenizer.encode("a dog barks").ids, EOS), 0.0, -123.0)
    ranked = choose(members, [[candidate]], tokenizer, encode_text)[0].best
    assert ranked.log_likelihood == pytest.approx(-123.0 / len(candidate.token_ids))


def test_the_best_caption_without_objection_is_chosen(tokenizer: Tokenizer) -> None:
    members = [Member(captioner(), clips(1))]
    found = drawn(members, tokenizer, [["a dog barks", "rain", "birds sing"]])
    ranked = [each.caption for each in choose(members, found, tokenizer, encode_text)[0].ranked]
    choice = choose(members, found, tokenizer, encode_text, is_flawed=lambda text: text in ranked[:2])[0]
    assert (choice.best.caption, [each.caption for each in choice.ranked]) == (ranked[2], ranked)
    assert choose(members, found, tokenizer, encode_text, is_flawed=lambda _: True)[0].best.caption == ranked[0]


def test_a_caption_of_nothing_is_the_last_resort(tokenizer: Tokenizer) -> None:
    members = [Member(captioner(), clips(1))]
    found = drawn(members, tokenizer, [["!", "a dog barks", "?"]])
    assert [each.caption for each in choose(members, found, tokenizer, encode_text)[0].ranked] == ["a dog barks"]
    nothing = choose(members, drawn(members, tokenizer, [["!", "?"]]), tokenizer, encode_text)[0].best
    assert nothing.caption == ""
    assert math.isfinite(nothing.score)


def test_a_caption_of_more_tokens_than_positions_is_scored_by_those_it_has(tokenizer: Tokenizer) -> None:
    members = [Member(captioner(), clips(1))]
    long = Hypothesis((*tokenizer.encode("zq" * 40).ids[:100], EOS), 0.0, -1.0)
    assert math.isfinite(choose(members, [[long]], tokenizer, encode_text)[0].best.log_likelihood)


def test_similarities_of_an_ensemble_are_averaged_by_weight(tokenizer: Tokenizer) -> None:
    members = [Member(captioner(0), clips(1), 3.0), Member(captioner(1), clips(1, seed=5), 1.0)]
    found = drawn(members, tokenizer, [["a dog barks"]])
    best = choose(members, found, tokenizer, encode_text)[0].best
    cosines = [torch.cosine_similarity(encode_text(["a dog barks"]), each.encoded.embedding) for each in members]
    assert best.similarity == pytest.approx(float(0.75 * cosines[0] + 0.25 * cosines[1]), abs=1e-5)
