"""Fast steps on a CPU: the language model's weights in 32, 8 or 4 bits, and the step that reads them once.

What is rounded: the matrices of the layers and of the heads. Embeddings, norms, keys and values, and the reading of a
prompt and of texts stay as they are, in float32. To 8 bits each output's weights have one scale; to 4 bits each run of
64 inputs has one, the best of a few. Activations are rounded to 13 bits, each row with its own scale. So three kinds of
sums remain, and :mod:`aural.text_to_audio.step_kernels` has them.

Which way a step goes: rounded weights go through these kernels, for which the model must be in float32 on a CPU and
numba installed; so do those that :func:`pack` made of float32. ``"float32"`` by name does where :func:`pays` says so,
and through PyTorch elsewhere, so that small models neither import numba nor wait for it to compile. A prompt is always
read by PyTorch.
"""

import functools
import importlib.util
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from aural.errors import UsageError
from aural.text_to_audio.model import Layer, TokenLanguageModel

if TYPE_CHECKING:
    from aural.text_to_audio.step_kernels import Memory, Own, Packed, Rows

Weights = Literal["float32", "int8", "int4"]
"""What a step reads of each weight."""

MOST_FLOAT_ROWS = 8  # beyond it PyTorch's float32 products are the faster ones
LEAST_FLOAT_WEIGHTS = 50_000_000  # below it a step by PyTorch is quick enough

RUN = 64  # as in step_kernels; inputs are filled up to whole runs
BITS = {"float32": 32, "int8": 8, "int4": 4}
SCALES_TRIED = (0.8, 0.85, 0.9, 0.95, 1.0)
MOST_THREADS = 16  # beyond it there is too little for each to do between two waits
KeysValues = tuple[Tensor, Tensor]
Array = np.ndarray[Any, np.dtype[Any]]


class Matrix(NamedTuple):
    """Weights in 32 bits, or others; what the bits do not need is empty."""

    floats: Array  # (O, I) float32
    packed: Array  # (O, I') uint8; in 4 bits (O, I' / 2)
    scales: Array  # (O, 1) float32, of 8 bits; (O, G), of 4


@dataclass(frozen=True)
class PackedModel:
    """What a step reads. Matrices in float32 are the model's memory; all else is what it was when this was made."""

    weights: Weights
    layers: tuple[tuple[Matrix, ...], ...]  # of each layer six, in the order of step_kernels
    heads: tuple[Matrix, ...]  # of each codebook
    norms: Array  # (3 N + 1, 2, D) float32: weight and bias; three of each layer, and the last
    epsilons: Array  # (3 N + 1,) float32
    inner: int  # F
    codes: int  # V

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that a step reads."""
        matrices = [*(each for layer in self.layers for each in layer), *self.heads]
        return sum(array.nbytes for matrix in matrices for array in matrix)

    @functools.cached_property
    def addresses(self) -> "Packed":
        """The same for the kernels, to which a few arrays can be given faster than hundreds."""
        from aural.text_to_audio.step_kernels import Packed

        layers = np.array([[address(each) for each in layer] for layer in self.layers])
        heads = np.array([address(each) for each in self.heads])
        return Packed(np.int64(BITS[self.weights]), layers, heads, self.norms, self.epsilons)


def address(matrix: Matrix) -> tuple[int, int]:
    """Where weights and scales lie in memory; they must outlive who reads there."""
    weights = matrix.floats if matrix.floats.size else matrix.packed
    return weights.ctypes.data, matrix.scales.ctypes.data


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

    def matrix(weight: Tensor) -> Matrix:
        return pack_matrix(weight.detach(), weights)

    def layer(block: Layer) -> tuple[Matrix, ...]:
        itself, cross = block.self_attn, block.cross_attention
        return (
            matrix(itself.in_proj_weight),
            matrix(itself.out_proj.weight),
            matrix(cross.in_proj_weight[: model.config.width]),
            matrix(cross.out_proj.weight),
            matrix(block.linear1.weight),
            matrix(block.linear2.weight),
        )

    norms = [each for block in model.blocks for each in (block.norm1, block.norm_cross, block.norm2)]
    norms.append(model.out_norm)
    return PackedModel(
        weights,
        layers=tuple(map(layer, model.blocks)),
        heads=tuple(matrix(head.weight) for head in model.linears),  # type: ignore[arg-type]
        norms=torch.stack([torch.stack((norm.weight, norm.bias)) for norm in norms]).detach().numpy(),
        epsilons=np.array([norm.eps for norm in norms], np.float32),
        inner=model.config.ffn_dim,
        codes=model.config.codebook_size,
    )


# ------------------------------------------------------------------------------------------------------------- rounding


def pack_matrix(weight: Tensor, weights: Weights) -> Matrix:
    """One matrix (O, I) in the form of the kernels; float32 is not copied."""
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
    """Weights (O, I) -> nibbles (O, I' / 2) uint8, and scales (O, I' / 64).

    A run of 64 is 16 words of 16 bits, and the i-th nibble of the j-th word is its weight 16 i + j.

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
    nibbles = (_rounded(runs, scales, 8, 7).to(torch.int8) & 15).view(torch.uint8).unflatten(2, (4, 16))
    first, second, third, fourth = nibbles.unbind(dim=2)  # (O, G, 16) each
    words = torch.stack((first | second << 4, third | fourth << 4), dim=3)
    return words.flatten(1), scales[:, :, 0].contiguous()


def dequantised(matrix: Matrix) -> Tensor:
    """What a packed matrix stands for, (O, I'), or (O, I) of float32."""
    floats, packed, scales = (torch.from_numpy(each) for each in matrix)
    if len(floats):
        return floats
    if packed.shape[1] == scales.shape[1] * RUN // 2:
        words = packed.view(torch.int16).unflatten(1, (-1, 1, 16)).to(torch.int32)  # (O, G, 1, 16)
        runs = words << torch.tensor([28, 24, 20, 16], dtype=torch.int32)[:, None] >> 28
        return (runs.flatten(2) * scales[:, :, None]).flatten(1)
    return (packed.float() - 128) * scales


def _filled(weight: Tensor) -> Tensor:
    """Zeros behind the inputs, up to a multiple of 64."""
    return nn.functional.pad(weight, (0, -weight.shape[1] % RUN))


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
            cache: (layers, 2, R, H, S, d), float32 or bfloat16: keys and values of the steps so far.
            memories: what the rows from the first on attend to, one part after another: which of its L tokens may be
                attended to (B, 1, 1, L), None = all, and keys and values (B, H, L, d) in each layer.
        """
        from aural.text_to_audio import step_kernels

        n_layers, _, n_rows, n_heads, room, size = cache.shape
        width = n_heads * size
        self._kernel, self._packed, self._cache = step_kernels.step, packed, _as_numpy(cache)
        self._memory = _joined(memories, n_layers, n_heads, size)
        self._shared = step_kernels.Shared(
            hidden=np.empty((n_rows, width), np.float32),
            queries=np.empty((n_rows, width), np.float32),
            found=np.empty((n_rows, width), np.float32),
            inner=np.empty((n_rows, packed.inner), np.float32),
            logits=np.empty((len(packed.heads), n_rows, packed.codes), np.float32),
            done=np.zeros((step_kernels.PHASES * n_layers + 2, 2), np.int64),
        )
        self._n_threads = min(torch.get_num_threads(), MOST_THREADS)
        longest = max(room, self._memory.allowed.shape[1])
        self._own = [new_own(n_rows, width, size, packed.inner, longest) for _ in range(self._n_threads)]
        self._others = ThreadPoolExecutor(self._n_threads - 1, "aural-step") if self._n_threads > 1 else None

    def step(self, hidden: Tensor, position: int) -> Tensor:
        """The step at ``position`` of the cache, whose input is (R, D) -> logits (R, K, V)."""
        shared = self._shared
        shared.hidden[:] = hidden.numpy()
        shared.done[:] = 0
        others: list[Future[None]] = []
        try:
            if self._others is not None:
                others += (self._others.submit(self._take_part, i, position) for i in range(1, self._n_threads))
            self._take_part(0, position)
        except BaseException:  # an interrupt, maybe before this thread began: no other may go on waiting for it
            self._stop_waiting()
            raise
        finally:
            for other in others:
                other.result()
        return torch.from_numpy(shared.logits.swapaxes(0, 1).copy())

    def _take_part(self, thread: int, position: int) -> None:
        try:
            packed, own = self._packed.addresses, self._own[thread]
            self._kernel(packed, self._cache, position, self._memory, self._shared, own, self._n_threads)
        except BaseException:
            self._stop_waiting()
            raise

    def _stop_waiting(self) -> None:
        """Let all threads end: one of them will not come."""
        self._shared.done[-1] = 1


def _as_numpy(cache: Tensor) -> np.ndarray:
    """The same memory; numpy has no bfloat16, and the kernels take its bits."""
    return (cache.view(torch.int16) if cache.dtype == torch.bfloat16 else cache).numpy()


def new_own(n_rows: int, width: int, size: int, inner: int, longest: int) -> "Own":
    """What one thread writes for itself; ``size`` is that of a head."""
    from aural.text_to_audio.step_kernels import Own

    normed, fresh = np.empty((n_rows, width), np.float32), np.empty((n_rows, size), np.float32)
    return Own(normed, fresh, new_rows(n_rows, width), new_rows(n_rows, inner), scores=np.empty(longest, np.float32))


def new_rows(n_rows: int, inputs: int) -> "Rows":
    """Room for the activations that go into a product, of any bits."""
    from aural.text_to_audio.step_kernels import Rows

    filled = inputs + -inputs % RUN
    return Rows(
        floats=np.empty((n_rows, inputs), np.float32),
        rounded=np.zeros((n_rows, filled), np.int16),
        scales=np.zeros(n_rows, np.float32),
        starts=np.zeros(n_rows, np.int32),
    )


def _joined(memories: Sequence[tuple[Tensor | None, list[KeysValues]]], layers: int, heads: int, size: int) -> "Memory":
    """The parts of :class:`Stepper` as one, filled up to the longest text."""
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
    return Memory(joined, allowed)
