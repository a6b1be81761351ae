"""The whole road of training with the tiny recipe: stages, resuming, holding out, the folder that comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from aural.audio import write
from aural.captioning.caption import load
from aural.captioning.model import Captioner
from aural.captioning.recipes import RECIPES
from aural.captioning.train import train
from aural.checkpoint import load_weights
from aural.errors import UsageError
from aural.manifest import Clip, write_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    clips = []
    for number, label in enumerate(["dog bark", "rain", "rooster"] * 2):
        path = folder / f"{number}.wav"
        write(path, generator.standard_normal(16000).astype(np.float32) * 0.1, 16000)
        split = ("fold1", "fold2", "validation")[number % 3]
        clips.append(Clip(audio=path, captions=(f"this is a {label}",), labels=(label,), split=split))
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"


def test_tiny_recipe_gives_a_model_that_loads_and_resumes_to_the_same(manifest: Path, tmp_path: Path) -> None:
    train("tiny", manifest=manifest, out=tmp_path / "a", progress=False)
    model = load(tmp_path / "a")
    assert model.captioners[0].config.conv_encoder is not None
    assert model.captioners[0].config.conv_encoder.labels == ("dog bark", "rain")  # "rooster" is for validation only
    assert "aural train captioning --recipe tiny" in (tmp_path / "a" / "README.md").read_text()
    log = [json.loads(line) for line in (tmp_path / "a" / "training" / "log.jsonl").read_text().splitlines()]
    assert any("token_accuracy" in line.get("validation", {}) for line in log)

    before = load_weights(tmp_path / "a")
    train("tiny", manifest=manifest, out=tmp_path / "a", resume=True, progress=False)  # all stages are finished
    train("tiny", manifest=manifest, out=tmp_path / "b", progress=False)
    for again in (load_weights(tmp_path / "a"), load_weights(tmp_path / "b")):
        assert all(torch.equal(before[name], again[name]) for name in before)
    with pytest.raises(UsageError, match="resume"):
        train("tiny", manifest=manifest, out=tmp_path / "a", progress=False)


def test_frozen_encoder_is_that_of_its_own_stage(manifest: Path, tmp_path: Path) -> None:
    train("tiny", manifest=manifest, out=tmp_path / "a", progress=False)
    encoder = load_weights(tmp_path / "a" / "stages" / "encoder")
    captioner = load_weights(tmp_path / "a")
    for name, value in encoder.items():
        assert torch.equal(captioner[f"encoder.{name}"], value), name


def test_given_encoder_and_held_out_split(manifest: Path, tmp_path: Path) -> None:
    train("tiny", manifest=manifest, out=tmp_path / "a", hold_out="fold1", progress=False)
    config = load(tmp_path / "a").captioners[0].config
    assert config.conv_encoder is not None
    assert config.conv_encoder.labels == ("rain",)
    assert "--hold-out fold1" in (tmp_path / "a" / "README.md").read_text()
    train("tiny", manifest=manifest, out=tmp_path / "b", encoder=tmp_path / "a" / "stages" / "encoder", progress=False)
    assert not (tmp_path / "b" / "stages" / "encoder").exists()


def test_what_cannot_be_trained_says_what_is_missing(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown recipe 'huge'; there are default, tiny, paper"):
        train("huge", manifest=manifest, out=tmp_path / "a")
    with pytest.raises(UsageError, match="--encoder"):
        train("paper", manifest=manifest, out=tmp_path / "a")
    with pytest.raises(UsageError, match="--tokenizer"):
        train("paper", manifest=manifest, out=tmp_path / "a", encoder=tmp_path)
    write_manifest(tmp_path / "empty.jsonl", [Clip(audio=tmp_path / "x.wav")])
    with pytest.raises(UsageError, match="captions"):
        train("tiny", manifest=tmp_path / "empty.jsonl", out=tmp_path / "a")


def test_recipes_have_sizes_that_fit_together() -> None:
    for recipe in (make() for make in RECIPES.values()):
        with torch.device("meta"):
            captioner = Captioner(recipe.model)
        for stage in recipe.stages:
            assert captioner.max_seconds >= stage.data.seconds
