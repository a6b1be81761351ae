"""The training loop: what it computes, and that nothing that happens to a training changes what comes out."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import training_worker as worker
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aural.checkpoint import load_weights, save_model
from aural.errors import AuralError, UsageError
from aural.processes import joined
from aural.training import TrainConfig, adjusted, learning_rate, train

WITHOUT_DROPOUT = worker.ToyConfig(dropout=0.0)


def log(out: Path) -> list[dict[str, Any]]:
    """The log, without what a clock says."""
    lines = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


def assert_same_training(one: Path, other: Path) -> None:
    """The same to the last bit."""
    assert log(one) == log(other)
    for folder in (Path(), Path("last")):
        a, b = load_weights(one / folder), load_weights(other / folder)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def assert_close_training(one: Path, other: Path) -> None:
    """The same but for the order of additions."""
    for a, b in zip(log(one), log(other), strict=True):
        assert a.keys() == b.keys()
        assert a.get("losses", {}) == pytest.approx(b.get("losses", {}), rel=1e-5)
        assert a.get("gradient_norm", 0.0) == pytest.approx(b.get("gradient_norm", 0.0), rel=1e-4)
        assert a.get("validation") == b.get("validation")
    a, b = load_weights(one / "last"), load_weights(other / "last")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    worker.run(out)
    return out


# ---------------------------------------------------------------------------------------------------------- arithmetic


def test_learning_rate() -> None:
    config = TrainConfig(steps=14, warmup_steps=4, learning_rate=0.8, final_learning_rate=0.4, schedule="cosine")
    rates = [learning_rate(config, step) for step in range(14)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[9] == pytest.approx(0.6)  # half-way
    assert learning_rate(config, 14) == pytest.approx(0.4)
    line = TrainConfig(steps=4, learning_rate=1.0, schedule="linear")
    assert [learning_rate(line, step) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_config_refuses_nonsense() -> None:
    for name, value in (("steps", 0), ("batch_size", 0), ("micro_batch_size", 0), ("warmup_steps", 11)):
        with pytest.raises(ValueError, match=name):
            replace(TrainConfig(steps=10), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fsdp"):
        TrainConfig(steps=10, optimizer="muon", parallel="fsdp")


class Single(nn.Module):
    """One number, whose loss is itself: the gradient is 1, and AdamW moves by the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"x": self.x * batch.mean()}


def train_single(out: Path, module: nn.Module, **changes: Any) -> None:
    def save(weights: dict[str, Tensor], folder: Path, metrics: dict[str, float]) -> None:
        save_model(folder, system="toy", config=worker.ToyConfig(), weights=weights, card=repr(metrics))

    train(
        module,
        example=lambda index: torch.tensor(1.0),
        collate=torch.stack,
        counts=lambda batch: {"x": len(batch)},
        loss_weights={"x": 1.0},
        config=TrainConfig(steps=3, batch_size=2, learning_rate=0.1, final_learning_rate=0.1, **changes),
        out=out,
        save=save,
        device="cpu",
        progress=False,
    )


def test_a_shorter_training_warms_up_for_the_same_share() -> None:
    config = TrainConfig(steps=1000, warmup_steps=100)
    assert [adjusted(config, seed=1, steps=n).warmup_steps for n in (1, 50, 1000, 4000)] == [0, 5, 100, 100]
    assert adjusted(config, seed=1) == replace(config, seed=1)
    assert adjusted(config, seed=0, precision="bfloat16") == replace(config, precision="bfloat16")


def test_average_of_the_weights_by_hand(tmp_path: Path) -> None:
    module = Single()
    train_single(tmp_path, module, ema_decay=0.15)
    assert module.x.item() == pytest.approx(0.7)
    # the decays are 1/10, then 0.15 as 2/11 and 3/12 would be more
    by_hand = 0.1 * 1.0 + 0.9 * 0.9
    by_hand = 0.15 * by_hand + 0.85 * 0.8
    by_hand = 0.15 * by_hand + 0.85 * 0.7
    assert float(load_weights(tmp_path)["x"]) == pytest.approx(by_hand)
    assert float(load_weights(tmp_path / "last")["x"]) == pytest.approx(by_hand)


def test_weights_decay_only_where_they_form_a_matrix(tmp_path: Path) -> None:
    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.vector = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1))

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            return {"x": 0.0 * (self.matrix.sum() + self.vector.sum())}

    module = Still()
    train_single(tmp_path, module, weight_decay=0.5)
    assert (module.matrix.item(), module.vector.item()) == pytest.approx((0.95**3, 1.0))


def test_muon_moves_matrices_and_kernels_and_adamw_the_rest(tmp_path: Path) -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.conv, self.one = nn.Linear(6, 4), nn.Conv1d(4, 3, 5), nn.Conv1d(1, 3, 2, bias=False)
            self.table = nn.Embedding(5, 6)

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            x = self.conv(self.linear(self.table(torch.arange(5))).T)
            return {"x": (x.square().sum() + self.one(x.sum(0, keepdim=True).T[..., None][:, :, [0, 0]]).sum())}

    module, before = Layers(), Layers().state_dict()
    train_single(tmp_path, module, optimizer="muon", weight_decay=0.0)
    moved = {name: tensor - before[name] for name, tensor in module.state_dict().items()}
    for name in ("linear.weight", "conv.weight"):  # all directions alike, as far as the iteration is exact
        values = torch.linalg.svdvals(moved[name].flatten(1))
        assert values.max() < 4 * values.min(), name
    for name in ("table.weight", "one.weight", "linear.bias", "conv.bias"):
        assert moved[name].abs().amax() <= 3 * 0.1 + 1e-5, name
    values = torch.linalg.svdvals(moved["table.weight"])
    assert values.max() > 4 * values.min()


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_muon_is_the_optimiser_of_pytorch(precision: Any, tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(6, 4, bias=False)

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            return {"x": self.linear.weight.square().sum()}

    module, alone = Half(), Half()
    train_single(tmp_path, module, optimizer="muon", weight_decay=0.5, clip_norm=None, precision=precision)
    by_hand = torch.optim.Muon(alone.parameters(), lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        alone({})["x"].backward()
        by_hand.step()
        by_hand.zero_grad()
    # In bfloat16 it is the same to the last bit, and in float32 as far as that goes.
    tolerance = 0.0 if precision == "bfloat16" else 0.01
    torch.testing.assert_close(module.linear.weight, alone.linear.weight, rtol=0.0, atol=tolerance)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    """Their numbers of tokens differ, so that a plain mean over micro-batches would."""
    worker.run(tmp_path / "whole", WITHOUT_DROPOUT)
    worker.run(tmp_path / "parts", WITHOUT_DROPOUT, micro_batch_size=3)
    assert_close_training(tmp_path / "whole", tmp_path / "parts")
    worker.run(tmp_path / "workers", WITHOUT_DROPOUT, workers=2)
    assert_same_training(tmp_path / "whole", tmp_path / "workers")


def test_logged_loss_is_the_mean_over_the_batch(tmp_path: Path) -> None:
    worker.run(tmp_path, WITHOUT_DROPOUT, steps=1, warmup_steps=1)
    with torch.no_grad():
        losses = worker.Toy(WITHOUT_DROPOUT)(worker.collate([worker.example(i) for i in range(8)]))
    line = log(tmp_path)[1]
    assert line["losses"] == pytest.approx({name: float(loss) for name, loss in losses.items()}, rel=1e-5)
    assert line["loss"] == pytest.approx(line["losses"]["tokens"] + 0.5 * line["losses"]["clips"], rel=1e-5)


def test_bfloat16_learns_about_the_same(tmp_path: Path, whole: Path) -> None:
    worker.run(tmp_path, precision="bfloat16")
    assert log(tmp_path)[-2]["loss"] == pytest.approx(log(whole)[-2]["loss"], rel=0.1)
    assert log(tmp_path)[-2]["loss"] != log(whole)[-2]["loss"]


class Recomputing(nn.Module):
    """Attention under gradient checkpointing, as in a large U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        def attend(rows: Tensor) -> Tensor:
            queries, keys, values = self.project(rows)[None, None].chunk(3, dim=-1)
            return nn.functional.scaled_dot_product_attention(queries, keys, values)

        return {"x": checkpoint(attend, batch[:, None].expand(-1, 8), use_reentrant=False).float().square().mean()}


def test_bfloat16_goes_forward_again_as_it_went_before(tmp_path: Path) -> None:
    module = Recomputing()
    before = module.project.weight.detach().clone()
    train_single(tmp_path, module, precision="bfloat16")
    assert not torch.equal(before, module.project.weight)


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    class Watched(worker.Toy):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            assert self.training and self.layers.training and not self.frozen.training
            return super().forward(batch)

    module = Watched(worker.ToyConfig())
    before = module.frozen.weight.clone()
    worker.run(tmp_path, module=module)
    assert torch.equal(module.frozen.weight, before)
    assert torch.equal(load_weights(tmp_path)["frozen.weight"], before)
    assert log(tmp_path)[0] == {"step": 0, "trained_parameters": 252, "frozen_parameters": 88}


# -------------------------------------------------------------------------------------------------------------- results


def test_best_and_last(tmp_path: Path) -> None:
    values = iter([0.1, 0.5, 0.3])
    result = worker.run(tmp_path, validate=lambda module: {"accuracy": next(values)})
    assert (result.steps, result.best, result.best_step, result.metrics) == (12, 0.5, 8, {"accuracy": 0.3})
    assert (tmp_path / "README.md").read_text() == "{'step': 8, 'accuracy': 0.5}"
    assert (tmp_path / "last" / "README.md").read_text() == "{'step': 12, 'accuracy': 0.3}"
    assert [line["validation"] for line in log(tmp_path) if "validation" in line] == [
        {"accuracy": 0.1},
        {"accuracy": 0.5},
        {"accuracy": 0.3},
    ]
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [
        "config.json",
        "log.jsonl",
        "loss.png",
        "step-00000009",
        "step-00000012",
    ]
    assert (tmp_path / "training" / "loss.png").read_bytes().startswith(b"\x89PNG")
    least = iter([0.1, 0.5, 0.3])
    other = worker.run(tmp_path / "least", validate=lambda module: {"accuracy": next(least)}, best_is="min")
    assert (other.best, other.best_step) == (0.1, 4)


def test_without_validation_the_last_is_the_best(tmp_path: Path) -> None:
    result = worker.run(tmp_path, validate=None)
    assert result.best is None
    assert all(
        torch.equal(a, b)
        for a, b in zip(load_weights(tmp_path).values(), load_weights(tmp_path / "last").values(), strict=True)
    )


# -------------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("workers", [0, 1])
def test_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, whole: Path, workers: int) -> None:
    """Stopped in the middle of a line of the log, away from any save."""
    main = os.getpid()

    def example(index: int) -> Tensor:
        if index == 4 * 8 + 3:
            os.kill(main, signal.SIGINT)
        return worker.example(index)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        worker.run(tmp_path, example=example, workers=workers)
    assert signal.getsignal(signal.SIGINT) is before
    states = sorted(path.name for path in (tmp_path / "training").glob("step-*"))
    assert states[-1] == "step-00000005" or workers  # which prepare examples ahead of time
    with (tmp_path / "training" / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 1}\n{"step": 8, "lo')  # as a killed process would leave it
    worker.run(tmp_path, resume=True)
    assert_same_training(tmp_path, whole)
    worker.run(tmp_path, resume=True)  # nothing left to do
    assert_same_training(tmp_path, whole)


def test_a_training_by_muon_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def example(index: int) -> Tensor:
        if index == 4 * 8 + 3:
            os.kill(os.getpid(), signal.SIGINT)
        return worker.example(index)

    worker.run(tmp_path / "whole", optimizer="muon")
    with pytest.raises(KeyboardInterrupt):
        worker.run(tmp_path / "half", example=example, optimizer="muon")
    worker.run(tmp_path / "half", resume=True, optimizer="muon")
    assert_same_training(tmp_path / "half", tmp_path / "whole")


def test_training_can_be_prolonged(tmp_path: Path) -> None:
    worker.run(tmp_path / "a", steps=6, schedule="linear")
    result = worker.run(tmp_path / "a", steps=9, schedule="linear", resume=True)
    assert result.steps == 9 and [line["step"] for line in log(tmp_path / "a") if "loss" in line] == [2, 4, 6, 8, 9]


def test_killed_at_any_moment(tmp_path: Path, whole: Path) -> None:
    done = subprocess.run(
        [sys.executable, worker.__file__, "killed", str(tmp_path)], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    assert_same_training(tmp_path, whole)


def test_a_gpu_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr("aural.processes.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device))
    for name, number in {"cuda": 0, "cuda:1": 1}.items():
        with joined(name) as processes:
            assert processes.device == chosen[-1] == torch.device("cuda", number)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no device 'cuda:99' here"), joined("cuda:99"):
        pass


def test_several_processes_learn_the_same(tmp_path: Path) -> None:
    def stopping(index: int) -> Tensor:
        if index == 5 * 8:
            os.kill(os.getpid(), signal.SIGINT)
        return worker.example(index)

    worker.run(tmp_path / "one", WITHOUT_DROPOUT, micro_batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        worker.run(tmp_path / "half", WITHOUT_DROPOUT, micro_batch_size=3, example=stopping)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, worker.__file__, str(tmp_path)], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    for name in ("ddp", "fsdp", "half"):
        assert_close_training(tmp_path / "one", tmp_path / name)
    # A thread of the process group that outlives the interpreter aborts the process, now and then.
    assert [(tmp_path / f"threads{rank}").read_text() for rank in range(2)] == ["1", "1"]


def environment() -> dict[str, str]:
    paths = [str(Path(path).resolve()) for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


# --------------------------------------------------------------------------------------------------------------- errors


def test_misspelt_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the losses are named \['clips', 'tokens'\], but loss_weights \['clips', 'token'\]"
    ):
        worker.run(
            tmp_path / "a",
            loss_weights={"token": 1.0, "clips": 1.0},
            counts=lambda batch: {"token": 1, "clips": 1},
        )
    with pytest.raises(ValueError, match=r"the counts are named \['clips'\]"):
        worker.run(tmp_path / "b", counts=lambda batch: {"clips": 1})
    with pytest.raises(ValueError, match=r"the metrics are \['accuracy'\], but the best model is chosen by 'acuracy'"):
        worker.run(tmp_path / "c", best="acuracy")


def test_occupied_folders_are_refused(tmp_path: Path) -> None:
    worker.run(tmp_path, steps=3)
    with pytest.raises(UsageError, match="already holds a training: add --resume"):
        worker.run(tmp_path, steps=3)
    with pytest.raises(
        UsageError, match=r"batch_size was 8 and is now 4, betas was \[0\.9, 0\.999\] and is now \[0\.9, 0\.9\]: keep"
    ):
        worker.run(tmp_path, steps=4, batch_size=4, betas=(0.9, 0.9), workers=1, resume=True)
    with pytest.raises(UsageError, match="steps were 3 and are now only 2"):
        worker.run(tmp_path, steps=2, warmup_steps=0, resume=True)
    save_model(tmp_path / "model", system="toy", config=worker.ToyConfig(), weights={}, card="")
    with pytest.raises(UsageError, match="holds a model but no training"):
        worker.run(tmp_path / "model", resume=True)


def test_what_goes_on_is_of_the_same(tmp_path: Path) -> None:
    of = {"set of clips": "abc", "hold-out": None, "tokenizer": "x" * 1000, "table of tasks": [("a", 0.5)]}
    worker.run(tmp_path, steps=3, of=of)
    known = json.loads((tmp_path / "training" / "of.json").read_text())
    assert known["set of clips"] == "abc" and len(known["tokenizer"]) == 64
    worker.run(tmp_path, steps=4, resume=True, of={**of, "table of tasks": (("a", 0.5),)})
    with pytest.raises(
        UsageError, match=r"was begun with another hold-out and another tokenizer: go on with"
    ) as raised:
        worker.run(tmp_path, steps=5, resume=True, of={**of, "hold-out": "fold1", "tokenizer": "x" * 999})
    assert "\n" not in str(raised.value)
    assert json.loads((tmp_path / "training" / "of.json").read_text()) == known
    worker.run(tmp_path, steps=5, resume=True, of={**of, "encoder": "as no version before said it"})
    with pytest.raises(UsageError, match="was begun with another encoder:"):
        worker.run(tmp_path, steps=6, resume=True, of={**of, "encoder": "other"})
    worker.run(tmp_path, steps=6, resume=True)
    (tmp_path / "training" / "of.json").unlink()  # as in trainings of before it was kept
    worker.run(tmp_path, steps=7, resume=True, of={"set of clips": "def"})
    with pytest.raises(UsageError, match="another set of clips"):
        worker.run(tmp_path, steps=8, resume=True, of={"set of clips": "abc"})


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_example_is_one_line(tmp_path: Path, workers: int) -> None:
    def example(index: int) -> Tensor:
        raise AuralError("x.wav is empty: remove it")

    with pytest.raises(AuralError, match=r"^x\.wav is empty: remove it$"):
        worker.run(tmp_path, example=example, workers=workers)


def test_runaway_training_stops_before_it_spoils_the_state(tmp_path: Path) -> None:
    class Runaway(worker.Toy):
        steps = 0

        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.steps += 1
            losses = super().forward(batch)
            return {**losses, "clips": losses["clips"] * (float("inf") if self.steps == 5 else 1.0)}

    with pytest.raises(AuralError, match="the gradients of step 5 are not finite"):
        worker.run(tmp_path, module=Runaway(worker.ToyConfig()))
    assert all(weight.isfinite().all() for weight in load_weights(tmp_path / "last").values())
