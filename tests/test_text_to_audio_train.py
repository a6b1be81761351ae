"""Training a token language model: it goes on where it stopped, and the regulariser acts where texts are dropped."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from text_to_audio_models import RATE, codec, generator, recordings
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import T5Config as TheirT5Config, T5EncoderModel

from aural.audio import read_mono
from aural.checkpoint import load_config, load_weights
from aural.codec_folder import load_codec
from aural.errors import CheckpointError, UsageError
from aural.manifest import read_manifest, write_manifest
from aural.networks.sentence_encoder import load_sentence_encoder
from aural.text_to_audio.convert import SYSTEM, load_model
from aural.text_to_audio.data import MixingSettings, Recordings, TrueSound, mixed
from aural.text_to_audio.encoded import SHARD, Coded, Pool, encoded_pool
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel
from aural.text_to_audio.recipes import RECIPES, Recipe
from aural.text_to_audio.schedule import dropping_draws
from aural.text_to_audio.text_encoder import SentenceText
from aural.text_to_audio.train import Example, Steps, Training, collate, counts, train


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return codec(tmp_path_factory.mktemp("codec") / "codec")


@pytest.fixture(scope="module")
def trained(manifest: Path, over: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator(tmp_path_factory.mktemp("trained") / "tiny", manifest, over)


def test_trains_and_goes_on_where_it_stopped(trained: Path, manifest: Path, over: Path, tmp_path: Path) -> None:
    config = load_config(trained, GenerationConfig, SYSTEM)
    assert (config.codec, config.codebook_size) == (load_codec(over, device="cpu").digest, 16)
    common = {"manifest": manifest, "codec": over, "codes": trained / "codes", "device": "cpu", "progress": False}

    def saved_half_way(recipe: Recipe) -> Recipe:
        return replace(recipe, train=replace(recipe.train, save_every=2))

    train("tiny", out=tmp_path / "whole", change=saved_half_way, **common)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "training" / "step-00000004")
    (tmp_path / "parts" / "model.safetensors").unlink()
    train("tiny", out=tmp_path / "parts", change=saved_half_way, resume=True, **common)
    first, whole, parts = (load_weights(folder) for folder in (trained, tmp_path / "whole", tmp_path / "parts"))
    assert all(torch.equal(whole[name], parts[name]) and torch.equal(whole[name], first[name]) for name in whole)
    with pytest.raises(UsageError, match="codes of other sounds"):
        train("tiny", out=tmp_path / "c", seed=1, **common)
    write_manifest(tmp_path / "m.jsonl", read_manifest(manifest)[1:])
    others = {"manifest": tmp_path / "m.jsonl", "codes": tmp_path / "codes"}
    with pytest.raises(UsageError, match="was begun with another set of clips:"):
        train("tiny", out=tmp_path / "whole", change=saved_half_way, resume=True, **{**common, **others})


def test_the_pool_holds_the_codes_of_each_sound_and_goes_on_where_it_was_stopped(over: Path, tmp_path: Path) -> None:
    coder, asked = load_codec(over, device="cpu"), []

    def sound(index: int) -> TrueSound:
        asked.append(index)
        waveform = np.random.default_rng(index).standard_normal(4 * coder.hop).astype(np.float32)
        return TrueSound(waveform, len(waveform) - index, (f"sound {index}",))

    def pool(n: int) -> Pool:
        return encoded_pool(sound, coder, n, tmp_path, of={"a": 1}, seed=0, progress=False)

    whole = pool(SHARD + 2)
    (tmp_path / "00001.safetensors").unlink()
    asked.clear()
    again = pool(SHARD + 2)
    assert asked == [SHARD, SHARD + 1]
    for index in range(3 * SHARD):
        one, same = whole(index), again(index)
        assert one.texts == same.texts and torch.equal(one.codes, same.codes) and one.n_frames == same.n_frames
    turns = [sorted(whole(turn * (SHARD + 2) + place).texts for place in range(SHARD + 2)) for turn in range(2)]
    assert turns[0] == turns[1] and len(set(turns[0])) == SHARD + 2
    number = int(one.texts[0].split()[1])
    assert torch.equal(one.codes.long(), coder.encode(torch.from_numpy(sound(number).waveform)[None])[0])
    assert one.n_frames == -(-(4 * coder.hop - number) // coder.hop)
    (tmp_path / "00000.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"00000\.safetensors is damaged: delete it"):
        pool(SHARD + 2)
    with pytest.raises(UsageError, match="codes of other sounds"):
        pool(3)


def test_two_processes_share_the_encoding_and_the_training(manifest: Path, over: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from aural.text_to_audio import encoded\n"
        "from aural.text_to_audio.train import train\n"
        "encoded.SHARD = 3\n"
        "manifest, codec, out = map(Path, sys.argv[1:])\n"
        "def change(recipe):\n"
        "    return replace(recipe, pool=10, text_dropping=0.0)\n"
        "train('tiny', manifest=manifest, codec=codec, out=out, device='cpu', steps=2, progress=False, change=change)\n"
    )
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, way in {"one": [], "two": several}.items():
        command = [sys.executable, *way, tmp_path / "worker.py", manifest, over, tmp_path / name]
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    one, two = (sorted((tmp_path / name / "codes").iterdir()) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two] and len(one) == 1 + 4
    assert all(mine.read_bytes() == theirs.read_bytes() for mine, theirs in zip(one, two, strict=True))
    alone, together = (load_weights(tmp_path / name) for name in ("one", "two"))
    assert all(torch.allclose(alone[name], together[name], atol=2e-3) for name in alone)


def test_a_whole_step_drops_its_texts_and_the_draws_are_the_published_ones() -> None:
    dropped = dropping_draws(20) < 0.3
    steps = Steps(lambda index: Coded(torch.zeros(4, 5), 5, ("a", "b")), 3, dropped, 0)
    assert [steps(index).dropped for index in range(60)] == [bool(one) for one in dropped for _ in range(3)]
    assert {steps(index).text for index in range(60)} == {"a", "b"}


def gradients(dropped: bool, weight: float, reader: SentenceText) -> list[Tensor]:
    """Of all parameters, after a step over four sounds."""
    recipe = RECIPES["tiny"]()
    regularization = replace(recipe.model.regularization, weight=weight)
    torch.manual_seed(0)
    model = TokenLanguageModel(replace(recipe.model, regularization=regularization))
    codes = torch.randint(0, 16, (4, 4, 20), generator=torch.Generator().manual_seed(1)).to(torch.int16)
    texts = ("a dog barks", "rain falls", "a rooster crows", "a dog is barking")
    batch = collate([Example(Coded(row, 20, (text,)), text, dropped) for row, text in zip(codes, texts, strict=True)])
    assert counts(batch) == {"cross_entropy": 80, "representation_regularization": 12 if dropped else 0}
    losses = Training(model, reader, None)(batch)
    sum(losses[name] * weight for name, weight in model.loss_weights.items()).backward()  # type: ignore[union-attr]
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_the_regulariser_changes_the_gradient_only_where_texts_are_dropped() -> None:
    reader = SentenceText(load_sentence_encoder())
    for dropped in (False, True):
        without, with_it = gradients(dropped, 0.0, reader), gradients(dropped, 3.0, reader)
        alike = all(torch.equal(one, other) for one, other in zip(without, with_it, strict=True))
        assert alike is not dropped


def test_texts_are_read_the_same_whatever_stands_beside_them() -> None:
    sentences = load_sentence_encoder()
    states, mask = SentenceText(sentences)(["a dog barks", "", "the sound of rain on a roof of tin"])
    assert mask.sum(1).tolist() == [6, 0, 11]
    alone = sentences.token_states(["a dog barks"], 6)
    torch.testing.assert_close(states[:1, :6], alone, atol=2e-3, rtol=0)  # they are kept in half precision


def test_recordings_are_cut_padded_and_mixed(manifest: Path) -> None:
    clips = read_manifest(manifest)
    common = {"seconds": 1.0, "sample_rate": RATE, "keywords": True, "seed": 0}
    alone = Recordings(clips, mixing=None, **common)
    sounds = [alone(index) for index in range(12)]
    assert {one.n_samples for one in sounds} == {8000, 12000, 16000}
    assert all(one.waveform.shape == (RATE,) and not one.waveform[one.n_samples :].any() for one in sounds)
    assert {one.texts for one in sounds} >= {("dog bark",)}
    longest = read_mono(clips[3].audio, RATE)
    cut = next(one.waveform for one in sounds if one.n_samples == 16000 and one.waveform[0] != longest[0])
    start = int(np.argmin(np.abs(longest[:4001] - cut[0])))
    np.testing.assert_allclose(cut, longest[start : start + RATE], atol=1e-6)
    both = Recordings(clips, mixing=MixingSettings(share=1.0), **common)(0)
    assert len(both.texts[0].split()) >= 3


def test_two_sounds_are_mixed_at_a_whole_number_of_decibels_and_overlap() -> None:
    n = 1000
    one = TrueSound(np.r_[np.full(400, 0.1), np.zeros(600)].astype(np.float32), 400, ("a",))
    other = TrueSound(np.full(n, 0.02, np.float32), n, ("b",))
    for seed in range(20):
        sum_ = mixed(one, other, MixingSettings(), np.random.default_rng(seed))
        added = sum_.waveform - one.waveform
        later = int(np.flatnonzero(added)[0])
        ratio_db = 20 * np.log10(0.1 / added[-1])
        assert later <= n // 2 and abs(ratio_db - round(ratio_db)) < 1e-3 and abs(ratio_db) < 5.5
        assert (sum_.n_samples, sum_.texts) == (n, ("a b",))


def test_the_papers_recipe_over_a_small_t5(manifest: Path, over: Path, tmp_path: Path) -> None:
    """Sounds are encoded on the fly, captions are keywords, and T5 is stored with the model."""
    folder = tmp_path / "t5"
    torch.manual_seed(0)
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "dog": 3, "bark": 4, "rain": 5, "fall": 6, "rooster": 7}
    sizes = {"vocab_size": 8, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(TheirT5Config(**sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))

    def small(recipe: Recipe) -> Recipe:
        model = replace(recipe.model, width=16, layers=1, heads=2, ffn_dim=32, seconds=0.5)
        changed = replace(recipe.train, steps=2, batch_size=4, micro_batch_size=2, warmup_steps=0, workers=0)
        return replace(recipe, model=model, train=replace(changed, precision="float32"), text_dropping=0.5)

    common = {"manifest": manifest, "codec": over, "change": small, "device": "cpu", "progress": False}
    train("paper", out=tmp_path / "out", text_encoder=folder, **common)
    model, reader = load_model(tmp_path / "out")
    assert model.config.keywords and model.config.regularization.weight == 3.0
    assert reader is not None and reader(["dog bark"])[1].sum() == 3
    with pytest.raises(UsageError, match="pass --text-encoder"):
        train("paper", out=tmp_path / "b", **common)
    with pytest.raises(UsageError, match="leave out --codes"):
        train("paper", out=tmp_path / "b", text_encoder=folder, codes=tmp_path / "codes", **common)
    with pytest.raises(UsageError, match="leave out --text-encoder"):
        train("tiny", manifest=manifest, codec=over, out=tmp_path / "b", text_encoder=folder)
