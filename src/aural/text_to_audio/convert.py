"""Published token language models to model folders, and model folders to models.

Two layouts exist. audiocraft's ``state_dict.bin`` holds the weights under ``best_state`` and its settings as YAML under
``xp.cfg``; the text encoder is not in it. The transformers library's MusicGen is a folder with ``config.json`` and
weights in one or several files, text encoder and codec among them. The codec is :mod:`aural.codec.convert`'s to read.
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aural.checkpoint import (
    check_conversion,
    load_config,
    load_into,
    load_weights,
    read_foreign,
    read_json,
    read_tokenizer,
    save_model,
)
from aural.errors import CheckpointError
from aural.text_to_audio.delay_pattern import usual_delays
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel
from aural.text_to_audio.published_names import (
    OUR_LAYER,
    OURS_PROJECTION,
    TEXT,
    from_audiocraft,
    from_transformers,
)
from aural.text_to_audio.text_encoder import T5Config, T5Text, make_t5

SYSTEM = "text_to_audio"
TOKENIZER = "tokenizer.json"
HEAD_WIDTH = 64
"""Of every published model; taken where settings are not given."""

FIXED = {
    "norm_first": True,
    "bias_proj": False,
    "bias_ff": False,
    "bias_attn": False,
    "qk_layer_norm": False,
    "layer_scale": None,
    "positional_embedding": "sin",
    "activation": "gelu",
    "causal": True,
}
"""Settings of ``transformer_lm`` that all published models share."""


# ---------------------------------------------------------------------------------------------------------------- sizes


def inferred_config(weights: Mapping[str, Tensor], published: GenerationConfig | None = None) -> GenerationConfig:
    """The sizes that our weights show; what they do not is as ``published``, by default :class:`GenerationConfig`.

    Not shown are the number of heads, the delays, whether it is stereo, rates, and the length of the clips of training.
    Where the number of codebooks is another than in ``published``, delays are the usual ones; without ``published``
    heads are 64 wide.

    Raises:
        CheckpointError: a tensor is missing from which sizes are read, or the sizes do not fit together.
    """
    given = published or GenerationConfig()
    try:
        codebook_size, width = weights["linears.0.weight"].shape
        codebooks = len([name for name in weights if re.fullmatch(r"linears\.\d+\.weight", name)])
        text_width = weights[f"{OURS_PROJECTION}weight"].shape[1]
        layers = {name.removeprefix(OUR_LAYER).split(".")[0] for name in weights if name.startswith(OUR_LAYER)}
        return replace(
            given,
            width=width,
            layers=len(layers),
            heads=max(1, width // HEAD_WIDTH) if published is None else given.heads,
            ffn_dim=len(weights[f"{OUR_LAYER}0.linear1.weight"]),
            codebook_size=codebook_size,
            delays=given.delays
            if len(given.delays) == codebooks
            else usual_delays(codebooks, stereo=given.channels == 2),
            text_width=text_width,
            t5=given.t5 if given.t5 is not None and given.t5.width == text_width else None,
        )
    except KeyError as missing:
        raise CheckpointError(f"there is no tensor {missing.args[0]}: this is no whole token language model") from None
    except ValueError as error:
        raise CheckpointError(f"no token language model has the sizes of these tensors: {error}") from None


def audiocraft_config(text: str, weights: Mapping[str, Tensor]) -> tuple[GenerationConfig, str]:
    """Our config of a model whose settings are the YAML of ``xp.cfg``, and the name of its text encoder.

    Raises:
        CheckpointError: settings of a model that this package does not have.
    """
    import yaml  # type: ignore[import-untyped]  # huggingface_hub brings it

    try:
        settings = yaml.safe_load(text)
        lm, conditioners = settings["transformer_lm"], settings["conditioners"]
        pairs = settings.get("interleave_stereo_codebooks") or {}
        stereo = bool(pairs.get("use"))
        delays = (settings.get("codebooks_pattern") or {}).get("delay", {}).get("delays")
        published = GenerationConfig(
            width=int(lm["dim"]),
            heads=int(lm["num_heads"]),
            delays=tuple(map(int, delays)) if delays else usual_delays(int(lm["n_q"]), stereo=stereo),
            channels=2 if stereo else 1,
            t5=None,
            cross_mask="none",
            sample_rate=int(settings["sample_rate"]),
            seconds=float(settings["dataset"]["segment_duration"]),
        )
        name = str(conditioners["description"]["t5"]["name"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        problem = " ".join(f"{type(error).__name__} {error}".split())
        raise CheckpointError(
            f"the settings in xp.cfg are none of a model that writes sound from text ({problem}): "
            "only files of AudioGen and MusicGen can be converted"
        ) from None
    _check_fixed(lm, FIXED, "audiocraft model")
    if stereo:
        _check_fixed(pairs, {"per_timestep": False}, "audiocraft model")
    if others := sorted(set(conditioners) - {"args", "description"}):
        raise CheckpointError(
            f"this model also listens to {', '.join(others)}: only models of text alone are known here"
        )
    return inferred_config(weights, published), name


def transformers_config(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> GenerationConfig:
    """Our config of a MusicGen whose ``config.json`` holds ``settings``.

    Raises:
        CheckpointError: settings of a model that this package does not have.
    """
    if not {"decoder", "text_encoder"} <= settings.keys():
        raise CheckpointError("its config.json is none of MusicGen's, which has parts decoder and text_encoder")
    decoder, codec = settings["decoder"], settings.get("audio_encoder", {})
    fixed = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": False}
    _check_fixed(decoder, fixed, "MusicGen")
    stereo = decoder.get("audio_channels", 1) == 2
    n_codebooks = int(decoder.get("num_codebooks", 4))
    hop = math.prod(codec.get("upsampling_ratios", (8, 5, 4, 4)))
    rate = int(codec.get("sampling_rate", 32000))
    published = GenerationConfig(
        width=int(decoder["hidden_size"]),
        heads=int(decoder["num_attention_heads"]),
        delays=usual_delays(n_codebooks, stereo=stereo),
        channels=2 if stereo else 1,
        text_width=int(settings["text_encoder"]["d_model"]),
        t5=t5_config(settings["text_encoder"]),
        cross_mask="mask",
        sample_rate=rate,
        frame_rate=-(-rate // hop),
        seconds=30.0,
    )
    return inferred_config(weights, published)


def t5_config(settings: Mapping[str, Any]) -> T5Config:
    """Sizes of a T5 encoder out of its ``config.json``.

    Raises:
        CheckpointError: it is a T5 of another kind, or no T5.
    """
    if "relative_attention_num_buckets" not in settings:
        raise CheckpointError("the text encoder's config.json is none of a T5: give the folder of t5-base or t5-large")
    _check_fixed(settings, {"feed_forward_proj": "relu", "layer_norm_epsilon": 1e-6}, "T5")
    return T5Config(
        vocab_size=int(settings["vocab_size"]),
        width=int(settings["d_model"]),
        layers=int(settings["num_layers"]),
        heads=int(settings["num_heads"]),
        head_width=int(settings["d_kv"]),
        ffn_dim=int(settings["d_ff"]),
        buckets=int(settings["relative_attention_num_buckets"]),
        max_distance=int(settings.get("relative_attention_max_distance", 128)),
    )


def _check_fixed(settings: Mapping[str, Any], fixed: Mapping[str, Any], what: str) -> None:
    odd = [f"{name}={settings[name]!r}" for name, value in fixed.items() if settings.get(name, value) != value]
    if odd:
        raise CheckpointError(f"this {what} uses {', '.join(odd)}, which no published model does and aural lacks")


# ---------------------------------------------------------------------------------------------------------------- files


def is_generation(content: Mapping[str, Any]) -> bool:
    """Whether this is what :func:`aural.checkpoint.read_foreign` finds in a file with a token language model."""
    return "decoder.lm_heads.0.weight" in content or "linears.0.weight" in _audiocraft_weights(content)


def convert_generation(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    text_encoder: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Turn a published token language model into a model folder; a codec in the same file is left out.

    Args:
        file: audiocraft's ``state_dict.bin``, or MusicGen in the transformers library's layout: its folder, or its
            only file of weights with ``config.json`` beside it.
        out: the folder to write.
        text_encoder: folder with T5's ``config.json``, weights and ``tokenizer.json``, for files without it; for the
            others one with the tokenizer, by default that of ``file``.

    Returns:
        What the user should know, one line each.

    Raises:
        CheckpointError: the file is none of a token language model, its tensors do not fit together, or the text
            encoder is missing or of another size.
        UsageError: ``file`` is a model folder already, or ``out`` holds other people's files.
    """
    file, out = Path(file), Path(out)
    check_conversion(file, out)
    given = None if text_encoder is None else Path(text_encoder)
    content = read_foreign(file)
    if not is_generation(content):
        first = ", ".join(map(str, list(content)[:5]))
        raise CheckpointError(f"{file} holds no token language model of audiocraft or MusicGen; it begins with {first}")
    notes = []
    if "decoder.lm_heads.0.weight" in content:
        weights, folder = from_transformers(content), file if file.is_dir() else file.parent
        config, words = transformers_config(read_json(folder / "config.json"), weights), given or folder
        text = {name.removeprefix(TEXT): tensor for name, tensor in content.items() if name.startswith(TEXT)}
    else:
        weights = from_audiocraft(_audiocraft_weights(content))
        if isinstance(content.get("xp.cfg"), str):
            config, name = audiocraft_config(content["xp.cfg"], weights)
        else:
            config, name = inferred_config(weights, None), "T5"
            config = replace(config, cross_mask="none")
            notes.append("there are no settings (xp.cfg) in the file: took heads of 64 and the published rates")
        if given is None:
            raise CheckpointError(f"the file holds no text encoder: pass --text-encoder FOLDER with {name}")
        words, text = given, read_foreign(given)
        sizes = t5_config(read_json(given / "config.json"))
        if sizes.width != config.text_width:
            raise CheckpointError(
                f"{given} is a text encoder of width {sizes.width}, and the model was trained with {name}, of width "
                f"{config.text_width}: pass --text-encoder FOLDER with that"
            )
        config = replace(config, t5=sizes)
    assert config.t5 is not None
    model, encoder = _empty(config), _empty_t5(config.t5)
    load_into(model, weights)
    load_into(encoder, t5_weights(text))
    tokenizer = words / TOKENIZER
    if not tokenizer.is_file():
        raise CheckpointError(f"{words} has no {TOKENIZER}: pass --text-encoder FOLDER with one of T5")
    stored = model.state_dict() | {TEXT + name: tensor for name, tensor in encoder.state_dict().items()}
    files = {TOKENIZER: tokenizer.read_text(encoding="utf-8")}
    card = _card(file, model)
    save_model(out, system=SYSTEM, config=config, weights=stored, card=card, files=files, licence="other")
    return notes


def load_model(folder: str | os.PathLike[str]) -> tuple[TokenLanguageModel, T5Text | None]:
    """A model folder as a model in evaluation mode, on the CPU, and its reader of texts, if it has one of its own.

    Raises:
        CheckpointError: the folder is damaged or for another system.
    """
    folder = Path(folder)
    config = load_config(folder, GenerationConfig, SYSTEM)
    weights = load_weights(folder)
    model = _empty(config)
    load_into(model, {name: tensor for name, tensor in weights.items() if not name.startswith(TEXT)})
    if config.t5 is None:
        return model.eval(), None
    if not (folder / TOKENIZER).is_file():
        raise CheckpointError(f"{folder} has no {TOKENIZER}: the model folder is incomplete")
    encoder = _empty_t5(config.t5)
    text = {name.removeprefix(TEXT): tensor for name, tensor in weights.items() if name.startswith(TEXT)}
    load_into(encoder, t5_weights(text))
    return model.eval(), T5Text(encoder, read_tokenizer(folder / TOKENIZER))


def load_t5(folder: str | os.PathLike[str]) -> tuple[T5Text, T5Config]:
    """A reader of texts out of a folder with T5's ``config.json``, weights and ``tokenizer.json``, and its sizes.

    Raises:
        CheckpointError: one of them is missing or of another kind.
    """
    folder = Path(folder)
    sizes = t5_config(read_json(folder / "config.json"))
    encoder = _empty_t5(sizes)
    load_into(encoder, t5_weights(read_foreign(folder)))
    if not (folder / TOKENIZER).is_file():
        raise CheckpointError(f"{folder} has no {TOKENIZER}: save it there with the tokenizers library")
    return T5Text(encoder, read_tokenizer(folder / TOKENIZER)), sizes


def t5_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A T5's weights -> its encoder's, whose table of tokens goes by two names."""
    kept = {name: tensor.float() for name, tensor in weights.items() if name.startswith(("shared.", "encoder."))}
    table = kept.get("shared.weight", kept.get("encoder.embed_tokens.weight"))
    return kept if table is None else kept | {"shared.weight": table, "encoder.embed_tokens.weight": table}


def _audiocraft_weights(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict in a file of audiocraft: the published form, that of a sharded training, or itself."""
    if isinstance(content.get("best_state"), dict) and content["best_state"]:
        best = content["best_state"]
        return best.get("model", best)
    sharded = content.get("fsdp_best_state")
    return sharded["model"] if isinstance(sharded, dict) and "model" in sharded else content


def _empty(config: GenerationConfig) -> TokenLanguageModel:
    """A model whose weights are yet to come."""
    with torch.device("meta"):
        return TokenLanguageModel(config)


def _empty_t5(config: T5Config) -> Any:
    """A text encoder whose weights are yet to come."""
    with torch.device("meta"):
        return make_t5(config)


def _card(file: Path, model: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return (
        f"# Sound from text: token language model\n\nConverted by `aural convert` from `{file.name}`. {millions:.1f} M "
        "parameters, text encoder aside.\n\nOrigin: Copet et al., arXiv 2306.05284 (MusicGen), or Kreuk et al., arXiv "
        "2209.15352 (AudioGen), or a file of that layout. The licence is the one its authors gave these weights.\n"
    )
