"""Fast steps: products of packed weights, steps by the kernels against steps by PyTorch, seeds, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aural.errors import UsageError
from aural.text_to_audio import quantized, step_kernels
from aural.text_to_audio.decoding import DecodingConfig, Text, Writer, generate
from aural.text_to_audio.model import GenerationConfig, TokenLanguageModel
from aural.text_to_audio.quantized import (
    BITS,
    RUN,
    Matrix,
    PackedModel,
    Stepper,
    Weights,
    address,
    dequantised,
    pack,
    pack_matrix,
)

ALL: tuple[Weights, ...] = ("float32", "int8", "int4")
CONFIG = GenerationConfig(
    width=72, layers=2, heads=3, ffn_dim=140, codebook_size=24, delays=(0, 1), text_width=7, t5=None, seconds=0.2
)


def language_model() -> TokenLanguageModel:
    model = TokenLanguageModel(CONFIG)
    model.initialise(torch.Generator().manual_seed(0))
    for parameter in model.linears.parameters():
        parameter.data *= 4.0  # so that some codes are likely
    return model.eval().requires_grad_(False)


MODEL = language_model()


def texts(items: int, seed: int = 1) -> Text:
    mask = torch.arange(4) < torch.tensor([4, 1, 2])[:items, None]
    states = torch.randn(3, 4, CONFIG.text_width, generator=torch.Generator().manual_seed(seed))[:items]
    return Text(MODEL.condition(states, mask), mask)


def rows_of(values: Tensor, weights: Weights) -> step_kernels.Rows:
    """Activations, taken."""
    rows = quantized.new_rows(*values.shape)
    step_kernels.take(values.numpy(), BITS[weights], rows)
    return rows


def product(matrix: Matrix, rows: step_kernels.Rows, outputs: int, weights: Weights) -> Tensor:
    out, done = torch.empty(len(rows.floats), outputs), np.zeros((2, 2), np.int64)
    where, phase = np.array(address(matrix)), np.int64(0)
    step_kernels.product(where, BITS[weights], rows, out.numpy(), step_kernels.WRITE, done, phase, 1)
    return out


@pytest.mark.parametrize("weights", ALL)
def test_products_are_those_of_what_was_rounded(weights: Weights) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, values = torch.randn(5, 150, generator=generator), torch.randn(3, 150, generator=generator)
    weight[1, RUN : 2 * RUN], weight[2], values[1] = 0.0, 0.0, 0.0  # without a scale
    matrix, rows = pack_matrix(weight, weights), rows_of(values, weights)
    out, read = product(matrix, rows, 5, weights), dequantised(matrix)
    taken = values
    if weights != "float32":
        taken = torch.from_numpy(rows.rounded) * torch.from_numpy(rows.scales)[:, None]
        assert (taken[:, :150] - values).abs().max() <= 0.51 * rows.scales.max() and not taken[:, 150:].any()
    torch.testing.assert_close(out, taken @ read.T, rtol=1e-5, atol=1e-4)
    # A row does not depend on the others, to the last bit.
    assert torch.equal(product(matrix, rows_of(values[2:], weights), 5, weights), out[2:])


PRODUCTS = """
import numpy as np, torch
from aural.text_to_audio import step_kernels
from aural.text_to_audio.quantized import BITS, address, dequantised, new_rows, pack_matrix
generator = torch.Generator().manual_seed(0)
weight, values = torch.randn(5, 150, generator=generator), torch.randn(3, 150, generator=generator)
for weights in ("int8", "int4"):
    matrix, rows, out = pack_matrix(weight, weights), new_rows(3, 150), np.empty((3, 5), np.float32)
    step_kernels.take(values.numpy(), BITS[weights], rows)
    where, done = np.array(address(matrix)), np.zeros((2, 2), np.int64)
    step_kernels.product(where, BITS[weights], rows, out, step_kernels.WRITE, done, np.int64(0), 1)
    wanted = torch.from_numpy(rows.rounded) * torch.from_numpy(rows.scales)[:, None] @ dequantised(matrix).T
    torch.testing.assert_close(torch.from_numpy(out), wanted, rtol=1e-5, atol=1e-4)
"""


def test_products_by_a_processor_without_avx2(tmp_path: Path) -> None:
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PRODUCTS], env=os.environ | plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rounding() -> None:
    weight = torch.randn(6, 256, generator=torch.Generator().manual_seed(0))
    weight[0] = 0.0
    in_bytes, in_nibbles = (dequantised(pack_matrix(weight, weights)) for weights in ("int8", "int4"))
    assert ((in_bytes - weight).abs() <= 0.501 * weight.abs().amax(dim=1, keepdim=True) / 127).all()
    runs = weight.unflatten(1, (-1, RUN))
    plain = runs.abs().amax(dim=2, keepdim=True) / 7
    rounded = (torch.where(plain > 0, runs / plain, 0.0).round() * plain).flatten(1)
    errors = [float((each - weight).square().mean()) for each in (in_nibbles, rounded)]
    assert errors[0] < 0.85 * errors[1] and not in_nibbles[0].any()
    assert pack_matrix(weight, "int4").packed.nbytes * 2 == pack_matrix(weight, "int8").packed.nbytes == weight.numel()


def written(
    weights: Weights | PackedModel | None, model: TokenLanguageModel = MODEL, items: int = 3, begin: int = 2
) -> Tensor:
    """Guided logits of steps that are given, some of them as a beginning, which PyTorch reads; None: all by PyTorch."""
    config, negative = DecodingConfig(), texts(1, seed=5) if items == 3 else None
    packed = pack(model, "float32" if weights is None else weights) if not isinstance(weights, PackedModel) else weights
    sequence = torch.randint(0, 24, (3, 2, 9), generator=torch.Generator().manual_seed(3))[:items]
    with torch.inference_mode():
        writer = Writer(
            model,
            texts(items),
            negative,
            items=items,
            steps=9,
            config=config,
            weights="float32" if weights is None else packed,
        )
        parts = [sequence[:, :, :begin], *sequence[:, :, begin:].split(1, dim=2)]
        return torch.stack([writer.step(part) for part in parts], dim=1)


def test_steps_by_the_kernels_are_those_by_pytorch() -> None:
    for items in (1, 3):
        torch.testing.assert_close(
            written(pack(MODEL, "float32"), items=items), written(None, items=items), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("weights", "most"), [("int8", 0.03), ("int4", 0.06)])
def test_rounded_steps_are_those_of_a_model_of_rounded_weights(weights: Weights, most: float) -> None:
    """But for the rounding of activations; and the codes are float32's where it is sure of them."""
    model, inputs = language_model(), CONFIG.width
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and name.startswith(("transformer", "linears")):
            rounded = dequantised(pack_matrix(parameter.data, weights))[:, : parameter.shape[1]]
            if "cross_attention.in_proj" in name:  # keys and values of the memory are not rounded
                rounded[inputs:] = parameter[inputs:]
            parameter.data.copy_(rounded)
    logits, wanted, exact = written(weights), written(None, model), written(None)
    assert float((logits - wanted).square().mean() / wanted.var()) ** 0.5 < most
    best, second = exact.topk(2, dim=3).values.unbind(3)
    sure = best - second > 2 * (logits - exact).abs().amax()
    agree = logits.argmax(3) == exact.argmax(3)
    assert sure.any() and agree[sure].all()
    assert float(agree.float().mean()) > (0.9 if weights == "int8" else 0.6)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_an_item_depends_on_its_seed_and_not_on_its_company(weights: Weights) -> None:
    text, seeds, packed = texts(3), [7, 8, 9], pack(MODEL, weights)
    together = generate(MODEL, text, 12, seeds=seeds, weights=packed)  # two windows: prompts are read, too
    assert torch.equal(generate(MODEL, text, 12, seeds=seeds, weights=weights), together)
    for i, seed in enumerate(seeds):
        length = int(text.mask[i].sum())
        own = Text(text.memory[i : i + 1, :length], text.mask[i : i + 1, :length])
        assert torch.equal(generate(MODEL, own, 12, seeds=[seed], weights=packed), together[i : i + 1])
    without = generate(MODEL, None, 12, seeds=seeds, weights=packed)
    assert not torch.equal(without, together)
    assert torch.equal(generate(MODEL, None, 12, seeds=seeds[1:2], weights=packed), without[1:2])


@pytest.mark.parametrize("weights", ALL)
def test_steps_do_not_depend_on_the_number_of_threads(weights: Weights) -> None:
    before, packed = torch.get_num_threads(), pack(MODEL, weights)
    try:
        found = []
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            found.append(written(packed, begin=1))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_nobody_waits_for_a_thread_that_does_not_come() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        stepper = Stepper(pack(MODEL, "int8"), torch.zeros(2, 2, 2, 3, 9, 24), [])
        itself = stepper._take_part

        def interrupted(thread: int, position: int) -> None:
            if thread == 0:
                raise KeyboardInterrupt
            itself(thread, position)

        stepper._take_part = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            stepper.step(torch.zeros(2, 72), 0)
        stepper._take_part = itself  # type: ignore[method-assign]
        own, stepper._own = stepper._own, stepper._own[:1]  # the other cannot begin
        with pytest.raises(IndexError):
            stepper.step(torch.zeros(2, 72), 0)
        stepper._own = own
        assert stepper.step(torch.zeros(2, 72), 0).shape == (2, 2, 24)
    finally:
        torch.set_num_threads(before)


def test_packing_leaves_the_model_alone() -> None:
    model, before = language_model(), MODEL.state_dict()
    packed = {weights: pack(model, weights) for weights in ALL}
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    model.linears[0].weight.data.zero_()  # float32 is the model's own memory, the others are copies
    assert not packed["float32"].heads[0].floats.any() and packed["int8"].heads[0].scales.all()
    sizes = [packed[weights].step_bytes for weights in ALL]
    assert sizes[0] > 2 * sizes[1] > 3 * sizes[2]  # inputs are filled up, which matters at this size


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="float32 model on a CPU"):
        pack(language_model().bfloat16(), "int8")
    monkeypatch.setattr(quantized, "_numba_is_there", lambda: False)
    with pytest.raises(UsageError, match="pip install numba"):
        generate(MODEL, None, 3, weights="int4")
    monkeypatch.setattr(quantized, "LEAST_FLOAT_WEIGHTS", 0)
    assert not quantized.pays(MODEL, 2)
    generate(MODEL, None, 3)  # by PyTorch
