"""Each benchmark runs, at toy sizes. What it measures is for people to read: no time is asserted here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPECTED_PEERS = {
    "captioning.py": [*["explicit attention"] * 2, *["transformers, cached"] * 3, "as released, no cache", ""],
    "codec.py": ["transformers"] * 3,
    "imagine.py": [*["StableDiffusionPipeline"] * 2, ""],
    "answering.py": [
        *["as released, no cache, item by item"] * 4,
        *["explicit attention, STFT by convolution"] * 2,
    ],
    "generation.py": ["transformers", "transformers", "transformers, dynamic int8", "transformers"],
}
"""Script to the peers of its rows; a script stops before that if ours and a peer disagree."""


@pytest.mark.parametrize("script", EXPECTED_PEERS)
def test_runs_at_toy_sizes(script: str, tmp_path: Path) -> None:
    source = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / script), "--tiny", "--json", str(tmp_path / "figures.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert done.returncode == 0, done.stderr
    assert "| ours: median (min) s |" in done.stdout
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["peer_name"] for row in rows] == EXPECTED_PEERS[script]
    assert all(row["flops"] > 0 and min(row["ours"]["seconds"]) > 0 for row in rows)


def test_soundscapes_at_toy_sizes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "soundscapes.py"), "--tiny"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| counted |" in done.stdout
    assert "100 captions of as many soundscapes" in done.stdout
