"""Everything that the README shows runs as it stands there, in a folder that holds what its reader would have."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aural.__main__ import main
from aural.audio import write

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SET_UP = ("./run demo", "./run test")
"""The README's two commands: they make the very environment that this test runs in."""
RATE = 16000
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "Ġbarks", "Ġloudly"]
SMALL_BEATS = {
    "input_patch_size": 16,
    "embed_dim": 16,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "num_buckets": 32,
    "max_distance": 80,
    "finetuned_model": False,
}
SMALL_CONFORMER = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_depthwise_kernel_size": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
SMALL_CAPTIONER = {
    "d_model": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 128,
    "max_cross_position_embeddings": 64,
    "embed_predictor_ffn_dim": 32,
    "embed_predictor_out_dim": 16,
    "encoder_repr_layer_idx": 2,
}


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [line.strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


def without_comment(command: str) -> str:
    return command.partition("  #")[0].strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader would have, under the names that the README uses."""
    folder = tmp_path_factory.mktemp("reader")
    generator = np.random.default_rng(0)

    def record(name: str, seconds: float) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, 0.1 * generator.standard_normal(round(seconds * RATE)).astype(np.float32), RATE)

    for name in ("dog.wav", "rain.wav", "recordings/one.wav", "recordings/two.wav"):
        record(name, 2.0)
    record("long.wav", 11.0)
    for label in ("dog", "rain"):
        for number in range(2):
            record(f"my_sounds/{label}/{number}.wav", 1.0)
    author_files(folder)
    return folder


def author_files(folder: Path) -> None:
    """Files laid out as the authors' own, with random weights of toy size."""
    import torch

    from aural.captioning.convert import official_config
    from aural.captioning.model import Captioner
    from aural.networks import beats

    torch.manual_seed(0)
    captioner = Captioner(official_config(SMALL_CAPTIONER, SMALL_CONFORMER, SMALL_BEATS))
    torch.save(captioner.state_dict(), folder / "pytorch_model.bin")
    settings = {"model": SMALL_CAPTIONER, "conformer": SMALL_CONFORMER, "beats": SMALL_BEATS}
    (folder / "config.json").write_text(json.dumps(settings))
    alone = beats.BEATs(beats.official_config(SMALL_BEATS))
    torch.save({"cfg": SMALL_BEATS, "model": alone.state_dict()}, folder / "BEATs_iter3_plus_AS2M.pt")
    (folder / "bart-base").mkdir()
    (folder / "bart-base" / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    (folder / "bart-base" / "merges.txt").write_text("#version: 0.2\n")


def test_the_two_commands_come_first_and_exist() -> None:
    assert tuple(map(without_comment, COMMANDS[:2])) == SET_UP
    assert os.access(ROOT / "run", os.X_OK) and os.access(ROOT / ".ci" / "run", os.X_OK)
    assert './run test "$@"' in (ROOT / ".ci" / "run").read_text()


def test_what_the_transcript_shows_is_real() -> None:
    assert "PLACEHOLDER" not in README


# Not parametrised: later lines use what earlier ones made, and PyTorch is loaded once for all.
def test_every_line_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    fences = re.findall(r"^```(sh|python)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    assert {language for language, _ in fences} == {"sh", "python"}
    for language, block in fences:
        if language == "python":
            exec(compile(block, "README.md", "exec"), {})
            continue
        for line in filter(None, map(str.strip, block.splitlines())):
            if without_comment(line) not in SET_UP:
                status = run(without_comment(line), folder)
                assert status == 0, f"{line}\n{capfd.readouterr().err}"


def run(command: str, folder: Path) -> object:
    """Run a line as the shell would; lines of ``aural`` alone run in this process, which is quicker."""
    words = shlex.split(command)
    if words[0] == "aural" and not {"|", ">", "<", ";", "&&"} & set(words):
        with pytest.raises(SystemExit) as exit_:
            main(words[1:])
        return exit_.value.code
    path = folder / "bin"
    path.mkdir(exist_ok=True)
    (path / "aural").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aural "$@"\n')
    (path / "aural").chmod(0o755)
    environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment).returncode


def test_systems_that_are_claimed_exist_and_planned_ones_do_not() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.splitlines()
        if line.startswith("| `") and line.count("|") == 7
    ]
    places = {verbs: re.findall(r"\]\((.*?)\)", where) for verbs, where, *_ in rows}
    assert len(places) == 4
    out = subprocess.run([sys.executable, "-m", "aural", "--help"], capture_output=True, text=True, check=True)
    for verbs, paths in places.items():
        for verb in re.findall(r"`(\w+)`", verbs):
            assert bool(paths) == bool(re.search(rf"^ +{verb} ", out.stdout, flags=re.MULTILINE)), verb
        assert all((ROOT / path / "recipes.py").is_file() for path in paths)


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{page}: {target}"


def test_house_plan_names_what_exists() -> None:
    """The tree in CONTRIBUTING.md, whose lines begin with a path or several, indented where they are the package's."""
    plan = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("```\nsrc/aural/\n")[2].partition("```")[0]
    assert plan
    for line in plan.splitlines():
        base = ROOT / "src" / "aural" if line.startswith(" ") else ROOT
        for name in line.strip().partition("   ")[0].replace(", ...", "").split(", "):
            assert (base / name).exists(), f"{line}: there is no {name}"
