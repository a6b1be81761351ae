"""Beam search over tables small enough to follow by hand."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from aural.beam_search import Hypothesis, Step, beam_search

START, EOS = 0, 1
NEVER = float("-inf")


class Table:
    """A language model that knows the last token only: log-probabilities (V, V), one table for each item."""

    def __init__(self, *tables: Tensor) -> None:
        self.tables = torch.stack(tables)
        self.item_of_row = torch.arange(len(tables))
        self.rows_at_step: list[int] = []

    def step(self, token_ids: Tensor, parents: Tensor) -> Tensor:
        self.item_of_row = self.item_of_row[parents]
        self.rows_at_step.append(len(parents))
        return self.tables[self.item_of_row, token_ids]


def table(rows: dict[int, dict[int, float]], vocab_size: int = 8) -> Tensor:
    """Probabilities of the next token after each token; what is not named is (nearly) impossible."""
    log_probs = torch.full((vocab_size, vocab_size), -1000.0)
    for last, following in rows.items():
        for token, probability in following.items():
            log_probs[last, token] = math.log(probability)
    return log_probs


def random_table(seed: int, vocab_size: int = 10) -> Tensor:
    logits = 2 * torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(dim=1)


def search(step: Step, n_items: int = 1, *, beams: int = 2, max_length: int = 6) -> list[list[Hypothesis]]:
    return beam_search(step, n_items, start_token_id=START, eos_token_id=EOS, max_length=max_length, beams=beams)


def test_a_good_sentence_behind_a_bad_first_word_is_found() -> None:
    model = Table(
        table({START: {2: 0.6, 3: 0.4}, 2: {4: 0.5, 5: 0.5}, 3: {6: 1.0}, 4: {EOS: 1}, 5: {EOS: 1}, 6: {EOS: 1}})
    )
    best = search(model.step)[0][0]
    assert best.token_ids == (3, 6, EOS)
    assert best.log_prob == pytest.approx(math.log(0.4))
    assert best.score == pytest.approx(math.log(0.4) / 3)  # start token and two others; the end token is not counted


def test_one_beam_is_greedy() -> None:
    model = Table(table({START: {2: 0.6, 3: 0.4}, 2: {4: 0.55, 5: 0.45}, 4: {EOS: 1.0}}))
    assert [found.token_ids for found in search(model.step, beams=1)[0]] == [(2, 4, EOS)]


def test_an_end_token_counts_only_among_the_first_beams() -> None:
    # After the start: 2, 3, then the end token third. Two beams rank four continuations, but only two may finish.
    rows = {START: {2: 0.4, 3: 0.35, EOS: 0.25}, 2: {4: 1.0}, 3: {5: 1.0}, 4: {EOS: 1.0}, 5: {EOS: 1.0}}
    assert [found.token_ids for found in search(Table(table(rows)).step)[0]] == [(2, 4, EOS), (3, 5, EOS)]
    rows[START] = {2: 0.6, 3: 0.04, EOS: 0.36}
    found = search(Table(table(rows)).step)[0]
    # Now it is second and finishes. Of the three that do, (3, 5) is the worst: ln(0.04) / 3 < ln(0.36) / 1.
    assert [each.token_ids for each in found] == [(2, 4, EOS), (EOS,)]
    assert found[1].score == pytest.approx(math.log(0.36))


def test_it_stops_as_soon_as_enough_are_finished() -> None:
    rows = {START: {EOS: 0.5, 2: 0.3, 3: 0.2}, 2: {EOS: 0.9, 4: 0.1}, 3: {4: 1.0}, 4: {4: 1.0}}
    model = Table(table(rows))
    assert [found.token_ids for found in search(model.step, max_length=50)[0]] == [(2, EOS), (EOS,)]
    assert model.rows_at_step == [1, 2]


def test_unfinished_sentences_compete_at_the_end() -> None:
    model = Table(table({START: {2: 0.9, 3: 0.1}, 2: {2: 1.0}, 3: {EOS: 1.0}}))
    found = search(model.step, max_length=5)[0]
    assert [each.token_ids for each in found] == [(2, 2, 2, 2), (3, EOS)]
    assert found[0].score == pytest.approx(math.log(0.9) / 5)
    assert found[1].score == pytest.approx(math.log(0.1) / 2)


def test_constraints_change_scores_but_not_log_probabilities() -> None:
    def forced_end(log_probs: Tensor, prefix: Tensor) -> Tensor:
        if prefix.shape[1] == 3:
            log_probs.fill_(NEVER)
            log_probs[:, EOS] = 0.0
        return log_probs

    log_probs = random_table(0)
    found = beam_search(
        Table(log_probs).step, 1, start_token_id=START, eos_token_id=EOS, max_length=4, constrain=forced_end
    )[0]
    for hypothesis in found:
        steps = [log_probs[last, token] for last, token in itertools.pairwise((START, *hypothesis.token_ids))]
        assert hypothesis.log_prob == pytest.approx(float(sum(steps)), abs=1e-5)
        if len(hypothesis.token_ids) == 3:
            assert hypothesis.score == pytest.approx(float(sum(steps[:2])) / 3, abs=1e-5)


def test_many_beams_find_the_best_of_all_sentences() -> None:
    log_probs = random_table(1, vocab_size=5)
    log_probs[:, START] = NEVER
    best_score = NEVER
    best: tuple[int, ...] = ()
    for length in range(4):
        for words in itertools.product((2, 3, 4), repeat=length):
            sentence = (START, *words, EOS)
            score = float(sum(log_probs[a, b] for a, b in itertools.pairwise(sentence))) / (length + 1)
            if score > best_score:
                best_score, best = score, sentence[1:]

    def forced_end(scores: Tensor, prefix: Tensor) -> Tensor:
        if prefix.shape[1] == 4:
            scores[:, 2:] = NEVER
        return scores

    wide = torch.full((200, 200), NEVER)  # room for 2 * beams continuations
    wide[:5, :5] = log_probs
    found = beam_search(
        Table(wide).step, 1, start_token_id=START, eos_token_id=EOS, max_length=5, beams=60, constrain=forced_end
    )[0]
    assert found[0].token_ids == best
    assert found[0].score == pytest.approx(best_score, abs=1e-5)


def test_a_batch_is_as_each_item_alone_and_done_items_cost_nothing() -> None:
    early = table({START: {EOS: 0.5, 2: 0.5}, 2: {EOS: 1.0}}, vocab_size=10)
    tables = [random_table(2), early, random_table(3), random_table(4)]
    model = Table(*tables)
    together = search(model.step, 4, beams=3, max_length=9)
    assert together == [search(Table(each).step, beams=3, max_length=9)[0] for each in tables]
    assert model.rows_at_step[0] == 4
    assert model.rows_at_step[-1] < 12


def test_a_tiny_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="too small for 6 beams"):
        search(Table(random_table(0)).step, beams=6)
