"""GPT-2 and CLIP's text tower out of folders in the hub's layout, for a training over published language models."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from aural.answering.model import ClipTextConfig, Gpt2Config
from aural.answering.tokenizer import find_clip, find_gpt2
from aural.checkpoint import read_foreign, read_json
from aural.errors import CheckpointError

GPT2_NAMES = {"vocab_size": "vocab_size", "width": "n_embd", "layers": "n_layer", "heads": "n_head"}
GPT2_NAMES |= {"max_positions": "n_positions"}
CLIP_NAMES = {"vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers"}
CLIP_NAMES |= {"heads": "num_attention_heads", "ffn_dim": "intermediate_size", "projection_dim": "projection_dim"}
CLIP_NAMES |= {"max_positions": "max_position_embeddings"}
BUFFERS = (".attn.bias", ".attn.masked_bias", ".position_ids")
"""Ends of names of what the networks compute for themselves."""


def borrowed_gpt2(folder: Path) -> tuple[Gpt2Config, dict[str, Tensor], Tokenizer]:
    """Sizes, weights and tokenizer of GPT-2.

    Raises:
        CheckpointError: a file is missing, or holds something else.
    """
    settings = _settings(folder)
    config = Gpt2Config(**_known(settings, GPT2_NAMES, folder))
    stored = {name: tensor for name, tensor in _weights(folder).items() if not name.endswith(BUFFERS)}
    weights = {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
               for name, tensor in stored.items()}  # fmt: skip
    if "transformer.wte.weight" not in weights:
        raise CheckpointError(f"{folder}: there is no tensor wte.weight, so that these weights are none of GPT-2's")
    weights.setdefault("lm_head.weight", weights["transformer.wte.weight"])
    return config, {name: tensor.float() for name, tensor in weights.items()}, find_gpt2(folder)


def borrowed_clip(folder: Path) -> tuple[ClipTextConfig, dict[str, Tensor], Tokenizer]:
    """Sizes, weights and tokenizer of CLIP's text tower, out of a whole CLIP or the tower alone.

    Raises:
        CheckpointError: a file is missing, or holds something else.
    """
    settings = _settings(folder)
    text = {"projection_dim": settings.get("projection_dim")} | settings.get("text_config", settings)
    text["projection_dim"] = settings.get("projection_dim", text.get("projection_dim"))
    tokenizer = find_clip(folder)
    end = tokenizer.token_to_id("<|endoftext|>")
    defaults = {CLIP_NAMES[one.name]: one.default for one in fields(ClipTextConfig) if one.name in CLIP_NAMES}
    text = defaults | {name: value for name, value in text.items() if value is not None}
    config = ClipTextConfig(**_known(text, CLIP_NAMES, folder), end_token_id=int(end or 0))
    weights = {
        name: tensor.float()
        for name, tensor in _weights(folder).items()
        if name.startswith(("text_model.", "text_projection.")) and not name.endswith(BUFFERS)
    }
    return config, weights, tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no config.json; give a folder of the hub's layout")
    settings: dict[str, Any] = read_json(path)
    return settings


def _known(settings: dict[str, Any], names: dict[str, str], folder: Path) -> dict[str, Any]:
    missing = [theirs for theirs in names.values() if theirs not in settings]
    if missing:
        raise CheckpointError(f"{folder}: its config.json lacks {', '.join(missing)}: this is another model")
    return {ours: settings[theirs] for ours, theirs in names.items()}


def _weights(folder: Path) -> dict[str, Tensor]:
    safe = folder / "model.safetensors"
    return read_foreign(safe if safe.is_file() else folder / "pytorch_model.bin")
