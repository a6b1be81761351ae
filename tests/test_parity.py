"""Every golden tensor that a folder holds is computed by our code, and agrees.

Golden folders lie in ``tests/golden`` (always) and in ``$AURAL_GOLDEN``, or without that variable in ``shared/golden``
beside the clone, when it exists. A folder is checked by ``parity_<name>.py``; folders of systems that do not exist yet
have no checker and are left alone.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import parity_audiotoken
import parity_beats
import parity_captioner
import parity_encodec
import parity_generation
import parity_pengi
import pytest
import safetensors.torch
import torch
from parity import Comparison, read_json
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
CHECKERS: dict[str, Callable[[Path], set[str]]] = {
    "beats": parity_beats.check,
    "captioner": parity_captioner.check,
    "encodec": parity_encodec.check,
    "pengi": parity_pengi.check,
    "audiogen": parity_generation.check,
    "audiotoken": parity_audiotoken.check,
}
"""Folder name -> function that compares all it holds and says what it compared, as ``file:tensor``."""


def roots() -> list[Path]:
    """Where golden folders lie."""
    named = os.environ.get("AURAL_GOLDEN")
    other = Path(named) if named else ROOT.parent / "shared" / "golden"
    return [ROOT / "tests" / "golden", *([other] if named or other.is_dir() else [])]


def tensors(folder: Path) -> set[str]:
    """All tensors of a golden folder but those of weights, as ``file:tensor``."""
    names = set()
    for path in sorted(folder.rglob("*.safetensors")):
        if "weights" not in path.stem:
            with safe_open(path, "pt") as file:
                names |= {f"{path.relative_to(folder)}:{name}" for name in file.keys()}  # noqa: SIM118, it is no dict
    return names


CASES = [
    pytest.param(folder, check, id=f"{root.name if root.is_relative_to(ROOT) else root}-{name}")
    for root in roots()
    for name, check in CHECKERS.items()
    if (folder := root / name).is_dir()
]


@pytest.mark.parametrize("root", roots(), ids=str)
def test_there_is_something_to_compare_with(root: Path) -> None:
    assert root.is_dir(), f"AURAL_GOLDEN names {root}, which is no folder"
    assert any((root / name).is_dir() for name in CHECKERS), f"{root} has none of the folders {', '.join(CHECKERS)}"


@pytest.mark.parametrize(("folder", "check"), CASES)
def test_agrees_with_the_original(folder: Path, check: Callable[[Path], set[str]]) -> None:
    expected = tensors(folder)
    assert expected, f"{folder} holds no golden tensors"
    assert check(folder) == expected


def test_settings_of_a_golden_audiotoken_are_those_of_its_config(tmp_path: Path) -> None:
    folder = tmp_path / "audiotoken"
    shutil.copytree(ROOT / "tests" / "golden" / "audiotoken", folder)
    content = read_json(folder / "config.json")
    content["beats_layers"], content["embedder"]["unary_dropout_p"] = [2, 5, 9], 0.25
    (folder / "config.json").write_text(json.dumps(content))
    io = safetensors.torch.load_file(folder / "io.safetensors")
    for old, new in zip((4, 8, 12), (2, 5, 9), strict=True):
        io[f"features.layer{new}"] = io.pop(f"features.layer{old}")
    safetensors.torch.save_file(io, folder / "io.safetensors")
    assert parity_audiotoken.check(folder) == tensors(folder)
    model, *_ = parity_audiotoken.models(safetensors.torch.load_file(folder / "weights.safetensors"), content)
    assert (model.config.layers, model.pooling.dropout) == ((2, 5, 9), 0.25)


def test_the_comparison_itself_sees_what_is_wrong() -> None:
    tensors = {"in": torch.zeros(2), "hidden_10": torch.ones(2), "hidden_2": torch.tensor([1.0, -torch.inf])}
    io = Comparison(tensors, "io.safetensors")
    assert io.names("hidden_") == ["hidden_2", "hidden_10"] and "out" not in io
    io.input("in")
    io.close("hidden_10", torch.tensor([1.0, 1.1]), relative_to_max=0.2)
    with pytest.raises(AssertionError, match="hidden_2: neither"):
        io.finish()
    io.close("hidden_2", torch.tensor([1.0, -torch.inf]), absolute=1e-6)
    assert io.finish() == {f"io.safetensors:{name}" for name in tensors}
    for wrong in (torch.tensor([1.0, 1.1]), torch.tensor([1.0, torch.nan]), torch.ones(1)):
        io = Comparison({"hidden_10": torch.ones(2)}, "io.safetensors")
        io.close("hidden_10", wrong, absolute=1e-3)
        with pytest.raises(AssertionError, match="hidden_10"):
            io.finish()
    golden, close = torch.tensor([1.0, -100.0, torch.inf]), torch.tensor([1.0, -100.9, torch.inf])
    for name, actual, passes in (
        ("each entry by itself", close, True),
        ("a small one", close + torch.tensor([0.5, 0.0, 0.0]), False),
        ("an infinity", torch.tensor([1.0, -100.0, 1e9]), False),
    ):
        io = Comparison({name: golden}, "io.safetensors")
        io.close(name, actual, absolute=1e-3, relative=0.01)
        assert (not io.problems) == passes, io.problems
    io = Comparison({"mask": torch.tensor([True, False])}, "io.safetensors")
    io.equal("mask", torch.tensor([True, True]))
    with pytest.raises(AssertionError, match="1 of 2 entries"):
        io.finish()
