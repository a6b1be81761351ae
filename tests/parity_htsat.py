"""HTS-AT against golden tensors of the original code; tolerances and names as in ``golden/htsat/README.md``."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison, read_json
from torch import Tensor, nn

from aural.checkpoint import load_into
from aural.networks.htsat import RELEASED_WINDOW, Htsat, HtsatConfig, fold, official_weights, stretch

LOG_MEL = 1e-3
RELATIVE = 1e-4
STEP_COPIES = 8  # how often a step stands in framewise_output, for each frame by which patches are apart
PREFIX = "audio_encoder.base.htsat."


def check(folder: Path) -> set[str]:
    """Everything in a golden folder of HTS-AT."""
    config = read_json(folder / "config.json")
    io = Comparison.load(folder, "io")
    compare(io, load(folder), config["sampling_rate"] * config["duration"])
    return io.finish()


def load(folder: Path) -> Htsat:
    """The model of a golden folder, of HTS-AT or of Pengi."""
    config = golden_config(read_json(folder / "config.json"))
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    with torch.device("meta"):
        model = Htsat(config)
    load_into(model, official_weights(weights, config))
    return model.eval()


def golden_config(content: dict[str, Any]) -> HtsatConfig:
    """Our config from a golden one."""
    htsat, frontend = content["htsat"], content["htsat"]["frontend"]
    config = HtsatConfig(
        sample_rate=content["sampling_rate"],
        filter_rate=frontend["sample_rate"],
        n_fft=frontend["window_size"],
        hop_length=frontend["hop_size"],
        mel_bins=frontend["mel_bins"],
        low_hz=frontend["fmin"],
        high_hz=frontend["fmax"],
        spec_size=htsat["spec_size"],
        patch_size=htsat["patch_size"],
        patch_stride=htsat["patch_stride"][0],
        embed_dim=htsat["embed_dim"],
        depths=tuple(htsat["depths"]),
        num_heads=tuple(htsat["num_heads"]),
        window_size=htsat["window_size"],
        mlp_ratio=htsat["mlp_ratio"],
        num_classes=htsat["num_classes"],
        released_windows=htsat["spec_size"] ** 2 // frontend["mel_bins"] >= RELEASED_WINDOW,
    )
    assert htsat["patch_stride"] == [config.patch_stride] * 2 and htsat["in_chans"] == 1 and htsat["qkv_bias"]
    return config


def compare(io: Comparison, model: Htsat, n_samples: int) -> None:
    """The audio side of a golden file of HTS-AT or of Pengi, whose clips are repeated to n_samples."""
    _check_constants(model)
    waveform = _clips(io, n_samples)
    io.close("htsat.logmel", model.log_mel(waveform)[:, None], absolute=LOG_MEL)
    fbank, mask = model.fbank(waveform)
    assert mask.all()
    config = model.config
    pictures = fold(stretch(fbank, config.target_frames), config.spec_size)
    io.close("htsat.item0.img", pictures[:1, None], relative_to_max=RELATIVE)
    for name, actual in _stages(model, pictures[:1]).items():
        io.close(f"htsat.item0.{name}", actual.flatten(1, 2), relative_to_max=RELATIVE)
    for with_gradients in (False, True):  # the two ways that attention is computed
        with torch.set_grad_enabled(with_gradients):
            output = model(waveform)
            assert output.mask.all() and output.hidden.shape == (len(waveform), config.steps, config.width)
            io.close("htsat.embedding", output.embedding, relative_to_max=RELATIVE)
            io.close("htsat.embedding", output.hidden.mean(dim=1), relative_to_max=RELATIVE)
            io.close("htsat.clipwise_output", model.classify(output), relative_to_max=RELATIVE)
            framewise = (
                model.step_logits(output)[:1].sigmoid().repeat_interleave(STEP_COPIES * config.patch_stride, dim=1)
            )
            io.close("htsat.item0.framewise_output", framewise, relative_to_max=RELATIVE)
    if "derived.embedding_grad" in io:
        _check_gradients(io, model, output.embedding)
    if "long_wave_int16" in io:
        with torch.no_grad():
            output = model(_sound(io, "long_wave_int16")[None])
            io.close("long.embedding", output.embedding, relative_to_max=RELATIVE)
            io.close("long.clipwise_output", model.classify(output), relative_to_max=RELATIVE)


def _check_constants(model: Htsat) -> None:
    """The original's mel filters are those that a new model computes."""
    computed = Htsat(model.config).logmel_extractor.melW
    torch.testing.assert_close(model.logmel_extractor.melW, computed, rtol=0.0, atol=1e-7)


def _check_gradients(io: Comparison, model: Htsat, embedding: Tensor) -> None:
    model.zero_grad()
    embedding.backward(io.input("derived.embedding_grad"))
    for name in io.names(f"grad.{PREFIX}"):
        gradient = model.get_parameter(name.removeprefix(f"grad.{PREFIX}")).grad
        assert gradient is not None
        io.close(name, gradient, relative_to_max=RELATIVE)


@torch.no_grad()
def _stages(model: Htsat, pictures: Tensor) -> dict[str, Tensor]:
    """What comes out of each stage and of the final norm, as maps."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output

        return hook

    with ExitStack() as hooks:
        for number, stage in enumerate(model.layers):
            hooks.enter_context(stage.register_forward_hook(keep(f"stage{number}")))
        hooks.enter_context(model.norm.register_forward_hook(keep("final_norm")))
        model.encode_pictures(pictures)
    return seen


def _clips(io: Comparison, n_samples: int) -> Tensor:
    clips = [_sound(io, name) for name in io.names("wave")]
    return torch.stack([clip.repeat(-(-n_samples // len(clip)))[:n_samples] for clip in clips])


def _sound(io: Comparison, name: str) -> Tensor:
    return io.input(name).float() / 2**15
