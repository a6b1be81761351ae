"""Writes the small models of this folder and what they give; see README.md.

PYTHONPATH=src:tests python tests/golden/audiotoken/record.py
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison
from parity_audiotoken import TEXT, UNET, compare, make_text_encoder, models
from torch import Tensor

from aural.audio_to_image.audio_token import AudioToken, AudioTokenConfig
from aural.audio_to_image.convert import NAMES

HERE = Path(__file__).parent
PROMPT_LENGTH = 12
SIZES: dict[str, Any] = {
    "beats_layers": [4, 8, 12],
    "embedder": {"input_size": 30, "output_size": 24, "unary_dropout_p": 0.5},
    "text_encoder": {
        "vocab_size": 60,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": PROMPT_LENGTH,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "bos_token_id": 58,
        "eos_token_id": 59,
        "pad_token_id": 0,
    },
    "placeholder_token_id": 60,
    "prompt_token_ids": [58, 20, 31, 14, 60, 59],
    "unet": {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 12],
        "layers_per_block": 2,
        "cross_attention_dim": 24,
        "attention_head_dim": [2, 3],
        "norm_num_groups": 4,
    },
    "scheduler": {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
    },
    "vae_scaling_factor": 0.18215,
    "loss": {"lambda_a": 0.02, "lambda_b": 0.003, "lambda_c": 0.5},
    "inference": {
        "sample_index": 1,
        "guidance_scale": 3.0,
        "num_inference_steps": 6,
        "pndm": {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
        "ddim": {"clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0, "eta": 0.0},
    },
}


class Recorder(Comparison):
    """Keeps what would be compared."""

    def close(self, name: str, actual: Tensor, **_: Any) -> None:
        self.equal(name, actual)

    def equal(self, name: str, actual: Tensor) -> None:
        self.tensors[name] = actual.detach().clone().contiguous()


def unet_shapes(settings: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the U-Net's weights, with transformers in its outer blocks and in the middle."""
    first, last = settings["block_out_channels"]
    n_layers, time = settings["layers_per_block"], 4 * first
    yield "conv_in.weight", (first, settings["in_channels"], 3, 3)
    yield "time_embedding.linear_1.weight", (time, first)
    yield "time_embedding.linear_2.weight", (time, time)

    def residual(name: str, before: int, after: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.norm1.weight", (before,)
        yield f"{name}.conv1.weight", (after, before, 3, 3)
        yield f"{name}.time_emb_proj.weight", (after, time)
        yield f"{name}.norm2.weight", (after,)
        yield f"{name}.conv2.weight", (after, after, 3, 3)
        if before != after:
            yield f"{name}.conv_shortcut.weight", (after, before, 1, 1)

    def transformer(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        block = f"{name}.transformer_blocks.0"
        yield f"{name}.norm.weight", (width,)
        yield f"{name}.proj_in.weight", (width, width)
        for number, memory in ((1, width), (2, settings["cross_attention_dim"])):
            yield f"{block}.norm{number}.weight", (width,)
            for part, source in (("to_q", width), ("to_k", memory), ("to_v", memory), ("to_out.0", width)):
                yield f"{block}.attn{number}.{part}.weight", (width, source)
        yield f"{block}.norm3.weight", (width,)
        yield f"{block}.ff.net.0.proj.weight", (8 * width, width)
        yield f"{block}.ff.net.2.weight", (width, 4 * width)
        yield f"{name}.proj_out.weight", (width, width)

    kept = [first]
    for block, (before, width) in enumerate(((first, first), (first, last))):
        for number in range(n_layers):
            yield from residual(f"down_blocks.{block}.resnets.{number}", width if number else before, width)
            if block == 0:
                yield from transformer(f"down_blocks.{block}.attentions.{number}", width)
            kept.append(width)
    yield "down_blocks.0.downsamplers.0.conv.weight", (first, first, 3, 3)
    kept.insert(1 + n_layers, first)
    yield from residual("mid_block.resnets.0", last, last)
    yield from transformer("mid_block.attentions.0", last)
    yield from residual("mid_block.resnets.1", last, last)
    current = last
    for block, width in enumerate((last, first)):
        for number in range(n_layers + 1):
            yield from residual(f"up_blocks.{block}.resnets.{number}", current + kept.pop(), width)
            if block == 1:
                yield from transformer(f"up_blocks.{block}.attentions.{number}", width)
            current = width
    yield "up_blocks.0.upsamplers.0.conv.weight", (last, last, 3, 3)
    yield "conv_norm_out.weight", (first,)
    yield "conv_out.weight", (settings["out_channels"], first, 3, 3)


def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Weights that keep the size of what they are applied to; a vector is the weight of a normalisation."""
    drawn = torch.randn(shape, generator=generator)
    return 1 + 0.2 * drawn if len(shape) == 1 else drawn / drawn[0].numel() ** 0.5


def weights(generator: torch.Generator) -> dict[str, Tensor]:
    """All three networks, under the published names."""
    sizes = SIZES["embedder"]
    bridge = AudioToken(AudioTokenConfig(encoder_width=sizes["input_size"] // 3, token_width=sizes["output_size"]))
    drawn = {}
    for name, parameter in bridge.named_parameters():
        theirs = next(theirs + name.removeprefix(ours) for theirs, ours in NAMES.items() if name.startswith(ours))
        shape = (*parameter.shape, 1) if "fga" in theirs and parameter.dim() == 2 else tuple(parameter.shape)
        drawn[theirs] = 1.5 * draw(shape, generator) if parameter.dim() > 1 else draw(shape, generator) - 1
    drawn["fga.reduce_potentials.0.weight"] = torch.tensor([1.5, 4.0])[None, :, None]  # so that attention is not even
    for name, parameter in make_text_encoder(SIZES["text_encoder"]).named_parameters():
        tensor = draw(tuple(parameter.shape), generator)
        drawn[f"{TEXT}text_model.{name}"] = tensor - 1 if name.endswith("bias") else tensor
    for name, shape in unet_shapes(SIZES["unet"]):
        drawn[UNET + name] = draw(shape, generator)
        if not any(part in name for part in ("to_q", "to_k", "to_v")):
            bias = 0.2 * torch.randn(shape[:1], generator=generator)
            drawn[UNET + name.removesuffix("weight") + "bias"] = bias
    return drawn


def inputs(released: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """What is computed from; empty tensors stand for what is to be filled in, and say what there is."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    width, token_width = SIZES["embedder"]["input_size"] // 3, SIZES["embedder"]["output_size"]
    given = {f"features.layer{layer}": normal(3, 16, width) for layer in SIZES["beats_layers"]}
    given["embedder.dropout_mask"] = 2.0 * (normal(3, token_width, 16) > 0)
    given["vae_moments"] = normal(3, 8, 6, 10)
    given["vae_moments"][0, 4, 0, 0] = -35.0  # under the least logarithm of a variance
    given |= {"vae_eps": normal(3, 4, 6, 10), "noise": normal(3, 4, 6, 10), "infer.latents_init": normal(1, 4, 6, 10)}
    given["timesteps"] = torch.tensor([999, 0, 340])
    given["label_ids"] = torch.tensor([[7, -1, -1], [41, 12, 12], [3, 50, -1]])
    given["infer.input_ids"] = torch.zeros(2, PROMPT_LENGTH, dtype=torch.long)
    given["infer.input_ids"][0, :2] = torch.tensor([58, 59])
    given["infer.input_ids"][1, :7] = torch.tensor([58, 9, 60, 33, 34, 35, 59])
    learnt = [name for name in released if not name.startswith((TEXT, UNET)) and "feature_reduce.bias" not in name]
    return given | {f"grad_{case}.{name}": torch.empty(0) for case in ("total", "total_cls") for name in learnt}


def record(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    released = weights(generator)
    recorder = Recorder(inputs(released, generator), "io")
    compare(recorder, *models(released, SIZES), SIZES)
    safetensors.torch.save_file(released, HERE / "weights.safetensors")
    safetensors.torch.save_file(recorder.tensors, HERE / "io.safetensors")
    (HERE / "config.json").write_text(json.dumps({"seed": seed, **SIZES}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
