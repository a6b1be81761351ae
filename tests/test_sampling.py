"""The rules of sampling by hand and against transformers' processors, and the draw."""

import pytest
import torch
from torch import Tensor
from transformers import (
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from aural.sampling import (
    SamplingConfig,
    forced_end_,
    min_length_,
    no_repeat_ngram_,
    sample,
    shortlist,
    top_k,
    top_p,
    uniforms,
    warp,
)

NEVER = float("-inf")
EOS = 2
PAPER = SamplingConfig(no_repeat_ngram=3, min_length=5, max_length=30, temperature=0.5, top_k=50, top_p=0.95)


def forbidden(logits: Tensor) -> list[list[int]]:
    return [(row == NEVER).nonzero()[:, 0].tolist() for row in logits]


def test_no_repeat_ngram_by_hand() -> None:
    prefix = torch.tensor([[2, 5, 6, 7, 5, 6], [2, 5, 6, 5, 6, 8], [5, 6, 7, 5, 6, 5]])
    assert forbidden(no_repeat_ngram_(torch.zeros(3, 10), prefix, 3)) == [[7], [], []]
    assert forbidden(no_repeat_ngram_(torch.zeros(3, 10), prefix, 2)) == [[7], [], [6]]
    assert forbidden(no_repeat_ngram_(torch.zeros(1, 10), prefix[:1], 1)) == [[2, 5, 6, 7]]
    assert forbidden(no_repeat_ngram_(torch.zeros(1, 10), prefix[:1, :2], 3)) == [[]]
    assert forbidden(no_repeat_ngram_(torch.zeros(1, 10), prefix[:1], 0)) == [[]]
    several = torch.tensor([[4, 4, 1, 4, 4, 3, 4, 4]])
    assert forbidden(no_repeat_ngram_(torch.zeros(1, 10), several, 3)) == [[1, 3]]


def test_lengths_count_the_start_token() -> None:
    assert forbidden(min_length_(torch.zeros(1, 4), 4, 5, EOS)) == [[EOS]]
    assert forbidden(min_length_(torch.zeros(1, 4), 5, 5, EOS)) == [[]]
    assert forbidden(forced_end_(torch.ones(1, 4), 28, 30, EOS)) == [[]]
    assert forced_end_(torch.ones(1, 4), 29, 30, EOS).tolist() == [[NEVER, NEVER, 0.0, NEVER]]
    assert forbidden(forced_end_(torch.ones(1, 4), 1000, None, EOS)) == [[]]


def test_top_k_keeps_ties() -> None:
    assert forbidden(top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2)) == [[0]]
    assert forbidden(top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 9)) == [[]]


def test_top_p_keeps_the_token_that_exceeds_p() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.25, 0.05]]).log()
    assert forbidden(top_p(logits, 0.45)) == [[0, 2, 3]]
    assert forbidden(top_p(logits, 0.6)) == [[0, 3]]
    assert forbidden(top_p(logits, 0.9)) == [[3]]
    assert forbidden(top_p(logits, 1e-9)) == [[0, 2, 3]]
    assert forbidden(top_p(logits, 1.0)) == [[]]


@pytest.mark.parametrize("length", [1, 4, 5, 12, 28, 29])
def test_warp_equals_transformers(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    logits = torch.randn(6, 200, generator=generator) * 3
    prefix = torch.randint(3, 6, (6, length), generator=generator)
    prefix[:, 0] = EOS
    theirs = LogitsProcessorList(
        [
            NoRepeatNGramLogitsProcessor(3),
            MinLengthLogitsProcessor(5, EOS),
            ForcedEOSTokenLogitsProcessor(30, EOS),
            TemperatureLogitsWarper(0.5),
            TopKLogitsWarper(50),
            TopPLogitsWarper(0.95),
        ]
    )
    ours = warp(logits, prefix, PAPER, EOS)
    torch.testing.assert_close(ours, theirs(prefix, logits.clone()), atol=0, rtol=0)


@pytest.mark.parametrize("length", [1, 4, 12, 29])
@pytest.mark.parametrize(
    "config",
    [
        PAPER,
        SamplingConfig(top_k=250),
        SamplingConfig(top_k=1),
        SamplingConfig(top_p=0.8, temperature=1.3),
        SamplingConfig(),
        SamplingConfig(no_repeat_ngram=2, min_length=20, max_length=40, top_k=3),
    ],
)
def test_shortlist_is_the_finite_part_of_warp(config: SamplingConfig, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    logits = torch.randn(5, 300, generator=generator) * 2
    prefix = torch.randint(3, 6, (5, length), generator=generator)
    values, token_ids = shortlist(logits.clone(), prefix, config, EOS)
    assert (values.diff(dim=1).nan_to_num(0.0) <= 0).all()
    everywhere = torch.full_like(logits, NEVER).scatter(1, token_ids, values)
    torch.testing.assert_close(everywhere, warp(logits, prefix, config, EOS))


def test_warp_leaves_its_input_and_shortlist_the_allowed_entries() -> None:
    logits = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    before, prefix = logits.clone(), torch.tensor([[2, 5, 6, 7, 5, 6]] * 4)
    warp(logits, prefix, PAPER, EOS)
    assert torch.equal(logits, before)
    shortlist(logits, prefix, PAPER, EOS)
    assert (logits != before).sum() == 4  # token 7 in each row
    assert torch.equal(logits[:, 8:], before[:, 8:])


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).log()
    n = 40000
    drawn = sample(logits.expand(n, -1), uniforms(0, (n,)))
    frequency = torch.bincount(drawn, minlength=4) / n
    torch.testing.assert_close(frequency, torch.tensor([0.1, 0.0, 0.6, 0.3]), atol=0.01, rtol=0)


def test_the_impossible_is_never_drawn() -> None:
    logits = torch.tensor([[NEVER, 0.0, NEVER, 1.0, NEVER]])
    almost_one = 1 - 2**-53
    uniform = torch.tensor([0.0, 1e-300, 0.2, 0.9, almost_one], dtype=torch.float64)
    assert sample(logits.expand(5, -1), uniform).tolist() == [1, 1, 1, 3, 3]
    tail = torch.full((1, 1000), -40.0)
    tail[0, 0] = 0.0
    tail[0, 600:] = NEVER
    assert int(sample(tail, torch.tensor([almost_one], dtype=torch.float64))) < 600


def test_numbers_depend_on_the_seed_alone_and_begin_alike() -> None:
    assert torch.equal(uniforms(3, (7, 5)), uniforms(3, (50, 5))[:7])
    assert not torch.equal(uniforms(3, (7, 5)), uniforms(4, (7, 5)))
    state = torch.random.get_rng_state()
    uniforms(0, (3,))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"top_p": 1.5}, "top_p must be in"),
        ({"max_length": 1}, "max_length must be at least 2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)  # type: ignore[arg-type]
