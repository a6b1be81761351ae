"""The residual quantiser: by hand, how codebooks learn, start and are replaced, and two processes as one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing

from aural.networks.residual_quantizer import Codebook, QuantizerConfig, ResidualQuantizer, kmeans

PLAIN = QuantizerConfig(n_codebooks=2, codebook_size=10, kmeans_iterations=0, dead_code_share=0.0)


def digits() -> ResidualQuantizer:
    """Tens in the first codebook, ones in the second, of vectors of width 1."""
    quantizer = ResidualQuantizer(PLAIN, width=1)
    for codebook, step in zip(quantizer.codebooks, (10.0, 1.0), strict=True):
        codebook.embed.copy_(step * torch.arange(10.0)[:, None])
    return quantizer.eval()


def started(config: QuantizerConfig = PLAIN) -> ResidualQuantizer:
    """One that learns, and starts alike everywhere."""
    torch.manual_seed(0)
    return ResidualQuantizer(config, width=4).train()


def book(entries: Tensor, config: QuantizerConfig = PLAIN) -> Codebook:
    """A codebook whose entries have all been chosen once a batch so far."""
    codebook = Codebook(replace(config, codebook_size=len(entries)), entries.shape[1])
    for buffer in (codebook.embed, codebook.embed_avg):
        buffer.copy_(entries)
    codebook.cluster_size.fill_(1.0)
    return codebook.train()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_numbers_as_digits() -> None:
    numbers = torch.tensor([[[73.2, 26.0, 4.4, 120.0]]])  # 1 clip, width 1, 4 frames
    quantizer = digits()
    codes = quantizer.encode(numbers)
    assert codes.tolist() == [[[7, 3, 0, 9], [3, 0, 4, 9]]]  # 26 is 30 and -4, of which 0 is nearest
    assert quantizer.decode(codes).tolist() == [[[73.0, 30.0, 4.0, 99.0]]]
    assert quantizer.encode(numbers, 1).tolist() == [[[7, 3, 0, 9]]]
    assert quantizer.decode(codes[:, :1]).tolist() == [[[70.0, 30.0, 0.0, 90.0]]]
    assert quantizer.encode(torch.tensor([[[5.0, 0.5]]])).tolist() == [[[0, 0], [5, 0]]]  # the first of equals
    seen = quantizer(numbers)
    assert torch.equal(seen.codes, codes) and torch.equal(seen.vectors, quantizer.decode(codes))
    assert seen.commitment.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="2 codebooks"):
        quantizer.encode(numbers, 3)


def test_commitment_pulls_towards_entries_and_gradients_pass_straight_through() -> None:
    quantizer = ResidualQuantizer(replace(PLAIN, commitment_weight=0.5), width=1).train()
    for codebook, step in zip(quantizer.codebooks, (10.0, 1.0), strict=True):
        codebook.embed.copy_(step * torch.arange(10.0)[:, None])
    numbers = torch.tensor([[[73.25, 42.0]]], requires_grad=True)
    seen = quantizer(numbers)
    # (3.25 and 2), then (0.25 and 0), squared, averaged, weighed
    torch.testing.assert_close(seen.commitment, torch.tensor([0.5 * (3.25**2 + 4) / 2, 0.5 * 0.0625 / 2]))
    torch.testing.assert_close(seen.penalty, seen.commitment.mean())
    (straight,) = torch.autograd.grad(seen.vectors.sum(), numbers, retain_graph=True)
    assert straight.tolist() == [[[1.0, 1.0]]]
    (towards,) = torch.autograd.grad(seen.penalty, numbers)
    # half of the mean of two: d/dx of 0.5 (x - e)^2 / 2, once for each stage
    torch.testing.assert_close(towards, torch.tensor([[[0.25 * (3.25 + 0.25), 0.25 * (2.0 + 0.0)]]]))


def test_a_codebook_moves_to_the_mean_of_what_chooses_it() -> None:
    entries = torch.tensor([[0.0], [10.0]])
    codebook = book(entries, replace(PLAIN, decay=0.75, epsilon=0.0))
    index, chosen = codebook(torch.tensor([[1.0], [2.0], [3.0], [9.0]]))
    assert index.tolist() == [0, 0, 0, 1] and chosen.tolist() == [[0.0], [0.0], [0.0], [10.0]]  # as they were
    assert codebook.cluster_size.tolist() == [0.75 + 0.25 * 3, 1.0]
    assert codebook.embed_avg.tolist() == [[0.25 * 6], [0.75 * 10 + 0.25 * 9]]
    torch.testing.assert_close(codebook.embed, torch.tensor([[1.0], [9.75]]))
    before = codebook.state_dict()["embed"].clone()
    codebook.eval()(torch.tensor([[5.0]]))
    assert torch.equal(codebook.embed, before)


def test_kmeans_finds_clusters_and_leaves_empty_ones() -> None:
    rows = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    means, counts = kmeans(rows, torch.tensor([[0.0], [1.0], [99.0]]), 5)
    assert means.tolist() == [[0.5], [11.0], [99.0]] and counts.tolist() == [2, 2, 0]


@pytest.mark.parametrize("published", [False, True])
def test_a_codebook_that_starts_from_clusters_keeps_them(published: bool) -> None:
    """The published start shrinks each entry to 0.99 / n + 0.01 of its length; ours leaves the means where they are."""
    config = replace(PLAIN, codebook_size=4, kmeans_iterations=10, published_start=published)
    centres = 5 * torch.eye(4)
    rows = centres.repeat_interleave(25, 0) + 0.01 * drawn(100, 4)
    codebook = Codebook(config, 4).train()
    assert codebook.inited.item() == 0.0
    codebook.start(rows, torch.tensor([0, 25, 50, 75]))
    codebook(rows)
    assert codebook.inited.item() == 1.0
    share = codebook.embed.norm(dim=1) / 5
    torch.testing.assert_close(share, torch.full((4,), 0.99 / 25 + 0.01 if published else 1.0), rtol=0.01, atol=0.0)


def test_draws_come_from_the_generator() -> None:
    config = replace(PLAIN, kmeans_iterations=3, dead_code_share=0.1)
    rows = drawn(1, 4, 60)

    def learned(seed: int) -> Tensor:
        quantizer = ResidualQuantizer(config, width=4).train()
        quantizer(rows, generator=torch.Generator().manual_seed(seed))
        return quantizer.codebooks[1].embed

    assert torch.equal(learned(1), learned(1)) and not torch.equal(learned(1), learned(2))
    few = Codebook(replace(config, codebook_size=7), 4).train()  # more entries than vectors: some start alike
    few(rows[0, :, :5].T)
    assert few.embed.isfinite().all()


@pytest.mark.parametrize(("share", "alive"), [(0.0, 2), (0.1, 8)])
def test_entries_that_nobody_chooses_are_replaced(share: float, alive: int) -> None:
    """Eight clusters, of which two entries take all: the others lie far away, and stay there if not replaced."""
    far = torch.full((6, 3), 100.0) + drawn(6, 3)
    codebook = book(torch.cat([drawn(2, 3), far]), replace(PLAIN, decay=0.9, dead_code_share=share))
    centres = 3 * drawn(8, 3, seed=5)
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        codebook(centres.repeat(10, 1) + 0.1 * drawn(80, 3, seed=step), generator=generator)
    assert codebook.nearest(centres).unique().numel() == alive


def test_codebook_dropout_trains_first_codebooks() -> None:
    config = replace(PLAIN, n_codebooks=3, codebook_dropout=True)
    quantizer = ResidualQuantizer(config, width=4).train()
    generator = torch.Generator().manual_seed(0)
    numbers = set()
    for step in range(20):
        before = [codebook.embed_avg.clone() for codebook in quantizer.codebooks]
        seen = quantizer(drawn(2, 4, 5, seed=step), generator=generator)
        ran = seen.codes.shape[1]
        changed = [not torch.equal(a, b.embed_avg) for a, b in zip(before, quantizer.codebooks, strict=True)]
        assert changed == [k < ran for k in range(3)] and seen.commitment.shape == (ran,)
        numbers.add(ran)
    assert numbers == {1, 2, 3}
    assert quantizer.eval()(drawn(2, 4, 5)).codes.shape[1] == 3


def learn_in_one_process(rank: int, address: Path, vectors: Tensor, out: Path) -> None:
    """Half of the batch, and draws of its own; leaves the codebooks."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    plain = started()
    drawing = started(replace(PLAIN, kmeans_iterations=3, dead_code_share=0.5, codebook_dropout=True))
    generator = torch.Generator().manual_seed(rank)
    for step in range(4):
        plain(vectors[step, 2 * rank : 2 * rank + 2])
        drawing(vectors[step, 2 * rank : 2 * rank + 2], generator=generator)
    torch.save((plain.state_dict(), drawing.state_dict()), out / str(rank))
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns_from_both_halves(tmp_path: Path) -> None:
    vectors = drawn(4, 4, 4, 20)  # steps, clips, width, frames
    multiprocessing.spawn(learn_in_one_process, (tmp_path / "address", vectors, tmp_path), nprocs=2)
    (plain, drawing), (plain_too, drawing_too) = (
        torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1)
    )
    one = started()
    for batch in vectors:
        one(batch)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(plain[name], tensor)
        torch.testing.assert_close(plain_too[name], tensor)
    assert all(torch.equal(tensor, drawing_too[name]) for name, tensor in drawing.items())
