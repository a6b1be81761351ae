"""Pengi's released files to model folders, and model folders to models.

``base.pth`` and ``base_no_text_enc.pth`` (Zenodo record 8387083) hold a state dict under ``model``, and no settings:
sizes that tensors show are read off them, the others are the published ones.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from aural.answering.model import AnsweringConfig, AudioLanguageModel, ClipTextConfig, Gpt2Config
from aural.answering.tokenizer import (
    TEXT_TOKENIZER,
    TOKENIZER,
    Tokenizers,
    find_clip,
    find_gpt2,
    load_tokenizers,
    stop_token_id,
)
from aural.checkpoint import check_conversion, load_config, load_into, load_weights, read_foreign, save_model
from aural.errors import CheckpointError
from aural.networks.htsat import HtsatConfig, official_weights

SYSTEM = "answering"
HTSAT = "audio_encoder.base.htsat."
NAMES = {
    "audio_encoder.projection.": "audio_projection.",
    "caption_decoder.audio_project.": "audio_mapper.",
    "caption_encoder.base.": "text_encoder.text_model.",
    "caption_encoder.clip_text_projection.": "text_encoder.text_projection.",
    "caption_encoder.projection.": "prompt_projection.",
    "caption_decoder.text_project.": "prompt_mapper.",
    "caption_decoder.gpt.": "gpt2.",
}
"""How released names begin, those of HTS-AT aside, and how ours do."""
CONSTANTS = (".embeddings.position_ids", ".attn.bias", ".attn.masked_bias")
"""Ends of released names, those of HTS-AT aside, of what the networks compute for themselves."""


def is_pengi(content: Mapping[str, Any]) -> bool:
    """Whether this is what :func:`aural.checkpoint.read_foreign` finds in a released file of Pengi."""
    model = content.get("model")
    return isinstance(model, dict) and "caption_decoder.gpt.transformer.wte.weight" in model


def convert_pengi(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    text_tokenizer: str | os.PathLike[str] | None = None,
    published: AnsweringConfig | None = None,
) -> list[str]:
    """Turn a released file of Pengi into a model folder.

    Args:
        file: ``base.pth`` or ``base_no_text_enc.pth``.
        out: the folder to write.
        tokenizer: folder with gpt2's ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.
        text_tokenizer: folder with the same of openai/clip-vit-base-patch16, for a model with a text tower.
        published: settings that tensors do not show; None = the published ones.

    Returns:
        What the user should know, one line each.

    Raises:
        CheckpointError: the file is none of Pengi, its tensors do not fit together (missing, unexpected and misshapen
            ones are listed), or a tokenizer is missing or of another model.
        UsageError: ``file`` is a model folder already, or ``out`` holds other people's files.
    """
    file, out = Path(file), Path(out)
    check_conversion(file, out)
    content = read_foreign(file)
    if not is_pengi(content):
        first = ", ".join(map(str, list(content)[:5]))
        raise CheckpointError(f"{file} is no file of Pengi, which has its weights under model; it begins with {first}")
    config = inferred_config(content["model"], published)
    weights = our_weights(content["model"], config)
    gpt2 = find_gpt2(_given(tokenizer, "--tokenizer", "gpt2"))
    _check_size(gpt2, config.gpt2.vocab_size, "--tokenizer")
    config, files = replace(config, stop_token_id=stop_token_id(gpt2)), {TOKENIZER: gpt2.to_str()}
    if config.text_encoder is not None:
        clip = find_clip(_given(text_tokenizer, "--text-tokenizer", "openai/clip-vit-base-patch16"))
        _check_size(clip, config.text_encoder.vocab_size, "--text-tokenizer")
        config = replace(config, text_encoder=replace(config.text_encoder, end_token_id=clip.encode("").ids[-1]))
        files[TEXT_TOKENIZER] = clip.to_str()
    model = _empty(config)
    load_into(model, weights)
    card = _card(file, config, model)
    save_model(out, system=SYSTEM, config=config, weights=model.state_dict(), card=card, files=files, licence="other")
    return ["what tensors do not show (sample rate, lengths, heads) is not in the file: took the published settings"]


def load_model(folder: str | os.PathLike[str], *, offline: bool = False) -> tuple[AudioLanguageModel, Tokenizers]:
    """A model folder as a model in evaluation mode, on the CPU, and its tokenizers.

    Raises:
        CheckpointError: the folder is damaged or for another system.
    """
    config = load_config(folder, AnsweringConfig, SYSTEM)
    model = _empty(config)
    load_into(model, load_weights(folder))
    return model.eval(), load_tokenizers(Path(folder), config, offline=offline)


def our_weights(released: Mapping[str, Tensor], config: AnsweringConfig) -> dict[str, Tensor]:
    """Released weights under our names, for :func:`aural.checkpoint.load_into`; constants are left out.

    Raises:
        CheckpointError: tensors that are none of Pengi's, or no HTS-AT weights.
    """
    assert config.htsat is not None
    heard = {name: tensor for name, tensor in released.items() if name.startswith(HTSAT)}
    weights = {f"audio_encoder.{name}": tensor for name, tensor in official_weights(heard, config.htsat).items()}
    unknown = []
    for name, tensor in released.items():
        if name.startswith(HTSAT) or (name.endswith(CONSTANTS)):
            continue
        ours = our_name(name)
        if ours is None:
            unknown.append(name)
        else:
            weights[ours] = tensor
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} tensors are none of Pengi's: {', '.join(unknown[:8])}: "
            "only files of HTS-AT, CLIP or no text tower, and GPT-2 can be converted"
        )
    return weights


def our_name(released: str) -> str | None:
    """What we call a parameter of a released file; None if there is none of that name."""
    if released.startswith(HTSAT):
        return f"audio_encoder.{released.removeprefix(HTSAT)}"
    for theirs, ours in NAMES.items():
        if released.startswith(theirs):
            return ours + released.removeprefix(theirs)
    return None


def inferred_config(released: Mapping[str, Tensor], published: AnsweringConfig | None = None) -> AnsweringConfig:
    """The sizes that released weights show; what they do not is as ``published``, by default :class:`AnsweringConfig`.

    Not shown are the sample rate and frequencies, the size and strides of the picture, the length of windows, prompts
    and targets, and how many heads an attention has, other than in HTS-AT.

    Raises:
        CheckpointError: a tensor is missing from which sizes are read, or the sizes do not fit together.
    """
    published = published or AnsweringConfig()
    try:
        has_text = any(name.startswith("caption_encoder.") for name in released)
        n_prefix, width = released["caption_decoder.audio_project.prefix_const"].shape
        from_vector = released["caption_decoder.audio_project.linear.weight"]
        mapper = "caption_decoder.audio_project.transformer.layers."
        return replace(
            published,
            htsat=_htsat_config(released, published.htsat or HtsatConfig()),
            text_encoder=_clip_config(released, published.text_encoder or ClipTextConfig()) if has_text else None,
            gpt2=_gpt2_config(released, published.gpt2),
            joint_width=from_vector.shape[1],
            prefix_length=n_prefix,
            vector_rows=len(from_vector) // width,
            mapper_layers=_count(released, mapper),
            mapper_mlp_ratio=len(released[f"{mapper}0.mlp.fc1.weight"]) / width,
        )
    except KeyError as missing:
        raise CheckpointError(f"there is no tensor {missing.args[0]}: this is not all of a Pengi") from None
    except ValueError as error:
        raise CheckpointError(f"no Pengi has the sizes of these tensors: {error}") from None


def _htsat_config(released: Mapping[str, Tensor], published: HtsatConfig) -> HtsatConfig:
    stages = range(_count(released, f"{HTSAT}layers."))
    tables = [released[f"{HTSAT}layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    bins, bands = released[f"{HTSAT}logmel_extractor.melW"].shape
    patches = released[f"{HTSAT}patch_embed.proj.weight"]
    classifier = released.get(f"{HTSAT}tscam_conv.weight")
    return replace(
        published,
        n_fft=2 * (bins - 1),
        mel_bins=bands,
        patch_size=patches.shape[-1],
        embed_dim=len(patches),
        depths=tuple(_count(released, f"{HTSAT}layers.{stage}.blocks.") for stage in stages),
        num_heads=tuple(table.shape[1] for table in tables),
        window_size=max((round(len(table) ** 0.5) + 1) // 2 for table in tables),
        mlp_ratio=len(released[f"{HTSAT}layers.0.blocks.0.mlp.fc1.weight"]) / len(patches),
        num_classes=0 if classifier is None else len(classifier),
    )


def _clip_config(released: Mapping[str, Tensor], published: ClipTextConfig) -> ClipTextConfig:
    base = "caption_encoder.base."
    vocab_size, width = released[f"{base}embeddings.token_embedding.weight"].shape
    return replace(
        published,
        vocab_size=vocab_size,
        width=width,
        layers=_count(released, f"{base}encoder.layers."),
        ffn_dim=len(released[f"{base}encoder.layers.0.mlp.fc1.weight"]),
        projection_dim=len(released["caption_encoder.clip_text_projection.weight"]),
        max_positions=len(released[f"{base}embeddings.position_embedding.weight"]),
    )


def _gpt2_config(released: Mapping[str, Tensor], published: Gpt2Config) -> Gpt2Config:
    base = "caption_decoder.gpt.transformer."
    vocab_size, width = released[f"{base}wte.weight"].shape
    return replace(
        published,
        vocab_size=vocab_size,
        width=width,
        layers=_count(released, f"{base}h."),
        max_positions=len(released[f"{base}wpe.weight"]),
    )


def _count(released: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow ``prefix`` in names."""
    return len({name.removeprefix(prefix).split(".")[0] for name in released if name.startswith(prefix)})


def _given(folder: str | os.PathLike[str] | None, option: str, model: str) -> Path:
    if folder is None:
        raise CheckpointError(f"the file holds no words: pass {option} FOLDER with the tokenizer of {model}")
    return Path(folder)


def _check_size(tokenizer: Tokenizer, n_tokens: int, option: str) -> None:
    if tokenizer.get_vocab_size() != n_tokens:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.get_vocab_size()} tokens and the model {n_tokens}: pass another {option}"
        )


def _empty(config: AnsweringConfig) -> AudioLanguageModel:
    """A model whose weights are yet to come."""
    with torch.device("meta"):
        return AudioLanguageModel(config)


def _card(file: Path, config: AnsweringConfig, model: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    text = "GPT-2's own token rows" if config.text_encoder is None else "CLIP's text tower"
    return (
        f"# Audio language model: Pengi, HTS-AT and GPT-2, prompts by {text}\n\n"
        f"Converted by `aural convert` from `{file.name}`. {millions:.1f} M parameters.\n\n"
        "Origin: Deshmukh et al., arXiv 2305.11834 (Zenodo record 8387083, or a file of that layout). The licence is "
        "the one its authors gave these weights.\n"
    )
