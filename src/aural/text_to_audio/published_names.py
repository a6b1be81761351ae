"""Names of parameters in published token language models, and ours; in both directions.

Ours are those of audiocraft's checkpoints, but for the projection of texts. The transformers library renames all, and
keeps queries, keys and values in three matrices where audiocraft packs them into one.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from aural.errors import CheckpointError

TEXT = "text_encoder."
"""How names of the text encoder begin in a model folder, and in files of the transformers library."""
AUDIOCRAFT_PROJECTION = "condition_provider.conditioners.description.output_proj."
OURS_PROJECTION = "text_projection."
THEIR_LAYER = "decoder.model.decoder.layers."
OUR_LAYER = "transformer.layers."
TRANSFORMERS = {
    "decoder.model.decoder.embed_tokens.": "emb.",
    "decoder.model.decoder.layer_norm.": "out_norm.",
    "decoder.lm_heads.": "linears.",
    "enc_to_dec_proj.": OURS_PROJECTION,
}
"""How names of the transformers library begin, layers aside, and how ours do."""
TRANSFORMERS_LAYER = {
    "self_attn_layer_norm.": "norm1.",
    "self_attn.out_proj.": "self_attn.out_proj.",
    "encoder_attn_layer_norm.": "norm_cross.",
    "encoder_attn.out_proj.": "cross_attention.out_proj.",
    "final_layer_norm.": "norm2.",
    "fc1.": "linear1.",
    "fc2.": "linear2.",
}
"""How names go on after a layer's number."""
PACKED = {"self_attn.": "self_attn.", "encoder_attn.": "cross_attention."}
"""Attentions: theirs has three matrices, ours one, of queries, keys and values."""
PARTS = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
ELSEWHERE = (TEXT, "audio_encoder.", "decoder.model.decoder.embed_positions.")
"""Beginnings of names in MusicGen's files that are none of the language model's parameters."""


def from_audiocraft(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """audiocraft's names -> ours. Older files have an attention's tensors below ``mha.``."""
    return {
        re.sub(r"(self_attn|cross_attention)\.mha\.", r"\1.", name).replace(
            AUDIOCRAFT_PROJECTION, OURS_PROJECTION
        ): tensor.float()
        for name, tensor in weights.items()
    }


def to_audiocraft(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> audiocraft's."""
    return {name.replace(OURS_PROJECTION, AUDIOCRAFT_PROJECTION): tensor for name, tensor in weights.items()}


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformers library's names -> ours; text encoder, codec and tables of sinusoids are left out.

    Where text encoder and language model are equally wide there is no projection in its files: ours is the identity.

    Raises:
        CheckpointError: names that are none of MusicGen's, or an attention of which a part is missing.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in weights.items():
        if name.startswith(ELSEWHERE):
            continue
        packed = re.fullmatch(rf"{re.escape(THEIR_LAYER)}(\d+)\.(self_attn\.|encoder_attn\.)([qkv])_proj\.weight", name)
        known = _our_name(name)
        if packed is not None and packed[3] == "q":
            parts = [weights.get(name.replace(PARTS[0], part)) for part in PARTS]
            if any(part is None for part in parts):
                raise CheckpointError(f"{name} is there without its keys or values: the file is incomplete")
            at = f"{OUR_LAYER}{packed[1]}.{PACKED[packed[2]]}in_proj_weight"
            ours[at] = torch.cat([part.float() for part in parts if part is not None])
        elif known is not None:
            ours[known] = tensor.float()
        elif packed is None:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"{len(unknown)} tensors are none of MusicGen's: {', '.join(unknown[:8])}")
    if "out_norm.bias" in ours and f"{OURS_PROJECTION}weight" not in ours:
        width = len(ours["out_norm.bias"])
        ours |= {f"{OURS_PROJECTION}weight": torch.eye(width), f"{OURS_PROJECTION}bias": torch.zeros(width)}
    return ours


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> the transformers library's.

    Raises:
        CheckpointError: text encoder and language model are equally wide, and the projection between them is not the
            identity: its MusicGen has none then.
    """
    theirs: dict[str, Tensor] = {}
    projection, bias = weights[f"{OURS_PROJECTION}weight"], weights[f"{OURS_PROJECTION}bias"]
    square = projection.shape[0] == projection.shape[1]
    if square and not (torch.equal(projection, torch.eye(len(projection)).to(projection)) and not bias.any()):
        raise CheckpointError(
            f"text encoder and language model are both {len(projection)} wide, and MusicGen of the transformers "
            "library has no projection between them then: export to audiocraft's layout instead"
        )
    starts = {ours: name for name, ours in TRANSFORMERS.items()}
    in_layer = {ours: name for name, ours in TRANSFORMERS_LAYER.items()}
    attentions = {ours: name for name, ours in PACKED.items()}
    for name, tensor in weights.items():
        if square and name.startswith(OURS_PROJECTION):
            continue
        if name.startswith(OUR_LAYER):
            number, rest = name.removeprefix(OUR_LAYER).split(".", 1)
            attention = rest.removesuffix("in_proj_weight")
            if attention != rest:
                for part, own in zip(PARTS, tensor.chunk(3), strict=True):
                    theirs[f"{THEIR_LAYER}{number}.{attentions[attention]}{part}"] = own.contiguous()
                continue
            theirs[f"{THEIR_LAYER}{number}.{_renamed(rest, in_layer)}"] = tensor
        else:
            theirs[str(_renamed(name, starts))] = tensor
    return theirs


def _our_name(theirs: str) -> str | None:
    if not theirs.startswith(THEIR_LAYER):
        return _renamed(theirs, TRANSFORMERS)
    number, rest = theirs.removeprefix(THEIR_LAYER).split(".", 1)
    ours = _renamed(rest, TRANSFORMERS_LAYER)
    return None if ours is None else f"{OUR_LAYER}{number}.{ours}"


def _renamed(name: str, starts: Mapping[str, str]) -> str | None:
    for start, other in starts.items():
        if name.startswith(start):
            return other + name.removeprefix(start)
    return None
