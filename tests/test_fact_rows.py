"""Facts as rows: each is read at a place of its own, as the sum of its words."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models

from aural.answering.fact_rows import FactRows, RememberedPrompts
from aural.answering.model import AudioLanguageModel
from aural.answering.recipes import tiny
from aural.answering.tokenizer import Tokenizers
from aural.answering.train import HEARING, _SayingFacts
from aural.networks.sentence_encoder import load_sentence_encoder
from aural.soundscapes.facts import PLACES, fact_sheet, sheet_of_labels
from aural.soundscapes.scene import Part, Scene

LENGTH = PLACES + 2


@pytest.fixture(scope="module")
def reader() -> Tokenizers:
    config = replace(tiny().model, prefix_length=LENGTH)
    return Tokenizers(config, Tokenizer(models.BPE()), sentences=load_sentence_encoder())


def row(reader: Tokenizers, words: str) -> torch.Tensor:
    tokens = reader.prompts([words])[0]
    return tokens[tokens.ne(0).any(1)].mean(0)


def test_rows_are_sums_of_names_and_what_is_said(reader: Tokenizers) -> None:
    sheet = fact_sheet(Scene(5.0, (Part("dog bark", ((0.0, 0.3), (0.5, 0.8)), counted=True),)))
    assert sheet is not None
    (rows,) = FactRows(reader)([sheet])
    name = row(reader, "barking dog")
    assert rows.shape == (LENGTH, 768)
    assert torch.allclose(rows[0], name) and torch.allclose(rows[2], name + row(reader, "two"))
    assert rows[PLACES:].eq(0).all()  # no second sound


def test_what_is_not_known_is_told_apart_from_what_is_not_there(reader: Tokenizers) -> None:
    sheets = [sheet_of_labels(["rain"]), fact_sheet(Scene(5.0, ()))]
    known = FactRows(reader).known([sheet for sheet in sheets if sheet is not None])
    assert known.shape == (2, LENGTH) and known[0].sum() == 1 and known[0, 0] and known[1].all()


def test_a_reader_gives_the_same_at_every_turn(reader: Tokenizers) -> None:
    sheets = [sheet_of_labels([label]) for label in ("rain", "dog bark", "rain")]
    rows = FactRows(reader)
    some = [sheet for sheet in sheets if sheet is not None]
    assert torch.equal(rows(some), torch.cat([rows([one]) for one in some]))
    prompts = RememberedPrompts(reader)
    assert torch.equal(prompts(["is there rain", "how many"]), prompts(["is there rain", "how many"]))
    assert torch.allclose(prompts(["how many"]), reader.prompts(["how many"]), atol=1e-2)  # kept in half


def test_a_mapper_learns_from_the_places_that_are_known() -> None:
    torch.manual_seed(0)
    config = tiny().model
    module = _SayingFacts(AudioLanguageModel(config)).train()
    assert config.conv_encoder is not None and config.sentences is not None
    batch = {
        "rows": torch.randn(2, config.audio_rows, config.conv_encoder.width),
        "facts": torch.randn(2, config.prefix_length, config.sentences.width),
        "known": torch.tensor([[True, False, True], [True, False, False]]),
    }
    loss = module(batch)["facts"]
    others = batch["facts"] + ~batch["known"][..., None] * 5.0
    assert torch.equal(module(batch | {"facts": others})["facts"], loss)
    assert not torch.equal(module(batch | {"facts": batch["facts"] + 5.0})["facts"], loss)
    loss.backward()
    learned = {name.removeprefix("model.") for name, p in module.named_parameters() if p.grad is not None}
    assert learned and all(name.startswith(HEARING) for name in learned)
