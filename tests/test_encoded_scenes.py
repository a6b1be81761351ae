"""Pools of encoded scenes: one after the other, each a function of its number alone."""

from functools import partial

import torch
from torch import Tensor

from aural.answering.encoded import EncodedScenes
from aural.answering.recipes import tiny
from aural.answering.tasks import read_tasks
from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.examples import Examples, ExampleSettings

N = 8


def levels(waveform: Tensor, *, response: Tensor, n_rows: int) -> Tensor:
    """(B, N) -> (B, n_rows, 1), the level of each stretch: an encoder that costs nothing."""
    stretches = waveform[:, : waveform.shape[1] // n_rows * n_rows].unflatten(1, (n_rows, -1))
    return stretches.square().mean(2, keepdim=True).sqrt() + 0 * response.mean()


def pool() -> EncodedScenes:
    settings = ExampleSettings(SoundscapeSettings(seconds=(2.0, 2.5), group=4), recordings=0.0)
    tasks = [read_tasks(None)[name] for name in tiny().tasks]
    return EncodedScenes(
        Examples([], settings, seed=3),
        partial(levels, n_rows=5),
        tasks,
        n=N,
        response_db=0.0,
        device=torch.device("cpu"),
        bfloat16=False,
        progress=False,
    )


def test_pools_hold_other_scenes_and_always_the_same() -> None:
    scenes = pool().hold(0)
    first, facts, asked = torch.stack(scenes.rows), scenes.facts, scenes.asked
    assert len(first) == N and torch.equal(scenes.first_rows(3), first[:3].float())
    second = torch.stack(scenes.hold(1).rows)
    assert not (first[:, None] == second[None]).flatten(2).all(2).any()  # no scene of one is in the other
    assert torch.equal(scenes.first_rows(3), first[:3].float())  # those of pool 0, whichever is at hand
    assert torch.equal(torch.stack(pool().hold(1).rows), second)
    scenes.hold(0)
    assert torch.equal(torch.stack(scenes.rows), first) and scenes.facts == facts and scenes.asked == asked


def test_what_is_drawn_depends_on_index_and_pool_alone() -> None:
    ways = dict.fromkeys(tiny().tasks, 1.0)
    scenes, again = pool(), pool()
    drawn = [scenes.hold(index // 12).draw_facts(index, seed=1) for index in range(24)]
    back = [again.hold(index // 12).draw_facts(index, seed=1) for index in reversed(range(24))][::-1]
    assert all(a.facts == b.facts and torch.equal(a.rows, b.rows) for a, b in zip(drawn, back, strict=True))
    assert {one.facts for one in drawn[:8]} == set(pool().hold(0).facts)  # every turn goes through the whole pool
    one = scenes.hold(1).draw(5, shares=ways, n_asked=3, seed=1)
    assert one.asked == again.hold(1).draw(5, shares=ways, n_asked=3, seed=1).asked and len(one.asked) == 3
