"""Released codecs to model folders.

- audiocraft: ``compression_state_dict.bin``, ``{"best_state": state dict, "xp.cfg": the training's settings as YAML}``;
- the encodec package: a plain state dict of the same names, without settings;
- transformers: the safetensors or ``pytorch_model.bin`` of an EnCodec, or of a MusicGen that holds one, with
  ``config.json`` beside it; or the folder of these.

What tensors show is read off them: widths, ratios, kernels, blocks, codebooks. What they do not (sample rate, padding,
whether it is causal) comes from the settings. Without any, there are two published kinds, which tensors tell apart:
MusicGen's and AudioGen's codecs, and the one at 24 kHz, whose blocks have convolutions for shortcuts.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aural.checkpoint import check_conversion, load_into, read_foreign, save_model
from aural.codec_folder import SYSTEM
from aural.config import config_from_dict, config_to_dict
from aural.errors import CheckpointError
from aural.networks.encodec import DIRECTION, LENGTH, Encodec, EncodecConfig, folded
from aural.networks.residual_quantizer import QuantizerConfig

FRAMES_PER_SECOND = 50
"""Of all codecs of MusicGen and AudioGen: what tells the sample rate where nothing else does."""

RATIOS_24_KHZ = (8, 5, 4, 2)
"""Of the published codec at 24 kHz."""

_CONVOLUTION = re.compile(
    r"(encoder|decoder)\.(?:model|layers)\.(\d+)\.(block\.\d+\.|shortcut\.)?(?:conv\.conv|convtr\.convtr|conv)\."
    r"(weight|bias|weight_g|weight_v|parametrizations\.weight\.original[01])"
)
_LSTM = re.compile(r"(encoder|decoder)\.(?:model|layers)\.(\d+)\.lstm\.((?:weight|bias)_[ih]h_l\d+)")
_CODEBOOK = re.compile(r"quantizer\.(?:vq\.)?layers\.(\d+)\._?codebook\.(inited|cluster_size|embed|embed_avg)")
_NORM = re.compile(
    r"(encoder|decoder)\.(model|layers)\.\d+\.(block\.\d+\.|shortcut\.)?(conv\.|convtr\.)?norm\.(weight|bias)"
)
_HALVES = {"weight_g": LENGTH, "weight_v": DIRECTION}
_IN_MUSICGEN = "audio_encoder."

# Settings of transformers, and those of audiocraft by their path, that tensors do not show -> ours.
TRANSFORMERS_NAMES = {
    "sampling_rate": "sample_rate",
    "use_causal_conv": "causal",
    "pad_mode": "pad_mode",
    "dilation_growth_rate": "dilation_base",
    "trim_right_ratio": "trim_right_ratio",
}
AUDIOCRAFT_NAMES = {
    "sample_rate": "sample_rate",
    "seanet.causal": "causal",
    "seanet.pad_mode": "pad_mode",
    "seanet.dilation_base": "dilation_base",
    "seanet.decoder.trim_right_ratio": "trim_right_ratio",
}
# Settings for which this package knows one value only.
FIXED = {
    "normalize": False,
    "chunk_length_s": None,
    "norm_type": "weight_norm",
    "encodec.renormalize": False,
    "seanet.norm": "weight_norm",
    "seanet.activation": "ELU",
    "seanet.decoder.final_activation": None,
}
LACKING = "this EnCodec uses {}, which aural lacks: convert one at 16, 24 or 32 kHz"


def is_codec(content: Mapping[str, Any]) -> bool:
    """Whether :func:`aural.checkpoint.read_foreign` found nothing but a codec's weights, or the name of a codec."""
    tensors = _tensors(content)
    return "pretrained" in content or (
        bool(tensors) and all(our_name(name) is not None or _NORM.fullmatch(name) for name in tensors)
    )


def holds_codec(content: Mapping[str, Any]) -> bool:
    """Whether this is what :func:`aural.checkpoint.read_foreign` finds in a MusicGen with its codec."""
    return any(name.startswith(_IN_MUSICGEN) for name in content)


def convert_codec(file: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[str]:
    """Turn a released codec into a model folder.

    Args:
        file: see the top of this module; of a MusicGen of transformers the codec alone is taken.
        out: the folder to write.

    Returns:
        What the user should know, one line each.

    Raises:
        CheckpointError: the file holds no codec, only the name of one, tensors that do not fit together (missing,
            unexpected and misshapen ones are listed), uses a setting that this package does not have, or comes without
            settings and is none of the published kinds.
        UsageError: ``file`` is a model folder already, or ``out`` holds other people's files.
    """
    file = Path(file)
    check_conversion(file, out)
    content = read_foreign(file)
    if "pretrained" in content:
        raise CheckpointError(
            f"{file} only names the codec {content['pretrained']}: convert that one's weights instead"
        )
    released = _codec_part(_tensors(content))
    if not released:
        first = ", ".join(map(str, list(content)[:5]))
        raise CheckpointError(f"{file} is no EnCodec of audiocraft or transformers; it begins with {first}")
    settings, source = _settings(content, file)
    if any(_NORM.fullmatch(name) for name in released):  # settings may be missing, or say otherwise
        raise CheckpointError(LACKING.format("norm_type='time_group_norm'"))
    weights = folded({name: tensor.float() for name, tensor in our_weights(released).items()})
    config = inferred_config(released, settings)
    notes = [f"settings from {source}"] if source else []
    if source is None:
        config, taken = _published(config, file)
        notes.append(f"no settings in the file, nor in config.json beside it: took {taken}")
    with torch.device("meta"):
        codec = Encodec(config)
    load_into(codec, weights)
    save_model(out, system=SYSTEM, config=config, weights=weights, card=_card(file, config, codec), licence="other")
    return notes


def our_name(released: str) -> str | None:
    """What we call a tensor of either layout, a weight in the form for training; None if there is none of that name."""
    if match := _CONVOLUTION.fullmatch(released):
        way, index, inner, kind = match.groups()
        return f"{way}.layers.{index}.{inner or ''}conv.{_HALVES.get(kind, kind)}"
    if match := _LSTM.fullmatch(released):
        return "{}.layers.{}.lstm.{}".format(*match.groups())
    if match := _CODEBOOK.fullmatch(released):
        return "quantizer.layers.{}.codebook.{}".format(*match.groups())
    return None


def our_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors of either layout under our names, weights in the form they have.

    Raises:
        CheckpointError: tensors that are none of an EnCodec's.
    """
    names = {name: our_name(name) for name in released}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} tensors are none of an EnCodec with weight normalisation: {', '.join(unknown[:8])}: "
            "only such can be converted"
        )
    return {str(ours): released[name] for name, ours in names.items()}


def inferred_config(released: Mapping[str, Tensor], settings: EncodecConfig | None = None) -> EncodecConfig:
    """The sizes that released tensors show; what they do not is as in ``settings``, by default :class:`EncodecConfig`.

    Not shown are the sample rate, how and on which sides is padded, the growth of dilation, and how codebooks learn.

    Raises:
        CheckpointError: a tensor is missing from which sizes are read, or the sizes are no codec's.
    """
    settings = settings or EncodecConfig()
    shapes = {
        name.replace(DIRECTION, "weight"): tensor.shape
        for name, tensor in our_weights(released).items()
        if not name.endswith(LENGTH)
    }
    layers = sorted({int(name.split(".")[2]) for name in shapes if name.startswith("encoder.layers.")})
    kernels = [shapes[name] for index in layers if (name := f"encoder.layers.{index}.conv.weight") in shapes]
    blocks = [index for index in layers if f"encoder.layers.{index}.block.1.conv.weight" in shapes]
    books = [shape for name, shape in shapes.items() if name.endswith(".codebook.embed")]
    if len(kernels) < 3 or not blocks or not books:
        raise CheckpointError("convolutions, blocks or codebooks are missing: this is not all of an EnCodec")
    first, *levels, last = kernels
    inside = shapes[f"encoder.layers.{blocks[0]}.block.1.conv.weight"]
    try:
        return replace(
            settings,
            channels=first[1],
            ratios=tuple(shape[2] // 2 for shape in reversed(levels)),
            n_filters=first[0],
            dimension=last[0],
            residual_layers=len(blocks) // len(levels),
            kernel_size=first[2],
            last_kernel_size=last[2],
            residual_kernel_size=inside[2],
            compress=inside[1] // inside[0],
            lstm_layers=sum(re.fullmatch(r"encoder\..*\.weight_ih_l\d+", name) is not None for name in shapes),
            true_skip=not any(".shortcut." in name for name in shapes),
            quantizer=replace(settings.quantizer, n_codebooks=len(books), codebook_size=books[0][0]),
        )
    except ValueError as error:
        raise CheckpointError(f"no EnCodec has the sizes of these tensors: {error}") from None


def _published(config: EncodecConfig, file: Path) -> tuple[EncodecConfig, str]:
    """Sizes with the settings of the published codec of that kind, and those settings in words."""
    if config.true_skip:
        config = replace(config, sample_rate=config.hop * FRAMES_PER_SECOND)
        return config, f"{config.sample_rate} Hz, zeros for padding, and what lies ahead to be heard"
    if config.ratios != RATIOS_24_KHZ or config.channels != 1:
        raise CheckpointError(
            f"{file} comes without settings, and its shortcuts are those of the EnCodec at 24 kHz, but not its ratios "
            f"{config.ratios} and channels ({config.channels}): put its config.json of transformers beside it"
        )
    config = replace(config, sample_rate=24000, causal=True, pad_mode="reflect")
    return config, "those of the EnCodec at 24 kHz, for its shortcuts: causal, with mirrored padding"


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in what was read."""
    inner = content.get("best_state", content)
    inner = inner.get("model", inner) if isinstance(inner, dict) else {}
    return {name: tensor for name, tensor in inner.items() if isinstance(tensor, Tensor)}


def _codec_part(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The codec of a MusicGen of transformers, or all; nothing if there is no codebook."""
    inside = {n.removeprefix(_IN_MUSICGEN): tensor for n, tensor in tensors.items() if n.startswith(_IN_MUSICGEN)}
    part = inside or dict(tensors)
    return part if any(_CODEBOOK.fullmatch(name) for name in part) else {}


def _settings(content: Mapping[str, Any], file: Path) -> tuple[EncodecConfig, str | None]:
    """Settings that tensors do not show, and where they were found."""
    beside = (file if file.is_dir() else file.parent) / "config.json"
    if "xp.cfg" in content:
        given, names, source = _flat(_parsed(content["xp.cfg"], file)), AUDIOCRAFT_NAMES, "xp.cfg in the file"
    elif beside.is_file():
        try:
            document = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{beside} cannot be read as JSON: {error}") from error
        if not isinstance(document, dict):
            raise CheckpointError(f"{beside} should hold a JSON object of settings")
        given, names, source = document.get("audio_encoder", document), TRANSFORMERS_NAMES, str(beside)
    else:
        return EncodecConfig(), None
    odd = [f"{name}={given[name]!r}" for name, value in FIXED.items() if given.get(name, value) != value]
    if odd:
        raise CheckpointError(LACKING.format(", ".join(odd)))
    known = {ours: given[theirs] for theirs, ours in names.items() if given.get(theirs) is not None}
    values = {field.name: getattr(EncodecConfig(), field.name) for field in fields(EncodecConfig)} | known
    values["quantizer"] = config_to_dict(_quantizer_settings(given))
    return config_from_dict(EncodecConfig, values, where=source), source


def _quantizer_settings(given: Mapping[str, Any]) -> QuantizerConfig:
    """How audiocraft's codebooks learn; those of transformers do not."""
    names = {"rvq.decay": "decay", "rvq.q_dropout": "codebook_dropout", "rvq.kmeans_iters": "kmeans_iterations"}
    known = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    return config_from_dict(QuantizerConfig, known, where="xp.cfg in the file")


def _parsed(document: Any, file: Path) -> dict[str, Any]:
    if isinstance(document, str):
        import yaml  # type: ignore[import-untyped]  # comes with transformers

        try:
            document = yaml.safe_load(document)
        except yaml.YAMLError as error:
            line = " ".join(str(error).split())
            raise CheckpointError(f"xp.cfg in {file} is no YAML: {line}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"xp.cfg in {file} should be an object of settings")
    return document


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path, ``a.b``, with references ``${a.b}`` followed."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    if not prefix:
        for name, value in flat.items():
            for _ in range(8):  # a reference may lead to another
                if isinstance(value, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", value)):
                    value = flat[name] = flat.get(match[1])
    return flat


def _card(file: Path, config: EncodecConfig, codec: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in codec.parameters()) / 1e6
    return (
        f"# Codec: EnCodec, {config.sample_rate} Hz, {config.frame_rate:g} frames/s, "
        f"{config.kilobits_per_second:.1f} kbit/s\n\n"
        f"Converted by `aural convert` from `{file.name}`. {millions:.1f} M parameters.\n\n"
        "Origin: Defossez et al., arXiv 2210.13438, or Copet et al., arXiv 2306.05284 (facebook/encodec_32khz, "
        "facebook/audiogen-medium, or a file of that layout). The licence is the one its authors gave these weights.\n"
    )
