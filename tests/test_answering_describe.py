"""Descriptions, over the small stand-in for the released model: as the original's, with its defects mended."""

from pathlib import Path

import parity_pengi
import pytest
import torch
from parity import read_json
from safetensors.torch import load_file
from torch import Tensor

from aural.answering.answer import AnsweringModel, answer
from aural.answering.decoding import beam
from aural.answering.describe import PROMPTS, describe
from aural.errors import UsageError

GOLDEN = Path(__file__).parent / "golden" / "pengi"
RATE = 4000


@pytest.fixture(scope="module")
def model() -> AnsweringModel:
    network, tokenizers = parity_pengi.load(GOLDEN, GOLDEN)
    return AnsweringModel("small", network, tokenizers, torch.device("cpu"), normalize_prompt=False)


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return load_file(GOLDEN / "io.safetensors")


def sounds(io: dict[str, Tensor]) -> list[tuple[Tensor, int]]:
    return [(io[name], RATE) for name in sorted(io) if name.startswith("wave")]


def released(model: AnsweringModel, sound: tuple[Tensor, int], max_tokens: int) -> str:
    """``describe`` as it was (section 12 of the reference): texts with all that the search has left at their ends."""
    heard = model.hear(list(model.windows(sound)))
    texts = []
    for prompt in PROMPTS:
        found = beam(model.model, model.prefix(heard, model.read([prompt])), beams=4, max_tokens=max_tokens)
        texts.append(model.tokenizers.gpt2.decode(list(found[0][0].token_ids), skip_special_tokens=False))
    return texts[0] + texts[1] + "this audio contains sound events: " + texts[2][:-1] + "."


def test_descriptions_are_those_of_the_released_code(model: AnsweringModel, io: dict[str, Tensor]) -> None:
    for sound in sounds(io):
        described = describe(sound, model=model, beams=4, max_tokens=10)
        assert described.text == released(model, sound, 10)
    (place,) = [i for i, prompt in enumerate(read_json(GOLDEN / "config.json")["prompts"]) if prompt == PROMPTS[2]]
    tokens = [token for token in io["beam4.tokens"][place, 0].tolist() if token >= 0]
    named = model.tokenizers.text_of(tokens)
    described = describe(sounds(io), model=model, beams=4, max_tokens=10)[place]
    assert named and described.text.endswith(f" this audio contains sound events: {named}.")


def test_answers_that_are_cut_off_keep_apart_and_whole(model: AnsweringModel, io: dict[str, Tensor]) -> None:
    sound = sounds(io)[0]
    described = describe(sound, model=model, beams=4, max_tokens=2).text
    caption, metadata, *_, last = described.split(" ")
    assert described == f"{caption} {metadata} this audio contains sound events: {last}" and last.endswith(".")
    assert released(model, sound, 2) == f"{caption}{metadata}this audio contains sound events: {last[:-2]}."


def test_options_are_those_of_answers(model: AnsweringModel, io: dict[str, Tensor]) -> None:
    sound = sounds(io)[0]
    parts = [answer(sound, prompt, model=model, max_tokens=4, method="greedy") for prompt in PROMPTS]
    described = describe(sound, model=model, max_tokens=4, method="greedy")
    assert described.score == pytest.approx(sum(part.score for part in parts) / 3, abs=1e-6)
    halves = describe(sound, model=model, max_tokens=4, windows=0.5)
    assert [(half.start, half.end) for half in halves] == [(0.0, 0.5), (0.5, 1.0)]
    with pytest.raises(UsageError, match="0 beams"):
        describe(sound, model=model, beams=0)
