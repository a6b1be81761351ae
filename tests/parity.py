"""Comparing with golden tensors: what every ``parity_<system>.py`` is written with.

A checker is a function ``check(folder: Path) -> set[str]``. It opens each safetensors file of the folder as a
:class:`Comparison`, takes inputs from it, compares the rest, and returns the union of what :meth:`Comparison.finish`
gives. ``test_parity.py`` then demands that no tensor of the folder was left out. Sizes, seeds and numbers of clips and
layers differ from set to set: read them from the config and from the tensors' names and shapes.

>>> io = Comparison.load(folder, "io")
>>> output = model(io.input("clean.waveform"))
>>> for name in io.names("clean.hidden_"):
...     io.close(name, output.hidden_states[int(name.rpartition("_")[2])], absolute=1e-3)
>>> if "padded.token_mask" in io:
...     io.equal("padded.token_mask", ~output.mask)
>>> return io.finish()
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor


class Comparison:
    """The tensors of one golden file, each of which must be used: as an input, or compared.

    Comparisons do not stop at the first difference: :meth:`finish` raises with all of them.
    """

    def __init__(self, tensors: dict[str, Tensor], file: str) -> None:
        self.tensors = tensors
        self.file = file  # relative to the checker's folder; it begins the names that finish() returns
        self.used: set[str] = set()
        self.problems: list[str] = []

    @classmethod
    def load(cls, folder: Path, name: str) -> "Comparison":
        """Open ``folder/name.safetensors``; ``name`` may hold a sub-folder, as in ``"no_text_enc/io"``."""
        return cls(safetensors.torch.load_file(folder / f"{name}.safetensors"), f"{name}.safetensors")

    def __contains__(self, name: str) -> bool:
        """Whether the file has that tensor; for what only some sets have."""
        return name in self.tensors

    def names(self, prefix: str = "") -> list[str]:
        """Names that begin with ``prefix``, numbers in their order (``hidden_2`` before ``hidden_10``)."""

        def order(name: str) -> list[tuple[int, int, str]]:
            parts = name.replace(".", "_").split("_")
            return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]

        return sorted((name for name in self.tensors if name.startswith(prefix)), key=order)

    def input(self, name: str) -> Tensor:
        """A tensor to compute from."""
        self.used.add(name)
        return self.tensors[name]

    def inputs(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Several tensors to compute from, by name."""
        return {name: self.input(name) for name in names}

    def close(
        self,
        name: str,
        actual: Tensor,
        *,
        absolute: float = 0.0,
        relative_to_max: float = 0.0,
        relative: float = 0.0,
        where: Tensor | None = None,
    ) -> None:
        """Compare with the golden tensor ``name``; infinities must be at the same places.

        Args:
            name: the golden tensor.
            actual: same shape, any floating type.
            absolute: largest difference allowed.
            relative_to_max: largest difference allowed, divided by the largest absolute value of the golden tensor.
                Given both, the larger bound counts.
            relative: of each entry by itself, divided by its golden absolute value; added to the bound of the others.
            where: boolean, of the tensor's shape or broadcast to it by trailing ones: compare only there, such as where
                a mask is real. None = everywhere.
        """
        expected = self.input(name).double()
        actual = actual.detach().double()
        if actual.shape != expected.shape:
            self.problems.append(f"{name}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
            return
        if where is not None:
            where = where.reshape(*where.shape, *[1] * (expected.dim() - where.dim())).expand_as(expected)
            actual, expected = actual[where], expected[where]
        if expected.numel() == 0:
            return
        finite = expected.isfinite()
        largest = float(expected[finite].abs().max()) if finite.any() else 0.0
        errors = torch.where(expected == actual, 0.0, (expected - actual).abs())
        bounds = max(absolute, relative_to_max * largest) + relative * expected.where(finite, 0.0).abs()
        worst = (errors - bounds).nan_to_num(nan=torch.inf).argmax()
        error, allowed = float(errors.flatten()[worst]), float(bounds.flatten()[worst])
        if not error <= allowed:  # also when it is NaN
            self.problems.append(f"{name}: differs by {error:.2e}, allowed {allowed:.2e}, largest value {largest:.2e}")

    def equal(self, name: str, actual: Tensor) -> None:
        """Compare masks, ids and orders, exactly."""
        expected = self.input(name)
        if actual.shape != expected.shape:
            self.problems.append(f"{name}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
        elif not torch.equal(actual.to(expected.dtype), expected):
            self.problems.append(f"{name}: {int((actual != expected).sum())} of {expected.numel()} entries differ")

    def finish(self) -> set[str]:
        """Everything that was used, as ``file:tensor``.

        Raises:
            AssertionError: lists all differences, and the tensors that were neither taken as input nor compared.
        """
        unused = sorted(self.tensors.keys() - self.used)
        problems = [*self.problems, *(f"{name}: neither an input nor compared" for name in unused)]
        assert not problems, f"{self.file}: " + "; ".join(problems)
        return {f"{self.file}:{name}" for name in self.tensors}


def read_json(path: Path) -> Any:
    """Content of a config beside the golden tensors."""
    return json.loads(path.read_text(encoding="utf-8"))
