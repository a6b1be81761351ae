"""One step of the token language model as a few large parallel loops over packed weights, compiled by numba.

A step is bound by reading the weights, so each row of a weight matrix is read once for two rows of the batch, and what
lies between two products (norm, attention, GELU, the rounding of activations) is done in scratch memory that is
reserved once. Results of a row depend neither on the other rows nor on the number of threads.

:mod:`.quantized` makes the arrays and is the only importer: importing numba takes a second. Which bits
the weights have is told while it runs, so that there is one form of everything to compile, some seconds the first time;
numba keeps it on disk then.

Rounded weights meet rounded activations: each run of 64 inputs of a row is rounded to 8 bits with a scale of its own,
so that products are sums of bytes, which processors with AVX-512 VNNI make 64 at a time, and all others by plain vector
arithmetic with the same integers. The weights are stored without sign, 128 or 8 in place of 0; the sums therefore begin
at what takes that away again.

Shapes: R rows, D width, H heads, d = D / H, F width of the feed-forward, S room of the cache, L tokens of a memory, O
outputs and I inputs of a matrix, I' inputs filled up with zeros, G = I' / 64 runs. Bits are 32, 8 or 4.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

if config.THREADING_LAYER == "default":  # not set by NUMBA_THREADING_LAYER
    # OpenMP's threads wait for one another by spinning: on a busy machine steps took fifty times as long.
    config.THREADING_LAYER = "workqueue"

RUN = 64
"""Inputs that share a scale of the activations, and of 4-bit weights."""
AHEAD = 4096
"""Bytes by which weights are fetched before they are needed: sums this cheap would wait for memory otherwise."""
WRITE, ADD, WRITE_GELU = np.int64(0), np.int64(1), np.int64(2)
"""What becomes of a product. numba would compile one form for each plain integer."""
NOWHERE = np.int64(-1)

LOOSE = {"reassoc", "contract", "arcp", "nsz", "nnan"}  # sums in any order
Array = np.ndarray[Any, np.dtype[Any]]


class Matrix(NamedTuple):
    """Weights in 32 bits, or others; what the bits do not need is empty."""

    floats: Array  # (O, I) float32
    packed: Array  # (O, I') uint8; in 4 bits (O, I' / 2), the low halves of 64 bytes a run, the high halves the next
    scales: Array  # (O, 1) float32, of 8 bits; (O, G), of 4


class Rows(NamedTuple):
    """What goes into a product: in 32 bits as it is, or else rounded to bytes."""

    floats: Array  # (R, I) float32
    rounded: Array  # (R, I') int8
    scales: Array  # (R, G) float32
    starts: Array  # (R, I' / 4) int32: minus what stands for 0 in the weights, times the sum of each four values


class Norm(NamedTuple):
    """LayerNorm."""

    weight: Array  # (D,)
    bias: Array  # (D,)
    epsilon: np.float32


class LayerWeights(NamedTuple):
    """What a step reads of a layer; keys and values of the memory are known before."""

    norm1: Norm
    queries_keys_values: Matrix  # (3 D, D)
    out: Matrix  # (D, D)
    norm_cross: Norm
    cross_queries: Matrix  # (D, D)
    cross_out: Matrix  # (D, D)
    norm2: Norm
    linear1: Matrix  # (F, D)
    linear2: Matrix  # (D, F)


class Scratch(NamedTuple):
    """Where a step writes what is read in the same step."""

    normed: Array  # (R, D)
    narrow: Rows  # of D inputs
    queries: Array  # (R, D)
    scores: Array  # (R, H, max(S, L))
    found: Array  # (R, D)
    inner: Array  # (R, F)
    wide: Rows  # of F inputs


class Memory(NamedTuple):
    """Keys and values of a layer's cross-attention for the first rows of the batch, as many as there are."""

    keys: Array  # (R', H, L, d)
    values: Array  # (R', H, L, d)
    allowed: Array  # (R', L) bool


# ---------------------------------------------------------------------------------------------------- products of bytes


def _dot_bytes(builder: Any, start: Any, unsigned: Any, signed: Any, *, vnni: bool) -> Any:
    """``start`` <16 x i32> plus the products of <64 x i8>, each in some lane."""
    lanes = start.type
    if vnni:
        name = "llvm.x86.avx512.vpdpbusd.512"
        signature = ir.FunctionType(lanes, [lanes, lanes, lanes])
        function = cgutils.get_or_insert_function(builder.module, signature, name)
        return builder.call(function, [start, builder.bitcast(unsigned, lanes), builder.bitcast(signed, lanes)])
    halves = ir.VectorType(ir.IntType(16), RUN)  # 255 * 127 < 2 ** 15
    products = builder.mul(builder.zext(unsigned, halves), builder.sext(signed, halves))
    for first in range(0, RUN, 16):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(first, first + 16)))
        part = builder.shuffle_vector(products, ir.Constant(halves, ir.Undefined), mask)
        start = builder.add(start, builder.sext(part, lanes))
    return start


def _everywhere(builder: Any, scalar: Any, lanes: Any) -> Any:
    """A vector of 16 times the same number."""
    nothing = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), 16), [0] * 16))


@intrinsic
def _two_dots(  # type: ignore[no-untyped-def]
    typing_context, weights, weight_scales, values, scales, starts, nibbles, output, first, second, runs
):
    """Output ``output`` of a packed matrix for two of the rows: of nibbles where that is not 0, else of bytes."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vnni = "+avx512vnni" in context.codegen().magic_tuple()[2]
        integer, single, byte = ir.IntType(32), ir.FloatType(), ir.IntType(8)
        integers, singles, run = (ir.VectorType(t, n) for t, n in ((integer, 16), (single, 16), (byte, RUN)))
        data = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:5], arguments[:5], strict=True)
        ]
        nibbles, output, first, second, runs = arguments[5:]
        size = runs.type

        def constant(number: int) -> Any:
            return ir.Constant(size, number)

        def vector(base: Any, index: Any, kind: Any) -> Any:
            pointer = builder.bitcast(builder.gep(base, [index]), ir.PointerType(kind))
            return builder.load(pointer, align=1)

        def stream(base: Any, index: Any) -> Any:
            """64 bytes of weights, while those that come after are fetched."""
            ahead = builder.gep(base, [builder.add(index, constant(AHEAD))])
            builder.call(prefetch, [ahead, *(ir.Constant(integer, how) for how in (0, 3, 1))])
            return vector(base, index, run)

        def scalar(base: Any, index: Any) -> Any:
            return builder.load(builder.gep(base, [index]))

        pointer = ir.PointerType(byte)
        prefetch_type = ir.FunctionType(ir.VoidType(), [pointer, integer, integer, integer])
        prefetch = cgutils.get_or_insert_function(builder.module, prefetch_type, "llvm.prefetch.p0i8")
        row_runs = [builder.mul(row, runs) for row in (first, second)]
        output_runs = builder.mul(output, runs)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(singles, [0.0] * 16)) for _ in row_runs]

        def add(weights: Any, at: Any, weight_scale: Any = None) -> None:
            """Run ``at`` of both rows."""
            for row, total in zip(row_runs, sums, strict=True):
                place = builder.add(row, at)
                start = vector(data[4], builder.mul(place, constant(RUN // 4)), integers)
                signed = vector(data[2], builder.mul(place, constant(RUN)), run)
                found = builder.sitofp(_dot_bytes(builder, start, weights, signed, vnni=vnni), singles)
                scale = scalar(data[3], place)
                if weight_scale is not None:
                    scale = builder.fmul(scale, weight_scale)
                part = builder.fmul(found, _everywhere(builder, scale, singles), flags=("contract",))
                builder.store(builder.fadd(builder.load(total), part, flags=("contract",)), total)

        last_scale = cgutils.alloca_once_value(builder, ir.Constant(single, 1.0))
        with builder.if_else(cgutils.is_not_null(builder, nibbles)) as (of_nibbles, of_bytes):
            with of_nibbles, cgutils.for_range(builder, builder.lshr(runs, constant(1))) as loop:
                even = builder.shl(loop.index, constant(1))
                odd = builder.add(even, constant(1))
                at = builder.mul(builder.add(builder.lshr(output_runs, constant(1)), loop.index), constant(RUN))
                both = stream(data[0], at)
                low, high = (ir.Constant(run, [number] * RUN) for number in (15, 4))
                add(builder.and_(both, low), even, scalar(data[1], builder.add(output_runs, even)))
                add(builder.lshr(both, high), odd, scalar(data[1], builder.add(output_runs, odd)))
            with of_bytes:
                builder.store(scalar(data[1], output), last_scale)
                with cgutils.for_range(builder, runs) as loop:
                    at = builder.mul(builder.add(output_runs, loop.index), constant(RUN))
                    add(stream(data[0], at), loop.index)

        reduce_type = ir.FunctionType(single, [single, singles])
        reduce = cgutils.get_or_insert_function(builder.module, reduce_type, "llvm.vector.reduce.fadd.v16f32")
        zero, scale = ir.Constant(single, 0.0), builder.load(last_scale)
        whole = [builder.call(reduce, [zero, builder.load(total)], fastmath=("reassoc",)) for total in sums]
        found = [builder.fmul(each, scale) for each in whole]
        return context.make_tuple(builder, signature.return_type, found)

    given = (weights, weight_scales, values, scales, starts, *[types.intp] * 5)
    return types.UniTuple(types.float32, 2)(*given), generate


# ------------------------------------------------------------------------------------------------------------- products


@njit(cache=True, fastmath=LOOSE)
def _dots(matrix, bits, output, rows, first, second):  # type: ignore[no-untyped-def]
    """One output of a matrix for two of the rows."""
    if bits < 32:
        weights, scales, runs = matrix.packed, matrix.scales, rows.scales.shape[1]
        return _two_dots(weights, scales, rows.rounded, rows.scales, rows.starts, bits & 4, output, first, second, runs)
    row, a, b = matrix.floats[output], rows.floats[first], rows.floats[second]
    one = two = np.float32(0)
    for i in range(len(row)):
        one += row[i] * a[i]
        two += row[i] * b[i]
    return one, two


@njit(cache=True, parallel=True, fastmath=LOOSE)
def product(matrix, bits, rows, out, how):  # type: ignore[no-untyped-def]
    """Rows of I inputs -> ``out`` (R, O), as ``how`` says."""
    for o in prange(out.shape[1]):
        for first in range(0, len(out), 2):
            second = min(first + 1, len(out) - 1)
            one, two = _dots(matrix, bits, np.int64(o), rows, first, second)
            if how == ADD:
                one, two = one + out[first, o], two + out[second, o]
            elif how == WRITE_GELU:
                one, two = _gelu(one), _gelu(two)
            out[first, o], out[second, o] = one, two


@njit(cache=True, fastmath=LOOSE)
def _gelu(value):  # type: ignore[no-untyped-def]
    """The exact one."""
    return np.float32(0.5) * value * (np.float32(1) + math.erf(value * np.float32(0.7071067811865476)))


@njit(cache=True, fastmath=LOOSE)
def take(values, bits, rows):  # type: ignore[no-untyped-def]
    """Get activations (R, I) ready for products with weights of so many bits."""
    for r in range(len(values)):
        if bits == 32:
            for i in range(values.shape[1]):
                rows.floats[r, i] = values[r, i]
        else:
            _round(values[r], rows.rounded[r], rows.scales[r], rows.starts[r], 1 << (bits - 1))


@njit(cache=True, fastmath=LOOSE)
def _round(values, rounded, scales, starts, zero):  # type: ignore[no-untyped-def]
    """One row to bytes; the zeros behind its end stay what they are."""
    for g in range(len(scales)):
        begin, end = g * RUN, min(g * RUN + RUN, len(values))
        largest = np.float32(0)
        for i in range(begin, end):
            largest = max(largest, abs(values[i]))
        scales[g] = largest / np.float32(127)
        factor = np.float32(127) / max(largest, np.float32(1e-30))
        for i in range(begin, end):
            rounded[i] = np.int8(np.rint(values[i] * factor))
    for j in range(len(starts)):
        four = np.int32(rounded[4 * j]) + np.int32(rounded[4 * j + 1])
        starts[j] = np.int32(-zero) * (four + np.int32(rounded[4 * j + 2]) + np.int32(rounded[4 * j + 3]))


# ------------------------------------------------------------------------------------------------------------ attention


@njit(cache=True, parallel=True, fastmath=LOOSE)
def _attention(matrix, bits, rows, keys, values, position, count, allowed, queries, scores, found):  # type: ignore[no-untyped-def]
    """What each head finds (R', D) among the first ``count`` keys and values (R', H, S, d).

    Where ``position`` is not negative, ``matrix`` makes keys and values, too, which are written there.
    """
    for head in prange(keys.shape[1]):
        _head(np.int64(head), matrix, bits, rows, keys, values, position, count, allowed, queries, scores, found)


@njit(cache=True, fastmath=LOOSE)
def _head(head, matrix, bits, rows, keys, values, position, count, allowed, queries, scores, found):  # type: ignore[no-untyped-def]
    n_rows, size, width = len(keys), keys.shape[3], queries.shape[1]
    begin, end = head * size, head * size + size
    for channel in range(begin, end):
        for first in range(0, n_rows, 2):
            second, j = min(first + 1, n_rows - 1), channel - begin
            query = _dots(matrix, bits, channel, rows, first, second)
            queries[first, channel], queries[second, channel] = query
            if position >= 0:
                key = _dots(matrix, bits, width + channel, rows, first, second)
                value = _dots(matrix, bits, 2 * width + channel, rows, first, second)
                keys[first, head, position, j], keys[second, head, position, j] = key
                values[first, head, position, j], values[second, head, position, j] = value
    for r in range(n_rows):
        may = allowed[r, :count] if len(allowed) > 0 else allowed[0:0].ravel()
        query, out = queries[r, begin:end], found[r, begin:end]
        _attend(query, keys[r, head, :count], values[r, head, :count], may, scores[r, head], out)


@njit(cache=True, fastmath=LOOSE)
def _attend(query, keys, values, allowed, scores, out):  # type: ignore[no-untyped-def]
    """One query (d,) over keys and values (n, d), of which ``allowed`` (n,); an empty one means all."""
    factor = np.float32(1) / np.sqrt(np.float32(len(query)))
    count, some = len(keys), len(allowed) > 0
    largest = np.float32(-3e38)
    for t in range(count):
        score = np.float32(0)
        key = keys[t]
        for i in range(len(query)):
            score += query[i] * key[i]
        scores[t] = score * factor
        if not some or allowed[t]:
            largest = max(largest, scores[t])
    total = np.float32(0)
    for t in range(count):
        scores[t] = math.exp(scores[t] - largest) if not some or allowed[t] else np.float32(0)
        total += scores[t]
    for i in range(len(out)):
        out[i] = 0
    for t in range(count):
        weight, value = scores[t] / total, values[t]
        for i in range(len(out)):
            out[i] += weight * value[i]


# ------------------------------------------------------------------------------------------------------------ the layer


@njit(cache=True, fastmath=LOOSE)
def _normalise(values, norm, out):  # type: ignore[no-untyped-def]
    """LayerNorm of the first rows, as many as ``out`` (R', D) has."""
    width = np.float32(values.shape[1])
    for r in range(len(out)):
        row = values[r]
        total = np.float32(0)
        for i in range(len(row)):
            total += row[i]
        mean = total / width
        squares = np.float32(0)
        for i in range(len(row)):
            squares += (row[i] - mean) * (row[i] - mean)
        factor = np.float32(1) / np.sqrt(squares / width + norm.epsilon)
        for i in range(len(row)):
            out[r, i] = (row[i] - mean) * factor * norm.weight[i] + norm.bias[i]


@njit(cache=True, fastmath=LOOSE)
def layer_step(hidden, layer, bits, keys, values, position, memory, scratch):  # type: ignore[no-untyped-def]
    """One layer of one step, in place.

    Args:
        hidden: (R, D), read and added to.
        layer: :class:`LayerWeights`.
        bits: of its matrices.
        keys: (R, H, S, d), of which this step's are written.
        values: likewise.
        position: of this step in the cache.
        memory: :class:`Memory`.
        scratch: :class:`Scratch`.
    """
    normed, narrow, queries, scores, found, inner, wide = scratch
    everything = np.empty((0, 0), np.bool_)
    _normalise(hidden, layer.norm1, normed)
    take(normed, bits, narrow)
    matrix, count = layer.queries_keys_values, position + 1
    _attention(matrix, bits, narrow, keys, values, position, count, everything, queries, scores, found)
    take(found, bits, narrow)
    product(layer.out, bits, narrow, hidden, ADD)

    told, tokens = memory.allowed.shape
    if told > 0:
        _normalise(hidden, layer.norm_cross, normed[:told])
        take(normed[:told], bits, narrow)
        matrix, allowed = layer.cross_queries, memory.allowed
        _attention(matrix, bits, narrow, memory.keys, memory.values, NOWHERE, tokens, allowed, queries, scores, found)
        take(found[:told], bits, narrow)
        product(layer.cross_out, bits, narrow, hidden[:told], ADD)

    _normalise(hidden, layer.norm2, normed)
    take(normed, bits, narrow)
    product(layer.linear1, bits, narrow, inner, WRITE_GELU)
    take(inner, bits, wide)
    product(layer.linear2, bits, wide, hidden, ADD)


@njit(cache=True, fastmath=LOOSE)
def read_out(hidden, norm, bits, normed, rows):  # type: ignore[no-untyped-def]
    """The last norm of (R, D), ready for the heads."""
    _normalise(hidden, norm, normed)
    take(normed, bits, rows)
