"""BEATs against golden tensors of its authors' code; tolerances and names as in ``golden/beats/README.md``."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from parity import Comparison, read_json
from torch import Tensor, nn

from aural.checkpoint import load_into
from aural.features import FBANK_MEAN, FBANK_STD
from aural.networks.beats import BASE, BEATs, BeatsOutput, official_config, reduce_mask, relative_bucket

FBANK = 1e-3
FROM_WAVEFORM = 1e-3
FROM_FBANK = 1e-4  # of the largest value
PROBABILITY = 1e-4


def check(folder: Path) -> set[str]:
    """Every model of the folder (``io`` and ``variant_*_io``), with and without gradients, and the released shapes."""
    compared: set[str] = set()
    for path in sorted(folder.glob("*io.safetensors")):
        compared |= _check_model(folder, path.stem.removesuffix("io"))
    if (folder / "base_state_dict.json").is_file():
        _check_released_shapes(folder)
    return compared


def _check_model(folder: Path, prefix: str) -> set[str]:
    model = _load(folder, prefix)
    used: set[str] = set()
    for with_gradients in (False, True):  # the two ways that attention is computed
        io = Comparison.load(folder, f"{prefix}io")
        for case in sorted({name.partition(".")[0] for name in io.names() if name.endswith(".waveform")}):
            with torch.set_grad_enabled(with_gradients):
                _check_case(model, io, case)
        for name in io.names("buckets."):
            _check_buckets(folder, prefix, io, name)
        used = io.finish()
    return used


def _load(folder: Path, prefix: str) -> BEATs:
    cfg = read_json(folder / f"{prefix}config.json") | {"released_padding": True}
    with torch.device("meta"):
        model = BEATs(official_config(cfg))
    load_into(model, safetensors.torch.load_file(folder / f"{prefix}weights.safetensors"))
    return model.eval()


def _check_case(model: BEATs, io: Comparison, case: str) -> None:
    waveform = io.input(f"{case}.waveform")
    mask = ~io.input(f"{case}.padding_mask") if f"{case}.padding_mask" in io else None
    fbank, frame_mask = model.fbank(waveform, mask)
    _close(io, f"{case}.fbank", fbank, absolute=FBANK)
    # Rounded once more by the normalisation and back, hence in normalised units.
    _close(io, f"{case}.fbank_raw", fbank * (2 * FBANK_STD) + FBANK_MEAN, absolute=FBANK * 2 * FBANK_STD)
    seen = _encode(model, fbank, frame_mask)
    _compare(model, io, case, seen, absolute=FROM_WAVEFORM)
    probabilities = model.classify(waveform, mask) if model.predictor is not None else None
    if probabilities is not None:
        _close(io, f"{case}.probs", probabilities, absolute=PROBABILITY)

    golden_fbank = io.input(f"{case}.fbank")
    seen = _encode(model, golden_fbank, frame_mask)
    _compare(model, io, case, seen, relative_to_max=FROM_FBANK)
    if mask is not None:
        assert torch.equal(frame_mask, reduce_mask(mask, fbank.shape[1]))
        _equal(io, f"{case}.frame_mask", ~frame_mask)
        _equal(io, f"{case}.token_mask", ~seen["output"].mask)


def _encode(model: BEATs, fbank: Tensor, frame_mask: Tensor) -> dict[str, Any]:
    """The output with all states, as ``output``, and what passes between the parts, named as in the goldens."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output

        return hook

    def keep_patches(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        n_columns = fbank.shape[1] // model.config.input_patch_size
        seen["patch_conv"] = inputs[0].unflatten(1, (n_columns, model.config.bands)).permute(0, 3, 1, 2)

    with ExitStack() as hooks:
        hooks.enter_context(model.layer_norm.register_forward_pre_hook(keep_patches))
        hooks.enter_context(model.layer_norm.register_forward_hook(keep("patch_norm")))
        if model.post_extract_proj is not None:
            hooks.enter_context(model.post_extract_proj.register_forward_hook(keep("patch_proj")))
        hooks.enter_context(model.encoder.pos_conv.register_forward_hook(keep("pos_conv_out")))
        for number, layer in enumerate(model.encoder.layers, start=1):
            attention = layer.get_submodule("self_attn")
            hooks.enter_context(attention.register_forward_hook(keep(f"layer{number}_attn_out")))
        seen["output"] = model.encode_fbank(fbank, frame_mask, hidden_states=True)
    bias = model.encoder.relative_bias(seen["output"].hidden.shape[1])
    if bias is not None:
        seen["rel_pos_bias"] = bias
    return seen


def _compare(model: BEATs, io: Comparison, case: str, seen: dict[str, Any], **tolerance: float) -> None:
    """All rows, padded ones too: they are not meaningful, but released captioners read some of them."""
    output: BeatsOutput = seen["output"]
    _close(io, f"{case}.features", output.hidden, **tolerance)
    assert output.hidden_states is not None
    for name in io.names(f"{case}.hidden_"):
        _close(io, name, output.hidden_states[int(name.rpartition("_")[2])], **tolerance)
    for name, actual in seen.items():
        if name != "output":
            _close(io, f"{case}.{name}", actual, **tolerance)
    if model.predictor is not None:
        _close(io, f"{case}.token_logits_raw", model.predictor(output.hidden), **tolerance)


def _check_buckets(folder: Path, prefix: str, io: Comparison, name: str) -> None:
    """``buckets.official`` has the released settings, any other those of the model beside it."""
    cfg = read_json(folder / f"{prefix}config.json")
    official = name == "buckets.official"
    num_buckets = BASE.num_buckets if official else cfg["num_buckets"]
    max_distance = BASE.max_distance if official else cfg["max_distance"]
    reach = io.input(name).numel() // 2
    io.equal(name, relative_bucket(torch.arange(-reach, reach + 1), num_buckets, max_distance))


def _check_released_shapes(folder: Path) -> None:
    """Our base model has the released tensors, name by name."""
    expected = {name: tuple(shape) for name, (_, shape) in read_json(folder / "base_state_dict.json").items()}
    with torch.device("meta"):
        model = BEATs(BASE)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    official = folder / "official_config.json"
    if official.is_file():
        assert official_config(read_json(official)) == BASE


def _close(io: Comparison, name: str, actual: Tensor, **tolerance: float) -> None:
    if name in io:
        io.close(name, actual, **tolerance)


def _equal(io: Comparison, name: str, actual: Tensor) -> None:
    if name in io:
        io.equal(name, actual)
