"""BEATs at its released size against the released way of computing it: ratio of times, floor, peak memory.

    python bench/beats.py            # 2 threads; OMP_NUM_THREADS=1 python bench/beats.py for one

The peer below does the same work with the same (random) weights in the same process: grouped 1-D convolution, the relative
bias expanded to every clip before the layers, its gated version made anew in each, explicit softmax. Runs take turns, so
that whatever else the machine does strikes both. The floor is the arithmetic of the products alone at the speed that
PyTorch reaches on the largest of them.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aural.networks.beats import BASE, BEATs

SECONDS = 10
BATCHES = (1, 8)
ROUNDS = {1: 11, 8: 5}
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


@torch.inference_mode()
def ours(model: BEATs, waveform: Tensor) -> Tensor:
    """(B, 527)."""
    return model.classify(waveform)


@torch.inference_mode()
def peer(model: BEATs, waveform: Tensor) -> Tensor:
    """(B, 527), straightforwardly."""
    fbank, _ = model.fbank(waveform)
    config, encoder = model.config, model.encoder
    weights = dict(model.named_parameters(remove_duplicate=False))
    patches = F.conv2d(fbank.unsqueeze(1), weights["patch_embedding.weight"], stride=config.input_patch_size)
    x = model.post_extract_proj(model.layer_norm(patches.flatten(2).transpose(1, 2)))
    size, n_heads = config.encoder_embed_dim, config.encoder_attention_heads
    head = size // n_heads
    gain, direction, conv_bias = (weights[f"encoder.pos_conv.0.{name}"] for name in ("weight_g", "weight_v", "bias"))
    kernel = torch._weight_norm(direction, gain, 2)
    convolved = F.conv1d(
        x.transpose(1, 2), kernel, conv_bias, padding=config.conv_pos // 2, groups=config.conv_pos_groups
    )
    x = encoder.layer_norm(x + F.gelu(convolved[:, :, :-1]).transpose(1, 2)).transpose(0, 1)
    length, batch, _ = x.shape
    bias = encoder.relative_bias(length).repeat(batch, 1, 1)
    alpha = (2 * config.encoder_layers) ** 0.25
    for layer in encoder.layers:
        attention = layer.self_attn

        def heads(projected: Tensor) -> Tensor:
            return projected.contiguous().view(length, batch * n_heads, head).transpose(0, 1)

        unscaled = attention.q_proj(x)
        query, key, value = heads(unscaled * (head**-0.5 / 32)), heads(attention.k_proj(x)), heads(attention.v_proj(x))
        scores = torch.bmm(query, key.transpose(1, 2))
        scores = (scores - scores.max(dim=-1, keepdim=True)[0]) * 32
        by_head = unscaled.view(length, batch, n_heads, head).permute(1, 2, 0, 3)
        gates = attention.grep_linear(by_head).view(batch, n_heads, length, 2, 4).sum(-1)
        a, b = torch.sigmoid(gates).chunk(2, dim=-1)
        gate = a * (b * attention.grep_a - 1.0) + 2.0
        scores = scores + (gate.view(batch * n_heads, -1, 1) * bias).view(scores.size())
        mixed = torch.bmm(F.softmax(scores, dim=-1), value)
        attended = attention.out_proj(mixed.transpose(0, 1).contiguous().view(length, batch, size))
        x = layer.self_attn_layer_norm(x * alpha + attended)
        x = layer.final_layer_norm(x * alpha + layer.fc2(F.gelu(layer.fc1(x))))
    return torch.sigmoid(model.predictor(x.transpose(0, 1)).mean(dim=1))


FUNCTIONS: dict[str, Callable[[BEATs, Tensor], Tensor]] = {"ours": ours, "peer": peer}


def flops(batch: int) -> float:
    """Floating-point operations of the matrix products and convolutions of one pass."""
    n = batch * (1 + (SECONDS * 16000 - 400) // 160) // 16 * 8
    size, hidden = BASE.encoder_embed_dim, BASE.encoder_ffn_embed_dim
    layer = n * (4 * size**2 + 2 * size * hidden) + 2 * n * (n // batch) * size
    convolution = n * size * (size // BASE.conv_pos_groups) * BASE.conv_pos
    return 2.0 * (BASE.encoder_layers * layer + convolution + n * (256 * BASE.embed_dim + BASE.embed_dim * size))


def measured(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def product_speed() -> float:
    """Floating-point operations a second of the largest matrix product of a layer."""
    x, weight = torch.randn(496, 768), torch.randn(3072, 768)
    return 2 * 496 * 768 * 3072 / min(measured(lambda: F.linear(x, weight)) for _ in range(30))


def build(batch: int) -> tuple[BEATs, Tensor]:
    torch.manual_seed(0)
    return BEATs(BASE).eval(), torch.randn(batch, SECONDS * 16000) * 0.1


def resident_kib(field: str) -> int:
    """A field of this process's memory report: VmRSS is now, VmHWM the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def peak_mib(name: str, batch: int) -> float:
    """Memory that one pass takes beyond model and input, measured in a process of its own."""
    command = [sys.executable, __file__, "peak", name, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, batch: int) -> None:
    model, waveform = build(batch)
    FUNCTIONS[name](model, waveform[:, :4000])  # libraries take their own memory at first use
    before = resident_kib("VmRSS")
    FUNCTIONS[name](model, waveform)
    print((resident_kib("VmHWM") - before) / 1024)


def main() -> None:
    torch.set_num_threads(THREADS)
    print(f"`OMP_NUM_THREADS={THREADS} python bench/beats.py`, PyTorch {torch.__version__}, {THREADS} threads\n")
    print("| 10 s clips | ours, s | peer, s | peer / ours | floor, s | floor / ours | ours, MiB | peer, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for batch in BATCHES:
        model, waveform = build(batch)
        assert torch.allclose(ours(model, waveform), peer(model, waveform), atol=1e-5)
        rounds = []
        for _ in range(ROUNDS[batch]):
            speed = product_speed()
            rounds.append([flops(batch) / speed, *(measured(lambda f=f: f(model, waveform)) for f in (ours, peer))])  # type: ignore[misc]
        floors, own, others = zip(*rounds, strict=True)
        ratio = statistics.median(other / mine for mine, other in zip(own, others, strict=True))
        floor, mine, other = statistics.median(floors), statistics.median(own), statistics.median(others)
        peaks = " | ".join(f"{peak_mib(name, batch):.0f}" for name in FUNCTIONS)
        cells = f"{batch} | {mine:.2f} | {other:.2f} | **{ratio:.2f}** | {floor:.2f} | {floor / mine:.2f} | {peaks}"
        print(f"| {cells} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        torch.set_num_threads(THREADS)
        print_peak(sys.argv[2], int(sys.argv[3]))
    else:
        main()
