"""Writing codes: the cache, guidance, seeds, continuation, windows, streaming, and the choice of a code."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from aural.text_to_audio.decoding import DecodingConfig, Text, allowed, choose, generate, stream
from aural.text_to_audio.delay_pattern import delay, undelay
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel

CONFIG = GenerationConfig(
    width=12, layers=2, heads=3, ffn_dim=20, codebook_size=10, delays=(0, 1, 2), text_width=7, t5=None, seconds=0.2
)
GREEDY = DecodingConfig(temperature=0.0)


def language_model() -> TokenLanguageModel:
    model = TokenLanguageModel(CONFIG)
    model.initialise(torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        parameter.data *= 2.0  # so that texts and codes make a difference
    return model.eval()


MODEL = language_model()


def texts(items: int = 3, seed: int = 1) -> Text:
    mask = torch.arange(4) < torch.tensor([4, 1, 2])[:items, None]
    states = torch.randn(3, 4, CONFIG.text_width, generator=torch.Generator().manual_seed(seed))[:items]
    return Text(MODEL.condition(states, mask).detach(), mask)


def codes(items: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, CONFIG.codebook_size, (items, CONFIG.codebooks, frames), generator=generator)


@torch.no_grad()
def step_by_step(text: Text, frames: int, guidance: float, negative: Text | None, prompt: Tensor) -> Tensor:
    """Greedy generation that reads everything again at each step, once with the text and once without it."""
    n_known = prompt.shape[2]
    unknown = torch.full((*prompt.shape[:2], frames - n_known), -1)
    sequence, mask = delay(torch.cat((prompt, unknown), dim=2), CONFIG.delays, CONFIG.special, full=True)
    for step in range(n_known + 1, sequence.shape[2]):
        towards = MODEL.logits(MODEL(sequence[:, :, :step], text.memory, text.mask))[:, :, -1]
        other = (None, None) if negative is None else (negative.memory, negative.mask)
        away = MODEL.logits(MODEL(sequence[:, :, :step], *other))[:, :, -1]
        best = (away + guidance * (towards - away)).argmax(dim=2)
        unwritten = mask[:, step] & (sequence[:, :, step] == -1)
        sequence[:, :, step] = torch.where(unwritten, best, sequence[:, :, step])
    return undelay(sequence[:, :, 1:], CONFIG.delays, frames)[0]


@pytest.mark.parametrize("n_known", [0, 1, 4])
@pytest.mark.parametrize("negative", [False, True])
def test_the_cache_changes_nothing(n_known: int, negative: bool) -> None:
    text, prompt = texts(), codes(3, n_known)
    against = texts(seed=5) if negative else None
    expected = step_by_step(text, 7, 3.0, against, prompt)
    written = generate(MODEL, text, 7, GREEDY, seeds=range(3), negative=against, prompt=prompt)
    assert torch.equal(written, expected) and torch.equal(written[:, :, :n_known], prompt)


def test_guidance() -> None:
    text = texts()
    weak, strong = (generate(MODEL, text, 9, replace(GREEDY, guidance=g), seeds=range(3)) for g in (1.0, 6.0))
    assert not torch.equal(weak, strong)
    # Away from the text itself there is nowhere to go.
    assert torch.equal(generate(MODEL, text, 9, GREEDY, seeds=range(3), negative=text), weak)
    # Of no text, and of one that says nothing, the same is made.
    silent = Text(torch.zeros_like(text.memory), torch.zeros_like(text.mask))
    without = generate(MODEL, None, 9, GREEDY, seeds=range(3))
    assert torch.equal(generate(MODEL, silent, 9, GREEDY, seeds=range(3)), without)
    one = Text(silent.memory[:1], silent.mask[:1])
    assert torch.equal(generate(MODEL, text, 9, GREEDY, seeds=range(3), negative=one),
                       generate(MODEL, text, 9, GREEDY, seeds=range(3)))  # fmt: skip


def test_an_item_depends_on_its_seed_and_not_on_its_company() -> None:
    text, seeds = texts(), [7, 8, 7]
    together = generate(MODEL, text, 12, seeds=seeds)
    for i, seed in enumerate(seeds):
        length = int(text.mask[i].sum())
        own = Text(text.memory[i : i + 1, :length], text.mask[i : i + 1, :length])
        assert torch.equal(generate(MODEL, own, 12, seeds=[seed]), together[i : i + 1])
    others = generate(MODEL, text, 12, seeds=[8, 9, 7])
    assert not torch.equal(others[:2], together[:2]) and torch.equal(others[2], together[2])
    shorter, last = generate(MODEL, text, 9, seeds=seeds), max(CONFIG.delays)
    assert torch.equal(shorter[:, :, :-last], together[:, :, : 9 - last])


def test_going_on_from_the_own_beginning_makes_the_same() -> None:
    """Codes are drawn by their place, so it does not matter where writing began."""
    text = texts()
    whole = generate(MODEL, text, 9, seeds=range(3))
    for n_known in (1, 5, 9):
        assert torch.equal(generate(MODEL, text, 9, seeds=range(3), prompt=whole[:, :, :n_known]), whole)


@pytest.mark.parametrize(("frames", "window", "stride"), [(11, 5, 2), (12, 5, 5), (6, 5, 1), (5, 5, 2), (14, 10, None)])
def test_windows_one_after_the_other(frames: int, window: int, stride: int | None) -> None:
    text, step = texts(), stride or window // 5
    expected = generate(MODEL, text, min(frames, window), GREEDY, seeds=range(3))
    start = 0
    while expected.shape[2] < frames:
        start += step
        length = min(window, frames - start)
        overlap = expected[:, :, start:]
        own = generate(MODEL, text, length, GREEDY, seeds=range(3), prompt=overlap)
        expected = torch.cat((expected, own[:, :, overlap.shape[2] :]), dim=2)
    assert CONFIG.window_frames == 10  # what the case without a stride does not say either
    config = GREEDY if stride is None else replace(GREEDY, window=window, stride=stride)
    assert torch.equal(generate(MODEL, text, frames, config, seeds=range(3)), expected)


def test_frames_come_as_soon_as_they_are_whole() -> None:
    steps: list[int] = []
    handle = MODEL.out_norm.register_forward_hook(lambda *_: steps.append(1))
    try:
        written = []
        for frame in stream(MODEL, texts(), 6, seeds=range(3)):
            assert frame.shape == (3, 3, 1) and len(steps) == len(written) + 3  # the largest delay is 2
            written.append(frame)
        assert len(steps) == 6 + 2
        next(stream(MODEL, texts(), 10**6, seeds=range(3)))  # who stops reading stops the writing
        assert len(steps) == 6 + 2 + 3
    finally:
        handle.remove()
    assert torch.equal(torch.cat(written, dim=2), generate(MODEL, texts(), 6, seeds=range(3)))


def test_which_codes_may_come() -> None:
    logits = torch.tensor([[2.0, 1.0, 2.0, 1.0, 0.0]])
    kept = allowed(logits, DecodingConfig(top_k=3)).isfinite()
    assert kept.tolist() == [[True, True, True, True, False]]  # of equals all stay
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    for p, n_kept in ((0.4, 1), (0.6, 2), (0.81, 3), (1.0, 4)):
        config = DecodingConfig(top_k=1, top_p=p)  # of the two only top_p counts
        assert int(allowed(probabilities.log(), config).isfinite().sum()) == n_kept
    cold = allowed(logits, DecodingConfig(temperature=0.5, top_k=None))
    torch.testing.assert_close(cold, 2 * logits)
    draws = torch.tensor([[0.0, 0.499, 0.501, 0.999]], dtype=torch.float64)
    even = torch.tensor([0.0, 0.0, -20.0]).expand(1, 4, 3)
    assert choose(even, draws, DecodingConfig(top_k=2)).tolist() == [[0, 0, 1, 1]]
    assert choose(even.flip(2), draws, GREEDY).tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [0, 1]}, "2 seeds for 3 texts"),
        ({"prompt": codes(3, 11)}, "longer than the window of 10"),
        ({"prompt": codes(2, 1)}, "does not fit 3 items"),
        ({"config": DecodingConfig(stride=11)}, "between 1 and the window 10"),
        ({"frames": 0}, "at least 1"),
        ({"negative": texts(2)}, "one for all items"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"frames": 12, "seeds": range(3)} | arguments
    with pytest.raises(ValueError, match=message):
        generate(MODEL, texts(), **given)


def test_impossible_rules_and_a_model_in_training_are_refused() -> None:
    for wrong, message in (
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"window": 0}, "window"),
    ):
        with pytest.raises(ValueError, match=message):
            DecodingConfig(**wrong)  # type: ignore[arg-type]
    learning = TokenLanguageModel(CONFIG)
    with pytest.raises(ValueError, match="eval"):
        generate(learning, None, 3)
