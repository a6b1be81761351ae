"""Model folders: where weights come from and where they go.

A model is a folder of three files, and of whatever else the system needs to be whole (a tokenizer):

- ``config.json``: ``{"format": 1, "system": "captioning", "config": {...}}``, the frozen dataclass of the model;
- ``model.safetensors``: every tensor of ``module.state_dict()``, with the system and the licence as metadata;
- ``README.md``: the model card.

Reading is strict: an unknown key, a missing tensor or a wrong shape is an error that lists all of them at once.
Writing is safe: see :func:`save_model`. Weights of other authors come in through :func:`read_foreign` only, which never
runs code from a checkpoint.
"""

import difflib
import hashlib
import json
import os
import pickle
import re
import shutil
import types
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aural.config import Config, config_from_dict, config_to_dict
from aural.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FOREIGN_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".th", ".safetensors")
FOREIGN_PARTS = ("*.safetensors", "pytorch_model*.bin", "state_dict.bin")
"""Where weights lie in a folder of another project: in all files of the first pattern of which there are any."""
HUB_FILES = [
    CONFIG,
    f"codec/{CONFIG}",
    CARD,
    "*.safetensors",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "*.model",
]
SHOWN = 8
"""How many names of each kind an error lists before it only counts."""


# --------------------------------------------------------------------------------------------------- saving and loading


def save_model(
    folder: str | os.PathLike[str],
    *,
    system: str,
    config: Any,
    weights: Mapping[str, Tensor],
    card: str,
    files: Mapping[str, bytes | str] = types.MappingProxyType({}),
    dtype: torch.dtype | None = None,
    licence: str = "Apache-2.0",
) -> None:
    """Write a model folder that is loadable at every moment, also when the process is killed half-way.

    A new folder is made under a temporary name beside its place and renamed when complete. In an existing folder each
    file is made under a temporary name and moved over the old one, weights last: whoever reads meanwhile finds whole
    files, and, as long as the config stays the same (training), a model that works. Other files there are left alone.

    Args:
        folder: where to write.
        system: package folder of the system that can load it, such as ``"captioning"``.
        config: the frozen dataclass the model is built from; nested dataclasses are fine.
        weights: ``module.state_dict()``; tied weights are stored once per name.
        card: text of the model card (Markdown).
        files: further files by plain name, such as ``{"tokenizer.json": "..."}``.
        dtype: storage type of floating-point tensors, ``torch.float16`` to halve the file; ``None`` keeps them.
        licence: SPDX identifier of the weights' licence.
    """
    folder = Path(folder)
    tensors = _storable(weights, dtype)
    contents: dict[str, bytes | str] = {
        **files,
        CARD: card,
        CONFIG: json.dumps(
            {"format": FORMAT, "system": system, "config": config_to_dict(config)}, indent=2, allow_nan=False
        )
        + "\n",
    }
    target = folder if folder.is_dir() else folder.with_name(f".{folder.name}.tmp")
    if target is not folder:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    for name, content in contents.items():
        write_whole(target / name, content)
    temporary = target / f".{WEIGHTS}.tmp"  # what a killed run left is written over
    safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt", "system": system, "licence": licence})
    temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    _move(temporary, target / WEIGHTS)
    if target is not folder:
        target.rename(folder)


def load_config(folder: str | os.PathLike[str], config_class: type[Config], system: str) -> Config:
    """Read ``config.json`` strictly into ``config_class``.

    Raises:
        CheckpointError: no such file, another system, or keys unknown, missing or of a wrong type.
    """
    path = Path(folder) / CONFIG
    document = _read_config(path)
    if document["system"] != system:
        raise CheckpointError(
            f"{folder} is a model for {document['system']!r}, not for {system!r}: pass another --model"
        )
    return config_from_dict(config_class, document["config"], where=str(path))


def system_of(model: str | os.PathLike[str]) -> str | None:
    """The system that a model folder is for; None where ``model`` is no model folder."""
    path = Path(model) / CONFIG
    return _read_config(path)["system"] if path.is_file() else None


def load_weights(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read ``model.safetensors`` onto the CPU; half-precision tensors come back as float32, whole numbers as they are.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = Path(folder) / WEIGHTS
    return {name: _widened(tensor) for name, tensor in _read_safetensors(path).items()}


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """64 hexadecimal digits that tell these weights, with their names and shapes, from all others."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_into(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into ``module``; names and shapes must agree exactly.

    A module built under ``torch.device("meta")`` (no time spent on random weights that are thrown away) adopts the
    tensors instead; parameters tied in the module stay tied. (Buffers outside the state dict it must make itself.)

    Raises:
        CheckpointError: lists missing and unexpected tensors and mismatched shapes, the first eight of each kind.
    """
    own = module.state_dict(keep_vars=True)
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of the wrong shape": reshaped}
    if any(kinds.values()):
        problems = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names)
        raise CheckpointError(f"these weights do not fit {type(module).__name__}: {problems}")
    if not any(tensor.is_meta for tensor in own.values()):
        module.load_state_dict(weights)
        return
    adopted: dict[int, Tensor] = {}  # by identity of the module's own tensor, so that tied ones stay one
    for name, tensor in own.items():
        parameter = (
            nn.Parameter(weights[name], tensor.requires_grad) if isinstance(tensor, nn.Parameter) else weights[name]
        )
        adopted.setdefault(id(tensor), parameter)
    module.load_state_dict({name: adopted[id(tensor)] for name, tensor in own.items()}, assign=True)


class uninitialised(TorchFunctionMode):  # noqa: N801, it reads as a phrase: with uninitialised(): ...
    """Within it, modules are built without drawing the random weights that :func:`load_into` is about to replace.

    (``torch.device("meta")`` would do it too, but its first use imports 800 modules, half a second of every start.)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in {
            "normal_",
            "uniform_",
            "trunc_normal_",
            "kaiming_uniform_",
            "xavier_normal_",
        }:
            tensor: Tensor = args[0] if args else (kwargs or {})["tensor"]
            with torch.no_grad():
                return tensor.zero_()  # trunc_normal_ draws until all values lie within its bounds: 0 does
        return func(*args, **(kwargs or {}))


# ------------------------------------------------------------------------------------------------- other people's files


def read_foreign(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of another project: safetensors, or a PyTorch file without any Python object but plain data.

    A ``"module."`` that DistributedDataParallel put before the names is taken off, at whatever depth the tensors lie.

    Args:
        path: the file, or a folder with weights in one or several files, as the transformers library has them.

    Raises:
        CheckpointError: the file is missing or damaged, or needs arbitrary code to be unpickled.
    """
    path = Path(path)
    if path.is_dir():
        for pattern in FOREIGN_PARTS:
            if files := sorted(path.glob(pattern)):
                return {name: value for file in files for name, value in read_foreign(file).items()}
        raise CheckpointError(f"{path} holds no weights: neither {', nor '.join(FOREIGN_PARTS)}")
    if path.suffix == ".safetensors":
        return strip_module_prefix(_read_safetensors(path))
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give the file that its authors released")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"the Python object {found[1]}" if found else "something other than tensors and plain data"
        raise CheckpointError(
            f"{path} holds {what}, and code from a checkpoint is never run here: "
            "save its state_dict again as .safetensors where you trust it"
        ) from error
    except Exception as error:  # reading arbitrary bytes as a pickle can fail in any way
        raise CheckpointError(f"{path} is damaged or no PyTorch file: download it again ({_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__} instead of a dict of tensors: wrong file?")
    return strip_module_prefix(content)


def check_conversion(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Refuse to convert what needs none, and to write a model folder over other people's files.

    Args:
        source: the checkpoint of another project, a file or a folder.
        out: where its model folder is to be written.

    Raises:
        UsageError: ``source`` is a model folder already, or ``out`` is a file, the folder of ``source``, or one with
            files that would be written over and are none of a model folder.
    """
    source, out = Path(source), Path(out)
    folder = source if source.is_dir() else source.parent
    if source in (folder, folder / WEIGHTS) and _is_ours(folder):
        raise UsageError(f"{folder} is a model folder already: there is nothing to convert, pass --model {folder}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and a model is a folder: choose another name")
    if out.is_dir() and folder.is_dir() and out.samefile(folder):
        raise UsageError(f"{out} is the folder of what is to be converted, and stays as it is: choose another one")
    others = [name for name in (CONFIG, WEIGHTS, CARD) if (out / name).exists()]
    if others and not _is_ours(out):
        raise UsageError(
            f"{out} holds {', '.join(others)} of another project, which stay as they are: choose a new folder"
        )


def _is_ours(folder: Path) -> bool:
    """Whether there is a model folder, of this version."""
    try:
        _read_config(folder / CONFIG)
    except CheckpointError:
        return False
    return True


def strip_module_prefix(content: Mapping[str, Any]) -> dict[str, Any]:
    """Undo DistributedDataParallel's renaming: where every name of a dict begins with ``"module."``, take that off.

    Works on nested dicts such as ``{"model": {"module.weight": ...}, "epoch": 3}``; other dicts are left as they are.
    """
    wrapped = bool(content) and all(isinstance(name, str) and name.startswith("module.") for name in content)
    return {
        name.removeprefix("module.") if wrapped else name: (
            strip_module_prefix(value) if isinstance(value, dict) else value
        )
        for name, value in content.items()
    }


# ------------------------------------------------------------------------------------------------------- finding models


def find_model(name: str | os.PathLike[str] | None, system: str, *, offline: bool = False) -> Path:
    """Turn what a user writes after ``--model`` into a folder.

    Args:
        name: ``None`` for the default that comes with the package; a folder; the name of a packaged model; or a hub id
            such as ``"org/name"``, fetched through huggingface_hub (whose environment variables are honoured).
        system: package folder of the system that is to load it.
        offline: use only what the hub's cache already holds.

    Raises:
        UsageError: nothing of that name, or a model for another system; says what exists or what to do.
    """
    wanted = system if name is None else os.fspath(name)
    folder = Path(wanted).expanduser()
    embedded = _embedded(system)
    if name is not None and (folder / CONFIG).is_file():
        found = folder
    elif wanted in embedded:
        found = embedded[wanted]
    elif name is not None and folder.exists():
        raise UsageError(_how_to_convert(folder))
    elif name is not None and isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        found = _from_hub(name, offline)
    else:
        raise UsageError(_nothing_called(wanted, embedded, default=name is None))
    actual = _read_config(found / CONFIG)["system"]
    if actual != system:
        raise UsageError(f"{wanted} is a model for {actual!r}, not for {system!r}: pass another --model")
    return found


def _embedded(system: str) -> dict[str, Path]:
    """Models of ``system`` that come with the package: inside it when installed from a wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    places = (package.parents[1] / "models", package / "models")  # the later one wins
    configs = (path for place in places for path in sorted(place.glob(f"*/{CONFIG}")))
    return {path.parent.name: path.parent for path in configs if _read_config(path)["system"] == system}


def _from_hub(name: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    remedy = f"put its {CONFIG} and {WEIGHTS} into a folder and pass --model FOLDER"
    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=offline))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(f"there is neither a folder nor a hub model {name}: check the name, or {remedy}") from error
    except LocalEntryNotFoundError as error:
        why = "--offline was given" if offline else "the hub cannot be reached"
        raise UsageError(f"{name} is neither a folder nor in the hub's cache, and {why}: {remedy}") from error
    except Exception as error:  # what the network raises belongs to another library in each version of the hub's
        raise UsageError(f"{name} could not be fetched ({_line(error)}): try again, or {remedy}") from error
    if not (folder / CONFIG).is_file():
        raise UsageError(f"the hub model {name} has no {CONFIG}: download its weights and run `aural convert` on them")
    return folder


def _how_to_convert(path: Path) -> str:
    foreign = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in FOREIGN_SUFFIXES)
    if not foreign:
        return f"{path} is no model folder: it has no {CONFIG}"
    convert = f"aural convert {foreign[0]} -o NEW_FOLDER"
    return f"{path} is no model folder (it has no {CONFIG}): run `{convert}`, then pass --model NEW_FOLDER"


def _nothing_called(wanted: str, embedded: Iterable[str], *, default: bool) -> str:
    if default:
        return f"no default model for {wanted} is installed: pass --model FOLDER or --model HUB_ID"
    names = sorted(embedded)
    close = difflib.get_close_matches(wanted, names, n=1)
    guess = f" did you mean {close[0]!r}?" if close else ""
    known = f"packaged models: {', '.join(names)}" if names else "no model is packaged"
    return f"no model {wanted!r}:{guess} {known}; a folder or a hub id (org/name) works too"


# ---------------------------------------------------------------------------------------------------------------- files


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that under its name there is always either the old content or all of the new.

    Raises:
        UsageError: it cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        _move(temporary, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    """Rename, after the content has reached the disk: a power cut must not leave an empty file under the final name."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is no model folder: it has no {path.name}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {_line(error)}") from error
    if not isinstance(document, dict) or document.keys() != {"format", "system", "config"}:
        raise CheckpointError(
            f"{path} is not ours, which has the keys format, system and config: `aural convert` the weights"
        )
    if document["format"] != FORMAT:
        raise CheckpointError(f"{path} has the format {document['format']}, this version reads {FORMAT}: update aural")
    return document


def read_json(path: Path) -> Any:
    """What a file of somebody's model folder holds.

    Raises:
        CheckpointError: it is missing, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: copy or download it again ({_line(error)})") from None


def read_tokenizer(path: Path) -> "Tokenizer":
    """A ``tokenizer.json``, which says how texts become tokens.

    Raises:
        CheckpointError: it is missing, or no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the tokenizers library raises plain Exception for a bad file
        raise CheckpointError(
            f"{path} cannot be read as a tokenizer: copy or download it again ({_line(error)})"
        ) from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: the model folder is incomplete")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: copy or download it again ({_line(error)})") from error


def _storable(weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory, which safetensors refuses (tied weights)."""
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, weight in weights.items():
        tensor = weight.detach().cpu().contiguous()
        if dtype is not None and tensor.is_floating_point():
            if tensor.abs().nan_to_num(posinf=0.0).gt(torch.finfo(dtype).max).any():
                raise CheckpointError(f"{name} has values beyond the range of {dtype}: save with dtype=None")
            tensor = tensor.to(dtype)
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
