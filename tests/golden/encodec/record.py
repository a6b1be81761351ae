"""Writes the small codec of this folder and what it gives; see README.md.

PYTHONPATH=src:tests python tests/golden/encodec/record.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison
from parity_encodec import compare, golden_codec, golden_config
from torch import Tensor

from aural.networks.encodec import DIRECTION, LENGTH, Encodec, TrimmedConvTranspose, add_weight_norm
from aural.networks.stft_discriminator import StftDiscriminator, StftDiscriminatorConfig

HERE = Path(__file__).parent
SEANET: dict[str, Any] = {
    "channels": 1,
    "dimension": 6,
    "n_filters": 4,
    "n_residual_layers": 2,
    "ratios": [5, 3, 2],
    "kernel_size": 5,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "dilation_base": 3,
    "compress": 2,
    "lstm": 1,
    "true_skip": False,
    "norm": "weight_norm",
    "activation": "ELU",
    "causal": False,
    "pad_modes": ["constant", "reflect"],
    "trim_right_ratio": 1.0,
}
MSSPEC: dict[str, Any] = {
    "sample_rate": 8000,
    "range_start": 5,
    "range_end": 8,
    "n_mels": 12,
    "f_min": 50,
    "f_max": None,
    "normalized": True,
    "alphas": False,
    "floor_level": 1e-5,
}
CONTENT: dict[str, Any] = {
    "sample_rate": 1500,
    "seanet": SEANET,
    "rvq": {"n_q": 3, "bins": 16, "decay": 0.97, "epsilon": 1e-5, "commitment_weight": 0.5},
    "msstftd": {
        "filters": 3,
        "in_channels": 1,
        "out_channels": 1,
        "n_ffts": [32, 64],
        "hop_lengths": [8, 16],
        "win_lengths": [32, 64],
        "kernel_size": [3, 5],
        "stride": [1, 2],
        "dilations": [1, 2],
        "filters_scale": 1,
        "norm": "weight_norm",
        "negative_slope": 0.2,
        "normalized": True,
    },
    "msspec": MSSPEC,
    "msspec_for_balancer": {**MSSPEC, "range_end": 7, "n_mels": 6},
    "mel": {**MSSPEC, "normalized": False, "n_fft": 128, "hop_length": 32, "win_length": 128},
    "balancer": {
        "weights": {"adv_msstftd": 4.0, "feat_msstftd": 3.0, "l1": 0.1, "msspec": 2.0},
        "ema_decay": 0.9,
        "total_norm": 1.0,
        "per_batch_item": True,
        "epsilon": 1e-12,
        "order": ["adv_msstftd", "feat_msstftd", "l1", "msspec"],
    },
    "disc_optim": {"optimizer": "adam", "lr": 3e-4, "betas": [0.5, 0.9], "weight_decay": 0.0},
    "kmeans": {"clusters": 5, "iters": 6},
}
N_SAMPLES, N_MEL_SAMPLES = 413, 1201
SLIGHTEST = 1e-3
"""Between the nearest code and the next: rounding must not decide."""


class Recorder(Comparison):
    """Keeps what would be compared; a tensor that is compared several times, as it was first."""

    def close(self, name: str, actual: Tensor, **_: Any) -> None:
        self.equal(name, actual)

    def equal(self, name: str, actual: Tensor) -> None:
        if not self.tensors.get(name, torch.empty(0)).numel():
            self.tensors[name] = actual.detach().clone().contiguous()


def audiocraft_names(codec: Encodec) -> dict[str, str]:
    """Our names of a codec for training -> those of audiocraft."""
    transposed = {name for name, module in codec.named_modules() if isinstance(module, TrimmedConvTranspose)}

    def theirs(name: str) -> str:
        way, _, index, *rest = name.split(".")
        if way == "quantizer":
            return f"quantizer.vq.layers.{index}._codebook.{rest[-1]}"
        kind = "convtr" if f"{way}.layers.{index}" in transposed else "conv"
        inner = ".".join(rest).replace(LENGTH, "weight_g").replace(DIRECTION, "weight_v")
        return f"{way}.model.{index}." + inner.replace("conv.", f"{kind}.{kind}.")

    return {name: theirs(name) for name in codec.state_dict()}


def make_codec(waveform: Tensor, generator: torch.Generator) -> Encodec:
    """Random weights, and codebooks as wide as what they quantise."""
    codec = add_weight_norm(Encodec(golden_config(CONTENT)))
    for name, parameter in codec.named_parameters():
        scale = 0.2 if name.endswith("bias") or "lstm" in name else 1.0
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
        if name.endswith(LENGTH):
            parameter.data = 0.8 + 0.4 * parameter.abs()
    with torch.no_grad():
        residual = codec.encoder(waveform).transpose(1, 2).flatten(0, 1)
        for codebook in codec.quantizer.codebooks:
            width = residual.std(0)
            codebook.embed.copy_(torch.randn(codebook.embed.shape, generator=generator) * width)
            codebook.cluster_size.copy_(torch.rand(codebook.cluster_size.shape, generator=generator) * 4 + 0.5)
            codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[:, None])
            codebook.inited.fill_(1.0)
            residual = residual - codebook.embed[codebook.nearest(residual)]
    return codec


@torch.no_grad()
def slightest_margin(codec: Encodec, waveform: Tensor) -> float:
    """The smallest gap in squared distance between the nearest entry and the next."""
    residual, margins = codec.encoder(waveform).transpose(1, 2).flatten(0, 1), []
    for codebook in codec.quantizer.codebooks:
        distances = torch.cdist(residual, codebook.embed).square().sort(dim=1).values
        margins.append(float((distances[:, 1] - distances[:, 0]).min()))
        residual = residual - codebook.embed[codebook.nearest(residual)]
    return min(margins)


def sound(n_samples: int, generator: torch.Generator) -> Tensor:
    """Two clips of one channel: tones that rise, in noise."""
    times = torch.linspace(0.0, 1.0, n_samples)
    tones = (2 * torch.pi * torch.tensor([[[40.0]], [[90.0]]]) * times * (1 + times)).sin()
    return 0.5 * tones + 0.1 * torch.randn(2, 1, n_samples, generator=generator)


def wanted(codec: Encodec) -> dict[str, Tensor]:
    """Names that the checker looks for, as tensors without entries."""
    names = [f"{mode}.codes_nq{n}" for mode in SEANET["pad_modes"] for n in range(1, CONTENT["rvq"]["n_q"])]
    names += ["hf.decoded", "mel.fb_32", "mel.fb_128", "gen.grad.decoder.model.0.conv.conv.weight_g"]
    names += [
        "train.penalty_grad.encoder.model.0.conv.conv.weight_v",
        "gen.grad.encoder.model.1.block.1.conv.conv.bias",
    ]
    names += [f"kinit.after.{name}" for name in ("inited", "cluster_size", "embed", "embed_avg")]
    names += [
        "disc.after_update.discriminators.0.convs.0.conv.weight",
        "disc.after_update.discriminators.1.conv_post.conv.weight_g",
    ]
    empty = {name: torch.empty(0) for name in names}
    return empty | {"mel.spec_lin_32": torch.empty(0, 0, 40), "mel.spec_log_128": torch.empty(0, 0, 20)}


def record(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    waveform = sound(N_SAMPLES, generator)
    codec = make_codec(waveform, generator)
    settings = CONTENT["msstftd"]
    torch.manual_seed(seed)  # of the discriminator's own start
    discriminator = StftDiscriminator(
        StftDiscriminatorConfig(
            n_filters=settings["filters"],
            n_ffts=tuple(settings["n_ffts"]),
            hop_lengths=tuple(settings["hop_lengths"]),
            win_lengths=tuple(settings["win_lengths"]),
            kernel_size=tuple(settings["kernel_size"]),
            dilations=tuple(settings["dilations"]),
        )
    )
    state, names = codec.state_dict(), audiocraft_names(codec)
    released = {names[name]: tensor.clone() for name, tensor in state.items()}
    configs = [golden_config(CONTENT, mode) for mode in SEANET["pad_modes"]] + [golden_config(CONTENT, causal=True)]
    for config in configs:
        for clip in (waveform, waveform[:1, :, :7]):
            assert slightest_margin(golden_codec(config, released), clip) > SLIGHTEST, "choose another seed"
    weights = {
        "audiocraft": released,
        "hf": {name: tensor.clone() for name, tensor in state.items()},
        "msstftd": {
            name.replace(LENGTH, "weight_g").replace(DIRECTION, "weight_v"): tensor.clone()
            for name, tensor in discriminator.state_dict().items()
        },
    }
    content = {**CONTENT, "grad_norm_order": sorted(names[name] for name, _ in codec.named_parameters())}
    samples = torch.randn(60, 4, generator=generator)
    inputs = {
        "wav": waveform,
        "train.wav": waveform,
        "short.wav": waveform[:1, :, :7],
        "mel.y": sound(N_MEL_SAMPLES, generator),
        "mel.y_pred": sound(N_MEL_SAMPLES, generator),
        "bal.0.y_pred": sound(N_SAMPLES, generator),
        "bal.1.y_pred": sound(N_SAMPLES, generator),
        "kmeans.samples": samples,
        "kmeans.start": torch.randperm(len(samples), generator=generator)[: CONTENT["kmeans"]["clusters"]],
    }
    recorder = Recorder({**{name: tensor.clone() for name, tensor in inputs.items()}, **wanted(codec)}, "io")
    compare(recorder, weights, content)
    for name, tensors in weights.items():
        safetensors.torch.save_file(tensors, HERE / f"weights_{name}.safetensors")
    safetensors.torch.save_file(recorder.tensors, HERE / "io.safetensors")
    (HERE / "config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
