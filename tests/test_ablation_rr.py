"""The ablation of the regulariser runs at toy sizes, keeps what is finished, and compares seed by seed."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from text_to_audio_models import codec, many_recordings
from tiny_models import listener

SCRIPT = Path(__file__).parents[1] / "bench" / "ablation_rr.py"


def test_runs_what_is_missing_and_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = importlib.util.spec_from_file_location("ablation_rr", SCRIPT)
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # it would hold for the tests that follow
    manifest = many_recordings(tmp_path)
    given = {"manifest": manifest, "codec": codec(tmp_path / "codec"), "judge": listener(tmp_path / "judge", manifest)}
    given |= {"out": tmp_path / "out", "recipe": "tiny", "n": 11, "pairs": 3, "seeds": 0}
    arguments = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["ablation_rr.py", *arguments, "--variants", "none", "lambda 3, max"])

    def table() -> list[list[str]]:
        script.main()
        lines = capsys.readouterr().out.splitlines()[2:]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    rows = table()
    assert [row[0] for row in rows] == ["none", "lambda 3, max", "(recordings through the codec)", "(recordings)"]
    scores = {name: tmp_path / "out" / name / "seed0" / "scores.json" for name in ("none", "lambda_3_max")}
    heard = {name: json.loads(path.read_text())["generated"]["class_heard"] for name, path in scores.items()}
    assert rows[1][6].startswith(f"{heard['lambda_3_max'] - heard['none']:+.3f}") and rows[0][6] == ""

    changed = json.loads(scores["none"].read_text())  # what is finished is not made again
    changed["generated"]["class_heard"] = 1.0
    scores["none"].write_text(json.dumps(changed))
    assert table()[1][6].startswith(f"{heard['lambda_3_max'] - 1:+.3f}")
