"""Writes the small model of this folder and what it gives; see README.md.

PYTHONPATH=src:tests python tests/golden/audiogen/record.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison
from parity_generation import compare, golden_config
from torch import Tensor

from aural.text_to_audio.model import TokenLanguageModel
from aural.text_to_audio.published_names import TEXT, to_audiocraft, to_transformers
from aural.text_to_audio.text_encoder import END_TOKEN_ID, make_t5

HERE = Path(__file__).parent
SIZES: dict[str, Any] = {
    "lm": {
        "dim": 20,
        "num_heads": 2,
        "num_layers": 2,
        "hidden_scale": 3,
        "n_q": 3,
        "card": 30,
        "delays": [0, 1, 2],
        "special_token": 30,
        "norm_eps": 1e-5,
        "max_period": 10000,
        "dropout": 0.0,
        "cfg_coef": 2.5,
    },
    "t5": {
        "vocab_size": 40,
        "d_model": 12,
        "d_kv": 5,
        "d_ff": 16,
        "num_layers": 2,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    "rr": {"lam": 3.0, "pool": "max", "exponent": 2},
    "generation": {"frames": 8, "cfg_coef": 2.5, "frame_rate": 50},
}
GRADIENTS = (
    "emb.0.weight",
    "linears.1.weight",
    "out_norm.weight",
    "transformer.layers.0.cross_attention.in_proj_weight",
    "transformer.layers.0.self_attn.in_proj_weight",
    "transformer.layers.1.linear1.weight",
)


class Recorder(Comparison):
    """Keeps what would be compared; a tensor that is compared several times, as it was first."""

    def close(self, name: str, actual: Tensor, **_: Any) -> None:
        self.equal(name, actual)

    def equal(self, name: str, actual: Tensor) -> None:
        if not self.tensors.get(name, torch.empty(0)).numel():
            stored = actual.to(torch.uint8) if actual.dtype == torch.bool else actual
            self.tensors[name] = stored.detach().clone().contiguous()


def model_and_encoder(generator: torch.Generator) -> tuple[TokenLanguageModel, Any]:
    """Random weights, all of them of a size that matters."""
    config = golden_config(SIZES)
    assert config.t5 is not None
    model, encoder = TokenLanguageModel(config), make_t5(config.t5)
    model.initialise(generator)
    for name, parameter in (*model.named_parameters(), *encoder.named_parameters()):
        if "norm" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator) + float("bias" not in name)
        elif not name.startswith(("emb.", "transformer.", "linears.", "text_projection.")):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    for head in model.linears:
        head.weight.data *= 4.0  # so that the best code is told clearly from the second best
    return model.eval(), encoder


def inputs(generator: torch.Generator) -> dict[str, Tensor]:
    """What is computed from; empty tensors stand for what is to be filled in, and say how many there are."""

    def codes(items: int, codebooks: int, frames: int) -> Tensor:
        return torch.randint(0, SIZES["lm"]["card"], (items, codebooks, frames), generator=generator)

    mask = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    text_ids = torch.randint(2, SIZES["t5"]["vocab_size"], mask.shape, generator=generator)
    text_ids[mask & ~mask.roll(-1, 1)] = text_ids[0, -1] = END_TOKEN_ID
    n_codebooks = SIZES["lm"]["n_q"]
    given = {
        "codes": codes(3, n_codebooks, 9),
        "stereo.codes": codes(2, 6, 5),
        "text_ids": text_ids.masked_fill(~mask, 0),
        "text_mask": mask.long(),
        "pad.valid_len": torch.tensor([6, 9, 1]),
        "gen.prompt": codes(3, n_codebooks, 3),
        "gen.greedy_uncond": torch.empty(2, 0),
        "window.params": torch.tensor([50, 7, 3, 19]),
        "sample.logits": torch.randn(4, 3, 30, generator=generator).mul(2).round(decimals=1),
        "sample.params": torch.tensor([0.8, 5.0, 0.7], dtype=torch.float64),
        "sched.steps": torch.tensor([0, 1, 2999, 3000, 4000, 50_000, 100_000, 100_001]),
        "ema.init": torch.randn(2, dtype=torch.float64, generator=generator),
        "ema.inputs": torch.randn(4, 2, dtype=torch.float64, generator=generator),
        "cfg_dropout.draws": torch.rand(50, generator=torch.Generator().manual_seed(1234)),
    }
    for case, (items, tokens, steps) in {"b2": (2, 4, 5), "b4": (4, 3, 6)}.items():
        for side, length, width in (("text", tokens, 6), ("audio", steps, 5)):
            real = torch.arange(length) < torch.randint(1, length + 1, (items, 1), generator=generator)
            states = torch.randn(items, length, width, dtype=torch.float64, generator=generator)
            given[f"rr.{case}.{side}"] = states.masked_fill(~real[:, :, None], 50.0)
            given[f"rr.{case}.{side}_mask"] = real.byte()
    given["rr.b4.subset_keep"] = torch.tensor([1, 1, 0, 1]).byte()
    wanted = [f"grad.{case}.{name}" for case in ("cond_ce", "step") for name in GRADIENTS]
    wanted += [f"rr.b4.{pooling}.subset_loss" for pooling in ("max", "mean")]
    return given | {name: torch.empty(0) for name in wanted}


def record(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model, encoder = model_and_encoder(generator)
    weights = model.state_dict()
    content = {"seed": seed, **SIZES, "grad_norm_order": sorted(to_audiocraft(weights))}
    recorder = Recorder(inputs(generator), "io")
    compare(recorder, model, encoder, content)
    text = {TEXT + name: tensor.clone() for name, tensor in encoder.state_dict().items() if "embed_tokens" not in name}
    safetensors.torch.save_file(to_audiocraft(weights), HERE / "weights_audiocraft.safetensors")
    safetensors.torch.save_file(to_transformers(weights) | text, HERE / "weights_hf.safetensors")
    safetensors.torch.save_file(recorder.tensors, HERE / "io.safetensors")
    (HERE / "config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
