"""Released files of the captioner, and of BEATs on its own, to model folders.

- the captioner of Wu et al. (arXiv 2309.17352): ``pytorch_model.bin``, a plain state dict. It holds no settings: those
  come from the ``config.json`` beside it, from the files named, or are the published values;
- BEATs of Chen et al. (arXiv 2212.09058): ``{"cfg": settings, "model": state dict, "label_dict": classes}``.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from aural.captioning.conformer import ConformerConfig
from aural.captioning.model import Captioner, CaptionerConfig, paper
from aural.captioning.tokenizer import TOKENIZER
from aural.checkpoint import check_conversion, load_into, read_foreign, save_model
from aural.config import config_from_dict, config_to_dict
from aural.errors import CheckpointError
from aural.networks.beats import BEATs, official_config as official_beats_config

# Official settings for which this package knows one value only.
FIXED_MODEL = {
    "use_conv_downsample": True,
    "use_weighted_encoder_repr": False,
    "use_encoder_embed_mlp": True,
}
FIXED_CONFORMER = {"hidden_act": "swish", "position_embeddings_type": "relative"}
# Official names of settings -> ours.
CAPTIONER_NAMES = {
    "encoder_repr_layer_idx": "tapped_layer",
    "encoder_downsample_rate": "downsample_rate",
    "max_cross_position_embeddings": "max_cross_positions",
    "embed_predictor_ffn_dim": "embedding_ffn_dim",
    "embed_predictor_out_dim": "embedding_dim",
    "contrastive_temperature": "contrastive_temperature",
    "lsm_weight": "label_smoothing",
    "eos_token_id": "eos_token_id",
    "decoder_start_token_id": "decoder_start_token_id",
    "freeze_encoder": "freeze_encoder",
}
DECODER_NAMES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "decoder_layers": "layers",
    "decoder_attention_heads": "heads",
    "decoder_ffn_dim": "ffn_dim",
    "max_position_embeddings": "max_positions",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "scale_embedding": "scale_embedding",
    "activation_function": "activation",
    "pad_token_id": "pad_token_id",
    "init_std": "init_std",
}
CONFORMER_NAMES = {field.name: field.name for field in fields(ConformerConfig) if field.name != "keep_unused_pos_conv"}


def recognise(content: Mapping[str, Any]) -> Literal["captioning", "beats"] | None:
    """The system whose released file this is, judged by what :func:`aural.checkpoint.read_foreign` found in it."""
    if isinstance(content.get("cfg"), dict) and isinstance(content.get("model"), dict):
        return "beats"
    if "decoder.embed_tokens.weight" in content and "postencoder.layer_norm.weight" in content:
        return "captioning"
    return None


def convert(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    beats: str | os.PathLike[str] | None = None,
    conformer: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Turn a released captioner or BEATs file into a model folder.

    Args:
        file: ``pytorch_model.bin`` of the captioner, or a BEATs ``.pt``.
        out: the folder to write.
        beats: for a captioner: the BEATs file it was trained with, read for its settings alone.
        conformer: for a captioner: the JSON file of the Conformer's settings.
        tokenizer: for a captioner: folder with facebook/bart-base's ``tokenizer.json``, or ``vocab.json`` and
            ``merges.txt``. None = the folder of ``file``.

    Returns:
        What the user should know, one line each: which settings were assumed, what is still missing.

    Raises:
        CheckpointError: the file is none of the two, its tensors do not fit the settings (missing, unexpected and
            misshapen ones are listed), or it uses a setting that this package does not have.
        UsageError: ``file`` is a model folder already, or ``out`` holds other people's files.
    """
    file = Path(file)
    check_conversion(file, out)
    content = read_foreign(file)
    match recognise(content):
        case "beats":
            return _convert_beats(content, file, Path(out))
        case "captioning":
            return _convert_captioner(content, file, Path(out), beats, conformer, tokenizer)
    raise CheckpointError(
        f"{file} is neither the captioner's state dict nor a BEATs file with cfg and model: it begins with "
        f"{', '.join(map(str, list(content)[:5]))}"
    )


def official_config(
    model: Mapping[str, Any] | None = None,
    conformer: Mapping[str, Any] | None = None,
    beats: Mapping[str, Any] | None = None,
) -> CaptionerConfig:
    """Our config from the official settings; a part that is None takes the published values.

    Args:
        model: the captioner's ``config.json``, a transformers config; what does not concern the network is ignored.
        conformer: the wav2vec2-Conformer settings.
        beats: the ``cfg`` of a BEATs file.

    Raises:
        CheckpointError: a setting asks for a network that this package does not have.
    """
    values = config_to_dict(paper())
    values["conformer"]["keep_unused_pos_conv"] = True
    if beats is not None:
        values["beats"] = config_to_dict(official_beats_config(beats))
    if conformer is not None:
        _check_fixed(conformer, FIXED_CONFORMER, "Conformer")
        values["conformer"] |= _renamed(conformer, CONFORMER_NAMES)
    if model is not None:
        _check_fixed(model, FIXED_MODEL, "captioner")
        values |= _renamed(model, CAPTIONER_NAMES)
        values["decoder"] |= _renamed(model, DECODER_NAMES)
        values["spec_augment"] = _spec_augment(model["spec_aug"]) if model.get("spec_aug") else None
        if not model.get("use_contrastive_embed_loss", True):
            values["contrastive_weight"] = 0.0
    return config_from_dict(CaptionerConfig, values, where="official settings")


def find_tokenizer(folder: Path) -> str | None:
    """The text of ``tokenizer.json`` in ``folder``, or one made of its ``vocab.json`` and ``merges.txt``, or None."""
    if (folder / TOKENIZER).is_file():
        return (folder / TOKENIZER).read_text(encoding="utf-8")
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        return None
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    known = json.loads(vocabulary.read_text(encoding="utf-8"))
    tokenizer.add_special_tokens([token for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if token in known])
    return tokenizer.to_str()


def _convert_captioner(
    content: Mapping[str, Any],
    file: Path,
    out: Path,
    beats: str | os.PathLike[str] | None,
    conformer: str | os.PathLike[str] | None,
    tokenizer: str | os.PathLike[str] | None,
) -> list[str]:
    settings, notes = _settings_beside(file)
    if beats is not None:
        settings["beats"] = _beats_cfg(Path(beats))
    if conformer is not None:
        settings["conformer"] = _read_json(Path(conformer))
    assumed = ", ".join(part for part, given in settings.items() if given is None)
    if assumed:
        notes.append(f"settings of {assumed} were not given: took the published ones")
    config = official_config(**settings)
    with torch.device("meta"):
        captioner = Captioner(config)
    try:
        load_into(captioner, content)
    except CheckpointError as error:
        hint = "they come from config.json beside the file, --conformer and --beats"
        raise CheckpointError(
            f"{error} (settings of {assumed} were not given: {hint})" if assumed else str(error)
        ) from None
    folder = file.parent if tokenizer is None else Path(tokenizer)
    found = find_tokenizer(folder)
    if found is None:
        if tokenizer is not None:
            raise CheckpointError(f"{folder} holds neither tokenizer.json nor vocab.json and merges.txt")
        notes.append(
            f"no tokenizer beside {file}: captioning needs one; put facebook/bart-base's tokenizer.json into {out}, "
            "or convert again with --tokenizer FOLDER"
        )
    source = "Wu et al., arXiv 2309.17352 (slseanwu/beats-conformer-bart-audio-captioner or a file of that layout)"
    files = {} if found is None else {TOKENIZER: found}
    save_model(
        out,
        system="captioning",
        config=config,
        weights=captioner.state_dict(),
        card=_card("Audio captioner: BEATs, Conformer, BART decoder", source, file, captioner),
        files=files,
        licence="other",
    )
    return notes


def _convert_beats(content: Mapping[str, Any], file: Path, out: Path) -> list[str]:
    config = official_beats_config(content["cfg"], content.get("label_dict"))
    with torch.device("meta"):
        beats = BEATs(config)
    load_into(beats, content["model"])
    card = _card("BEATs audio encoder", "Chen et al., arXiv 2212.09058 (microsoft/unilm)", file, beats)
    save_model(out, system="beats", config=config, weights=beats.state_dict(), card=card, licence="other")
    return []


def _settings_beside(file: Path) -> tuple[dict[str, dict[str, Any] | None], list[str]]:
    """Settings from ``config.json`` beside the file: the captioner's alone, or parts named model, conformer, beats."""
    parts: dict[str, dict[str, Any] | None] = {"model": None, "conformer": None, "beats": None}
    path = file.parent / "config.json"
    if not path.is_file():
        return parts, []
    document = _read_json(path)
    if isinstance(document.get("model"), dict):
        parts |= {part: document[part] for part in parts if isinstance(document.get(part), dict)}
    else:
        parts["model"] = document
    return parts, [f"settings from {path}"]


def _beats_cfg(path: Path) -> dict[str, Any]:
    content = read_foreign(path)
    if recognise(content) != "beats":
        raise CheckpointError(f"{path} is no BEATs file: it should hold cfg and model")
    return content["cfg"]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} should hold a JSON object of settings")
    return document


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}


def _check_fixed(settings: Mapping[str, Any], fixed: Mapping[str, Any], what: str) -> None:
    odd = [f"{name}={settings[name]!r}" for name, value in fixed.items() if settings.get(name, value) != value]
    if odd:
        raise CheckpointError(f"this {what} uses {', '.join(odd)}, which no released model does and aural lacks")


def _spec_augment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """SpecAugment's config, as plain data, from its official settings, whose ranges must begin at 0."""
    names = {"time_warp_window": "time_warp_window", "num_freq_mask": "n_freq_masks", "num_time_mask": "n_time_masks"}
    ranges = {"freq_mask_width_range": "max_freq_width", "time_mask_width_ratio_range": "max_time_width_ratio"}
    values = _renamed(settings, names)
    for theirs, ours in ranges.items():
        low, high = settings.get(theirs, (0, None))
        if low != 0:
            raise CheckpointError(f"spec_aug: {theirs} must begin at 0, not at {low}")
        if high is not None:
            values[ours] = high
    return values


def _card(title: str, source: str, file: Path, module: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    return (
        f"# {title}\n\nConverted by `aural convert` from `{file.name}`. {millions:.1f} M parameters.\n\n"
        f"Origin: {source}. The licence is the one its authors gave these weights.\n"
    )
