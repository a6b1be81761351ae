"""Training a codec: two players in one step, cuts to learn from, and a training that stops and goes on."""

import json
import os
import signal
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aural.audio import write
from aural.checkpoint import load_weights
from aural.codec.data import Cuts, CutSettings
from aural.codec.losses import (
    GradientBalancer,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    l1_loss,
    multi_scale_mel_loss,
)
from aural.codec.recipes import RECIPES, LossWeights, Phase, Recipe, default, tiny
from aural.codec.train import _Training, awake, awake_judge, train
from aural.codec_folder import load_codec
from aural.errors import UsageError
from aural.manifest import Clip, write_manifest
from aural.networks.encodec import Encodec, EncodecConfig, fold_weight_norm
from aural.networks.stft_discriminator import StftDiscriminator

RATE = 16000


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    clips = []
    for number, label in enumerate(["dog bark", "rain"]):
        tone = np.sin(2 * np.pi * 220 * (number + 1) * np.arange(RATE) / RATE) * 0.2
        write(folder / f"{number}.wav", tone + generator.standard_normal(RATE) * 0.02, RATE)
        clips.append(Clip(folder / f"{number}.wav", labels=(label,), split=f"fold{number}"))
    write_manifest(folder / "m.jsonl", clips)
    return folder / "m.jsonl"


def log(out: Path) -> list[dict[str, Any]]:
    """The log, without what a clock says."""
    lines = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


# ------------------------------------------------------------------------------------------------------------- one step


def grads(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p.grad) for name, p in module.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("judged", [True, False])
def test_each_player_gets_the_gradient_of_its_own_losses(judged: bool) -> None:
    """As when the two are taught one after the other, each by a pass of its own."""
    unjudged, last = LossWeights(waveform=5.0, mel=1.0, adversarial=0.0, features=0.0), LossWeights(mel=3.0)
    recipe = replace(tiny(), phases=(Phase(0.5, unjudged), Phase(0.5, last)))
    torch.manual_seed(0)
    module = _Training(Encodec(recipe.model), recipe, Cuts([], recipe.data, 0)).train()
    module._start_codebooks(torch.device("cpu"))
    waveform = torch.randn(3, 1, 3200, generator=torch.Generator().manual_seed(1)) * 0.1
    apart = deepcopy(module)

    torch.manual_seed(2)
    batch = {"waveform": waveform, "step": module.ends[0] - (not judged)}
    losses = module(batch)
    assert losses.keys() == module.loss_weights.keys() == module.counts(batch).keys()
    torch.stack([losses[name] * weight for name, weight in module.loss_weights.items()]).sum().backward()

    torch.manual_seed(2)
    output, quantized = apart.codec(waveform)
    if judged:
        with torch.no_grad():
            real = apart.discriminator(waveform)
        frozen = deepcopy(apart.discriminator).requires_grad_(False)
        discriminator_loss(apart.discriminator(output.detach()), apart.discriminator(waveform)).backward()
        fake = frozen(output)
    quantized.penalty.backward(retain_graph=True)
    own = {"waveform": l1_loss(output, waveform), "mel": multi_scale_mel_loss(output, waveform, recipe.mel)}
    weights = asdict(last if judged else unjudged)
    if judged:
        own |= {"adversarial": adversarial_loss(fake), "features": feature_matching_loss(fake, real)}
    balanced = GradientBalancer({name: weights[name] for name in own}).backward(own, output)

    torch.testing.assert_close(losses["balanced"], balanced.loss)
    for name in own:
        torch.testing.assert_close(losses[name], own[name].detach())
    expected = dict(grads(apart.codec))
    assert expected and dict(grads(module.codec)).keys() == expected.keys()
    for name, gradient in grads(module.codec):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
    for name, gradient in grads(module.discriminator):
        wanted = dict(grads(apart.discriminator))[name] if judged else torch.zeros_like(gradient)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ trainings


def changed(recipe: Recipe) -> Recipe:
    """One step without the quantiser, two with it, three with the discriminator besides."""
    return replace(recipe, train=replace(recipe.train, steps=6))


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("training") / "whole"
    train("tiny", manifest=manifest, out=out, device="cpu", change=changed, progress=False)
    return out


def test_a_training_becomes_a_codec(whole: Path) -> None:
    lines = [line["losses"] for line in log(whole) if "losses" in line]
    assert ["discriminator" in losses for losses in lines] == [False] * 3 + [True] * 3
    assert ["commitment" in losses for losses in lines] == [False] + [True] * 5
    assert all({"waveform", "mel", "negative_si_snr"} <= losses.keys() for losses in lines)
    assert "aural train codec --recipe tiny" in (whole / "README.md").read_text()
    weights = load_weights(whole)
    assert all(weights[f"quantizer.layers.{k}.codebook.inited"].item() == 1.0 for k in range(2))
    assert not any("original" in name or "discriminator" in name for name in weights)
    codec = load_codec(whole, device="cpu")
    assert (codec.sample_rate, codec.hop, codec.frame_rate) == (RATE, 320, 50.0)
    assert (codec.n_codebooks, codec.codebook_size) == (2, 16)
    codes = codec.encode(torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 0.1)
    assert codes.shape == (2, 2, 16)
    assert codec.decode(codes).shape == (2, 5120)
    pieces = torch.cat([*codec.decode_stream(codes.split(3, dim=2))], dim=1)
    torch.testing.assert_close(pieces, codec.decode(codes), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("at", [1, 2, 5], ids=["unquantised", "unjudged", "judged"])
def test_a_training_goes_on_as_if_nothing_had_happened(
    at: int, whole: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cut = tmp_path / "out", Cuts.__call__

    def interrupted(cuts: Cuts, index: int) -> np.ndarray:
        if index == 2 * at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return cut(cuts, index)

    given: dict[str, Any] = {"manifest": manifest, "out": out, "device": "cpu", "change": changed, "progress": False}
    with monkeypatch.context() as patched:
        patched.setattr(Cuts, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("tiny", **given)
    assert [path.name for path in (out / "training").glob("step-*")] == [f"step-{at:08d}"]
    train("tiny", resume=True, **given)
    assert log(out) == log(whole)
    one, other = load_weights(out), load_weights(whole)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_for_muon_weights_are_plain(manifest: Path, tmp_path: Path) -> None:
    def by_muon(recipe: Recipe) -> Recipe:
        return replace(changed(recipe), train=replace(recipe.train, steps=6, optimizer="muon"))

    module = _Training(Encodec(tiny().model), by_muon(tiny()), Cuts([], tiny().data, 0))
    assert not any("original" in name for name, _ in module.named_parameters())
    train("tiny", manifest=manifest, out=tmp_path / "out", device="cpu", change=by_muon, progress=False)
    before, after = awake(Encodec(tiny().model)).state_dict(), load_weights(tmp_path / "out")
    assert before.keys() == after.keys()


def test_a_codec_learns(manifest: Path, tmp_path: Path) -> None:
    def longer(recipe: Recipe) -> Recipe:
        run = replace(recipe.train, steps=60, batch_size=4, learning_rate=3e-3)
        alone = (Phase(1.0, LossWeights(adversarial=0.0, features=0.0)),)
        return replace(recipe, phases=alone, data=replace(recipe.data, recordings=1.0), train=run)

    train("tiny", manifest=manifest, out=tmp_path / "out", device="cpu", change=longer, progress=False)
    mel = [line["losses"]["mel"] for line in log(tmp_path / "out") if "losses" in line]
    assert sum(mel[-10:]) / 10 < 0.6 * mel[0]


@torch.no_grad()
def test_an_untrained_judge_tells_sounds_apart() -> None:
    waveform = 0.1 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    spread = []
    for change in (lambda judge: judge, awake_judge, lambda judge: awake_judge(fold_weight_norm(judge))):
        torch.manual_seed(0)
        judged = change(StftDiscriminator(default().discriminator))(waveform)
        spread.append(min(float(scale.logits.std()) for scale in judged))
    assert spread[0] < 0.05 and min(spread[1:]) > 0.3


@pytest.mark.parametrize("shares", [(0.5, 0.4), (0.7, 0.4)])
def test_phases_are_the_whole(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        replace(tiny(), phases=tuple(Phase(share) for share in shares))


@torch.no_grad()
def test_an_untrained_codec_hears_differences_and_is_about_as_loud_as_sounds_are() -> None:
    waveform = 0.05 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    spread, level = [], []
    for change in (lambda codec: codec, awake):
        torch.manual_seed(0)
        codec = change(Encodec(default().model)).eval()
        latents = codec.encoder(waveform)
        spread.append(float(latents.std(dim=(0, 2)).mean() / latents.std()))
        level.append(float(codec.decoder(latents).std()))
    assert spread[0] < 0.3 < 0.7 < spread[1]  # latents of all frames are much alike as PyTorch begins, and as we do not
    assert 0.02 < level[1] < 0.3


def test_what_cannot_be_trained_says_why(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown recipe 'huge'; there are default, decoder, tiny, paper"):
        train("huge", manifest=manifest, out=tmp_path / "a")
    write_manifest(
        tmp_path / "m.jsonl", [Clip(tmp_path / "x.wav", split="fold1"), Clip(tmp_path / "y.wav", split="validation")]
    )
    with pytest.raises(UsageError, match="no clip to learn from outside fold1"):
        train("tiny", manifest=tmp_path / "m.jsonl", out=tmp_path / "a", hold_out="fold1")


def test_recipes_have_sizes_that_fit_together() -> None:
    for make in RECIPES.values():
        recipe = make()
        with torch.device("meta"):
            StftDiscriminator(recipe.discriminator)
            n_values = sum(tensor.numel() for tensor in Encodec(recipe.model).state_dict().values())
        assert make is not default or (n_values * 2 <= 9e6 and recipe.half and recipe.model.hop == 320)
    with pytest.raises(ValueError, match="one channel at 16000 Hz"):
        replace(tiny(), model=EncodecConfig(sample_rate=32000))
    with pytest.raises(ValueError, match="shorter than the discriminator's"):
        replace(tiny(), data=CutSettings(n_samples=200))


# ----------------------------------------------------------------------------------------------------------------- cuts


def test_cuts_depend_on_seed_and_index_alone(manifest: Path, tmp_path: Path) -> None:
    write(tmp_path / "short.wav", np.full(800, 0.5, np.float32), RATE)
    clips = [Clip(manifest.with_name("0.wav"), labels=("dog bark",)), Clip(tmp_path / "short.wav")]
    settings = CutSettings(n_samples=4000)
    cuts, again = Cuts(clips, settings, seed=1), Cuts(clips, settings, seed=1)
    order = [*range(12)]
    first = {index: cuts(index) for index in order}
    for index in reversed(order):
        assert first[index].dtype == np.float32 and first[index].shape == (4000,)
        assert np.abs(first[index]).max() <= 1.0
        np.testing.assert_array_equal(again(index), first[index])
    assert not np.array_equal(Cuts(clips, settings, seed=2)(0), first[0])
    assert any(np.any(cut[:700]) and not np.any(cut[1200:]) for cut in first.values())  # short.wav and what follows it
    alone = Cuts([], settings, seed=1)
    assert any(np.any(alone(index)) for index in order)  # soundscapes of what is synthesised


def test_a_decoder_learns_on_and_codes_stay(whole: Path, manifest: Path, tmp_path: Path) -> None:
    def alone(recipe: Recipe) -> Recipe:
        return replace(changed(recipe), decoder_alone=True)

    train("tiny", manifest=manifest, out=tmp_path / "out", codec=str(whole), device="cpu", change=alone, progress=False)
    before, after = load_weights(whole), load_weights(tmp_path / "out")
    changed_ones = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed_ones and all(name.startswith("decoder.") for name in changed_ones)
    assert load_codec(tmp_path / "out").digest == load_codec(whole).digest
    assert f"--codec {whole}" in (tmp_path / "out" / "README.md").read_text()
    given: dict[str, Any] = {"out": tmp_path / "out", "device": "cpu", "change": alone, "progress": False}
    with pytest.raises(UsageError, match="was begun with another codec:"):
        train("tiny", manifest=manifest, codec=str(tmp_path / "out"), resume=True, **given)
    with pytest.raises(UsageError, match="was begun with another set of clips and another hold-out:"):
        train("tiny", manifest=manifest, codec=str(whole), hold_out="fold1", resume=True, **given)
    train("tiny", manifest=manifest, codec=str(whole), resume=True, **given)


def test_a_decoder_needs_a_codec_and_others_need_none(whole: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pass --codec"):
        train("decoder", manifest=manifest, out=tmp_path / "out")
    with pytest.raises(UsageError, match="leave out --codec"):
        train("tiny", manifest=manifest, out=tmp_path / "out", codec=str(whole))
