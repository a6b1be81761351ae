"""A tiny training, and what tests of the loop do with it in processes of their own.

``python training_worker.py killed OUT`` trains in child processes that kill themselves, each a little later than the
one before, and always goes on with what is there; ``torchrun training_worker.py OUT`` trains twice, by DDP and by FSDP.
"""

import atexit
import dataclasses
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from aural.checkpoint import load_config, load_into, load_weights, save_model
from aural.training import TrainConfig, TrainResult, train

SIZE, WIDTH, NONE = 11, 8, -1
LOSS_WEIGHTS = {"tokens": 1.0, "clips": 0.5}
CONFIG = TrainConfig(
    steps=12,
    batch_size=8,
    learning_rate=0.02,
    warmup_steps=3,
    ema_decay=0.8,
    validate_every=4,
    save_every=3,
    log_every=2,
    best="accuracy",
    best_is="max",
)


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    dropout: float = 0.2


class Toy(nn.Module):
    """Learns the successor of each token, and to tell the number of tokens of a clip."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.frozen = nn.Embedding(SIZE, WIDTH).requires_grad_(False)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(WIDTH, SIZE)
        self.length = nn.Linear(WIDTH, 1)

    def features(self, tokens: Tensor) -> Tensor:
        """(batch, time) -> (batch, time, WIDTH)"""
        x = self.frozen(tokens.clamp(min=0))
        for layer in self.layers:
            x = x + self.dropout(torch.tanh(layer(x)))
        return x

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.features(batch["tokens"])
        mask = (batch["tokens"] != NONE).unsqueeze(-1)
        pooled = (x * mask).sum(1) / mask.sum(1)
        return {
            "tokens": F.cross_entropy(self.output(x).transpose(1, 2), batch["next"], ignore_index=NONE),
            "clips": F.mse_loss(self.length(pooled)[:, 0], mask.sum((1, 2)).float()),
        }


def example(index: int) -> Tensor:
    """Between one and six tokens."""
    generator = torch.Generator().manual_seed(index)
    length = int(torch.randint(1, 7, (), generator=generator))
    return torch.randint(0, SIZE, (length,), generator=generator)


def collate(examples: list[Tensor]) -> dict[str, Tensor]:
    tokens = nn.utils.rnn.pad_sequence(examples, batch_first=True, padding_value=NONE)
    return {"tokens": tokens, "next": torch.where(tokens == NONE, NONE, (tokens + 1) % SIZE)}


def counts(batch: dict[str, Tensor]) -> dict[str, float]:
    return {"tokens": int((batch["tokens"] != NONE).sum()), "clips": len(batch["tokens"])}


def validate(module: nn.Module) -> dict[str, float]:
    """Calls a method, not ``forward``, as captioners that generate do."""
    assert isinstance(module, Toy) and not module.training
    tokens = torch.arange(SIZE).unsqueeze(0)
    best = module.output(module.features(tokens)).argmax(-1)
    return {"accuracy": float((best == (tokens + 1) % SIZE).float().mean())}


def save(weights: dict[str, Tensor], folder: Path, metrics: dict[str, float]) -> None:
    save_model(folder, system="toy", config=ToyConfig(), weights=weights, card=repr(metrics))


def run(out: Path, toy: ToyConfig = ToyConfig(), *, resume: bool = False, **changes: Any) -> TrainResult:
    """Train a toy in ``out``; ``changes`` are to ``CONFIG``, or further arguments of ``train``."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    config = dataclasses.replace(CONFIG, **{name: value for name, value in changes.items() if name in names})
    arguments = {
        "module": Toy(toy),
        "example": example,
        "collate": collate,
        "counts": counts,
        "loss_weights": LOSS_WEIGHTS,
        "validate": validate,
        "save": save,
        "device": "cpu",
        "progress": False,
    }
    arguments |= {name: value for name, value in changes.items() if name not in names}
    return train(config=config, out=out, resume=resume, **arguments)  # type: ignore[arg-type]


def load(folder: Path) -> Toy:
    toy = Toy(load_config(folder, ToyConfig, "toy"))
    load_into(toy, load_weights(folder))
    return toy


# --------------------------------------------------------------------------------------------------------------- killed


def kill_at(event: int, out: Path) -> None:
    """Kill this process before the ``event``-th change it is about to make to a file under ``out``."""
    left = event
    changes = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = name in changes or (name == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax")
        if writes and str(arguments[0]).startswith(str(out)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def killed(out: Path) -> None:
    """Train to the end in spite of being killed at ever later moments; prints how often that was."""
    with tempfile.TemporaryDirectory() as first:
        run(Path(first))  # imports what the children would otherwise import, each for itself
    kills = 0
    while True:
        child = os.fork()
        if child == 0:
            kill_at(kills + 1, out)
            run(out, resume=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(kills)
            sys.exit(os.WEXITSTATUS(status))
        kills += 1
        for folder in (out, out / "last"):
            if (folder / "model.safetensors").exists():
                load(folder)


def together(out: Path) -> None:
    """Both ways of sharing the work, one after the other in the same processes; the second goes on with a training."""
    toy = ToyConfig(dropout=0.0)
    left = out / f"threads{os.environ['RANK']}"
    atexit.register(lambda: left.write_text(str(sum(1 for _ in Path("/proc/self/task").iterdir()))))  # called last
    run(out / "ddp", toy, micro_batch_size=3, parallel="ddp")
    module = Toy(toy)
    run(out / "fsdp", module=module, micro_batch_size=3, parallel="fsdp", blocks=lambda module: list(module.layers))
    assert not isinstance(module.output.weight, DTensor)
    assert not torch.equal(module.output.weight, Toy(toy).output.weight)
    run(out / "half", toy, micro_batch_size=3, parallel="fsdp", blocks=lambda module: list(module.layers), resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "killed":
        killed(Path(sys.argv[2]))
    else:
        together(Path(sys.argv[1]))
