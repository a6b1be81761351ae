"""Model folders: what is written comes back, and what does not fit is refused with everything listed."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from aural import checkpoint
from aural.errors import CheckpointError, UsageError


@dataclass(frozen=True)
class Part:
    width: int = 4
    rates: tuple[float, ...] = (0.5,)


@dataclass(frozen=True)
class Whole:
    size: int
    kind: Literal["small", "large"] = "small"
    part: Part = Part()
    other: Part | None = None
    pair: tuple[int, str] = (1, "a")
    flag: bool = False
    names: dict[str, int] | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be positive, not {self.size}")


class Tied(nn.Module):
    """Input and output embedding share one matrix, as in BART."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("count", torch.tensor(7))


def save(folder: Path, weights: dict[str, Tensor], **options: Any) -> None:
    checkpoint.save_model(
        folder, system="captioning", config=Whole(size=2), weights=weights, card="# Tied\n", **options
    )


# -------------------------------------------------------------------------------------------------------------- configs


def test_config_survives_json() -> None:
    config = Whole(3, "large", Part(8, (1.0, 2.5)), Part(), (4, "b"), True, {"x": 1})
    plain = json.loads(json.dumps(checkpoint.config_to_dict(config)))
    assert checkpoint.config_from_dict(Whole, plain) == config
    assert checkpoint.config_from_dict(Whole, {"size": 1, "part": {"rates": [1]}}) == Whole(1, part=Part(rates=(1.0,)))


def test_config_lists_every_problem_at_once() -> None:
    wrong = {
        "kind": "huge",
        "part": {"widht": 1, "width": 2.5, "rates": [1, "x"]},
        "other": {"width": True},
        "pair": [1],
        "flag": 1,
    }
    with pytest.raises(CheckpointError) as caught:
        checkpoint.config_from_dict(Whole, wrong, where="here")
    message = str(caught.value)
    assert message.startswith("here: ") and "\n" not in message
    for part in (
        "missing key size",
        "unknown key part.widht (did you mean width?)",
        "part.width should be int, not 2.5",
        "part.rates[1] should be float, not 'x'",
        "other.width should be int, not True",
        "kind should be typing.Literal['small', 'large'], not 'huge'",
        "pair should be tuple[int, str], not [1]",
        "flag should be bool, not 1",
    ):
        assert part in message


def test_config_passes_on_what_the_dataclass_refuses() -> None:
    with pytest.raises(CheckpointError, match="size must be positive, not 0"):
        checkpoint.config_from_dict(Whole, {"size": 0})


# -------------------------------------------------------------------------------------------------------------- folders


def test_folder_comes_back_with_tied_weights(tmp_path: Path) -> None:
    saved, loaded = Tied(), Tied()
    save(tmp_path / "model", saved.state_dict(), files={"words.txt": "a b"}, licence="MIT")
    folder = checkpoint.find_model(tmp_path / "model", "captioning")
    assert checkpoint.load_config(folder, Whole, "captioning") == Whole(2)
    assert (folder / "words.txt").read_text() == "a b"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "words.txt",
    ]
    checkpoint.load_into(loaded, checkpoint.load_weights(folder))
    assert torch.equal(loaded.embedding.weight, saved.embedding.weight)
    assert loaded.output.weight is loaded.embedding.weight
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "system": "captioning", "licence": "MIT"}


def test_module_without_memory_adopts_the_weights(tmp_path: Path) -> None:
    saved = Tied()
    save(tmp_path / "model", saved.state_dict())
    with torch.device("meta"):
        loaded = Tied()
    checkpoint.load_into(loaded, checkpoint.load_weights(tmp_path / "model"))
    assert torch.equal(loaded.embedding.weight, saved.embedding.weight)
    assert loaded.output.weight is loaded.embedding.weight
    assert loaded.count == 7


def test_half_precision_is_storage_only(tmp_path: Path) -> None:
    weights = {"x": torch.tensor([0.1, -2.0]), "n": torch.tensor([70000]), "b": torch.tensor([True])}
    save(tmp_path / "model", weights, dtype=torch.float16)
    back = checkpoint.load_weights(tmp_path / "model")
    assert torch.equal(back["x"], weights["x"].half().float()) and back["x"].dtype == torch.float32
    assert torch.equal(back["n"], weights["n"]) and torch.equal(back["b"], weights["b"])
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 400
    with pytest.raises(CheckpointError, match=r"x has values beyond the range of torch\.float16"):
        save(tmp_path / "model", {"x": torch.tensor([1e6])}, dtype=torch.float16)


def test_saving_again_replaces_and_keeps_strangers(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(folder, {"x": torch.zeros(2)})
    (folder / "notes.txt").write_text("mine")
    (folder / ".model.safetensors.tmp").write_bytes(b"left by a killed process")
    save(folder, {"x": torch.ones(2)})
    assert torch.equal(checkpoint.load_weights(folder)["x"], torch.ones(2))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]


def test_misfit_lists_names_and_counts() -> None:
    weights = {"embedding.weight": torch.zeros(5, 4), "count": torch.tensor(1)}
    weights |= {f"extra.{i}": torch.zeros(1) for i in range(10)}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_into(Tied(), weights)
    message = str(caught.value)
    assert "1 missing: output.weight" in message
    assert "10 unexpected: extra.0, " in message and "extra.7, ..." in message and "extra.8" not in message
    assert "1 of the wrong shape: embedding.weight (5, 4) instead of (5, 3)" in message


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(folder, {"x": torch.zeros(20)})
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        checkpoint.load_weights(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="incomplete"):
        checkpoint.load_weights(folder)
    for text, message in (
        ("{", "no JSON"),
        ('{"vocab_size": 3}', "not ours"),
        ('{"format": 2, "system": "a", "config": {}}', "update"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load_config(folder, Whole, "captioning")


# -------------------------------------------------------------------------------------------------------- foreign files


def test_foreign_files(tmp_path: Path) -> None:
    content = {"cfg": {"layers": 2}, "model": {"module.a": torch.ones(2), "module.b": torch.zeros(1)}}
    torch.save(content, tmp_path / "new.pt")
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("new.pt", "old.pt"):
        read = checkpoint.read_foreign(tmp_path / name)
        assert read["cfg"] == {"layers": 2} and set(read["model"]) == {"a", "b"}
    save(tmp_path / "model", {"module.a": torch.ones(2), "b": torch.zeros(1)})
    assert set(checkpoint.read_foreign(tmp_path / "model" / "model.safetensors")) == {"module.a", "b"}


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, "code.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    for name in ("code.pt", "plain.pt"):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.read_foreign(name)
        assert "never run here" in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("harm").exists()


@pytest.mark.parametrize("content", [b"", b"just text", b"PK\x03\x04 cut off", b"\x80\x02"])
def test_damaged_foreign_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read_foreign(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.read_foreign(tmp_path / "missing.pt")


# ------------------------------------------------------------------------------------------------------- finding models


def test_authors_checkpoint_names_the_command(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "BEATs_iter3.pt")
    for path in (tmp_path, tmp_path / "BEATs_iter3.pt"):
        with pytest.raises(UsageError, match=r"aural convert .*BEATs_iter3\.pt -o NEW_FOLDER"):
            checkpoint.find_model(path, "captioning")


def test_model_of_another_system_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model", {})
    with pytest.raises(UsageError, match="a model for 'captioning', not for 'answering'"):
        checkpoint.find_model(str(tmp_path / "model"), "answering")
    with pytest.raises(CheckpointError, match="a model for 'captioning', not for 'answering'"):
        checkpoint.load_config(tmp_path / "model", Whole, "answering")


def test_packaged_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "aural"
    monkeypatch.setattr(checkpoint, "__file__", str(package / "checkpoint.py"))
    with pytest.raises(UsageError, match="no default model for captioning is installed"):
        checkpoint.find_model(None, "captioning")
    with pytest.raises(UsageError, match="no model is packaged"):
        checkpoint.find_model("tiny", "captioning")
    for name in ("captioning", "tiny"):
        save(tmp_path / "models" / name, {})
    assert checkpoint.find_model(None, "captioning") == tmp_path / "models" / "captioning"
    assert checkpoint.find_model("tiny", "captioning") == tmp_path / "models" / "tiny"
    save(package / "models" / "captioning", {})  # installed from a wheel
    assert checkpoint.find_model(None, "captioning") == package / "models" / "captioning"
    with pytest.raises(UsageError, match=r"no model 'tiney': did you mean 'tiny'\? packaged models: captioning, tiny;"):
        checkpoint.find_model("tiney", "captioning")
    with pytest.raises(UsageError, match="no default model for answering"):
        checkpoint.find_model(None, "answering")


def test_hub_without_network_says_where_to_put_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        checkpoint.find_model("org/name", "captioning", offline=True)
    message = str(caught.value)
    assert "org/name" in message and "config.json and model.safetensors" in message and "\n" not in message


def test_hub_cache_is_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    revision = "0" * 40
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    save(repository / "snapshots" / revision, {"x": torch.ones(1)})
    found = checkpoint.find_model("org/name", "captioning", offline=True)
    assert torch.equal(checkpoint.load_weights(found)["x"], torch.ones(1))
