"""Frames of videos belong to the seconds that are heard, and an audio token is trained on them."""

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from audio_to_image_models import few_glyphs, picture_model, sounds, stable_diffusion
from tiny_models import listener

from aural.__main__ import main
from aural.audio import read_mono, write
from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.data import Collate, EncodedRecordings, Evoked, Recordings, pairs, varied
from aural.audio_to_image.losses import LossConfig
from aural.audio_to_image.painter import load_painter
from aural.audio_to_image.recipes import Recipe
from aural.audio_to_image.train import TokenTraining, train
from aural.audio_to_image.video_frames import Shown, draw_frame, frame_times, read_shown
from aural.checkpoint import save_model
from aural.errors import AuralError, UsageError
from aural.manifest import Clip, read_manifest, write_manifest
from aural.networks.beats import BEATs, BeatsConfig

FPS = 5
BEATS = BeatsConfig(
    embed_dim=6, input_patch_size=16, encoder_layers=3, encoder_embed_dim=8, encoder_ffn_embed_dim=12,
    encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2, num_buckets=8, max_distance=16,
    finetuned_model=False,
)  # fmt: skip


def grey(second: int) -> int:
    """The colour of a second of a video."""
    return 20 + 20 * second


def video(path: Path, seconds: int = 10, codec: str = "libx264", fps: Fraction = Fraction(FPS)) -> Path:
    """Grey pictures that change every second; a key frame every four seconds, and frames that depend on later ones."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"bf": "2"} if codec != "libvpx" else {})
        stream.width, stream.height, stream.gop_size = 48, 32, 4 * FPS
        for number in range(int(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), grey(int(number / fps)), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def second_of(shown: Shown) -> int:
    """Which second of its video a frame is seen in, by its colour."""
    picture = read_shown(shown, (8, 8))
    assert picture.shape == (3, 8, 8)
    return round((float(picture.mean() + 1) * 127.5 - grey(0)) / 20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of ten seconds and its sound: as many tenths of full scale as the second."""
    folder = tmp_path_factory.mktemp("videos")
    video(folder / "v.mp4")
    write(folder / "v.wav", np.repeat(np.arange(1, 11) / 20, 16000), 16000)
    return folder


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4")]
)
def test_every_frame_is_found_by_its_number(name: str, codec: str, tmp_path: Path) -> None:
    path = video(tmp_path / name, codec=codec)
    np.testing.assert_allclose(frame_times(path), np.arange(10 * FPS) / FPS, atol=1e-3)
    numbers = list(range(0, 10 * FPS, 3))
    assert [second_of(Shown(path, number)) for number in numbers] == [number // FPS for number in numbers]
    assert second_of(Shown(path, 10 * FPS)) == 9  # past the end


def test_a_frame_is_drawn_from_the_seconds_heard(place: Path) -> None:
    def drawn(start: float, end: float, *best: int) -> set[int]:
        return {draw_frame(place / "v.mp4", start, end, best, np.random.default_rng(seed)) for seed in range(200)}

    assert drawn(2, 4) == set(range(10, 21))  # both ends, as released
    assert drawn(2, 4, 3, 12, 17, 40) == {12, 17}
    assert drawn(2, 4, 3, 40) == set(range(10, 21))
    assert drawn(8, 13) == set(range(40, 50)) and drawn(12, 13) == {49}  # none is past the end
    assert drawn(2.25, 2.35) == {11}  # is still shown
    one, again = (draw_frame(place / "v.mp4", 0, 10, (), np.random.default_rng(7)) for _ in range(2))
    assert one == again


def test_seconds_do_not_drift_where_they_are_no_whole_frames(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", seconds=9, fps=Fraction(30000, 1001) / 4)
    number = draw_frame(path, 8.0, 8.05, (), np.random.default_rng(0))
    assert abs(frame_times(path)[number] - 8.0) < 4 / 30 and second_of(Shown(path, number)) == 8


def test_examples_hear_and_see_the_same_seconds(place: Path) -> None:
    def heard_and_seen(example: Evoked) -> tuple[int, int]:
        return round(float(example.heard[8000]) * 20) - 1, second_of(example.image)

    clip = Clip(place / "v.wav", image=place / "v.mp4", labels=("x",))
    examples = Recordings(pairs([clip], []), 2.0, seed=0)
    assert examples.shown() is None
    seen = [heard_and_seen(examples(index)) for index in range(40)]
    assert {first for first, _ in seen} == set(range(9))
    assert all(0 <= second - first <= 2 for first, second in seen) and len({b - a for a, b in seen}) > 1
    again = Recordings(pairs([clip], []), 2.0, seed=0)
    assert [again(index).image for index in range(10)] == [examples(index).image for index in range(10)]
    part = replace(clip, start=4.0, duration=1.0, about={"best_frames": "1 21 49"})  # is looped
    assert {Recordings(pairs([part], []), 2.0, seed=0)(index).image.frame for index in range(10)} == {21}
    with pytest.raises(UsageError, match="best_frames should be numbers"):
        Recordings(pairs([replace(clip, about={"best_frames": "few"})], []), 2.0, seed=0)(0)


def test_what_is_cut_out_is_told_in_seconds() -> None:
    """Of a sound that rises with time, how far two places of a cut have risen tells where it is from."""
    ramp = np.arange(160000, dtype=np.float32)
    for seed in range(20):
        heard, start, end = varied(ramp, 2.0, np.random.default_rng(seed))
        early, late = (start + share * (end - start) for share in (0.25, 0.75))
        assert heard[8000] / heard[24000] == pytest.approx(early / late, rel=0.01)
    assert varied(ramp, 15.0, np.random.default_rng(0))[1:] == (0.0, 10.0)


def test_a_pool_keeps_a_frame_with_each_cut(place: Path) -> None:
    clip = Clip(place / "v.wav", image=place / "v.mp4", labels=("x",))
    pool = EncodedRecordings(pairs([clip], []), lambda x: x[:, :, None], n=12, seconds=2.0, seed=0, progress=False)
    examples = [pool(index) for index in range(24)]
    assert {example.image for example in examples[:12]} == {example.image for example in examples[12:]} == pool.shown()
    assert len(pool.shown()) > 4
    for index, frame in enumerate(pool.frames):
        wave = read_mono(clip.audio, 16000)
        heard, start, end = varied(wave, 2.0, np.random.default_rng([0, 11, index]))
        np.testing.assert_allclose(pool.features[index][:, 0], heard, atol=1e-3)
        assert frame is not None and start <= frame / FPS <= end


def test_what_is_wrong_with_a_video_is_said(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video at all" * 100)
    for name, what in (("no.mp4", "no video that can be read"), ("gone.mp4", "No such file")):
        with pytest.raises(AuralError, match=rf"{name}: .*{what}"):
            frame_times(tmp_path / name)
    with pytest.raises(UsageError, match="a video goes with its own sound only"):
        pairs([Clip(place / "v.wav", labels=("x",))], [Clip(image=place / "v.mp4", labels=("x",))])
    video(tmp_path / "new.mp4", seconds=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AuralError, match=r"new\.mp4: .*pip install 'aural\[formats\]'"):
        draw_frame(tmp_path / "new.mp4", 0, 1, (), np.random.default_rng(0))


def test_training_on_videos(tmp_path: Path) -> None:
    """By the pool, whose frames are encoded once; and by the paper's recipe, which draws them anew, in a worker."""
    few = few_glyphs(tmp_path / "glyphs")
    clips = read_manifest(sounds(tmp_path / "sounds", seconds=2.0))
    clips = [replace(clip, image=video(clip.audio.with_suffix(".mkv"), seconds=2)) for clip in clips]
    manifest, out = tmp_path / "videos.jsonl", tmp_path / "out"
    write_manifest(manifest, clips)
    drawer, heard = picture_model(tmp_path / "pictures", few), tmp_path / "listener"
    listener(heard, tmp_path / "sounds" / "sounds.jsonl")
    given = ["--manifest", str(manifest), "--painter", str(drawer), "--encoder", str(heard), "-o", str(out)]
    with pytest.raises(SystemExit) as status:
        main(["train", "audio_to_image", "--recipe", "tiny", *given, "--quiet"])
    assert status.value.code == 0 and (out / "model.safetensors").is_file()

    def small(recipe: Recipe) -> Recipe:
        run = replace(recipe.train, steps=2, batch_size=2, micro_batch_size=1, workers=1, precision="float32")
        return replace(recipe, train=run, token=replace(recipe.token, layers=(1, 2, 3)), seconds=1.0, size=(16, 32))

    save_model(tmp_path / "beats", system="beats", config=BEATS, weights=BEATs(BEATS).state_dict(), card="")
    frozen = {"painter": stable_diffusion(tmp_path / "sd"), "encoder": tmp_path / "beats"}
    train("paper", manifest=manifest, **frozen, out=tmp_path / "paper", change=small, device="cpu", progress=False)
    assert (tmp_path / "paper" / "model.safetensors").is_file()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_frames_give_the_losses_of_latents_that_are_kept(place: Path, precision: torch.dtype) -> None:
    painter = load_painter(stable_diffusion(place / "sd"))
    torch.manual_seed(1)
    config = AudioTokenConfig(layers=(1,), encoder_width=5, token_width=painter.words.width, dropout=0.0)
    module = TokenTraining(AudioToken(config), painter, LossConfig())
    frames = [Shown(place / "v.mp4", number) for number in (3, 22)]
    examples = [Evoked(torch.randn(4, 5), frame, "") for frame in frames]
    moments = {frame: painter.canvas.moments(read_shown(frame, (16, 32))[None])[0] for frame in frames}
    found = []
    for collate in (Collate(None, {}, (16, 32)), Collate(moments, {}, (16, 32))):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            found.append(module(collate(examples)))
    assert set(found[0]) == set(found[1])
    for name, loss in found[0].items():
        torch.testing.assert_close(loss, found[1][name], atol=1e-4, rtol=1e-4)
