"""AudioToken's released bridge to a model folder, and model folders to models.

``embedder_learned_embeds.bin`` is a plain state dict of 13 tensors: the bridge alone, without settings. All sizes show
in its shapes but how many layers it hears, which is three; the encoder comes from the BEATs file it was trained with.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.checkpoint import check_conversion, load_config, load_into, load_weights, read_foreign, save_model
from aural.errors import CheckpointError
from aural.networks.beats import BEATs

SYSTEM = "audio_to_image"
RELEASED_BEATS = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
NAMES = {
    "fc1.": "fc1.",
    "fc2.": "fc2.",
    "fga.un_models.0.embed.": "pooling.local_hidden.",
    "fga.un_models.0.feature_reduce.": "pooling.local_score.",
    "fga.pp_models.0.embed_X.": "pooling.self_left.",
    "fga.pp_models.0.embed_Y.": "pooling.self_right.",
    "fga.reduce_potentials.0.": "pooling.fusion.",
}
"""How released names begin, and how ours do."""
NOT_TUNED = f"this BEATs was not fine-tuned on AudioSet, as the one of the released AudioToken was: {RELEASED_BEATS}"
ENCODER, CLASSIFIER = "encoder.", "predictor."
LORA = "lora."
"""How the weights begin that a picture model learnt along."""


def is_audio_token(content: Mapping[str, Any]) -> bool:
    """Whether this is what :func:`aural.checkpoint.read_foreign` finds in a released bridge of AudioToken."""
    return "fga.reduce_potentials.0.weight" in content and "fc2.weight" in content


def our_name(released: str) -> str | None:
    """What we call a parameter of the released file; None if there is none of that name."""
    for theirs, ours in NAMES.items():
        if released.startswith(theirs):
            return ours + released.removeprefix(theirs)
    return None


def our_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released weights under our names. Convolutions over one place, (out, in, 1), become matrices.

    Raises:
        CheckpointError: tensors that are none of AudioToken's.
    """
    names = {name: our_name(name) for name in released}
    if unknown := [name for name, ours in names.items() if ours is None]:
        raise CheckpointError(
            f"{len(unknown)} tensors are none of AudioToken's: {', '.join(unknown[:8])}: only its Embedder can be "
            "converted, embedder_learned_embeds.bin"
        )
    return {
        str(names[name]): tensor.squeeze(2) if tensor.dim() == 3 and tensor.shape[2] == 1 else tensor
        for name, tensor in released.items()
    }


def inferred_config(released: Mapping[str, Tensor], published: AudioTokenConfig | None = None) -> AudioTokenConfig:
    """The sizes that released weights show; which layers are heard is as ``published``, by default 4, 8 and 12.

    Raises:
        CheckpointError: the weights are none of AudioToken's, or of an encoder that does not give so many layers.
    """
    published = published or AudioTokenConfig()
    if not is_audio_token(released):
        raise CheckpointError("there are no tensors fc2.weight and fga.reduce_potentials.0.weight: no AudioToken")
    token_width, feature_width = released["fc2.weight"].shape
    n_layers = len(published.layers)
    if feature_width % n_layers:
        raise CheckpointError(f"features of width {feature_width} are not those of {n_layers} layers: no AudioToken")
    return replace(published, encoder_width=feature_width // n_layers, token_width=token_width)


def convert_audio_token(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    beats: str | os.PathLike[str] | None = None,
    published: AudioTokenConfig | None = None,
) -> list[str]:
    """Turn AudioToken's released bridge into a model folder.

    Args:
        file: ``embedder_learned_embeds.bin``, or a safetensors file of the same names.
        out: the folder to write.
        beats: the BEATs file that it was trained with, or the model folder made of that; its classifier is left out.
        published: settings that tensors do not show; None = the published ones.

    Returns:
        What the user should know, one line each.

    Raises:
        CheckpointError: the file is none of AudioToken, its tensors do not fit together (missing, unexpected and
            misshapen ones are listed), or BEATs is missing or of another size.
        UsageError: ``file`` is a model folder already, or ``out`` holds other people's files.
    """
    file = Path(file)
    check_conversion(file, out)
    content = read_foreign(file)
    if not is_audio_token(content):
        first = ", ".join(map(str, list(content)[:5]))
        raise CheckpointError(
            f"{file} is no bridge of AudioToken (embedder_learned_embeds.bin); it begins with {first}"
        )
    config = inferred_config(content, published)
    bridge = _empty(config)
    load_into(bridge, our_weights(content))
    if beats is None:
        raise CheckpointError(f"the file holds no audio encoder: pass --beats FILE with {RELEASED_BEATS}")
    encoder = BEATs.from_checkpoint(beats)
    try:
        config = replace(config, beats=replace(encoder.config, finetuned_model=False, labels=()))
    except ValueError as error:
        raise CheckpointError(f"{beats} is not the BEATs that {file} was trained with: {error}") from None
    heard = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith(CLASSIFIER)}
    weights = bridge.state_dict() | heard
    load_into(_empty(config), weights)
    save_model(out, system=SYSTEM, config=config, weights=weights, card=_card(file, bridge), licence="other")
    notes = [
        f"the audio token is {config.token_width} wide: it speaks to text encoders of that width, such as those of "
        "Stable Diffusion 1.x (768) or 2.x (1024)"
    ]
    return notes if encoder.config.finetuned_model else [*notes, NOT_TUNED]


def load_model(folder: str | os.PathLike[str]) -> tuple[AudioToken, dict[str, Tensor]]:
    """A model folder as a model in evaluation mode, on the CPU, its encoder frozen; and what a picture model learnt.

    Returns:
        The bridge, and the weights of a :class:`aural.audio_to_image.lora.Lora`; none where the rank is 0.

    Raises:
        CheckpointError: the folder is damaged or for another system.
    """
    model = _empty(load_config(folder, AudioTokenConfig, SYSTEM))
    weights = load_weights(folder)
    updates = {name.removeprefix(LORA): tensor for name, tensor in weights.items() if name.startswith(LORA)}
    load_into(model, {name: tensor for name, tensor in weights.items() if not name.startswith(LORA)})
    return model.eval(), updates


def _empty(config: AudioTokenConfig) -> AudioToken:
    """A model whose weights are yet to come."""
    with torch.device("meta"):
        return AudioToken(config)


def _card(file: Path, bridge: AudioToken) -> str:
    millions = sum(parameter.numel() for parameter in bridge.parameters()) / 1e6
    return (
        f"# Pictures from sound: AudioToken\n\nConverted by `aural convert` from `{file.name}`. {millions:.1f} M "
        "parameters, audio encoder aside.\n\nOrigin: Yariv et al., arXiv 2305.13050, or a file of that layout; the "
        "encoder is BEATs, Chen et al., arXiv 2212.09058. The licence is the one their authors gave these weights.\n"
    )
