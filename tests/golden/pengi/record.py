"""Writes the two small models of this folder and what they give; see README.md.

PYTHONPATH=src:tests python tests/golden/pengi/record.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison
from parity_pengi import compare, golden_config
from torch import Tensor

from aural.answering.convert import HTSAT, NAMES, our_name
from aural.answering.model import AudioLanguageModel
from aural.answering.tokenizer import Tokenizers, find_clip, find_gpt2

HERE = Path(__file__).parent
GRADIENTS = (
    f"{HTSAT}layers.0.blocks.0.attn.relative_position_bias_table",
    f"{HTSAT}patch_embed.proj.weight",
    "audio_encoder.projection.linear2.weight",
    "caption_decoder.audio_project.prefix_const",
    "caption_decoder.audio_project.transformer.layers.0.attn.to_keys_values.weight",
    "caption_decoder.text_project.prefix_const",
    "caption_encoder.clip_text_projection.weight",
    "caption_encoder.projection.linear1.weight",
)
COMMON: dict[str, Any] = {
    "normalize_prefix": True,
    "mapping_type": "transformer",
    "sampling_rate": 4000,
    "duration": 1,
    "stop_token": " <|endoftext|>",
    "stop_token_index": 220,
    "pad_token_id": 0,
    "prompts": ["generate meta", "this is a sound of", "is it?"],
    "add_text": "a dog",
    "generate": [
        {"tag": "beam1", "beam_size": 1, "temperature": 1.0, "max_len": 10},
        {"tag": "beam4", "beam_size": 4, "temperature": 1.0, "max_len": 10},
        {"tag": "beam3_t0.7", "beam_size": 3, "temperature": 0.7, "max_len": 10},
        {
            "tag": "beam3_addtext",
            "beam_size": 3,
            "temperature": 1.0,
            "max_len": 10,
            "prefix": "prefix_wrapper[0] + wte(add_ids)",
        },
        {
            "tag": "beam3_modelprefix",
            "beam_size": 3,
            "temperature": 1.0,
            "max_len": 10,
            "prefix": "prefix_model[i]",
        },
    ],
}


def htsat(mel_bins: int, embed_dim: int, depths: list[int], num_heads: list[int]) -> dict[str, Any]:
    return {
        "spec_size": 64,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "in_chans": 1,
        "num_classes": 3,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": num_heads,
        "window_size": 4,
        "mlp_ratio": 2.0,
        "qkv_bias": True,
        "frontend": {
            "sample_rate": 4000,
            "window_size": 128,
            "hop_size": 40,
            "mel_bins": mel_bins,
            "fmin": 50,
            "fmax": 1900,
        },
    }


def gpt2(width: int, layers: int, heads: int, positions: int) -> dict[str, Any]:
    sizes = {"vocab_size": 257, "n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": positions}
    return {**sizes, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}


BASE = {
    **COMMON,
    "htsat": htsat(16, 6, [1, 2], [1, 2]),
    "d_proj": 20,
    "prefix_length": 4,
    "prefix_length_clip": 5,
    "mapper_layers_each": 2,
    "mapper_heads": 3,
    "mapper_mlp_ratio": 2.0,
    "enc_text_len": 18,
    "clip_text": {
        "vocab_size": 514,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 14,
        "projection_dim": 10,
        "max_position_embeddings": 22,
        "hidden_act": "quick_gelu",
        "eos_token_id": 513,
    },
    "gpt2": gpt2(24, 2, 4, 40),
}
NO_TEXT_ENC = {
    **COMMON,
    "htsat": htsat(32, 4, [2, 1], [2, 4]),
    "d_proj": 14,
    "prefix_length": 3,
    "prefix_length_clip": 15,
    "mapper_layers_each": 1,
    "mapper_heads": 5,
    "mapper_mlp_ratio": 3.0,
    "enc_text_len": 15,
    "clip_text": None,
    "gpt2": gpt2(20, 3, 2, 36),
}


class Recorder(Comparison):
    """Keeps what would be compared; a tensor that is compared several times, as it was first."""

    def close(self, name: str, actual: Tensor, **_: Any) -> None:
        self.equal(name, actual)

    def equal(self, name: str, actual: Tensor) -> None:
        if not self.tensors.get(name, torch.empty(0)).numel():
            self.tensors[name] = actual.detach().clone().contiguous()


def official_name(ours: str) -> str:
    """The inverse of ``our_name``."""
    if ours.startswith("audio_encoder."):
        return HTSAT + ours.removeprefix("audio_encoder.")
    theirs, start = next((theirs, start) for theirs, start in NAMES.items() if ours.startswith(start))
    return theirs + ours.removeprefix(start)


def record(place: Path, content: dict[str, Any], seed: int) -> None:
    config = golden_config(content)
    generator = torch.Generator().manual_seed(seed)
    model = AudioLanguageModel(config).eval()
    for name, parameter in model.named_parameters():
        is_scale = name.endswith("weight") and ("norm" in name or ".ln_" in name)
        draw = torch.randn(parameter.shape, generator=generator) * (0.05 if is_scale else 0.25)
        parameter.data = draw + 1.0 if is_scale else draw
    bn0 = model.audio_encoder.bn0
    bn0.running_mean = torch.linspace(-30.0, -10.0, len(bn0.weight))
    bn0.running_var = torch.full((len(bn0.weight),), 90.0)
    # So that answers end, some sooner than others: the stop token is likely everywhere.
    towards_stop = model.gpt2.transformer.wte.weight[config.stop_token_id]
    model.gpt2.transformer.ln_f.bias.data = 2.5 * towards_stop / towards_stop.norm()

    sounds = {f"wave{i}_int16": sound(n, generator) for i, n in enumerate((4000, 1480, 4000))}
    labels = torch.randint(1, 256, (3, 7), generator=generator)
    labels[0, 4:], labels[2, 6:] = 0, 0
    wanted = {f"grad.{name}" for name in GRADIENTS if has(model, name)} | {"audio_item1"}
    recorder = Recorder({**sounds, "label_ids": labels, **{name: torch.empty(0) for name in wanted}}, "io")
    clip = None if config.text_encoder is None else find_clip(HERE / "tokenizer_clip-text")
    compare(recorder, model, Tokenizers(config, find_gpt2(HERE / "tokenizer_gpt2"), clip), content)
    weights = {official_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, place / "weights.safetensors")
    safetensors.torch.save_file(recorder.tensors, place / "io.safetensors")
    (place / "config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def has(model: AudioLanguageModel, released: str) -> bool:
    """Whether a parameter is part of the variant."""
    return our_name(released) in dict(model.named_parameters())


def sound(n_samples: int, generator: torch.Generator) -> Tensor:
    """A tone that rises, in noise."""
    times = torch.linspace(0.0, 1.0, n_samples)
    tone = (2 * torch.pi * (100 + 900 * torch.rand((), generator=generator) * times) * times * 2).sin()
    noise = torch.randn(n_samples, generator=generator)
    return ((0.3 * tone + 0.05 * noise).clamp(-1, 1) * (2**15 - 1)).short()


if __name__ == "__main__":
    record(HERE, BASE, int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    record(HERE / "no_text_enc", NO_TEXT_ENC, int(sys.argv[1]) if len(sys.argv) > 1 else 1)
