"""The wheel, installed by plain pip without a network: complete, working from anywhere, and no disturber of PyTorch."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aural import __version__

ROOT = Path(__file__).parents[1]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A fresh virtual environment with the wheel in it, and what pip said.

    It sees everything installed here except this project: downloading 2 GB would test the network, not the wheel.
    """
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    others = folder / "others"
    others.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lstrip("_").startswith("aural"):
            (others / entry.name).symlink_to(entry)
    python = folder / "env" / "bin" / "python"
    scheme = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (Path(scheme.stdout.strip()) / "others.pth").write_text(f"{others}\n")
    said = outside(folder, python, "-m", "pip", "install", "--no-index", "--no-cache-dir", wheel)
    return python, said


def outside(folder: Path, *command: str | Path) -> str:
    """Run a command in another folder, without a way back to the source; return its stdout."""
    guard = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": guard},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_package_the_weights_and_the_recordings_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "src" / "aural"
    expected = {
        f"aural/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {
        f"aural/models/{path.relative_to(ROOT / 'models').as_posix()}"
        for path in (ROOT / "models").rglob("*")
        if path.is_file()
    }
    assert inside == expected
    assert "aural/py.typed" in inside


def test_pip_finds_every_requirement_satisfied_and_leaves_torch_alone(installed: tuple[Path, str]) -> None:
    python, said = installed
    (done,) = [line for line in said.splitlines() if line.startswith("Successfully installed")]
    assert done.split()[2:] == [f"aural-{__version__}"]
    version = "import importlib.metadata; print(importlib.metadata.version('torch'))"
    assert outside(python.parent, python, "-c", version).strip() == importlib.metadata.version("torch")


def test_installed_command_captions_a_bundled_recording_in_another_folder(
    installed: tuple[Path, str], tmp_path: Path
) -> None:
    python, _ = installed
    where = "import aural, pathlib; print(pathlib.Path(aural.__file__).parent)"
    package = Path(outside(tmp_path, python, "-c", where).strip())
    assert package.is_relative_to(python.parents[1])
    command = python.with_name("aural")
    assert outside(tmp_path, command, "--version").startswith("aural ")
    recording = sorted((package / "examples").glob("*.ogg"))[0]
    assert outside(tmp_path, command, "caption", recording, "--device", "cpu").strip()
