"""The whole road of training with the tiny recipe: stages, resuming, holding out, the folder that comes out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from second_process import SeenError, second_of_two
from tiny_models import listener

from aural.audio import write
from aural.captioning.caption import load
from aural.captioning.data import DataSettings
from aural.captioning.encoded import EncodedExamples
from aural.captioning.model import Captioner
from aural.captioning.recipes import RECIPES
from aural.captioning.tokenizer import train_tokenizer
from aural.captioning.train import Shared, load_encoder, train
from aural.checkpoint import load_weights
from aural.errors import UsageError
from aural.manifest import Clip, read_manifest, write_manifest
from aural.soundscapes.examples import Examples, ExampleSettings
from aural.spec_augment import frequency_response


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


@pytest.fixture(scope="module")
def encoder(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return listener(tmp_path_factory.mktemp("listener") / "tiny", manifest)


def test_tiny_recipe_gives_a_model_that_loads_and_resumes_to_the_same(
    manifest: Path, encoder: Path, tmp_path: Path
) -> None:
    def run(folder: str, resume: bool = False) -> dict[str, torch.Tensor]:
        train("tiny", manifest=manifest, out=tmp_path / folder, encoder=encoder, resume=resume, progress=False)
        return load_weights(tmp_path / folder)

    before = run("a")
    model = load(tmp_path / "a")
    assert model.captioners[0].config.conv_encoder is not None
    assert "aural train captioning --recipe tiny" in (tmp_path / "a" / "README.md").read_text()
    log = [json.loads(line) for line in (tmp_path / "a" / "training" / "log.jsonl").read_text().splitlines()]
    assert any("token_accuracy" in line.get("validation", {}) for line in log)

    for again in (run("a", resume=True), run("b")):  # all stages of the first are finished
        assert all(torch.equal(before[name], again[name]) for name in before)
    with pytest.raises(UsageError, match="resume"):
        run("a")


def test_a_training_goes_on_with_what_it_was_begun_with(
    manifest: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(manifest: Path = manifest, encoder: Path = encoder, **options: Any) -> None:
        train("tiny", manifest=manifest, out=tmp_path / "a", encoder=encoder, progress=False, resume=True, **options)

    run()
    stages = [stage.name for stage in RECIPES["tiny"]().stages[:-1]]
    folders = [*(tmp_path / "a" / "stages" / name for name in stages), tmp_path / "a"]
    assert all((folder / "training" / "of.json").is_file() for folder in folders)
    fewer = [replace(clip, captions=(*clip.captions, "a sound")) for clip in read_manifest(manifest)]
    write_manifest(tmp_path / "other.jsonl", fewer)
    with pytest.raises(UsageError, match="was begun with another set of clips:"):
        run(tmp_path / "other.jsonl")
    with pytest.raises(UsageError, match="was begun with another set of clips and another hold-out:"):
        run(hold_out="fold1")
    with pytest.raises(UsageError, match="was begun with another encoder:"):
        run(encoder=listener(tmp_path / "other", tmp_path / "other.jsonl"))
    (other := tmp_path / "tokenizer.json").write_text(train_tokenizer(["a b c"], 300).to_str(), encoding="utf-8")
    with pytest.raises(UsageError, match="was begun with another tokenizer"):
        run(tokenizer=other)
    monkeypatch.setattr("aural.captioning.train.train_tokenizer", None)  # the one that is kept is taken
    run()
    for folder in folders:
        (folder / "training" / "of.json").unlink()  # as in trainings of before it was kept
    run()


def test_each_process_encodes_on_its_own_device(
    manifest: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with second_of_two(monkeypatch) as devices:
        monkeypatch.setattr("aural.captioning.train.EncodedExamples", devices)
        with pytest.raises(SeenError):
            train("tiny", manifest=manifest, out=tmp_path / "a", encoder=encoder, device="cuda", progress=False)
    assert devices.seen == [torch.device("cuda", 1)]


def test_frozen_encoder_is_the_listener_s(manifest: Path, encoder: Path, tmp_path: Path) -> None:
    train("tiny", manifest=manifest, out=tmp_path / "a", encoder=encoder, hold_out="fold1", progress=False)
    given, captioner = load_weights(encoder), load_weights(tmp_path / "a")
    for name, value in given.items():
        if name.startswith("encoder."):
            assert torch.equal(captioner[name], value), name
    assert "--hold-out fold1" in (tmp_path / "a" / "README.md").read_text()


def test_trainings_that_share_features_give_what_each_gives_alone(
    manifest: Path, encoder: Path, tmp_path: Path
) -> None:
    shared = Shared()
    for folder in ("a", "b"):
        train("tiny", manifest=manifest, out=tmp_path / folder, encoder=encoder, progress=False, shared=shared)
    train("tiny", manifest=manifest, out=tmp_path / "c", encoder=encoder, progress=False)
    a, b, c = (load_weights(tmp_path / folder) for folder in "abc")
    assert all(torch.equal(a[name], b[name]) and torch.equal(a[name], c[name]) for name in a)
    assert set(shared.pools) == {"soundscapes"}


@pytest.mark.parametrize("response_db", [0.0, 6.0])
def test_encoded_examples_are_what_the_encoder_makes_of_them(
    response_db: float, manifest: Path, encoder: Path, tmp_path: Path
) -> None:
    network, _ = load_encoder(encoder, RECIPES["tiny"]().model)
    stage = RECIPES["tiny"]().stages[0]
    assert isinstance(stage.data, ExampleSettings)
    examples = Examples(read_manifest(manifest), stage.data, seed=3)
    pool = EncodedExamples(
        examples,
        network,
        tapped_layer=None,
        n=6,
        n_captions=2,
        response_db=response_db,
        device=torch.device("cpu"),
        bfloat16=False,
        progress=False,
    )
    assert len(pool.tokens) == 8  # whole groups of four
    tokens = {id(one): place for place, one in enumerate(pool.tokens)}
    for turn in range(2):
        seen = [pool(8 * turn + index) for index in range(8)]
        assert sorted(tokens[id(one.tokens)] for one in seen) == list(range(8))
        for one in seen:
            place = tokens[id(one.tokens)]
            _, captions = examples.with_captions(place, 2)
            assert one.caption == captions[turn % len(captions)]
            waveform = torch.from_numpy(examples(place).waveform)[None]
            drawn = torch.Generator().manual_seed(3 + place // 4)
            with torch.no_grad():
                fbank, mask = network.fbank(waveform)
                response = frequency_response(4, fbank.shape[2], response_db, drawn)[place % 4]
                alone = network.encode_fbank(fbank + response, mask).hidden[0]
            torch.testing.assert_close(one.tokens.float(), alone, atol=2e-3, rtol=2e-3)


def test_what_cannot_be_trained_says_what_is_missing(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown recipe 'huge'; there are default, tiny, paper"):
        train("huge", manifest=manifest, out=tmp_path / "a")
    with pytest.raises(UsageError, match="--encoder"):
        train("paper", manifest=manifest, out=tmp_path / "a")
    with pytest.raises(UsageError, match="--tokenizer"):
        train("paper", manifest=manifest, out=tmp_path / "a", encoder=tmp_path)
    write_manifest(tmp_path / "empty.jsonl", [Clip(audio=tmp_path / "x.wav")])
    with pytest.raises(UsageError, match="--hold-out fold1"):  # the listener in the box has heard that fold
        train("default", manifest=manifest, out=tmp_path / "a", hold_out="fold1")
    with pytest.raises(UsageError, match="captions"):
        train("tiny", manifest=tmp_path / "empty.jsonl", out=tmp_path / "a")


def test_recipes_have_sizes_that_fit_together() -> None:
    for recipe in (make() for make in RECIPES.values()):
        with torch.device("meta"):
            captioner = Captioner(recipe.model)
        for stage in recipe.stages:
            seconds = stage.data.seconds if isinstance(stage.data, DataSettings) else stage.data.soundscapes.seconds[1]
            assert captioner.max_seconds >= seconds
