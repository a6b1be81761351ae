"""Training over published language models: what is borrowed stays as it was, what is trained changes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pengi_models import HTSAT
from second_process import SeenError, second_of_two
from tiny_models import listener
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, GPT2Config, GPT2LMHeadModel

from aural.answering.convert import load_model
from aural.answering.encoded import EncodedScenes
from aural.answering.model import AnsweringConfig
from aural.answering.recipes import TASKS, Recipe
from aural.answering.train import Shared, train
from aural.audio import write
from aural.errors import UsageError
from aural.manifest import Clip, read_manifest, write_manifest

GOLDEN = Path(__file__).parent / "golden" / "pengi"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    write(tmp_path / "a.wav", waveform, 16000)
    write_manifest(tmp_path / "m.jsonl", [Clip(tmp_path / "a.wav", captions=("a dog barks",), labels=("dog",))])
    return tmp_path / "m.jsonl"


def small(recipe: Recipe) -> Recipe:
    """The paper's recipe over toys."""
    model = replace(AnsweringConfig(), htsat=HTSAT, seconds=0.6, joint_width=8, prefix_length=2, vector_rows=2)
    model = replace(model, mapper_layers=1, mapper_heads=2, prompt_length=8, target_length=8)
    run = replace(
        recipe.train, steps=2, batch_size=2, micro_batch_size=2, warmup_steps=0, workers=0, precision="float32"
    )
    return replace(recipe, model=model, train=run)


def test_the_papers_recipe_over_borrowed_models(manifest: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=256, eos_token_id=256)
    )
    gpt2.save_pretrained(tmp_path / "gpt2")
    clip = CLIPTextModelWithProjection(
        CLIPTextConfig(vocab_size=514, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                       projection_dim=8, max_position_embeddings=16, eos_token_id=513, bos_token_id=512)
    )  # fmt: skip
    clip.save_pretrained(tmp_path / "clip")
    for name in ("gpt2", "clip"):
        tokenizer = GOLDEN / {"gpt2": "tokenizer_gpt2", "clip": "tokenizer_clip-text"}[name]
        for path in tokenizer.iterdir():
            if path.name != "config.json":
                shutil.copy(path, tmp_path / name)
    given = {"gpt2": tmp_path / "gpt2", "text_encoder": tmp_path / "clip"}
    train("paper", manifest=manifest, out=tmp_path / "out", change=small, progress=False, **given)
    model, tokenizers = load_model(tmp_path / "out")
    assert torch.equal(model.gpt2.transformer.wte.weight, gpt2.transformer.wte.weight)
    assert model.text_encoder is not None
    stored = dict(clip.text_model.named_parameters())
    assert all(torch.equal(value, stored[name]) for name, value in model.text_encoder.text_model.named_parameters())
    waveform = torch.randn(1, model.config.n_samples, generator=torch.Generator().manual_seed(0))
    prefix = model.prefix(model.embed_audio(waveform), tokenizers.prompts(["generate audio caption"]))
    assert prefix.shape == (1, 4, 16)
    with pytest.raises(UsageError, match="leave out --encoder"):
        train("paper", manifest=manifest, out=tmp_path / "b", encoder=tmp_path, change=small, **given)
    torch.manual_seed(1)
    GPT2LMHeadModel(gpt2.config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UsageError, match="was begun with another language model:"):
        train("paper", manifest=manifest, out=tmp_path / "out", change=small, resume=True, progress=False, **given)


def test_parts_that_a_recipe_does_not_take_are_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --text-encoder"):
        train("tiny", manifest=manifest, out=tmp_path / "a", text_encoder=tmp_path)
    with pytest.raises(UsageError, match="pass --gpt2 and --text-encoder"):
        train("paper", manifest=manifest, out=tmp_path / "a")


@pytest.fixture
def several(tmp_path: Path) -> Path:
    clips = []
    for number, label in enumerate(("dog bark", "rain")):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(16000).astype(np.float32)
        write(tmp_path / f"{number}.wav", waveform, 16000)
        clips.append(Clip(tmp_path / f"{number}.wav", captions=(f"a {label}",), labels=(label,)))
    write_manifest(tmp_path / "several.jsonl", clips)
    return tmp_path / "several.jsonl"


def test_a_training_goes_on_with_what_it_was_begun_with(several: Path, tmp_path: Path) -> None:
    over = listener(tmp_path / "listener", several)

    def run(manifest: Path = several, encoder: Path = over, **options: Any) -> None:
        out = tmp_path / "out"
        train("tiny", manifest=manifest, out=out, encoder=encoder, steps=1, resume=True, progress=False, **options)

    run()
    run()
    other = [*read_manifest(several), replace(read_manifest(several)[0], captions=("a dog",))]
    write_manifest(tmp_path / "other.jsonl", other)
    (mine := tmp_path / "mine.csv").write_text("task,prompt,answer\naudio captioning,what is heard,{caption}\n")
    with pytest.raises(UsageError, match="was begun with another set of clips:"):
        run(tmp_path / "other.jsonl")
    with pytest.raises(UsageError, match="was begun with another table of tasks:"):
        run(tasks=mine)
    with pytest.raises(UsageError, match="facts was begun with another encoder:"):
        run(encoder=listener(tmp_path / "other", tmp_path / "other.jsonl"))


def test_each_process_encodes_on_its_own_device(several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = listener(tmp_path / "listener", several)
    with second_of_two(monkeypatch) as devices:
        monkeypatch.setattr("aural.answering.train.EncodedScenes", devices)
        with pytest.raises(SeenError):
            train("tiny", manifest=several, out=tmp_path / "a", encoder=over, device="cuda", progress=False)
    assert devices.seen == [torch.device("cuda", 1)]


def test_tasks_of_a_users_own_are_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = []
    for number, label in enumerate(("dog bark", "rain")):
        waveform = 0.1 * np.random.default_rng(number).standard_normal(16000).astype(np.float32)
        write(tmp_path / f"{number}.wav", waveform, 16000)
        about = {"emotion": "happy", "sentiment": "none"}
        clips.append(Clip(tmp_path / f"{number}.wav", captions=(f"a {label}",), labels=(label,), about=about))
    write_manifest(manifest := tmp_path / "m.jsonl", clips)
    (mine := tmp_path / "mine.csv").write_text(
        "task,prompt,answer\nspeech emotion recognition,this emotion is,{emotion}\nmood,the mood is,{sentiment}\n"
        "audio captioning,what is heard,{caption}\n"
    )
    drawn: list[dict[str, float]] = []
    draw = EncodedScenes.draw

    def seen(self: EncodedScenes, index: int, *, shares: dict[str, float], **options: Any) -> Any:
        drawn.append(shares)
        return draw(self, index, shares=shares, **options)

    monkeypatch.setattr(EncodedScenes, "draw", seen)
    shared = Shared()
    over = listener(tmp_path / "listener", manifest)
    train("tiny", manifest=manifest, out=tmp_path / "out", encoder=over, tasks=mine, shared=shared, progress=False)
    assert drawn[0] == {**TASKS, "speech emotion recognition": 0.25, "mood": 0.25}
    assert shared.pool is not None
    pairs = {
        pair for asked in shared.pool.asked for kinds in asked.values() for some in kinds.values() for pair in some
    }
    assert {("this emotion is", "happy"), ("the mood is", "none")} <= pairs
    assert "generate audio caption" not in {prompt for prompt, _ in pairs}
    assert "--tasks" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_tasks_that_no_clip_has_an_answer_to_are_refused(manifest: Path, tmp_path: Path) -> None:
    (mine := tmp_path / "mine.csv").write_text(
        "task,prompt,answer\nmood,this mood is,{mood}\nall,tell all,{metadata}\n"
    )
    for recipe in ("tiny", "paper"):
        with pytest.raises(UsageError, match="task 'mood' of --tasks: no clip of the manifest to learn from has mood"):
            train(recipe, manifest=manifest, out=tmp_path / "out", tasks=mine)
    mine.write_text("task,prompt,answer\nmood,of {caption}: {question},{answer}\n")
    with pytest.raises(UsageError, match="has caption and question and answer, beside captions"):
        train("tiny", manifest=manifest, out=tmp_path / "out", tasks=mine)
