"""The listener: training, its model folder, the space that sounds and words share, and how it is judged."""

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import piped_sounds
import pytest
import torch
from tiny_models import listener
from typer.testing import CliRunner

import aural
from aural.__main__ import app
from aural.audio import Sound, write
from aural.captioning.data import clean_caption
from aural.checkpoint import load_config, load_weights, system_of
from aural.embedding import ListeningModel, embed_audio, embed_text, load
from aural.errors import AudioError, UsageError
from aural.listening.evaluate import UNSEEN_WORDS, evaluate, evaluate_held_out, judge
from aural.listening.recipes import RECIPES
from aural.listening.train import Collate, train
from aural.manifest import Clip, Event, read_manifest, write_manifest
from aural.networks.beats import BeatsConfig
from aural.networks.conv_encoder import ConvEncoderConfig
from aural.networks.htsat import small as small_htsat
from aural.networks.listener import SYSTEM, Heard, Listener, ListenerConfig
from aural.sound_phrases import SOUNDS, captions
from aural.soundscapes.examples import Example

RATE = 16000


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    clips = []
    for number, label in enumerate(["dog bark", "rain", "rooster", "dog bark"]):
        path = folder / f"{number}.wav"
        write(path, generator.standard_normal(RATE).astype(np.float32) * 0.1, RATE)
        clips.append(
            Clip(path, captions=captions(label), labels=(label,), split=f"fold{1 + number % 2}", source=str(number))
        )
    write_manifest(folder / "m.jsonl", clips)
    return folder / "m.jsonl"


@pytest.fixture(scope="module")
def folder(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return listener(tmp_path_factory.mktemp("listener") / "fold1", manifest)


def network(**encoder: object) -> Listener:
    torch.manual_seed(0)
    return Listener(ListenerConfig(labels=("a", "b", "c"), embedding_dim=8, embedding_hidden=16, **encoder)).eval()  # type: ignore[arg-type]


BEATS = BeatsConfig(
    encoder_layers=1,
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=16,
    encoder_attention_heads=2,
    embed_dim=8,
    conv_pos=4,
    conv_pos_groups=2,
    input_patch_size=16,
)


@pytest.mark.parametrize(
    "encoder",
    [{"conv_encoder": ConvEncoderConfig(channels=(4, 4, 8, 8, 16))}, {"beats": BEATS}, {"htsat": small_htsat()}],
    ids=["convolutions", "beats", "htsat"],
)
@torch.no_grad()
def test_shapes_and_padding(encoder: dict[str, object]) -> None:
    model = network(**encoder)
    waveform = torch.randn(2, 5 * RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    heard = model(waveform)
    n_steps = heard.steps.shape[1]
    assert model.classify(heard).shape == (2, 3)
    assert model.classify_steps(heard).shape == (2, n_steps, 3)
    embedding = model.embed(heard)
    assert embedding.shape == (2, 8)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    alone = model(waveform[:1])
    torch.testing.assert_close(model.classify(alone), model.classify(heard)[:1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_clip_in_a_padded_batch_is_heard_as_it_is_alone() -> None:
    model = network(conv_encoder=ConvEncoderConfig(channels=(4, 4, 8, 8, 16)))
    clips = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.1 for n in (9 * RATE, 5 * RATE, RATE)]
    waveform = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    mask = torch.arange(waveform.shape[1]) < torch.tensor([len(clip) for clip in clips])[:, None]
    together = model(waveform, mask)
    for row, clip in enumerate(clips):
        alone = model(clip[None])
        torch.testing.assert_close(model.classify(together)[row], model.classify(alone)[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.embed(together)[row], model.embed(alone)[0], atol=1e-4, rtol=1e-4)


def test_exactly_one_encoder() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        ListenerConfig(labels=("a",))
    with pytest.raises(ValueError, match="exactly one"):
        ListenerConfig(labels=("a",), conv_encoder=ConvEncoderConfig(), beats=BEATS)


def test_batches_hold_what_sounds_when() -> None:
    example = Example(
        np.zeros(2 * RATE, np.float32),
        "x",
        "brief",
        labels=("b", "z"),
        events=(Event("b", 0.5, 1.0), Event("b", 1.999, 1.9995)),
        scene=None,
    )
    batch = Collate(("a", "b", "z"))([example])
    assert batch["tags"].tolist() == [[0.0, 1.0, 1.0]]
    assert batch["events"].shape == (1, 3, 200)
    assert torch.nonzero(batch["events"][0, 1]).flatten().tolist()[:50] == list(range(50, 100))
    assert batch["events"][0, 0].sum() == 0
    assert batch["captions"] == ["brief"]


def test_tiny_recipe_is_a_whole_road(manifest: Path, folder: Path, tmp_path: Path) -> None:
    assert system_of(folder) == SYSTEM
    config = load_config(folder, ListenerConfig, SYSTEM)
    assert {"dog bark", "rain", "rooster", "beep"} <= set(config.labels)
    assert "aural train listening --recipe tiny" in (folder / "README.md").read_text()
    before = load_weights(folder)
    train("tiny", manifest=manifest, out=tmp_path / "again", progress=False)
    again = load_weights(tmp_path / "again")
    assert all(torch.equal(before[name], again[name]) for name in before)
    result = CliRunner().invoke(
        app,
        ["train", "listening", "--recipe", "tiny", "--manifest", str(manifest), "-o", str(tmp_path / "cli"), "--quiet",
         "--hold-out", "fold1", "--steps", "2"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "rain" in load_config(tmp_path / "cli", ListenerConfig, SYSTEM).labels
    assert "rooster" not in load_config(tmp_path / "cli", ListenerConfig, SYSTEM).labels  # it is of fold1 only


def test_a_training_goes_on_with_what_it_was_begun_with(manifest: Path, tmp_path: Path) -> None:
    train("tiny", manifest=manifest, out=tmp_path / "a", steps=1, progress=False)
    write_manifest(tmp_path / "m.jsonl", read_manifest(manifest)[:-1])
    with pytest.raises(UsageError, match="a was begun with another set of clips:"):
        train("tiny", manifest=tmp_path / "m.jsonl", out=tmp_path / "a", steps=1, resume=True, progress=False)
    train("tiny", manifest=manifest, out=tmp_path / "a", steps=2, resume=True, progress=False)


def test_what_cannot_be_trained_says_what_is_missing(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown recipe 'huge'; there are default, beats, htsat, judge, robust, tiny"):
        train("huge", manifest=manifest, out=tmp_path / "a")
    write_manifest(tmp_path / "empty.jsonl", [Clip(tmp_path / "x.wav", labels=("dog bark",))])
    with pytest.raises(UsageError, match="no clip with labels and captions"):
        train("tiny", manifest=tmp_path / "empty.jsonl", out=tmp_path / "a")


def test_recipes_have_sizes_that_fit_together() -> None:
    for make in RECIPES.values():
        recipe = make()
        with torch.device("meta"):
            Listener(recipe.model if recipe.model.labels else ListenerConfig(labels=("a",), **_encoder(recipe.model)))
        assert recipe.data.soundscapes.group == recipe.train.batch_size  # or batches would have to be padded


def _encoder(config: ListenerConfig) -> dict[str, object]:
    return {"conv_encoder": config.conv_encoder, "beats": config.beats, "htsat": config.htsat}


def test_embeddings(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    generator = np.random.default_rng(1)
    short = generator.standard_normal(RATE // 2).astype(np.float32)
    long = generator.standard_normal(23 * RATE).astype(np.float32)
    both = embed_audio([(short, RATE), (long, RATE)], model=model)
    assert both.shape == (2, 384)
    torch.testing.assert_close(both.norm(dim=1), torch.ones(2))
    assert torch.equal(aural.embed_audio((short, RATE), model=model), both[0])
    texts = embed_text(["a dog", "a puppy", "a helicopter"], model=model)
    assert texts.shape == (3, 384)
    assert texts[0] @ texts[1] > texts[0] @ texts[2]
    assert embed_text("a dog", model=folder).shape == (384,)
    (tmp_path / "bad.wav").write_text("no sound")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        embed_audio([(short, RATE), tmp_path / "bad.wav"], model=model)


def test_what_can_be_read_only_once_is_embedded(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    write(tmp_path / "long.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 12 * RATE).astype(np.float32), RATE)
    content = (tmp_path / "long.wav").read_bytes()
    expected = embed_audio(tmp_path / "long.wav", model=model)
    with piped_sounds.named(tmp_path / "pipe", content) as pipe:
        assert torch.equal(embed_audio(pipe, model=model), expected)
    with piped_sounds.streamed(content) as stream:
        assert torch.equal(embed_audio(stream, model=model), expected)


def test_loading(folder: Path, tmp_path: Path) -> None:
    assert aural.load(folder).listener.config.labels  # type: ignore[union-attr]
    assert aural.load("listening").listener.config.labels  # type: ignore[union-attr]
    with pytest.raises(UsageError):
        load(tmp_path / "nothing")
    with pytest.raises(UsageError, match="captioning"):
        load(Path(aural.__file__).parents[2] / "models" / "captioning")


def test_scores_carry_their_protocol(manifest: Path, folder: Path) -> None:
    found = evaluate(load(folder), manifest, split="fold1")
    assert found["n_clips"] == 2
    assert 0 <= found["labels_interval_95"][0] <= found["labels"] <= found["labels_interval_95"][1] <= 1
    assert found["protocol"]["split"] == "fold1"
    held_out = evaluate_held_out(folder.parent, manifest)
    assert held_out["labels"] == found["labels"]
    assert list(held_out["of_split"]) == ["fold1"]
    with pytest.raises(UsageError, match="--hold-out"):
        evaluate_held_out(manifest.parent, manifest)
    with pytest.raises(UsageError, match="no clip with a single label"):
        evaluate(load(folder), manifest, split="fold9")


def test_parts_are_heard_alone_and_what_cannot_be_read_is_left_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator, model = np.random.default_rng(3), load(folder)
    loud, soft = (generator.standard_normal(2 * RATE).astype(np.float32) * gain for gain in (0.2, 0.001))
    soft[::400] += 0.5
    for name, waveform in {"loud": loud, "soft": soft, "joined": np.concatenate([loud, soft])}.items():
        write(tmp_path / f"{name}.wav", waveform, RATE)
    clips = [Clip(tmp_path / "loud.wav", labels=("rain",)), Clip(tmp_path / "soft.wav", labels=("rooster",))]
    parts = [replace(clip, audio=tmp_path / "joined.wav", source=clip.audio.name) for clip in clips]
    parts = [replace(parts[0], duration=2.0), replace(parts[1], start=2.0)]
    heard: dict[int, list[object]] = {}

    class Hearing(ListeningModel):
        def hear(self, sound: Sound) -> Iterator[Heard]:
            for one in super().hear(sound):
                heard.setdefault(len(heard), []).append(one.steps)
                yield one

    hearing = Hearing(**{field.name: getattr(model, field.name) for field in fields(model)})
    rows = judge(hearing, [*clips, *parts])
    for whole, part in ((0, 2), (1, 3)):
        assert [one.shape for one in heard[whole]] == [one.shape for one in heard[part]]  # type: ignore[attr-defined]
        assert all(torch.equal(one, other) for one, other in zip(heard[whole], heard[part], strict=True))  # type: ignore[arg-type]
    assert [row["label"] for row in rows] == ["rain", "rooster"] * 2
    bad = [Clip(tmp_path / "missing.wav", labels=("rain",)), Clip(tmp_path / "loud.wav", 1000.0, labels=("rooster",))]
    write_manifest(tmp_path / "m.jsonl", [bad[0], clips[0], bad[1], clips[1]])
    found = evaluate(model, tmp_path / "m.jsonl")
    assert (found["n_clips"], found["protocol"]["n_unreadable"]) == (2, 2)
    assert "missing.wav: there is no such file" in caplog.text
    write_manifest(tmp_path / "bad.jsonl", bad)
    with pytest.raises(UsageError, match="none of its 2 clips to judge can be read"):
        evaluate(model, tmp_path / "bad.jsonl")


COMMON = {"a", "an", "the", "on", "of", "with", "someone", "cutting", "burning"}


def test_unseen_words_are_in_no_caption_of_a_training() -> None:
    said = {word for label in SOUNDS for caption in captions(label) for word in clean_caption(caption).split()}
    for label, words in UNSEEN_WORDS.items():
        assert label in SOUNDS
        for phrase in words:
            assert set(phrase.split()) - COMMON - said, phrase


def test_masked_prediction_is_learned_and_leaves_nothing_in_the_model(manifest: Path, tmp_path: Path) -> None:
    train("tiny", manifest=manifest, out=tmp_path, progress=False, change=lambda r: replace(r, masked_weight=0.5))
    lines = [json.loads(line) for line in (tmp_path / "training" / "log.jsonl").read_text().splitlines()]
    assert all(line["losses"]["masked"] > 0 for line in lines if "losses" in line)
    assert not [name for name in load_weights(tmp_path) if "guess" in name]
    load(tmp_path)
