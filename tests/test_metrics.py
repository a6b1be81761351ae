"""Caption metrics: stored answers of the reference tools, cases done by hand, and what holds for any caption."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from aural.errors import UsageError
from aural.manifest import Event
from aural.metrics.bleu import bleu
from aural.metrics.bootstrap import interval
from aural.metrics.caption_scores import caption_scores
from aural.metrics.cider_d import cider_d
from aural.metrics.events import Mention, Reading, counts_right, f1, label_scores, order_of, order_right
from aural.metrics.pairs import Scores, Words
from aural.metrics.ptb_tokenizer import PUNCTUATION, tokenize
from aural.metrics.rouge_l import rouge_l
from aural.metrics.spider_fl import spider, spider_fl

GOLDEN = Path(__file__).parent / "golden" / "metrics"
TOKENS: dict[str, list[str]] = json.loads((GOLDEN / "tokens.json").read_text(encoding="utf-8"))
SETS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "scores.json").read_text(encoding="utf-8"))

sentences = st.lists(st.sampled_from(tokenize("a dog barks and rain falls on the roof")), min_size=1, max_size=12)
sets_of_captions = st.lists(
    st.tuples(sentences, st.lists(sentences, min_size=1, max_size=4)), min_size=2, max_size=6
).map(lambda pairs: ([pair[0] for pair in pairs], [pair[1] for pair in pairs]))


# ------------------------------------------------------------------------------------------------------------ tokeniser


def test_words_are_those_of_the_reference() -> None:
    assert len(TOKENS) >= 300
    assert {caption: words for caption in TOKENS if (words := tokenize(caption)) != TOKENS[caption]} == {}


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog doesn't bark; it's asleep!", "a dog does n't bark it 's asleep"),
        ("a (very) loud 'bang'...", "a -lrb- very -rrb- loud bang"),
        ("Mr. Bell can cannot, T.V. and/or e.g. 5%", "mr. bell can can not t.v. and/or e.g. 5 %"),
        ("a high-pitched tone — then nothing", "a high-pitched tone then nothing"),
    ],
)
def test_words_by_hand(caption: str, words: str) -> None:
    assert tokenize(caption) == words.split()


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_gives_words(text: str) -> None:
    words = tokenize(text)
    assert not PUNCTUATION & set(words)
    assert all(word and not set(word) & set(" \t\n") for word in words)


@pytest.mark.parametrize("one", ["a", ".", "-", "a.", "1,", "'", "a'", "<a ", "a@", "www.", "_", "(1)-", "a-", "\xad"])
def test_long_runs_of_one_thing_are_read(one: str) -> None:
    tokenize(one * 400)


# ------------------------------------------------------------------------------------------------- stored and by hand


@pytest.mark.parametrize("name", SETS)
def test_scores_are_those_of_the_reference(name: str) -> None:
    one = SETS[name]
    words = [tokenize(caption) for caption in one["candidates"]]
    others = [[tokenize(caption) for caption in those] for those in one["references"]]
    scores = {f"bleu_{n}": score for n, score in enumerate(bleu(words, others), start=1)}
    scores |= {"rouge_l": rouge_l(words, others), "cider_d": cider_d(words, others)}
    assert scores.keys() == one["expected"].keys()
    for metric, score in scores.items():
        expected = one["expected"][metric]
        assert score.corpus == pytest.approx(expected["corpus"], abs=1e-6), metric
        assert score.per_item == pytest.approx(expected["per_item"], abs=1e-6), metric


def test_bleu_by_hand() -> None:
    # Three of four words hit, of three pairs one, and the closest reference is a word longer.
    scores = bleu([tokenize("a dog barks loudly")], [[tokenize("a dog is barking loudly")]])
    penalty = math.exp(1 - 5 / 4)
    assert scores[0].corpus == pytest.approx(3 / 4 * penalty)
    assert scores[1].corpus == pytest.approx(math.sqrt(3 / 4 * 1 / 3) * penalty)
    assert scores[0].per_item == pytest.approx([scores[0].corpus])


def test_bleu_of_a_corpus_is_of_sums_and_not_the_mean() -> None:
    first = bleu([tokenize("a a a a"), ["b"]], [[tokenize("c c c c")], [["b"]]])[0]
    assert first.per_item == pytest.approx([0, 1], abs=1e-6)
    assert first.corpus == pytest.approx(1 / 5, abs=1e-6)


def test_rouge_l_by_hand() -> None:
    # The first reference gives the precision 2/2, the second the recall 1/1.
    score = rouge_l([["dog", "barks"]], [[["dog", "now", "barks"], ["barks"]]]).corpus
    assert score == pytest.approx(1.0)
    alone = rouge_l([["dog", "barks"]], [[["dog", "now", "barks"]]]).corpus
    assert alone == pytest.approx((1 + 1.44) * 1 * (2 / 3) / (2 / 3 + 1.44 * 1))


def test_cider_d_by_hand() -> None:
    # Only runs of one word exist, each in one of two items: a mean over n of 1/4 of the cosine.
    score = cider_d([["dog"], ["cat"]], [[["dog"]], [["rain"]]])
    assert score.per_item == pytest.approx([10 / 4, 0])
    # "barks" twice where once is meant: clipped to 1 · 1 over √5 · √2; a pair more than the reference.
    twice = cider_d([["dog", "barks", "barks"], ["x"]], [[["dog", "barks"]], [["y"]]]).per_item[0]
    cosines = (1 + 1) / math.sqrt(5 * 2) + 1 / math.sqrt(2 * 1)
    assert twice == pytest.approx(10 * cosines / 4 * math.exp(-1 / 72))


def test_cider_d_of_one_item_is_zero() -> None:
    assert cider_d([["dog"]], [[["dog"]]]) == Scores(0.0, [0.0])


def test_spider_by_hand() -> None:
    assert spider([1.0, 0.2], [0.4, 0.0]) == Scores(pytest.approx(0.4), pytest.approx([0.7, 0.1]))


def test_spider_fl_takes_nine_tenths_of_captions_that_are_surely_wrong() -> None:
    score = spider_fl([1.0, 0.2, 0.6], [0.4, 0.0, 0.2], [0.95, 0.9, 0.0])
    assert score.per_item == pytest.approx([0.07, 0.1, 0.4])
    assert score.corpus == pytest.approx(0.19)


@pytest.mark.parametrize(
    ("cider", "spice", "errors"),
    [([], [], []), ([1.0], [], [0.0]), ([1.0], [1.5], [0.0]), ([1.0], [math.nan], [0.0]), ([1.0], [0.5], [])],
)
def test_spider_fl_refuses(cider: list[float], spice: list[float], errors: list[float]) -> None:
    with pytest.raises(UsageError):
        spider_fl(cider, spice, errors)


# ----------------------------------------------------------------------------------------------------- for any caption


@given(sets_of_captions)
@settings(deadline=None, max_examples=50)
def test_scores_stay_in_their_bounds(pairs: tuple[list[Words], list[list[Words]]]) -> None:
    for score, most in [*((order, 1.0) for order in bleu(*pairs)), (rouge_l(*pairs), 1.0), (cider_d(*pairs), 10.0)]:
        assert all(0 <= value <= most + 1e-9 for value in (score.corpus, *score.per_item))


@given(st.lists(sentences.filter(lambda words: len(words) >= 4), min_size=2, max_size=6, unique_by=tuple))
@settings(deadline=None, max_examples=50)
def test_no_caption_is_better_than_the_reference_itself(captions: list[Words]) -> None:
    references = [[words] for words in captions]
    assert [order.corpus for order in bleu(captions, references)] == pytest.approx([1] * 4, abs=1e-6)
    assert rouge_l(captions, references).per_item == pytest.approx([1] * len(captions))
    own = cider_d(captions, references).per_item
    turned = cider_d([*captions[1:], captions[0]], references).per_item
    assert all(one + 1e-9 >= other for one, other in zip(own, turned, strict=True))


def test_cider_d_of_identical_captions_is_ten_where_every_run_tells_items_apart() -> None:
    captions = [tokenize("a dog barks twice"), tokenize("rain falls on roofs")]
    assert cider_d(captions, [[words] * 3 for words in captions]).per_item == pytest.approx([10, 10])


@given(sets_of_captions, st.randoms())
@settings(deadline=None, max_examples=30)
def test_the_order_of_items_and_references_does_not_matter(
    pairs: tuple[list[Words], list[list[Words]]], draw: Any
) -> None:
    places = list(range(len(pairs[0])))
    draw.shuffle(places)
    mixed = [pairs[0][i] for i in places], [draw.sample(pairs[1][i], len(pairs[1][i])) for i in places]
    for metric in (lambda *given: bleu(*given)[3], rouge_l, cider_d):
        before, after = metric(*pairs), metric(*mixed)
        assert after.corpus == pytest.approx(before.corpus)
        assert after.per_item == pytest.approx([before.per_item[i] for i in places])


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d])
@pytest.mark.parametrize(
    ("candidates", "references", "says"),
    [
        ([], [], "no caption"),
        ([["a"]], [], "references for 0"),
        ([["a"]], [[]], "no list of references"),
        ([["a"]], ["a"], "no list of references"),
        (["a dog"], [[["a"]]], "text, not words"),
        ([["a"]], [["a dog"]], "text, not words"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric: Any, candidates: Any, references: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        metric(candidates, references)


# ---------------------------------------------------------------------------------------------------------- all at once


def test_caption_scores_carry_their_protocol_and_leave_spider_out() -> None:
    one = SETS["clips_a"]
    groups = [i // 2 for i in range(len(one["candidates"]))]
    scores = caption_scores(one["candidates"], one["references"], groups=groups)
    for metric, expected in one["expected"].items():
        assert scores[metric] == pytest.approx(expected["corpus"], abs=1e-6)
        assert scores["per_item"][metric] == pytest.approx(expected["per_item"], abs=1e-6)
    low, high = scores["cider_d_interval_95"]
    assert low < scores["cider_d"] < high
    assert "spider" not in scores and "spider_fl" not in scores and "SPIDEr" in scores["left_out"]["spice"]
    protocol = scores["protocol"]
    assert (protocol["n_items"], protocol["n_groups"], protocol["n_references"]) == (40, 20, [5, 5])
    json.dumps(scores)


def test_caption_scores_take_spice_from_outside() -> None:
    captions, references = ["a dog barks", "rain falls"], [["a dog barks loudly"], ["it rains"]]
    scores = caption_scores(captions, references, spice=[0.5, 0.1])
    assert scores["spider"] == pytest.approx((scores["cider_d"] + 0.3) / 2)
    assert list(scores["left_out"]) == ["spider_fl"]
    scores = caption_scores(captions, references, spice=[0.5, 0.1], error_probability=[0.0, 1.0])
    whole, cut = scores["per_item"]["spider_fl"]
    assert [whole, 10 * cut] == pytest.approx(scores["per_item"]["spider"])
    assert scores["left_out"] == {}


@pytest.mark.parametrize(
    ("candidates", "references", "groups"),
    [
        (["a"], [["a"]], None),
        (["a", "b"], ["a", "b"], None),
        (["a", "b"], [["a"], ["b"]], [0]),
        (["a", "b"], [["a"]], None),
    ],
)
def test_caption_scores_refuse(candidates: list[str], references: Any, groups: Any) -> None:
    with pytest.raises(UsageError):
        caption_scores(candidates, references, groups=groups)


# ------------------------------------------------------------------------------------------------------------ intervals


def test_interval_draws_whole_groups() -> None:
    values = [1.0] * 8 + [0.0] * 8
    alone = interval(values, range(16))
    together = interval(values, [i // 4 for i in range(16)])
    assert together[0] < alone[0] < 0.5 < alone[1] < together[1]
    assert interval(values, range(16)) == alone
    assert interval(values, ["all"] * 16) == [0.5, 0.5]
    assert interval([3.0, 3.0], [0, 1]) == [3.0, 3.0]


def test_interval_of_ratios() -> None:
    # Two hits of four in one recording, one of one in the other: the draws are 1/2, 3/5 and 1.
    assert interval([2, 1], ["a", "b"], weights=[4, 1]) == [0.5, 1.0]


@pytest.mark.parametrize(("values", "groups"), [([], []), ([1.0], [0, 1])])
def test_interval_refuses(values: list[float], groups: list[int]) -> None:
    with pytest.raises(ValueError, match="one group for each value"):
        interval(values, groups)


# --------------------------------------------------------------------------------------------------------------- events


def reading(*labels: str, order: tuple[tuple[str, str], ...] = (), **counts: int) -> Reading:
    mentions = (*(Mention(label, None) for label in labels), *(Mention(*pair) for pair in counts.items()))
    return Reading(mentions, order)


def test_label_scores_by_hand() -> None:
    scores = label_scores([reading("dog", "rain"), reading("cat")], [("dog",), ("cat", "bell", "siren")])
    assert (scores["precision"], scores["recall"], scores["n"]) == (pytest.approx(2 / 3), 0.5, 2)
    assert scores["f1"] == pytest.approx(2 * 2 / 7)
    assert scores["per_item"] == pytest.approx([2 / 3, 1 / 2])
    assert f1(0, 0, 0) == 1 and f1(0, 1, 0) == 0
    with pytest.raises(ValueError, match="one reading for each truth"):
        label_scores([], [])


def test_order_is_told_where_one_sound_is_over_before_the_other() -> None:
    barks = [Event("dog", 0.0, 0.5), Event("dog", 1.0, 1.5)]
    assert order_of([Event("bell", 1.5, 2.0), *barks]) == ("dog", "bell")
    assert order_of([Event("bell", 1.2, 2.0), *barks]) is None
    assert order_of([Event("bell", 0.6, 0.9), *barks]) is None
    assert order_of(barks) is None
    assert order_of([*barks, Event("bell", 2.0, 3.0), Event("rain", 3.0, 4.0)]) is None


def test_order_is_right_if_stated_and_not_its_reverse() -> None:
    events = [Event("dog", 0.0, 0.5), Event("bell", 1.0, 2.0)]
    forth, back = ("dog", "bell"), ("bell", "dog")
    assert order_right(reading("dog", "bell", order=(forth,)), events) is True
    assert order_right(reading("dog", "bell", order=(back,)), events) is False
    assert order_right(reading("dog", "bell", order=(forth, back)), events) is False
    assert order_right(reading("dog", "bell"), events) is False
    assert order_right(reading("dog", order=(forth,)), events[:1]) is None


def test_counts_are_right_if_stated_and_equal() -> None:
    events = [Event("dog", i, i + 0.5) for i in range(3)] + [Event("bell", 5.0, 6.0)]
    events += [Event("rain", 0.0, 9.0, single=False)]
    assert counts_right(reading("rain", dog=3, bell=2), events) == {"dog": (3, True), "bell": (1, False)}
    assert counts_right(reading("dog"), events) == {"dog": (3, False), "bell": (1, False)}
