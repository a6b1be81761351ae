"""Sounds become pictures: over our own model, and over a Stable Diffusion in its full folder layout."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import piped_sounds
import pytest
import torch
from audio_to_image_models import few_glyphs, picture_model, sounds, stable_diffusion
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionPipeline
from PIL import Image
from tiny_models import listener

import aural
from aural.__main__ import main
from aural.audio import windows
from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.convert import SYSTEM
from aural.audio_to_image.imagine import ImaginationModel, generate_image, imagine_each, load
from aural.audio_to_image.painter import SCHEDULERS, load_painter, paint, painting
from aural.audio_to_image.train import train
from aural.device import choose_device
from aural.errors import AuralError, UsageError
from aural.networks.beats import BeatsConfig
from aural.networks.conv_encoder import ConvEncoderConfig


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with glyphs, sounds, both kinds of picture models, and a bridge to each."""
    folder = tmp_path_factory.mktemp("imagine")
    few, heard = few_glyphs(folder / "glyphs"), sounds(folder / "sounds", n=1)
    picture_model(folder / "pictures", few)
    stable_diffusion(folder / "sd")
    over = {"manifest": heard, "pictures": few, "encoder": listener(folder / "listener", heard), "progress": False}
    train("tiny", painter=folder / "pictures", out=folder / "bridge", steps=1, **over)  # type: ignore[arg-type]
    train("tiny", painter=folder / "sd", out=folder / "sd-bridge", steps=1, **over)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> ImaginationModel:
    loaded = load(place / "bridge", painter=place / "pictures", device="cpu")
    heard = torch.stack([loaded.hear(windows(file, 16000, 5.0)) for file in files(place)])
    with torch.inference_mode():  # one step of training leaves all sounds alike: what they share is taken away
        loaded.token.fc2.bias.sub_(heard.mean(0))
        for parameter in loaded.token.fc2.parameters():
            parameter.mul_(float(heard.norm(dim=1).mean() / (heard - heard.mean(0)).norm(dim=1).mean()))
    return loaded


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.int16)


def differ(one: Image.Image, other: Image.Image) -> int:
    """By how many of 255 levels at most."""
    return int(np.abs(levels(one) - levels(other)).max())


def files(place: Path) -> list[Path]:
    return sorted((place / "sounds").glob("*.wav"))


LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BARE = {"ddim": DDIMScheduler(**LEVELS), "pndm": PNDMScheduler(**LEVELS)}
"""As old folders have them: without clip_sample, steps_offset and skip_prk_steps, which the pipeline corrects."""


def shipped_with(folder: Path, scheduler: Any) -> Path:
    """The folder of a Stable Diffusion, with the settings of another scheduler in it."""
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("prediction", "shipped", "scheduler"),
    [
        ("epsilon", None, None),
        ("v_prediction", None, None),
        ("epsilon", None, "ddim"),  # made of settings of PNDM, which do not say clip_sample
        ("v_prediction", None, "ddim"),
        ("epsilon", "ddim", None),
        ("epsilon", "ddim", "dpm"),
        ("epsilon", "ddim", "euler"),
        ("epsilon", None, "unipc"),
        ("epsilon", None, "lms"),
    ],
)
def test_a_stable_diffusion_paints_what_its_own_pipeline_paints(
    tmp_path: Path, prediction: str, shipped: str | None, scheduler: str | None
) -> None:
    folder = stable_diffusion(tmp_path / "sd", prediction)
    if shipped:
        shipped_with(folder, BARE[shipped])
    painter = load_painter(folder)
    assert (painter.side, painter.multiple, painter.words.width) == (16, 4, 16)
    assert painting(painter, size=(32, 8)).height == 32
    with pytest.raises(UsageError, match="multiples of 4"):
        painting(painter, size=(16, 18))
    states, _ = painter.words.states(["a photo of a dog", "rain"])
    how = painting(painter, steps=4, guidance=3.0, scheduler=scheduler)  # type: ignore[arg-type]
    ours = paint(painter, states, None, [11, 12], how, negative_prompt="blurred")
    parts = {}
    if scheduler:  # given to the pipeline when it is made, so that it corrects the settings as it does its own
        kind = SCHEDULERS[scheduler]  # type: ignore[index]
        parts = {"scheduler": kind.from_config(kind.load_config(folder / "scheduler"))}
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (11, 12)])
    theirs = pipeline(
        ["a photo of a dog", "rain"], negative_prompt=["blurred"] * 2, latents=noise, num_inference_steps=4,
        guidance_scale=3.0, output_type="pt",
    ).images  # fmt: skip
    torch.testing.assert_close((ours + 1) / 2, theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shipped", ["ddim", "pndm"])
def test_pndm_skips_its_runge_kutta_steps_whatever_the_folder_says(tmp_path: Path, shipped: str) -> None:
    folder = shipped_with(stable_diffusion(tmp_path / "sd"), BARE[shipped])
    painter = load_painter(folder)
    states, _ = painter.words.states(["a dog"])
    calls: list[int] = []
    painter.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    for steps, expected in ((50, 51), (1, 1), (3, 4)):
        calls.clear()
        assert paint(painter, states, None, [1], painting(painter, steps=steps, scheduler="pndm")).isfinite().all()
        assert len(calls) == expected  # the second step is made twice


@pytest.mark.parametrize("kind", ["sde-dpmsolver++", "sde-dpmsolver"])
def test_no_scheduler_draws_noise_on_its_way(tmp_path: Path, kind: str) -> None:
    settings = LEVELS | {"algorithm_type": kind, "final_sigmas_type": "sigma_min"}
    painter = load_painter(shipped_with(stable_diffusion(tmp_path / "sd"), DPMSolverMultistepScheduler(**settings)))
    states, _ = painter.words.states(["a dog"])
    once, again = (paint(painter, states, None, [1], painting(painter, steps=4)) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("shipped", [None, "ddim"])
def test_few_steps_can_be_made_and_not_more_than_there_are(tmp_path: Path, shipped: str | None) -> None:
    folder = stable_diffusion(tmp_path / "sd")
    painter = load_painter(shipped_with(folder, BARE[shipped]) if shipped else folder)
    states, _ = painter.words.states(["a dog"])
    for scheduler in SCHEDULERS:
        for steps in (1, 2, 3):
            how = painting(painter, steps=steps, scheduler=scheduler)
            assert paint(painter, states, None, [1], how).isfinite().all()
    painting(painter, steps=999)
    with pytest.raises(UsageError, match="give 1 to 999"):  # as they are counted from 1
        painting(painter, steps=1000)


def test_the_road_to_stable_diffusion(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["imagine", str(place / "sounds"), "-o", str(out), "--model", str(place / "sd-bridge")]
    arguments += ["--painter", str(place / "sd"), "--prompt", "a watercolour of <*>", "--steps", "3", "--json"]
    with pytest.raises(SystemExit) as status:
        main([*arguments, "--n", "2", "--seed", "5", "--scheduler", "dpm", "--negative-prompt", "a photo"])
    assert status.value.code == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["seed"] for row in rows] == [5, 6] * 3
    images = [Image.open(row["image"]) for row in rows]
    assert {image.size for image in images} == {(256, 256)} and differ(images[0], images[1]) > 0
    about = json.loads(Path(rows[1]["image"]).with_suffix(".json").read_text())
    versions = {"aural": aural.__version__, "torch": torch.__version__, "diffusers": diffusers.__version__}
    made_on = {"precision": "float32", "windows": None, "device": str(choose_device("auto"))}
    assert about | made_on | versions == about
    assert about["prompt"] == "a watercolour of <*>" and about["seed"] == 6 and about["scheduler"] == "dpm"
    again = load(place / "sd-bridge", painter=place / "sd", device="cpu")
    alone = generate_image(
        Path(rows[1]["file"]), model=again, prompt="a watercolour of <*>", negative_prompt="a photo", seed=6, steps=3,
        scheduler="dpm",
    )  # fmt: skip
    assert differ(alone, images[1]) == 0


def test_a_picture_depends_on_its_sound_and_seed_alone(place: Path, model: ImaginationModel) -> None:
    several = [found for _, found in imagine_each(files(place), model, n=2, seed=3, batch_size=4)]
    for file, found in zip(files(place), several, strict=True):
        assert not isinstance(found, AuralError) and [one.seed for one in found] == [3, 4]
        assert differ(generate_image(file, model=model, seed=4), found[1].image) == 0
    one, other = (found[0].image for found in several[:2] if not isinstance(found, AuralError))
    assert differ(one, other) > 1
    pictures = aural.generate_image(files(place)[:2], model=model, seed=3)
    assert [differ(one, found[0].image) == 0 for one, found in zip(pictures, several[:2], strict=True)] == [True] * 2  # type: ignore[index]


def test_two_sounds_blend(place: Path, model: ImaginationModel) -> None:
    first, second, _ = files(place)
    alone = [generate_image(file, model=model) for file in (first, second)]
    assert differ(generate_image(first, model=model, blend=second, share=0.0), alone[0]) <= 1
    assert differ(generate_image(first, model=model, blend=second, share=1.0), alone[1]) <= 1
    half = generate_image(first, model=model, blend=second, share=0.5)
    assert differ(half, alone[0]) > 1 and differ(half, alone[1]) > 1


def test_a_storyboard_has_a_picture_for_each_window(
    place: Path, model: ImaginationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = 16000
    long = np.concatenate([aural.audio.read_mono(file, rate) for file in files(place)])  # type: ignore[attr-defined]
    (_, found), *_ = imagine_each([(long, rate)], model, windows=1.0)
    assert not isinstance(found, AuralError)
    assert [(one.start, one.end) for one in found] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    for one, file in zip(found, files(place), strict=True):
        assert differ(one.image, generate_image(file, model=model, windows=1.0)[0]) == 0
    (_, (whole,)), *_ = imagine_each([(long, rate)], model)  # type: ignore[misc]
    assert whole.start is None and differ(whole.image, found[0].image) > 0
    aural.audio.write(tmp_path / "long.wav", long, rate)  # type: ignore[attr-defined]
    given = ["--model", str(place / "bridge"), "--painter", str(place / "pictures")]
    with pytest.raises(SystemExit) as status:
        main(["imagine", str(tmp_path / "long.wav"), "-o", str(tmp_path / "story.png"), "--windows", "1", *given])
    assert status.value.code == 0 and capsys.readouterr().out.strip() == str(tmp_path / "story.png")
    story = Image.open(tmp_path / "story.png")
    assert story.width > 3 * 256 and story.height > 256
    assert json.loads((tmp_path / "story.json").read_text())["times"] == [[0, 1], [1, 2], [2, 3]]


def test_what_cannot_be_painted_is_said_and_the_rest_is_painted(
    place: Path, model: ImaginationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    good = files(place)[0]
    results = [found for _, found in imagine_each([tmp_path / "bad.wav", good], model)]
    assert isinstance(results[0], AuralError) and not isinstance(results[1], AuralError)
    given = ["--model", str(place / "bridge"), "--painter", str(place / "pictures")]
    with pytest.raises(SystemExit) as status:
        main(["imagine", str(tmp_path / "bad.wav"), str(good), "-o", str(tmp_path / "out"), *given])
    assert status.value.code == 1 and (tmp_path / "out" / f"{good.stem}.png").is_file()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    for wrong, what in (
        ({"prompt": "a watercolour"}, "has no <\\*>"),
        ({"prompt": "word " * 300 + "<*>"}, "shorten it"),
        ({"n": 0}, "0 pictures"),
        ({"share": 2.0}, "share"),
        ({"windows": 11.0}, "up to 10 s"),
        ({"seed": -1}, "seed -1"),
        ({"steps": 1001}, "1 to 1000"),
    ):
        with pytest.raises(UsageError, match=what):
            generate_image(good, model=model, **wrong)
    with pytest.raises(UsageError, match="16 wide and the words"):
        load(place / "sd-bridge", painter=place / "pictures", device="cpu")
    with pytest.raises(UsageError, match="already"):
        generate_image(good, model=model, painter=place / "sd")


def test_a_sound_of_any_length_makes_one_token(place: Path, model: ImaginationModel) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(25 * 16000).astype(np.float32)
    pieces = list(model.pieces((noise, 16000), None))
    assert len(pieces) == 3 and abs(pieces[0].end - 25 / 3) < 0.01
    assert model.hear(pieces).shape == (384,)
    assert torch.equal(model.hear(pieces), model.hear(pieces))
    short = model.hear(model.pieces((noise[:800], 16000), None))
    assert short.isfinite().all() and (short - model.hear(pieces)).abs().max() > 1e-4


def test_a_sound_that_can_be_read_only_once_is_painted(
    place: Path, model: ImaginationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, other = files(place)[:2]
    expected = generate_image(sound, model=model, blend=other)
    with piped_sounds.streamed(sound.read_bytes()) as first, piped_sounds.streamed(other.read_bytes()) as second:
        assert differ(generate_image(first, model=model, blend=second), expected) == 0
    given = ["--model", str(place / "bridge"), "--painter", str(place / "pictures"), "-o", str(tmp_path / "a.png")]
    with (
        piped_sounds.named(tmp_path / "x", sound.read_bytes()) as first_pipe,
        piped_sounds.named(tmp_path / "y", other.read_bytes()) as second_pipe,
        pytest.raises(SystemExit) as status,
    ):
        main(["imagine", str(first_pipe), "--blend", str(second_pipe), *given])
    assert status.value.code == 0, capsys.readouterr().err


def test_short_sounds_are_looped_over_beats_and_followed_by_silence_otherwise(model: ImaginationModel) -> None:
    torch.manual_seed(0)
    sizes = BeatsConfig(
        embed_dim=6, input_patch_size=16, encoder_layers=1, encoder_embed_dim=8, encoder_ffn_embed_dim=12,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2, num_buckets=8, max_distance=16,
    )  # fmt: skip
    over_beats = AudioToken(AudioTokenConfig(beats=sizes, layers=(1,), encoder_width=8, token_width=384)).eval()
    hearing = replace(model, token=over_beats)
    noise = 0.1 * np.random.default_rng(0).standard_normal(25 * 16000).astype(np.float32)
    short, looped = noise[:33_333], np.resize(noise[:33_333], 160_000)
    tokens = [hearing.hear(hearing.pieces((one, 16000), None)) for one in (short, looped)]
    assert torch.equal(*tokens) and torch.equal(
        tokens[0], over_beats(over_beats.features(torch.from_numpy(looped)[None])[0])[0]
    )
    (window, *_) = hearing.pieces((noise, 16000), 2.0)  # of a storyboard: as the sound that it is
    assert torch.equal(hearing.hear([window]), hearing.hear(hearing.pieces((noise[:32000], 16000), None)))
    long = [torch.from_numpy(piece.waveform)[None] for piece in hearing.pieces((noise, 16000), None)]
    features = torch.cat([over_beats.features(piece)[0] for piece in long], dim=1)
    assert len(long) == 3 and torch.equal(hearing.hear(hearing.pieces((noise, 16000), None)), over_beats(features)[0])
    silent = np.pad(noise[:8000], (0, 24000))  # min_seconds of the recipe tiny is 2
    tokens = [model.hear(model.pieces((one, 16000), None)) for one in (noise[:8000], silent)]
    assert torch.equal(*tokens)


def test_the_encoders_of_a_bridge_are_checked() -> None:
    sizes = ConvEncoderConfig(channels=(4, 4, 8, 8, 16), labels=("dog",))
    with pytest.raises(ValueError, match="one layer of width 30"):
        AudioTokenConfig(conv_encoder=sizes)
    bridge = AudioToken(AudioTokenConfig(conv_encoder=sizes, layers=(1,), encoder_width=30, token_width=8))
    features, mask = bridge.features(torch.randn(2, 16000))
    assert features.shape == (*mask.shape, 30) and mask.all() and not features.requires_grad
    assert bridge.train().encoder is not None and not bridge.encoder.training
    assert SYSTEM == "audio_to_image"
