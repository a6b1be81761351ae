"""Decoding: the published rules against a plain search without cache, batches, items that leave, sampling."""

import math

import pengi_models
import pytest
import torch
from torch import Tensor

from aural.answering.decoding import Writer, beam, greedy, sample
from aural.answering.model import AudioLanguageModel, Gpt2Config
from aural.beam_search import Hypothesis
from aural.sampling import SamplingConfig

STOP = 220


def next_log_probs(model: AudioLanguageModel, prefix: Tensor, tokens: list[int], temperature: float = 1.0) -> Tensor:
    """(V,) after a prefix (Q, E) and tokens, by a whole pass of the library's own GPT-2."""
    ids = torch.tensor([tokens], dtype=torch.long)
    rows = torch.cat((prefix[None], model.gpt2.transformer.wte(ids)), dim=1)
    with torch.inference_mode():
        return (model.gpt2(inputs_embeds=rows).logits[0, -1] / temperature).log_softmax(dim=0)


def plain_beam(
    model: AudioLanguageModel, prefix: Tensor, beams: int, max_tokens: int, temperature: float
) -> list[tuple[list[int], float]]:
    """The rules of facts 11 for one item (Q, E), word by word: tokens up to the stop token, and the score."""
    first = next_log_probs(model, prefix, [], temperature).topk(beams)
    found = [([token], total, 1) for total, token in zip(first.values.tolist(), first.indices.tolist(), strict=True)]
    for _ in range(1, max_tokens):
        if all(STOP in tokens for tokens, _, _ in found):
            break
        candidates = []
        for tokens, total, n in found:
            if STOP in tokens:
                candidates.append((total / n, [*tokens, 0], total, n))
                continue
            for token, gain in enumerate(next_log_probs(model, prefix, tokens, temperature).tolist()):
                candidates.append(((total + gain) / (n + 1), [*tokens, token], total + gain, n + 1))
        candidates.sort(key=lambda candidate: -candidate[0])
        found = [(tokens, total, n) for _, tokens, total, n in candidates[:beams]]
    return sorted(((tokens[:n], total / n) for tokens, total, n in found), key=lambda answer: -answer[1])


def same(ours: list[Hypothesis], expected: list[tuple[list[int], float]]) -> None:
    assert [list(answer.token_ids) for answer in ours] == [tokens for tokens, _ in expected]
    assert [answer.score for answer in ours] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.parametrize(
    ("beams", "max_tokens", "temperature", "sizes"),
    [
        (1, 8, 1.0, pengi_models.GPT2),
        (4, 9, 1.0, pengi_models.GPT2),
        (3, 7, 0.6, Gpt2Config(vocab_size=231, width=20, layers=3, heads=2, max_positions=24)),
        (2, 1, 1.0, pengi_models.GPT2),
    ],
)
def test_beam_search_finds_what_a_plain_search_finds(
    beams: int, max_tokens: int, temperature: float, sizes: Gpt2Config
) -> None:
    model = pengi_models.model(gpt2=sizes)
    prefix = pengi_models.prefixes(model, 5)
    found = beam(model, prefix, beams=beams, max_tokens=max_tokens, temperature=temperature)
    lengths = {len(answer.token_ids) for own in found for answer in own}
    assert max_tokens == 1 or len(lengths) > 1, "answers of one length show little"
    for own, item in zip(found, prefix, strict=True):
        same(own, plain_beam(model, item, beams, max_tokens, temperature))
    assert [own[0].log_prob / len(own[0].token_ids) for own in found] == pytest.approx([own[0].score for own in found])


def test_prefixes_of_several_lengths_share_a_batch() -> None:
    model = pengi_models.model()
    prefix, lengths = pengi_models.prefixes(model, 4, 9), [9, 4, 7, 1]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    together = beam(model, prefix, mask, max_tokens=8)
    for own, item, length in zip(together, prefix, lengths, strict=True):
        same(own, plain_beam(model, item[:length], 3, 8, 1.0))
    drawn = sample(model, prefix, mask, max_tokens=8, seeds=[3, 4, 5, 6])
    for i, length in enumerate(lengths):
        alone = sample(model, prefix[i : i + 1, :length], max_tokens=8, seeds=[3 + i])
        assert alone[0].token_ids == drawn[i].token_ids


def test_greedy_takes_the_most_probable_token() -> None:
    model = pengi_models.model()
    prefix = pengi_models.prefixes(model, 3)
    for answer, item in zip(greedy(model, prefix, max_tokens=9), prefix, strict=True):
        for n, token in enumerate(answer.token_ids):
            assert token == int(next_log_probs(model, item, list(answer.token_ids[:n])).argmax())
        assert answer.token_ids[-1] == STOP or len(answer.token_ids) == 9
        assert STOP not in answer.token_ids[:-1]


def test_what_has_stopped_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pengi_models.model()
    prefix = pengi_models.prefixes(model, 8)
    rows: list[tuple[int, int]] = []
    step = Writer.step

    def counted(writer: Writer, token_ids: Tensor, parents: Tensor) -> Tensor:
        logits = step(writer, token_ids, parents)
        rows.append((len(token_ids), len(writer._prefixes[0][0])))
        return logits

    monkeypatch.setattr(Writer, "step", counted)
    alone = []
    for item in prefix:
        beam(model, item[None], beams=2, max_tokens=16)
        alone.append(rows.copy())
        rows.clear()
    beam(model, prefix, beams=2, max_tokens=16)
    assert len({len(own) for own in alone}) > 1, "items that all end together show nothing"
    for n, (n_rows, n_items) in enumerate(rows):
        assert n_rows == sum(own[n][0] for own in alone if n < len(own))
        assert n_items == sum(n < len(own) for own in alone)
    assert len(rows) == max(map(len, alone)) and any(n < 2 for own in alone for n, _ in own)


def test_samples_come_from_the_models_distribution() -> None:
    model = pengi_models.model()
    prefix = pengi_models.prefixes(model, 1)
    n = 4000
    drawn = sample(model, prefix.expand(n, -1, -1), max_tokens=1, seeds=range(n))
    counts = torch.bincount(torch.tensor([answer.token_ids[0] for answer in drawn]), minlength=300) / n
    probability = next_log_probs(model, prefix[0], []).exp()
    assert float((counts - probability).abs().max()) < 4 * math.sqrt(0.25 / n)
    assert drawn[0].log_prob == pytest.approx(float(probability.log()[drawn[0].token_ids[0]]), abs=1e-5)

    config = SamplingConfig(temperature=0.7, top_k=5, top_p=0.9)
    longer = sample(model, pengi_models.prefixes(model, 8), config=config, max_tokens=6, seeds=range(8))
    for answer, item in zip(longer, pengi_models.prefixes(model, 8), strict=True):
        log_probs = [next_log_probs(model, item, list(answer.token_ids[:i])) for i in range(len(answer.token_ids))]
        for token, row in zip(answer.token_ids, log_probs, strict=True):
            assert token in row.topk(5).indices
        total = sum(float(row[token]) for token, row in zip(answer.token_ids, log_probs, strict=True))
        assert answer.log_prob == pytest.approx(total, abs=1e-4)
        assert answer.score == pytest.approx(total / len(answer.token_ids), abs=1e-4)


def test_impossible_wishes_are_refused() -> None:
    model = pengi_models.model()
    prefix = pengi_models.prefixes(model, 1)
    with pytest.raises(ValueError, match="positions"):
        beam(model, prefix, max_tokens=100)
    with pytest.raises(ValueError, match="at least 1"):
        beam(model, prefix, beams=301)
    with pytest.raises(ValueError, match="seeds"):
        sample(model, prefix, seeds=[1, 2])
    with pytest.raises(ValueError, match="training mode"):
        greedy(model.train(), prefix)
