"""Pools of encoded scenes: one after the other, each a function of its number alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aural.answering.encoded import EncodedScenes
from aural.answering.recipes import tiny
from aural.answering.tasks import Task, read_tasks
from aural.audio import write
from aural.manifest import Clip
from aural.soundscapes.compose import SoundscapeSettings
from aural.soundscapes.examples import Examples, ExampleSettings

N = 8


def levels(waveform: Tensor, *, response: Tensor, n_rows: int) -> Tensor:
    """(B, N) -> (B, n_rows, 1), the level of each stretch: an encoder that costs nothing."""
    stretches = waveform[:, : waveform.shape[1] // n_rows * n_rows].unflatten(1, (n_rows, -1))
    return stretches.square().mean(2, keepdim=True).sqrt() + 0 * response.mean()


def pool(clips: Sequence[Clip] = (), recordings: float = 0.0, own: Sequence[Task] = ()) -> EncodedScenes:
    settings = ExampleSettings(SoundscapeSettings(seconds=(2.0, 2.5), group=4), recordings=recordings)
    tasks = [*(read_tasks(None)[name] for name in tiny().tasks), *own]
    return EncodedScenes(
        Examples(clips, settings, seed=3),
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


def test_what_a_manifest_says_of_a_recording_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32), 16000)
    clip = Clip(tmp_path / "a.wav", captions=("a person speaks",), labels=("rain",), about={"emotion": "happy"})
    mood, words = Task("mood", "this emotion is", "{emotion}"), Task("words", "in words", "{caption}, {emotion}")
    of_recordings = pool([clip], recordings=0.5, own=[mood, words]).hold(0).asked
    told = [asked for asked in of_recordings if "mood" in asked]
    assert 0 < len(told) < N  # soundscapes have no such thing
    assert all(asked["mood"] == {"mood": (("this emotion is", "happy"),)} for asked in told)
    assert {answer for asked in told for _, answer in asked["words"]["words"]} >= {"a person speaks, happy"}
    # the other tasks are as they would be without
    plain = pool([clip], recordings=0.5).hold(0).asked
    assert plain == [
        {name: kinds for name, kinds in asked.items() if name not in ("mood", "words")} for asked in of_recordings
    ]
