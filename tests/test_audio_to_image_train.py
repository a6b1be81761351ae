"""The audio token learns through frozen models, which stay as they are; low-rank updates learn where asked for."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_to_image_models import GLYPHS, few_glyphs, picture_model, sounds, stable_diffusion
from tiny_models import listener
from torch import Tensor

from aural.__main__ import main
from aural.audio import read_mono, write
from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.convert import load_model
from aural.audio_to_image.data import Evoked, Recordings, in_turn, pairs, varied
from aural.audio_to_image.evaluate import evaluate
from aural.audio_to_image.imagine import load
from aural.audio_to_image.lora import Lora, merge, projections
from aural.audio_to_image.losses import LossConfig
from aural.audio_to_image.painter import load_painter
from aural.audio_to_image.recipes import Recipe
from aural.audio_to_image.train import TokenTraining, train
from aural.checkpoint import load_weights, read_foreign, save_model
from aural.errors import CheckpointError, UsageError
from aural.manifest import Clip, read_manifest, write_manifest
from aural.networks.beats import BEATs, BeatsConfig

BEATS = BeatsConfig(
    embed_dim=6, input_patch_size=16, encoder_layers=3, encoder_embed_dim=8, encoder_ffn_embed_dim=12,
    encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2, num_buckets=8, max_distance=16,
    finetuned_model=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with glyphs, sounds, a picture model, a listener and a Stable Diffusion."""
    folder = tmp_path_factory.mktemp("audio_to_image")
    few = few_glyphs(folder / "glyphs")
    picture_model(folder / "pictures", few)
    listener(folder / "listener", sounds(folder / "sounds"))
    stable_diffusion(folder / "sd")
    save_model(folder / "beats", system="beats", config=BEATS, weights=BEATs(BEATS).state_dict(), card="")
    yield folder


def over(place: Path) -> dict[str, Path]:
    """What a training needs besides a recipe and a place for its model."""
    manifest, few = place / "sounds" / "sounds.jsonl", place / "glyphs" / "few.jsonl"
    return {"manifest": manifest, "pictures": few, "painter": place / "pictures", "encoder": place / "listener"}


def test_only_the_bridge_learns_and_goes_on_where_it_stopped(place: Path, tmp_path: Path) -> None:
    before = load_weights(place / "pictures")

    def slow(recipe: Recipe) -> Recipe:
        return replace(recipe, train=replace(recipe.train, learning_rate=1e-3, final_learning_rate=1e-3))

    train("tiny", **over(place), out=tmp_path / "whole", change=slow, progress=False)
    train("tiny", **over(place), out=tmp_path / "halves", change=slow, steps=2, progress=False)
    first = load_weights(tmp_path / "halves")
    train("tiny", **over(place), out=tmp_path / "halves", change=slow, resume=True, progress=False)
    whole, halves = load_weights(tmp_path / "whole"), load_weights(tmp_path / "halves")
    assert whole.keys() == halves.keys() and all(torch.equal(whole[name], halves[name]) for name in whole)
    other = over(place) | {"pictures": place / "glyphs" / "fewer.jsonl"}
    write_manifest(other["pictures"], read_manifest(over(place)["pictures"], required="image")[1:])
    with pytest.raises(UsageError, match="another set of pictures"):
        train("tiny", **other, out=tmp_path / "halves", change=slow, resume=True, progress=False)
    changed = {name.split(".")[0] for name in whole if not torch.equal(whole[name], first[name])}
    assert changed == {"fc1", "fc2", "pooling"}
    heard = {name.removeprefix("encoder."): one for name, one in whole.items() if name.startswith("encoder.")}
    listened = load_weights(place / "listener")
    assert heard and all(torch.equal(one, listened[f"encoder.{name}"]) for name, one in heard.items())
    after = load_painter(place / "pictures").unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    model = load(tmp_path / "whole", painter=place / "pictures", device="cpu")
    manifest, few = over(place)["manifest"], over(place)["pictures"]
    result, sheet = evaluate(model, manifest, few, split="fold0")
    assert result["n_clips"] == 3 and abs(result["chance_of_class"] - 1 / 3) < 1e-6 and sheet.height > 3 * 96
    assert set(result["of_label"]) == set(GLYPHS.values())


def training(place: Path, name: str = "sd", lora: int = 0, *, checkpointing: bool = False) -> TokenTraining:
    """A training over features of width 5, without an encoder."""
    painter = load_painter(place / name)
    torch.manual_seed(1)
    config = AudioTokenConfig(
        layers=(1,), encoder_width=5, token_width=painter.words.width, dropout=0.0, lora_rank=lora
    )
    return TokenTraining(AudioToken(config), painter, LossConfig(classification=0.1), checkpointing=checkpointing)


def batch(module: TokenTraining) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    pictures = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    return {
        "heard": torch.randn(2, 4, 5, generator=generator),
        "mask": torch.tensor([[True] * 4, [True, True, False, False]]),
        "moments": module.painter.canvas.moments(pictures),
        "names": module.painter.words.embeddings(["a dog", "rain"]),
    }


def gradients(module: TokenTraining) -> dict[str, Tensor]:
    torch.manual_seed(3)
    losses = module(batch(module))
    weights = module.loss_weights(labels=True)
    assert losses.keys() == weights.keys()
    torch.stack([losses[name] * weights[name] for name in losses]).sum().backward()
    return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", ["sd", "pictures"])
def test_gradients_reach_the_bridge_through_frozen_networks(place: Path, name: str) -> None:
    module = training(place, name)
    found = gradients(module)
    assert {one for one in found if found[one].abs().max() > 0} >= {"token.fc1.weight", "token.fc2.weight"}
    assert all(one.grad is None for one in module.painter.unet.parameters())
    again = gradients(training(place, name, checkpointing=True))
    for one, gradient in found.items():
        torch.testing.assert_close(again[one], gradient)


def test_low_rank_updates_learn_also_where_the_unet_is_computed_twice(place: Path) -> None:
    module = training(place, lora=2)
    assert module.lora is not None
    n_projections = len(list(projections(module.painter.unet)))
    assert n_projections == len(module.lora.down) == 4 * 2 * 4  # four of each of two attentions of four blocks
    torch.nn.init.normal_(next(iter(module.lora.up.values())))  # so that what lies before it has a gradient as well
    twice = training(place, lora=2, checkpointing=True)
    twice.load_state_dict(module.state_dict())
    once, again = gradients(module), gradients(twice)
    assert sum(name.startswith("lora.up") and bool(one.abs().max() > 0) for name, one in once.items()) == n_projections
    for name, one in once.items():
        torch.testing.assert_close(again[name], one)


def test_merged_updates_compute_what_attached_ones_do(place: Path) -> None:
    plain, attached, merged = (load_painter(place / "sd") for _ in range(3))
    lora = Lora(plain.unet, 2)
    torch.manual_seed(0)
    latents, steps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    states, mask = plain.words.states(["a dog"])
    before = plain.predict(latents, steps, states, mask)
    lora.attach(attached.unet)
    torch.testing.assert_close(attached.predict(latents, steps, states, mask), before)  # at first nothing changes
    for one in lora.up.values():
        torch.nn.init.normal_(one, std=0.1)
    merge(merged.unet, lora)
    after = attached.predict(latents, steps, states, mask)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(merged.predict(latents, steps, states, mask), after, atol=1e-5, rtol=1e-4)


def test_the_papers_recipe_over_a_stable_diffusion_with_updates(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def small(recipe: Recipe) -> Recipe:
        run = replace(recipe.train, steps=2, batch_size=2, micro_batch_size=1, workers=0, precision="float32")
        token = replace(recipe.token, layers=(1, 2, 3))
        return replace(recipe, train=run, token=token, seconds=1.0, size=(16, 32))

    given = over(place) | {"painter": place / "sd", "encoder": place / "beats"}
    train("paper", **given, lora=2, precision="float32", out=tmp_path / "out", change=small, progress=False)  # type: ignore[arg-type]
    assert [one.getMessage() for one in caplog.records if "not fine-tuned" in one.getMessage()]  # as BEATS is not
    card = (tmp_path / "out" / "README.md").read_text()
    (command,) = (line.strip() for line in card.splitlines() if "aural train" in line)
    assert command == (
        f"aural train audio_to_image --recipe paper --manifest sounds.jsonl --seed 0 --pictures few.jsonl "
        f"--painter {place / 'sd'} --encoder beats --lora 2 --precision float32"
    )
    token, updates = load_model(tmp_path / "out")
    assert token.config.token_width == 16 and token.config.lora_rank == 2 and token.config.feature_width == 24
    assert max(float(one.abs().max()) for name, one in updates.items() if name.startswith("up.")) > 0
    assert not any("unet" in name for name in read_foreign(tmp_path / "out" / "model.safetensors"))
    model = load(tmp_path / "out", painter=place / "sd", device="cpu")
    stored = load_painter(place / "sd").unet
    assert any(not torch.equal(a, b) for a, b in zip(model.painter.unet.parameters(), stored.parameters(), strict=True))


def test_sounds_go_with_their_own_picture_or_with_those_of_their_label(place: Path, tmp_path: Path) -> None:
    glyphs = read_manifest(over(place)["pictures"], required="image")
    a, b, c = (
        Clip(tmp_path / f"{name}.wav", labels=(label,)) for name, label in zip("abc", ("mouse", "x", "y"), strict=True)
    )
    own = replace(b, image=tmp_path / "b.png")
    found = pairs([a, own, c], glyphs)
    assert [(pair.clip, pair.name) for pair in found] == [(a, "mouse"), (own, "x")]
    assert found[0].images == tuple(one.image for one in glyphs if "mouse" in one.labels)
    assert found[1].images == (tmp_path / "b.png",)
    assert {in_turn(found, index, seed=0).name for index in (0, 1)} == {"mouse", "x"}
    with pytest.raises(UsageError, match="no sound has a picture"):
        pairs([c], glyphs)
    heard = Recordings(pairs(read_manifest(over(place)["manifest"]), glyphs), 2.5, seed=0)
    one = heard(3)
    assert (
        isinstance(one, Evoked) and len(one.heard) == 40000 and torch.equal(one.heard[:16000], one.heard[16000:32000])
    )
    assert torch.equal(heard(3).heard, one.heard) and heard(3).image == one.image
    sound = np.sin(np.arange(32000, dtype=np.float32))
    for seconds in (1.0, 4.0):
        assert varied(sound, seconds, np.random.default_rng(0))[0].shape == (round(16000 * seconds),)


def test_a_sound_without_a_label_turns_the_pull_towards_names_off_and_that_is_said(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = read_manifest(over(place)["manifest"])
    glyph = read_manifest(over(place)["pictures"], required="image")[0].image
    write_manifest(tmp_path / "m.jsonl", [replace(clips[0], labels=(), image=glyph), *clips[1:]])
    for manifest, warned in ((over(place)["manifest"], 0), (tmp_path / "m.jsonl", 1)):
        caplog.clear()
        given = over(place) | {"manifest": manifest}
        train("tiny", **given, out=tmp_path / manifest.stem, steps=1, progress=False)
        said = [one.getMessage() for one in caplog.records if "no label" in one.getMessage()]
        assert len(said) == warned and all("1 of 6 clips" in one and str(clips[0].audio) in one for one in said)
        log = (tmp_path / manifest.stem / "training" / "log.jsonl").read_text()
        assert ("classification" in log) != bool(warned)


def test_what_is_judged_is_the_part_of_a_recording_that_a_clip_is(place: Path, tmp_path: Path) -> None:
    train("tiny", **over(place), out=tmp_path / "token", steps=1, progress=False)
    model = load(tmp_path / "token", painter=place / "pictures", device="cpu")
    heard: list[int] = []
    model.token.register_forward_pre_hook(lambda _, given: heard.append(given[0].shape[1]))
    sound = np.concatenate([read_mono(clip.audio, 16000) for clip in read_manifest(over(place)["manifest"])] * 2)
    write(tmp_path / "long.wav", sound, 16000)
    clips = [
        Clip(tmp_path / "long.wav", start=start, duration=duration, labels=("mouse",))
        for start, duration in ((0.0, None), (1.0, 4.0), (7.0, 4.0))
    ]
    write_manifest(tmp_path / "m.jsonl", clips)
    evaluate(model, tmp_path / "m.jsonl", over(place)["pictures"])
    whole, *parts = heard
    assert parts[0] == parts[1] and abs(whole / parts[0] - 3) < 0.1
    glyph = read_manifest(over(place)["pictures"], required="image")[0].image
    write_manifest(tmp_path / "m.jsonl", [replace(clips[0], labels=("unheard of",), image=glyph)])
    with pytest.raises(UsageError, match=r"m\.jsonl: no sound has a label that a picture has"):
        evaluate(model, tmp_path / "m.jsonl", over(place)["pictures"])


def test_what_a_training_lacks_is_said(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for change, what in (
        ({"recipe": "huge"}, "there are default, tiny, paper"),
        ({"pictures": None}, "pass --pictures"),
        ({"encoder": None, "hold_out": "fold0"}, "trained with --hold-out fold0"),
        ({"recipe": "paper", "encoder": None}, "pass --encoder"),
    ):
        with pytest.raises(UsageError, match=what):
            train(**{"recipe": "tiny", **over(place), "out": out, **change})  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"beats does not fit.* 3 layers, and \(4, 8, 12\)"):
        train(**{**over(place), "recipe": "paper", "encoder": place / "beats", "out": out})  # type: ignore[arg-type]
    empty = tmp_path / "m.jsonl"
    write_manifest(empty, [Clip(tmp_path / "a.wav", labels=("unheard of",))])
    with pytest.raises(UsageError, match="no sound has a picture"):
        train("tiny", **over(place) | {"manifest": empty}, out=out)


def test_the_whole_road_by_commands(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, few, heard = (str(over(place)[name]) for name in ("manifest", "pictures", "encoder"))

    def aural(*arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as status:
            main([*arguments, "--quiet"])
        said = capsys.readouterr()
        assert status.value.code == 0, said.err
        return json.loads(said.out) if said.out else {}

    drawer, token = str(tmp_path / "pictures"), str(tmp_path / "folds" / "fold1")
    aural("train", "pictures", "--recipe", "tiny", "--manifest", few, "-o", drawer)
    given = ["--manifest", manifest, "--pictures", few, "--painter", drawer]
    learnt = ["--recipe", "tiny", "--encoder", heard, "--hold-out", "fold1", "--lora", "1"]
    aural("train", "audio_to_image", *learnt, *given, "-o", token)
    sheet = tmp_path / "sheet.png"
    words = aural("evaluate", "pictures", "--manifest", few, "--model", drawer, "--sheet", str(sheet))
    assert words["n_names"] == 3 and sheet.is_file()
    one = aural("evaluate", "audio_to_image", *given, "--model", token, "--split", "fold1")
    pooled = aural("evaluate", "audio_to_image", *given, "--held-out", str(tmp_path / "folds"))
    assert one["n_clips"] == pooled["n_clips"] == 3 and one["of_label"] == pooled["of_label"]
    unknown = [*given[:-1], "nobody/nothing", "--offline", "--held-out", str(tmp_path / "folds")]
    asked: list[bool] = []  # all tests are offline, so that what is said does not tell
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **how: asked.append(how["local_files_only"]))
    with pytest.raises(SystemExit):
        main(["evaluate", "audio_to_image", *unknown])
    assert asked == [True] and "nobody/nothing" in capsys.readouterr().err
    with pytest.raises(SystemExit) as status:
        main(["train", "pictures", "--recipe", "tiny", "--manifest", few, "-o", drawer, "--hold-out", "fold1"])
    assert status.value.code == 2
