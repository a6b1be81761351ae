"""Fast steps on a CPU: the language model's weights in 32, 8 or 4 bits, and the step that reads them once.

What is rounded: the matrices of the layers and of the heads. Embeddings, norms, keys and values, and the reading of a
prompt and of texts stay as they are, in float32. To 8 bits each output's weights have one scale; to 4 bits each run of
64 inputs has one, the best of a few. Activations are rounded to 8 bits, each run of 64 with its own scale. So three
kinds of sums remain, and :mod:`aural.text_to_audio.step_kernels` has them.

Which way a step goes: rounded weights go through these kernels, for which the model must be in float32 on a CPU and
numba installed; so do those that :func:`pack` made of float32. ``"float32"`` by name does where :func:`pays` says so,
and through PyTorch elsewhere, so that small models neither import numba nor wait for it to compile. A prompt is always
read by PyTorch.
"""

import functools
import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from aural.errors import UsageError
from aural.text_to_audio.model import Layer, TokenLanguageModel

if TYPE_CHECKING:
    from aural.text_to_audio.step_kernels import LayerWeights, Matrix, Memory, Norm, Rows

Weights = Literal["float32", "int8", "int4"]
"""What a step reads of each weight."""

MOST_FLOAT_ROWS = 8  # beyond it PyTorch's float32 products are the faster ones
LEAST_FLOAT_WEIGHTS = 50_000_000  # below it a step by PyTorch is quick enough

RUN, FULL = 64, 128  # as in step_kernels; inputs are filled up to whole pairs of runs
BITS = {"float32": 32, "int8": 8, "int4": 4}
SCALES_TRIED = (0.8, 0.85, 0.9, 0.95, 1.0)
KeysValues = tuple[Tensor, Tensor]
_ONE_AT_A_TIME = threading.Lock()
"""Not every way in which numba runs threads can be entered twice at once."""


@dataclass(frozen=True)
class PackedModel:
    """What a step reads. float32 shares the model's memory; rounded weights are those of when it was made."""

    weights: Weights
    layers: "tuple[LayerWeights, ...]"
    norm: "Norm"
    heads: "tuple[Matrix, ...]"  # of each codebook
    inner: int  # F
    codes: int  # V

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that a step reads."""
        from aural.text_to_audio.step_kernels import Matrix

        matrices = [each for layer in self.layers for each in layer if isinstance(each, Matrix)]
        return sum(array.nbytes for matrix in (*matrices, *self.heads) for array in matrix)


def can_step(model: TokenLanguageModel) -> bool:
    """Whether the kernels can run this model here: it is float32 on a CPU, and numba is there."""
    weight = model.out_norm.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _numba_is_there()


def pays(model: TokenLanguageModel, n_rows: int) -> bool:
    """Whether float32 steps of so many rows are better made by the kernels: of few rows and a large model."""
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    return n_rows <= MOST_FLOAT_ROWS and n_weights >= LEAST_FLOAT_WEIGHTS and can_step(model)


@functools.cache
def _numba_is_there() -> bool:
    return importlib.util.find_spec("numba") is not None


def pack(model: TokenLanguageModel, weights: Weights) -> PackedModel:
    """The weights of a model as the kernels read them; some seconds for 420 million that are rounded.

    Raises:
        UsageError: numba is not installed, or the model is not one in float32 on a CPU.
    """
    if not can_step(model):
        if not _numba_is_there():
            raise UsageError(f"packed {weights} weights need numba: pip install numba, or take float32 weights")
        raise UsageError(
            f"packed {weights} weights are for a float32 model on a CPU: pass --device cpu, or --weights float32"
        )
    from aural.text_to_audio.step_kernels import LayerWeights

    def matrix(weight: Tensor) -> "Matrix":
        return pack_matrix(weight.detach(), weights)

    def layer(block: Layer) -> LayerWeights:
        itself, cross = block.self_attn, block.cross_attention
        return LayerWeights(
            norm1=_norm(block.norm1),
            queries_keys_values=matrix(itself.in_proj_weight),
            out=matrix(itself.out_proj.weight),
            norm_cross=_norm(block.norm_cross),
            cross_queries=matrix(cross.in_proj_weight[: model.config.width]),
            cross_out=matrix(cross.out_proj.weight),
            norm2=_norm(block.norm2),
            linear1=matrix(block.linear1.weight),
            linear2=matrix(block.linear2.weight),
        )

    heads = tuple(matrix(head.weight) for head in model.linears)  # type: ignore[arg-type]
    layers, config = tuple(map(layer, model.blocks)), model.config
    return PackedModel(weights, layers, _norm(model.out_norm), heads, config.ffn_dim, config.codebook_size)


def _norm(norm: nn.LayerNorm) -> "Norm":
    from aural.text_to_audio.step_kernels import Norm

    return Norm(norm.weight.detach().numpy(), norm.bias.detach().numpy(), np.float32(norm.eps))


# ------------------------------------------------------------------------------------------------------------- rounding


def pack_matrix(weight: Tensor, weights: Weights) -> "Matrix":
    """One matrix (O, I) in the form of the kernels; float32 is not copied."""
    from aural.text_to_audio.step_kernels import Matrix

    floats, packed, scales = weight.new_empty(0, 0), torch.empty(0, 0, dtype=torch.uint8), weight.new_empty(0, 0)
    if weights == "float32":
        floats = weight.contiguous()
    else:
        packed, scales = (round_to_bytes if weights == "int8" else round_to_nibbles)(weight)
    return Matrix(floats.numpy(), packed.numpy(), scales.numpy())


def round_to_bytes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, I) -> bytes (O, I') uint8, which stand for themselves less 128, and scales (O, 1)."""
    filled = _filled(weight)
    scales = filled.abs().amax(dim=1, keepdim=True) / 127
    return (_rounded(filled, scales, 127, 127) + 128).to(torch.uint8), scales


def round_to_nibbles(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, I) -> pairs of nibbles (O, I' / 2) uint8, which stand for themselves less 8, and scales (O, I' / 64).

    The scale of a run puts its largest weight at that end of -8..7 which is farther from 0, or somewhat beyond it,
    whichever has the least squared error.
    """
    runs = _filled(weight).unflatten(1, (-1, RUN))  # (O, G, 64)
    extreme = runs.gather(2, runs.abs().argmax(dim=2, keepdim=True)) / -8
    scales, least = extreme, torch.full_like(extreme, torch.inf)
    for factor in SCALES_TRIED:
        tried = extreme * factor
        error = (tried * _rounded(runs, tried, 8, 7)).sub_(runs).square_().sum(dim=2, keepdim=True)
        scales = torch.where(error < least, tried, scales)
        least = torch.minimum(error, least)
    nibbles = (_rounded(runs, scales, 8, 7) + 8).to(torch.uint8).unflatten(1, (-1, 2))  # (O, G / 2, 2, 64)
    return (nibbles[:, :, 0] | nibbles[:, :, 1] << 4).flatten(1), scales[:, :, 0].contiguous()


def dequantised(matrix: "Matrix") -> Tensor:
    """What a packed matrix stands for, (O, I'), or (O, I) of float32."""
    floats, packed, scales = (torch.from_numpy(each) for each in matrix)
    if len(floats):
        return floats
    if scales.shape[1] == 1:  # 4 bits have two runs at least
        return (packed.float() - 128) * scales
    pairs = packed.unflatten(1, (-1, 1, RUN))
    runs = torch.cat((pairs & 15, pairs >> 4), dim=2).flatten(1, 2).float() - 8  # (O, G, 64)
    return (runs * scales[:, :, None]).flatten(1)


def _filled(weight: Tensor) -> Tensor:
    """Zeros behind the inputs, up to a multiple of 128."""
    return nn.functional.pad(weight, (0, -weight.shape[1] % FULL))


def _rounded(weight: Tensor, scales: Tensor, below: int, above: int) -> Tensor:
    """Whole numbers from ``-below`` to ``above``; 0 where the scale is 0."""
    return (weight / torch.where(scales == 0, 1.0, scales)).round_().clamp_(-below, above)


# ------------------------------------------------------------------------------------------------------------- one step


class Stepper:
    """Single steps of some rows over a cache that is the caller's."""

    def __init__(self, packed: PackedModel, cache: Tensor, memories: Sequence[tuple[Tensor | None, list[KeysValues]]]):
        """Reserve what a step writes.

        Args:
            packed: of the model.
            cache: (layers, 2, R, H, S, d): keys and values of the steps so far.
            memories: what the rows from the first on attend to, one part after another: which of its L tokens may be
                attended to (B, 1, 1, L), None = all, and keys and values (B, H, L, d) in each layer.
        """
        from aural.text_to_audio import step_kernels

        self._packed, self._kernels = packed, step_kernels
        self._caches = [(keys.numpy(), values.numpy()) for keys, values in cache]
        _, _, n_rows, n_heads, room, size = cache.shape
        self._memories = _joined(memories, len(packed.layers), n_heads, size)
        width, inner = n_heads * size, packed.inner
        longest = max(room, self._memories[0].allowed.shape[1])
        self._scratch = step_kernels.Scratch(
            normed=np.empty((n_rows, width), np.float32),
            narrow=new_rows(n_rows, width),
            queries=np.empty((n_rows, width), np.float32),
            scores=np.empty((n_rows, n_heads, longest), np.float32),
            found=np.empty((n_rows, width), np.float32),
            inner=np.empty((n_rows, inner), np.float32),
            wide=new_rows(n_rows, inner),
        )
        self._logits = [np.empty((n_rows, packed.codes), np.float32) for _ in packed.heads]

    def step(self, hidden: Tensor, position: int) -> Tensor:
        """The step at ``position`` of the cache, whose input is (R, D) -> logits (R, K, V)."""
        import numba

        kernels, packed, scratch = self._kernels, self._packed, self._scratch
        bits, states = BITS[packed.weights], hidden.clone().numpy()
        with _ONE_AT_A_TIME:
            numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
            for layer, (keys, values), memory in zip(packed.layers, self._caches, self._memories, strict=True):
                kernels.layer_step(states, layer, bits, keys, values, position, memory, scratch)
            kernels.read_out(states, packed.norm, bits, scratch.normed, scratch.narrow)
            for head, logits in zip(packed.heads, self._logits, strict=True):
                kernels.product(head, bits, scratch.narrow, logits, kernels.WRITE)
        return torch.from_numpy(np.stack(self._logits, axis=1))


def new_rows(n_rows: int, inputs: int) -> "Rows":
    """Room for the activations that go into a product, of any bits."""
    from aural.text_to_audio.step_kernels import Rows

    filled = inputs + -inputs % FULL
    return Rows(
        floats=np.empty((n_rows, inputs), np.float32),
        rounded=np.zeros((n_rows, filled), np.int8),
        scales=np.zeros((n_rows, filled // RUN), np.float32),
        starts=np.zeros((n_rows, filled // 4), np.int32),
    )


def _joined(
    memories: Sequence[tuple[Tensor | None, list[KeysValues]]], layers: int, heads: int, size: int
) -> "list[Memory]":
    """The parts of :class:`Stepper` as one for each layer, filled up to the longest text."""
    from aural.text_to_audio.step_kernels import Memory

    shapes = [each[0][0].shape for _, each in memories]  # (B, H, L, d)
    n_rows, longest = sum(shape[0] for shape in shapes), max((shape[2] for shape in shapes), default=0)
    allowed = np.zeros((n_rows, longest), np.bool_)
    joined = np.zeros((layers, 2, n_rows, heads, longest, size), np.float32)
    row = 0
    for (may, parts), (items, _, length, _) in zip(memories, shapes, strict=True):
        rows = slice(row, row + items)
        allowed[rows, :length] = True if may is None else may[:, 0, 0].numpy()
        for layer, pair in enumerate(parts):
            for i, each in enumerate(pair):
                joined[layer, i, rows, :, :length] = each.numpy()
        row += items
    return [Memory(keys, values, allowed) for keys, values in joined]
