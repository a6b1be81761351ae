"""The regulariser: by hand, masks, what gets a gradient, items that do not count, several processes."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing

from aural.text_to_audio.representation_regularization import (
    Pooling,
    RegularizationConfig,
    pool,
    representation_loss,
    similarities,
)

POOLINGS: tuple[Pooling, ...] = ("max", "mean")


def sides(items: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Text and audio with their masks, in float64."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(items, 5, 6, dtype=torch.float64, generator=generator)
    audio = torch.randn(items, 9, 3, dtype=torch.float64, generator=generator)
    lengths = torch.arange(items)[:, None]
    return text, audio, torch.arange(5) < 1 + lengths, torch.arange(9) < 9 - lengths


def test_by_hand() -> None:
    text = torch.tensor([[[1.0, 0.0], [0.0, -5.0]], [[0.0, 2.0], [0.0, 1.0]], [[-1.0, 0.0], [-3.0, 0.0]]])
    audio = torch.tensor([[[3.0], [1.0]], [[2.0], [2.0]], [[-1.0], [-2.0]]])
    # Largest of each channel: (1, 0), (0, 2), (-1, 0), and 3, 2, -1.
    differences = [0.0 - 1.0, -1.0 + 1.0, 0.0 + 1.0]  # pairs (0, 1), (0, 2), (1, 2)
    expected = sum(2 * one**2 for one in differences) / (3 * 2)
    assert representation_loss(text, audio).item() == pytest.approx(expected)
    # Means: (0.5, -2.5), (0, 1.5), (-2, 0), and 2, 2, -1.5.
    short = math.hypot(0.5, 2.5)
    differences = [-2.5 / short - 1.0, -0.5 / short + 1.0, 0.0 + 1.0]
    for exponent in (1.0, 2.0, 3.0):
        expected = sum(2 * abs(one) ** exponent for one in differences) / (3 * 2)
        loss = representation_loss(text, audio, pooling="mean", exponent=exponent)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_counts_for_nothing(pooling: Pooling) -> None:
    text, audio, text_mask, audio_mask = sides()
    expected = representation_loss(text, audio, text_mask, audio_mask, pooling=pooling)
    for poison in (50.0, -50.0, 0.0):
        poisoned = [
            states.masked_fill(~mask[:, :, None], poison) for states, mask in ((text, text_mask), (audio, audio_mask))
        ]
        assert torch.equal(representation_loss(*poisoned, text_mask, audio_mask, pooling=pooling), expected)
    alone = pool(audio[2:3, : int(audio_mask[2].sum())], None, pooling)
    torch.testing.assert_close(pool(audio, audio_mask, pooling)[2:3], alone)
    scaled = representation_loss(3 * text, 0.1 * audio, text_mask, audio_mask, pooling=pooling)
    torch.testing.assert_close(scaled, expected)


def test_only_the_largest_step_of_a_channel_gets_a_gradient() -> None:
    text, audio, text_mask, audio_mask = sides()
    audio.requires_grad_()
    representation_loss(text, audio, text_mask, audio_mask).backward()
    assert audio.grad is not None
    largest = audio.detach().masked_fill(~audio_mask[:, :, None], -math.inf).argmax(dim=1, keepdim=True)
    touched = torch.zeros_like(audio, dtype=torch.bool).scatter_(1, largest, True)
    assert bool((audio.grad[~touched] == 0).all()) and bool((audio.grad[touched] != 0).all())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_items_that_do_not_count(pooling: Pooling) -> None:
    """Left out by ``keep``, or because nothing of them is real: the loss is that of the others alone."""
    text, audio, text_mask, audio_mask = sides()
    for mask in (text_mask, audio_mask):
        mask[1] = False
    keep = torch.tensor([True, True, True, False])
    text.requires_grad_()
    audio.requires_grad_()
    loss = representation_loss(text, audio, text_mask, audio_mask, keep=keep, pooling=pooling)
    others = [each[[0, 2]] for each in (text, audio, text_mask, audio_mask)]
    torch.testing.assert_close(loss, representation_loss(*others, pooling=pooling))
    loss.backward()
    for states in (text, audio):
        assert states.grad is not None and bool(states.grad.isfinite().all())
        assert not states.grad[[1, 3]].any() and states.grad[[0, 2]].any()


@pytest.mark.parametrize("kept", [0, 1])
def test_fewer_than_two_items_are_no_loss_and_no_harm(kept: int) -> None:
    text, audio, text_mask, audio_mask = sides()
    audio.requires_grad_()
    loss = representation_loss(text, audio, text_mask, audio_mask, keep=torch.arange(4) < kept)
    loss.backward()
    assert loss == 0 and audio.grad is not None and not audio.grad.any()


def test_half_precision_is_compared_in_single() -> None:
    text, audio, *masks = sides()
    loss = representation_loss(text.bfloat16(), audio.bfloat16(), *masks)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), representation_loss(text, audio, *masks), rtol=0.05, atol=0.01)
    assert similarities(audio[:, 0].bfloat16()).diagonal().tolist() == pytest.approx([1.0] * 4, abs=1e-6)


def loss_of_one_process(rank: int, address: Path, arguments: tuple[Any, ...], out: Path) -> None:
    """Two items each; leaves the loss and the gradient of the own audio."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    text, audio, text_mask, audio_mask, keep = (each[2 * rank : 2 * rank + 2] for each in arguments)
    audio = audio.clone().requires_grad_()
    loss = representation_loss(text, audio, text_mask, audio_mask, keep=keep, across_processes=True)
    loss.backward()
    torch.save((loss.detach(), audio.grad), out / str(rank))
    torch.distributed.destroy_process_group()


def test_two_processes_compare_all_items(tmp_path: Path) -> None:
    """Gradients sum to the number of processes times the true one, which DistributedDataParallel divides again."""
    arguments = (*sides(), torch.tensor([True, True, True, False]))
    multiprocessing.spawn(loss_of_one_process, (tmp_path / "address", arguments, tmp_path), nprocs=2)
    text, audio, text_mask, audio_mask, keep = arguments
    audio = audio.clone().requires_grad_()
    expected = representation_loss(text, audio, text_mask, audio_mask, keep=keep)
    expected.backward()
    results = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2)]
    for loss, _ in results:
        torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]) / 2, audio.grad)


def test_what_does_not_fit_is_refused() -> None:
    text, audio, text_mask, _ = sides()
    with pytest.raises(ValueError, match="3 texts and 4 sounds"):
        representation_loss(text[:3], audio)
    with pytest.raises(ValueError, match="does not fit states"):
        representation_loss(text, audio, text_mask[:, :2])
    with pytest.raises(ValueError, match="exponent 0"):
        RegularizationConfig(exponent=0.0)
