"""One step of the token language model over packed weights, by several threads, compiled by numba.

A step is bound by reading the weights, so each row of a weight matrix is read once for two rows of the batch, and what
lies between two products (norm, attention, GELU, the rounding of activations) is done in scratch memory that is
reserved once. Results of a row depend neither on the other rows nor on the number of threads.

All threads run :func:`step` at the same time, from its beginning to its end. They share out the outputs of a matrix, or
the heads of an attention, by drawing tickets for the next few of them, and wait for one another before anybody reads
what all have written: spinning, since a wait is some microseconds, but giving way to others after a while. numba's own
parallel loops wake threads for each loop, of which a step has hundreds, and took longer than one thread alone. Norms
and rounding are so little work that each thread does all of it for itself, instead of waiting once more.

:mod:`.quantized` makes the arrays and is the only importer: importing numba takes a second. Which bits
the weights have is told while it runs, so that there is one form of everything to compile, some seconds the first time;
numba keeps it on disk then.

Rounded weights meet activations that are rounded to 13 bits, with a scale for each row: products are sums of whole
numbers of 16 bits, of which AVX2 makes two each lane at once, and their error is next to none beside that of the
weights. Weights of 8 bits are stored without sign, 128 in place of 0, which the sum begins by taking away. Their keys
and values lie in the cache as bfloat16, the upper halves of 32-bit numbers: all of them are read in each step, and
after ten seconds they would be as much as weights of 4 bits.

Shapes: R rows, D width, H heads, d = D / H, F width of the feed-forward, S room of the cache, L tokens of a memory, N
layers, K codebooks, V codes, O outputs and I inputs of a matrix, I' inputs filled up with zeros to a multiple of 64, G
= I' / 64 runs. Bits are 32, 8 or 4.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

RUN = 64
"""Inputs that share a scale of 4-bit weights."""
AHEAD = 2048
"""Bytes by which weights are fetched before they are needed: sums this cheap would wait for memory otherwise."""
MOST = 4095
"""Largest activation; the sum of 4096 products with bytes has room in 32 bits, and longer rows take less."""
TICKET = 32
"""Outputs that a thread takes at a time."""
SPINS = 20_000
"""Looks at what others have done, before a thread gives way: long enough for all waits on a quiet machine."""
PHASES = 6
"""Of a layer: parts between which threads wait for one another. The heads are one more."""
WRITE, ADD, WRITE_GELU = np.int64(0), np.int64(1), np.int64(2)
"""What becomes of a product. numba would compile one form for each plain integer."""
NOWHERE = np.int64(-1)

LOOSE = {"reassoc", "contract", "arcp", "nsz", "nnan"}  # sums in any order
Array = np.ndarray[Any, np.dtype[Any]]


QUERIES_KEYS_VALUES, OUT, CROSS_QUERIES, CROSS_OUT, LINEAR1, LINEAR2 = range(6)
"""Matrices of a layer, of 3 D, D, D, D, F and D outputs; keys and values of the memory are known before."""


class Packed(NamedTuple):
    """Where the weights of a model lie, which is in the memory of :class:`.quantized.PackedModel`."""

    bits: np.int64
    layers: Array  # (N, 6, 2) int64: of each matrix of a layer the addresses of weights and scales
    heads: Array  # (K, 2) int64
    norms: Array  # (3 N + 1, 2, D) float32: weight and bias, the last one before the heads
    epsilons: Array  # (3 N + 1,) float32


class Rows(NamedTuple):
    """What goes into a product: in 32 bits as it is, or else rounded; zeros behind the end."""

    floats: Array  # (R, I) float32
    rounded: Array  # (R, I') int16
    scales: Array  # (R,) float32
    starts: Array  # (R,) int32: minus 128, which stands for 0 in weights of 8 bits, times the sum of a row


class Where(NamedTuple):
    """Addresses of :class:`Rows`, I' and I."""

    floats: int
    rounded: int
    scales: int
    starts: int
    filled: int
    inputs: int


class Memory(NamedTuple):
    """Keys and values of cross-attention for the first rows of the batch, as many as there are."""

    keys_values: Array  # (N, 2, R', H, L, d)
    allowed: Array  # (R', L) bool


class Shared(NamedTuple):
    """What threads write for one another in a step."""

    hidden: Array  # (R, D): the input, and then what each layer makes of it
    queries: Array  # (R, D)
    found: Array  # (R, D)
    inner: Array  # (R, F)
    logits: Array  # (K, R, V)
    done: Array  # (6 N + 2, 2) int64: tickets drawn and threads arrived in each phase; the last row stops all waiting


class Own(NamedTuple):
    """What a thread writes for itself."""

    normed: Array  # (R, D)
    fresh: Array  # (R, d), keys or values of a head before they go into the cache
    narrow: Rows  # of D inputs
    wide: Rows  # of F inputs
    scores: Array  # (max(S, L),)


# ------------------------------------------------------------------------------------------------------------- threads


@intrinsic
def _draw(typing_context, counts, phase, column):  # type: ignore[no-untyped-def]
    """Count one more in ``counts`` (phases, 2), and say how many there were before; whole for all threads."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = _counter(context, builder, signature, arguments)
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(counts, types.int64, types.int64), generate


@intrinsic
def _look(typing_context, counts, phase, column):  # type: ignore[no-untyped-def]
    """What another thread may have counted in ``counts`` meanwhile."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_counter(context, builder, signature, arguments), "seq_cst", 8)

    return types.int64(counts, types.int64, types.int64), generate


def _counter(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    counts, phase, column = arguments
    place = builder.add(builder.shl(phase, ir.Constant(phase.type, 1)), column)
    return builder.gep(context.make_array(signature.args[0])(context, builder, counts).data, [place])


@intrinsic
def _give_way(typing_context):  # type: ignore[no-untyped-def]
    """Let another thread have this processor."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if "windows" not in builder.module.triple:
            function_type = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, function_type, "sched_yield"), [])
        return context.get_dummy_value()

    return types.none(), generate


@njit(cache=True, nogil=True)
def _meet(done, phase, n_threads):  # type: ignore[no-untyped-def]
    """Wait until all threads have come to the end of a phase."""
    _draw(done, phase, np.int64(1))
    spins, stop = 0, np.int64(len(done) - 1)
    while _look(done, phase, np.int64(1)) < n_threads and _look(done, stop, np.int64(0)) == 0:
        spins += 1
        if spins > SPINS:
            _give_way()


# -------------------------------------------------------------------------------------------- products of whole numbers


def _splat(kind: Any, count: int, value: int) -> Any:
    """A constant vector of one number."""
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def _pairs(builder: Any, weights: Any, values: Any, *, avx2: bool) -> Any:
    """<16 x i16> times <16 x i16>, each two products added: <8 x i32>."""
    lanes = ir.VectorType(ir.IntType(32), 8)
    if avx2:
        signature = ir.FunctionType(lanes, [weights.type, values.type])
        multiply = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx2.pmadd.wd")
        return builder.call(multiply, [weights, values])
    wide = ir.VectorType(ir.IntType(32), 16)
    products = builder.mul(builder.sext(weights, wide), builder.sext(values, wide))
    halves = (ir.Constant(lanes, list(range(first, first + 8))) for first in (0, 8))
    return builder.add(*(builder.shuffle_vector(products, products, half) for half in halves))


@intrinsic
def _two_dots(typing_context, matrix, taken, bits, output, first, second):  # type: ignore[no-untyped-def]
    """An output of a matrix of 8 or 4 bits for two of the rows."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        avx2 = "+avx2" in context.codegen().magic_tuple()[2]
        single, byte, short, integer = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)
        bytes_, shorts, singles = (ir.VectorType(kind, n) for kind, n in ((byte, 16), (short, 16), (single, 8)))
        (weights, scales), taken = (cgutils.unpack_tuple(builder, each) for each in arguments[:2])
        bits, output, *rows = arguments[2:]
        inputs, size = taken[4], taken[4].type

        def constant(number: int) -> Any:
            return ir.Constant(size, number)

        def at(base: Any, kind: Any, *offset: Any, align: int = 1) -> Any:
            """What lies so many bytes behind an address."""
            for each in offset:
                base = builder.add(base, each)
            return builder.load(builder.inttoptr(base, ir.PointerType(kind)), align=align)

        def times(number: Any, factor: int) -> Any:
            return builder.mul(number, constant(factor))

        prefetch_type = ir.FunctionType(ir.VoidType(), [ir.PointerType(byte), integer, integer, integer])
        prefetch = cgutils.get_or_insert_function(builder.module, prefetch_type, "llvm.prefetch.p0i8")
        starts_of_rows = [builder.add(taken[1], times(builder.mul(row, inputs), 2)) for row in rows]
        runs = builder.lshr(inputs, constant(6))
        in_bytes = builder.icmp_signed("==", bits, ir.Constant(bits.type, 8))
        row_bytes = builder.select(in_bytes, inputs, builder.lshr(inputs, constant(1)))
        begin = builder.add(weights, builder.mul(output, row_bytes))
        results = [cgutils.alloca_once_value(builder, ir.Constant(single, 0.0)) for _ in rows]

        def sum_of_run(run: Any, parts: list[Any], row: Any) -> Any:
            """<8 x i32> of 64 inputs, of which ``parts`` are the weights."""
            values = [at(row, shorts, times(run, 2 * RUN), constant(32 * i)) for i in range(4)]
            one, two, three, four = (_pairs(builder, *each, avx2=avx2) for each in zip(parts, values, strict=True))
            return builder.add(builder.add(one, two), builder.add(three, four))

        def fetch_ahead(place: Any) -> None:
            ahead = builder.inttoptr(builder.add(place, constant(AHEAD)), ir.PointerType(byte))
            builder.call(prefetch, [ahead, *(ir.Constant(integer, how) for how in (0, 3, 1))])

        def reduced(kind: str, of: str, vector: Any, *start: Any) -> Any:
            reduce_type = ir.FunctionType(vector.type.element, [*(each.type for each in start), vector.type])
            name = f"llvm.vector.reduce.{kind}.v8{of}"
            function = cgutils.get_or_insert_function(builder.module, reduce_type, name)
            return builder.call(function, [*start, vector], fastmath=("reassoc",) if start else ())

        with builder.if_else(in_bytes) as (of_bytes, of_nibbles):
            with of_bytes:
                sums = [cgutils.alloca_once_value(builder, _splat(integer, 8, 0)) for _ in rows]
                with cgutils.for_range(builder, runs) as loop:
                    place = builder.add(begin, times(loop.index, RUN))
                    fetch_ahead(place)
                    parts = [builder.zext(at(place, bytes_, constant(16 * i)), shorts) for i in range(4)]
                    for row, total in zip(starts_of_rows, sums, strict=True):
                        found = sum_of_run(loop.index, parts, row)
                        builder.store(builder.add(builder.load(total), found), total)
                scale = at(scales, single, times(output, 4), align=4)
                for row, total, result in zip(rows, sums, results, strict=True):
                    start = at(taken[3], integer, times(row, 4), align=4)
                    whole = builder.sitofp(builder.add(start, reduced("add", "i32", builder.load(total))), single)
                    builder.store(builder.fmul(whole, scale), result)
            with of_nibbles:
                totals = [cgutils.alloca_once_value(builder, ir.Constant(singles, [0.0] * 8)) for _ in rows]
                scales_begin = builder.add(scales, times(builder.mul(output, runs), 4))
                with cgutils.for_range(builder, runs) as loop:
                    place = builder.add(begin, times(loop.index, RUN // 2))
                    fetch_ahead(place)
                    fours, top = at(place, shorts), _splat(short, 16, 12)
                    parts = [builder.ashr(builder.shl(fours, _splat(short, 16, 12 - 4 * i)), top) for i in range(4)]
                    scale = at(scales_begin, single, times(loop.index, 4), align=4)
                    one = builder.insert_element(ir.Constant(singles, ir.Undefined), scale, ir.Constant(integer, 0))
                    everywhere = builder.shuffle_vector(one, one, _splat(integer, 8, 0))
                    for row, total in zip(starts_of_rows, totals, strict=True):
                        found = builder.sitofp(sum_of_run(loop.index, parts, row), singles)
                        part = builder.fmul(found, everywhere, flags=("contract",))
                        builder.store(builder.fadd(builder.load(total), part, flags=("contract",)), total)
                for total, result in zip(totals, results, strict=True):
                    builder.store(reduced("fadd", "f32", builder.load(total), ir.Constant(single, 0.0)), result)

        found = [
            builder.fmul(builder.load(result), at(taken[2], single, times(row, 4), align=4))
            for row, result in zip(rows, results, strict=True)
        ]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.float32, 2)(matrix, taken, *[types.intp] * 4), generate


# ------------------------------------------------------------------------------------------------------------- products


@intrinsic
def _floats_at(typing_context, address):  # type: ignore[no-untyped-def]
    """A pointer to 32-bit weights."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _where(rows):  # type: ignore[no-untyped-def]
    """Addresses, which unlike arrays cost nothing to pass on; an array of them is counted in and out each time."""
    data = (rows.floats.ctypes.data, rows.rounded.ctypes.data, rows.scales.ctypes.data, rows.starts.ctypes.data)
    return Where(*data, rows.rounded.shape[1], rows.floats.shape[1])


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _dots(matrix, bits, output, taken, first, second):  # type: ignore[no-untyped-def]
    """One output of a matrix, given by its addresses, for two of the rows."""
    if bits < 32:
        return _two_dots(matrix, taken, bits, output, first, second)
    inputs = taken.inputs
    row = carray(_floats_at(matrix[0] + 4 * output * inputs), inputs)
    a = carray(_floats_at(taken.floats + 4 * first * inputs), inputs)
    b = carray(_floats_at(taken.floats + 4 * second * inputs), inputs)
    one = two = np.float32(0)
    for i in range(inputs):
        one += row[i] * a[i]
        two += row[i] * b[i]
    return one, two


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def product(matrix, bits, rows, out, how, done, phase, n_threads):  # type: ignore[no-untyped-def]
    """Rows of I inputs -> ``out`` (R, O), as ``how`` says; this thread's share of it."""
    outputs, taken, pair = out.shape[1], _where(rows), (matrix[0], matrix[1])
    begin = _draw(done, phase, np.int64(0)) * TICKET
    while begin < outputs:
        end = min(begin + TICKET, outputs)
        _outputs(pair, bits, begin, end - begin, taken, out, begin, how)
        begin = _draw(done, phase, np.int64(0)) * TICKET
    _meet(done, phase, n_threads)


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _outputs(matrix, bits, output, count, taken, out, column, how):  # type: ignore[no-untyped-def]
    """Some outputs of all rows, to columns of ``out``."""
    for first in range(0, len(out), 2):
        second = min(first + 1, len(out) - 1)
        for i in range(count):
            one, two = _dots(matrix, bits, output + i, taken, first, second)
            if how == ADD:
                one, two = one + out[first, column + i], two + out[second, column + i]
            out[first, column + i], out[second, column + i] = one, two
    if how == WRITE_GELU:
        for r in range(len(out)):
            some = out[r, column : column + count]
            for i in range(len(some)):
                some[i] = _gelu(some[i])


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _gelu(value):  # type: ignore[no-untyped-def]
    """The exact one, by a formula for erf that is a few products (Abramowitz & Stegun 7.1.28, off by 3e-7 at most)."""
    x = abs(value) * np.float32(0.7071067811865476)
    rest = np.float32(0.0000430638)
    for coefficient in (0.0002765672, 0.0001520143, 0.0092705272, 0.0422820123, 0.0705230784, 1.0):
        rest = rest * x + np.float32(coefficient)
    rest *= rest
    rest *= rest
    rest *= rest
    rest *= rest
    tail = np.float32(0.5) / rest  # of the normal distribution
    return value * (tail if value < 0 else np.float32(1) - tail)


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def take(values, bits, rows):  # type: ignore[no-untyped-def]
    """Get activations (R, I) ready for products with weights of so many bits."""
    n_inputs = values.shape[1]
    for r in range(len(values)):
        row = values[r]
        if bits == 32:
            rows.floats[r] = row
            continue
        largest = np.float32(0)
        for i in range(n_inputs):
            largest = max(largest, abs(row[i]))
        most = np.float32(min(MOST, (2**31 - 1) // (127 * rows.rounded.shape[1])))
        factor = most / max(largest, np.float32(1e-30))
        total, rounded = np.int32(0), rows.rounded[r]
        for i in range(n_inputs):
            rounded[i] = np.int16(np.rint(row[i] * factor))
        for i in range(n_inputs):
            total += rounded[i]
        rows.scales[r] = largest / most
        rows.starts[r] = -128 * total


# ------------------------------------------------------------------------------------------------------------ attention


def _wide(number):  # type: ignore[no-untyped-def]
    """A number of a cache, of either kind, in 32 bits."""


@overload(_wide, inline="always")
def _wide_of(number):  # type: ignore[no-untyped-def]
    if isinstance(number, types.Float):
        return lambda number: number
    return lambda number: np.int32(np.int32(number) << np.int32(16)).view(np.float32)


def _keep(numbers, place):  # type: ignore[no-untyped-def]
    """Numbers (R, d) into a cache of either kind; bfloat16 is the nearest, and the even one of two."""


@overload(_keep)
def _keep_as(numbers, place):  # type: ignore[no-untyped-def]
    if isinstance(place.dtype, types.Float):

        def keep(numbers, place):  # type: ignore[no-untyped-def]
            place[:] = numbers

        return keep

    def rounded(numbers, place):  # type: ignore[no-untyped-def]
        for r in range(numbers.shape[0]):
            for i in range(numbers.shape[1]):
                whole = np.float32(numbers[r, i]).view(np.int32)
                place[r, i] = np.int16((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16)

    return rounded


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _attention(matrix, bits, rows, keys, values, position, count, allowed, shared, own, phase, n_threads):  # type: ignore[no-untyped-def]
    """What each head finds (R', D) among the first ``count`` keys and values (R', H, S, d); this thread's share.

    Where ``position`` is not negative, ``matrix`` makes keys and values, too, which are written there.
    """
    heads, taken, pair = keys.shape[1], _where(rows), (matrix[0], matrix[1])
    head = _draw(shared.done, phase, np.int64(0))
    while head < heads:
        _head(head, pair, bits, taken, keys, values, position, count, allowed, shared, own)
        head = _draw(shared.done, phase, np.int64(0))
    _meet(shared.done, phase, n_threads)


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _head(head, matrix, bits, taken, keys, values, position, count, allowed, shared, own):  # type: ignore[no-untyped-def]
    queries, found, fresh = shared.queries, shared.found, own.fresh
    n_rows, size, width = len(keys), keys.shape[3], queries.shape[1]
    begin, end = head * size, head * size + size
    _outputs(matrix, bits, begin, size, taken, queries[:n_rows], begin, WRITE)
    if position >= 0:
        _outputs(matrix, bits, width + begin, size, taken, fresh, np.int64(0), WRITE)
        _keep(fresh, keys[:, head, position])
        _outputs(matrix, bits, 2 * width + begin, size, taken, fresh, np.int64(0), WRITE)
        _keep(fresh, values[:, head, position])
    for r in range(n_rows):
        may = allowed[r, :count] if len(allowed) > 0 else allowed[0:0].ravel()
        query, out = queries[r, begin:end], found[r, begin:end]
        _attend(query, keys[r, head, :count], values[r, head, :count], may, own.scores, out)


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _attend(query, keys, values, allowed, scores, out):  # type: ignore[no-untyped-def]
    """One query (d,) over keys and values (n, d), of which ``allowed`` (n,); an empty one means all."""
    factor = np.float32(1) / np.sqrt(np.float32(len(query)))
    count, some = len(keys), len(allowed) > 0
    largest = np.float32(-3e38)
    for t in range(count):
        score = np.float32(0)
        key = keys[t]
        for i in range(len(query)):
            score += query[i] * _wide(key[i])
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
            out[i] += weight * _wide(value[i])


# ------------------------------------------------------------------------------------------------------------- the step


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def _normalise(values, norm, epsilon, out):  # type: ignore[no-untyped-def]
    """LayerNorm, weight and bias (2, D), of the first rows, as many as ``out`` (R', D) has."""
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
        factor = np.float32(1) / np.sqrt(squares / width + epsilon)
        for i in range(len(row)):
            out[r, i] = (row[i] - mean) * factor * norm[0, i] + norm[1, i]


@njit(cache=True, nogil=True, fastmath=LOOSE, error_model="numpy")
def step(packed, cache, position, memory, shared, own, n_threads):  # type: ignore[no-untyped-def]
    """One step, of ``shared.hidden`` to ``shared.logits``; this thread's share.

    Args:
        packed: :class:`Packed`.
        cache: (N, 2, R, H, S, d) keys and values, of which this step's are written; float32, or int16 that holds the
            bits of bfloat16.
        position: of this step in the cache.
        memory: :class:`Memory`.
        shared: :class:`Shared`, the same for all threads; ``done`` is 0.
        own: :class:`Own`, of this thread.
        n_threads: how many run this at the same time, each to its end.
    """
    hidden, _, found, inner, logits, done = shared
    bits, n_layers = packed.bits, len(packed.layers)
    normed, _, narrow, wide, _ = own
    everything = np.empty((0, 0), np.bool_)
    told, tokens = memory.allowed.shape
    for i in range(n_layers):
        layer, norms, epsilons = packed.layers[i], packed.norms[3 * i : 3 * i + 3], packed.epsilons[3 * i : 3 * i + 3]
        phase = np.int64(PHASES * i)
        _normalise(hidden, norms[0], epsilons[0], normed)
        take(normed, bits, narrow)
        matrix, keys, values = layer[QUERIES_KEYS_VALUES], cache[i, 0], cache[i, 1]
        _attention(
            matrix, bits, narrow, keys, values, position, position + 1, everything, shared, own, phase, n_threads
        )
        take(found, bits, narrow)
        product(layer[OUT], bits, narrow, hidden, ADD, done, phase + 1, n_threads)

        if told > 0:
            _normalise(hidden, norms[1], epsilons[1], normed[:told])
            take(normed[:told], bits, narrow)
            matrix, keys, values = layer[CROSS_QUERIES], memory.keys_values[i, 0], memory.keys_values[i, 1]
            _attention(
                *(matrix, bits, narrow, keys, values, NOWHERE, tokens, memory.allowed),
                *(shared, own, phase + 2, n_threads),
            )
            take(found[:told], bits, narrow)
            product(layer[CROSS_OUT], bits, narrow, hidden[:told], ADD, done, phase + 3, n_threads)

        _normalise(hidden, norms[2], epsilons[2], normed)
        take(normed, bits, narrow)
        product(layer[LINEAR1], bits, narrow, inner, WRITE_GELU, done, phase + 4, n_threads)
        take(inner, bits, wide)
        product(layer[LINEAR2], bits, wide, hidden, ADD, done, phase + 5, n_threads)

    _normalise(hidden, packed.norms[3 * n_layers], packed.epsilons[3 * n_layers], normed)
    take(normed, bits, narrow)
    taken, phase = _where(narrow), np.int64(PHASES * n_layers)
    n_codebooks, tickets = len(logits), -(-logits.shape[2] // TICKET)
    ticket = _draw(done, phase, np.int64(0))
    while ticket < n_codebooks * tickets:
        codebook, begin = ticket // tickets, ticket % tickets * TICKET
        count, pair = min(TICKET, logits.shape[2] - begin), (packed.heads[codebook, 0], packed.heads[codebook, 1])
        _outputs(pair, bits, begin, count, taken, logits[codebook], begin, WRITE)
        ticket = _draw(done, phase, np.int64(0))
    _meet(done, phase, n_threads)
