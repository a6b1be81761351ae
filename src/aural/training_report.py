"""What a training says while it runs: ``log.jsonl``, ``loss.png`` and a progress bar.

Lines of the log, one JSON object each:

- ``{"step": 0, "trained_parameters": n, "frozen_parameters": n}``, the first;
- ``{"step": 10, "loss": x, "losses": {name: x}, "learning_rate": x, "gradient_norm": x, "seconds": s,
  "examples_per_second": x}``: losses are means over all items since the line before, the norm is that of the last step
  before clipping, ``seconds`` is the time since the line before;
- ``{"step": 100, "validation": {name: x}}``.
"""

import io
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn
from torch import nn

from aural.checkpoint import write_whole
from aural.processes import Processes

PLOT_INTERVAL_S = 30.0
"""Seconds between two drawings of the loss curve."""


class Report:
    """The log and the progress bar of one training; only in the first process does it do anything."""

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        step: int,
        steps: int,
        batch_size: int,
        processes: Processes,
        *,
        talk: bool,
    ) -> None:
        """
        Args:
            folder: where ``log.jsonl`` and ``loss.png`` lie.
            module: what is trained.
            step: finished steps.
            steps: all of them.
            batch_size: examples a step.
            processes: this one among its siblings.
            talk: whether to write to stderr, and show a bar if that is a terminal.
        """
        self._log, self._image = folder / "log.jsonl", folder / "loss.png"
        self._first, self._batch_size = processes.first, batch_size
        talk = talk and self._first
        numbers = {True: 0, False: 0}
        for parameter in module.parameters():
            numbers[parameter.requires_grad] += parameter.numel()
        if talk:
            doing = f"going on after step {step}" if step else "training"
            print(f"{doing}: {numbers[True]:,} trained and {numbers[False]:,} frozen parameters", file=sys.stderr)
        if step == 0:
            self._append({"step": 0, "trained_parameters": numbers[True], "frozen_parameters": numbers[False]})
        self._bar = Progress(
            *Progress.get_default_columns(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not (talk and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task("", total=steps, completed=step, note="")
        self._line_step = step
        self._line_at = self._plot_at = time.monotonic()

    def __enter__(self) -> "Report":
        self._bar.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bar.stop()
        if kind is None:
            self._plot()

    def losses(self, step: int, loss: float, losses: Mapping[str, float], rate: float, norm: float) -> None:
        """Log the mean losses since the line before: of each kind, and weighted and added (``loss``)."""
        seconds, steps = time.monotonic() - self._line_at, step - self._line_step
        self._line_at, self._line_step = self._line_at + seconds, step
        self._append(
            {
                "step": step,
                "loss": loss,
                "losses": dict(losses),
                "learning_rate": rate,
                "gradient_norm": norm,
                "seconds": round(seconds, 3),
                "examples_per_second": round(steps * self._batch_size / max(seconds, 1e-9), 2),
            }
        )
        self._bar.update(self._task, note=" ".join(f"{name} {value:.4g}" for name, value in losses.items()))

    def step(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a validation, if there are any, and draw the curves if the last time is long ago."""
        if metrics:
            self._append({"step": step, "validation": dict(metrics)})
        if time.monotonic() - self._plot_at > PLOT_INTERVAL_S:
            self._plot()

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._first:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _plot(self) -> None:
        if self._first:
            plot_log(self._log, self._image)
        self._plot_at = time.monotonic()


def plot_log(log: Path, image: Path) -> None:
    """Draw the losses of a ``log.jsonl``, and below them the validation metrics, as a PNG.

    Args:
        log: the file described at the head of this module.
        image: the file to write; nothing is written where there is nothing to draw.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    panels = {title: curves for title in ("losses", "validation") if (curves := _curves(lines, title))}
    if not panels:
        return
    from matplotlib.figure import Figure  # takes longer to import than a tiny training step

    figure = Figure(figsize=(8, 3.5 * len(panels)), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
        if title == "losses" and all(value > 0 for points in curves.values() for _, value in points):
            axes.set_yscale("log")
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_whole(image, buffer.getvalue())


def truncate_log(log: Path, step: int) -> None:
    """Keep whole lines up to ``step``: what follows will be written again."""
    if log.is_file():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        write_whole(log, "".join(line for line in lines if json.loads(line)["step"] <= step))


def _curves(lines: list[dict[str, Any]], key: str) -> dict[str, list[tuple[int, float]]]:
    """``{name: [(step, value), ...]}`` of the objects under ``key``."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.get(key, {}).items():
            curves.setdefault(name, []).append((line["step"], value))
    return curves
