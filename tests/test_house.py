"""The rules of the house (CONTRIBUTING.md), checked over the source itself and over what is installed."""

import ast
import importlib.metadata
import os
import re
import resource
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "aural"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = sorted(path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py"))

SYSTEMS = ("listening", "captioning", "answering", "codec", "text_to_audio", "audio_to_image")
FRONT_DOORS = ("__init__", "__main__", "commands", "demo", "web")
"""The parts that may use systems: they belong to none and nothing but they are above them."""
SOUND_LIBRARIES = {"soundfile", "soxr", "av"}
UNWANTED = {"torchaudio", "torchvision", "torchcodec", "timm"}
"""Their mere presence breaks imports beside a CPU build of PyTorch."""
BUNDLED_WEIGHTS_BYTES = 120 * 1024**2

OPENERS = {
    "audio.py": "sounds in and out",
    "manifest.py": "manifests in and out",
    "checkpoint.py": "models in and out",
    "demo.py": "a command: the page",
    "commands/classify.py": "a command: labels out of a file",
    "commands/generate.py": "a command: prompts out of a file",
    "training_folder.py": "the training command: its folder",
    "training_report.py": "the training command: its log",
    "networks/sentence_encoder.py": "weights and words of the sentence encoder come inside another package",
    "answering/tokenizer.py": "the words of a model, out of its folder",
    "answering/tasks.py": "tables of tasks",
    "answering/borrowed.py": "sizes of a published language model, out of its folder",
    "text_to_audio/convert.py": "a command: settings and words beside the weights",
    "text_to_audio/encoded.py": "the training command: sounds as codes, kept",
    "codec/convert.py": "a command: settings beside the weights",
    "codec/files.py": "sounds as codes, in and out",
    "audio_to_image/picture_files.py": "pictures in and out",
    "audio_to_image/video_frames.py": "frames of videos in",
    "captioning/tokenizer.py": "the words of a model, out of its folder",
    "captioning/train.py": "a command",
    "captioning/evaluate.py": "a command",
    "captioning/convert.py": "a command",
    "captioning/mixup_captions.py": "a command: the captions that a language model joined",
    "captioning/chat.py": "what a language model answered, kept as it comes",
    "fluency.py": "a published error detector, out of its folder",
    "corpora/*": "raw corpora in",
    "soundscapes/music.py": "a score for fluidsynth, in a temporary folder",
}
"""The only files that open files, and what for; networks and systems are handed tensors."""

OPENING_NAMES = {"open"}
OPENING_METHODS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes"),  # pathlib, zipfile, PIL
    *("load_file", "save_file", "safe_open"),  # safetensors
    *("memmap", "savez", "loadtxt", "savetxt", "fromfile", "tofile", "imsave"),
}
OPENING_CALLS = {"np.load", "np.save", "numpy.load", "numpy.save", "torch.load", "torch.save", "json.load", "json.dump"}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports anywhere in it; for ``from a import b`` both ``a`` and ``a.b``."""
    package = ("aural", *path.relative_to(PACKAGE).parts[:-1]) if path.is_relative_to(PACKAGE) else ()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def system_of(module: str) -> str | None:
    """``captioning`` for ``aural.captioning.model``; None where that is no system."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "aural" and parts[1] in SYSTEMS else None


def forbidden_arrows(path: Path) -> list[str]:
    """Imports of ``path`` that point the wrong way."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in FRONT_DOORS:
        return []
    doors = {f"aural.{door}" for door in FRONT_DOORS}
    allowed = {None, part} if part in SYSTEMS else {None}
    return [
        module
        for module in imports(path)
        if system_of(module) not in allowed or ".".join(module.split(".")[:2]) in doors
    ]


def test_arrows_point_one_way() -> None:
    assert {str(path): wrong for path in SOURCES if (wrong := forbidden_arrows(path))} == {}


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("captioning/model.py", "from aural.answering import prompts"),
        ("captioning/model.py", "from ..answering.prompts import ask"),
        ("networks/beats.py", "import aural.captioning.model"),
        ("training.py", "from . import captioning"),
        ("sampling.py", "from aural import __main__"),
    ],
)
def test_a_wrong_arrow_is_seen(place: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    planted = tmp_path / place
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"def late():\n    {line}\n")
    assert forbidden_arrows(planted)


def test_only_audio_imports_sound_libraries() -> None:
    importers = {path.name for path in SOURCES if SOUND_LIBRARIES & {module.split(".")[0] for module in imports(path)}}
    assert importers == {"audio.py", "video_frames.py"}  # PyAV reads pictures, too


def test_unwanted_packages_are_neither_imported_nor_listed_nor_installed() -> None:
    imported = {path.name: UNWANTED & {module.split(".")[0] for module in imports(path)} for path in ALL_PYTHON}
    assert {name: found for name, found in imported.items() if found} == {}
    assert set(pins()) & UNWANTED == set()
    installed = {canonicalize_name(each.metadata["Name"]) for each in importlib.metadata.distributions()}
    assert installed & UNWANTED == set()


def opened(path: Path) -> list[str]:
    """Calls in ``path`` that open a file."""
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call.func)
        for call in calls
        if (isinstance(call.func, ast.Name) and call.func.id in OPENING_NAMES | {"safe_open", "load_file", "save_file"})
        or (isinstance(call.func, ast.Attribute) and call.func.attr in OPENING_METHODS)
        or ast.unparse(call.func) in OPENING_CALLS
    ]


def test_files_are_opened_at_the_edges_only() -> None:
    inner = [path for path in SOURCES if not any(path.relative_to(PACKAGE).match(edge) for edge in OPENERS)]
    assert {str(path): calls for path in inner if (calls := opened(path))} == {}


def test_python_files_say_what_they_are_for_and_are_not_too_long() -> None:
    for path in ALL_PYTHON:
        text = path.read_text(encoding="utf-8")
        assert not text.strip() or ast.get_docstring(parsed(path)), f"{path} has no docstring"
        assert len(text.splitlines()) <= 600, f"{path} is longer than a reader can take"
        assert path.stem not in ("util", "utils", "helpers", "misc"), f"{path}: name it after what it does"


def test_bundled_weights_stay_small_and_each_model_has_its_card() -> None:
    files = [path for path in (ROOT / "models").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= BUNDLED_WEIGHTS_BYTES
    for folder in {path.parent for path in files if path.name == "config.json"}:
        assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "README.md"}


# ------------------------------------------------------------------------------------------------------------- start-up


def cpu_seconds(*arguments: str) -> float:
    """The least processor time of three runs of ``python ARGUMENTS``: the wall clock depends on the neighbours."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    return min(once() for _ in range(3))


def test_import_is_quick_and_loads_no_torch() -> None:
    check = "import aural, sys; assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys()"
    assert cpu_seconds("-c", check) < 0.3


def test_help_is_quick() -> None:
    assert cpu_seconds("-m", "aural", "--help") < 1.0


def test_public_names_exist() -> None:
    import aural

    assert len(aural.__all__) <= 16
    assert all(hasattr(aural, name) for name in aural.__all__)
    assert dir(aural) == sorted(aural.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = aural.no_such_name


# --------------------------------------------------------------------------------------------------------------- set-up


def pins() -> dict[str, str]:
    """Package name -> version of ``constraints.txt``."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def closure(requirements: list[str]) -> set[str]:
    """Names of all packages that installing ``requirements`` brings on this machine."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or not (requirement.marker is None or requirement.marker.evaluate({"extra": extra})):
            continue
        found.add(name)
        waiting += [(Requirement(text), extra) for text in importlib.metadata.requires(name) or []]
    return found


def test_constraints_pin_all_that_is_installed_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    hardware = re.compile(r"nvidia|cuda|triton")  # what a GPU build of PyTorch adds follows from its version
    assert {name for name in closure(wanted) if not hardware.match(name)} == set(pins())


def test_set_up_refuses_what_it_does_not_know_and_names_an_old_python(tmp_path: Path) -> None:
    script = (ROOT / "run").read_text()
    clone = tmp_path / "clone with a space"
    clone.mkdir()
    for name in ("run", "pyproject.toml", "constraints.txt"):
        (clone / name).write_bytes((ROOT / name).read_bytes())

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(clone / "run"), *arguments], capture_output=True, text=True, env={**os.environ, **environment}
        )

    assert "./run demo" in script and "./run test" in script
    unknown = run("dance")
    assert unknown.returncode == 2 and "./run demo" in unknown.stderr
    old = run("demo", PYTHON="/bin/false")
    assert old.returncode == 1 and "Python 3.11" in old.stderr and not (clone / ".venv").exists()


# -------------------------------------------------------------------------------------------------------- the tests own


@pytest.mark.parametrize(
    "reach", [lambda: socket.create_connection(("192.0.2.1", 9)), lambda: socket.getaddrinfo("example.org", 80)]
)
def test_the_network_is_refused(reach: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="without a network"):
        reach()


def test_the_network_is_refused_in_other_processes_and_loopback_is_not() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 9))"],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 1 and "without a network" in out.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_a_silent_skip_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (tmp_path / "no_network").symlink_to(ROOT / "tests" / "no_network")
    (tmp_path / "test_one.py").write_text("import pytest\ndef test_one():\n    pytest.skip('not today')\n")
    (tmp_path / "test_two.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    (tmp_path / "test_three.py").write_text("import pytest\n@pytest.mark.xfail\ndef test_three():\n    assert False\n")
    out = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert out.returncode != 0 and "2 failed, 1 error" in out.stdout, out.stdout
    assert out.stdout.count("ALLOWED_SKIPS") >= 3
