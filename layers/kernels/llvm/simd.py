"""Microkernels of matrices: LLVM IR emitted at compile time, specialised on element type and tile
size.

Everything else in `layers.kernels` is plain Numba. An intrinsic here receives addresses and byte
strides; its first argument is an array that only tells the element type, and literal integers
choose the tile.
"""

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from layers.kernels.machine import CACHE_LINE, REGISTERS, VECTOR_BYTES

from .emitter import Emitter

# A tile of ROWS x VECTORS accumulators, VECTORS loads of b and one broadcast of a fill the
# registers without spilling: 4 x 3 of 16 registers, 8 x 3 of 32.
TILE_ROWS = 8 if REGISTERS == 32 else 4
TILE_VECTORS = 3


def finish_tile(
    emit: Emitter,
    sums: list[Any],
    shape: tuple[int, int],
    c: Any,
    c_row: Any,
    lanes: Any,
    bias: Any,
    accumulate: Any,
) -> None:
    """Emit the end of a tile of c: its sums, plus what is there if `accumulate`, plus the bias if
    that is not 0, are stored; of the last vector of each row only the first `lanes`.
    """
    builder = emit.builder
    height, width = shape
    mask = emit.first_lanes(lanes)

    def load(pointer: Any, v: int) -> Any:
        return emit.load(pointer) if v < width - 1 else emit.masked_load(pointer, mask)

    def added(pointer: Callable[[int, int], Any]) -> Callable[[list[Any]], list[Any]]:
        return lambda old: [
            builder.fadd(old[i * width + v], load(pointer(i, v), v))
            for i in range(height)
            for v in range(width)
        ]

    row_pointers = [emit.pointer(c)]
    for _ in range(1, height):
        row_pointers.append(emit.offset(row_pointers[-1], c_row))
    bias_pointer = emit.pointer(bias)
    sums = emit.changed_if(
        accumulate, sums, added(lambda i, v: emit.offset(row_pointers[i], v * VECTOR_BYTES))
    )
    sums = emit.changed_if(
        bias, sums, added(lambda i, v: emit.offset(bias_pointer, v * VECTOR_BYTES))
    )
    last = []
    for i in range(height):
        for v in range(width):
            pointer = emit.offset(row_pointers[i], v * VECTOR_BYTES)
            if v < width - 1:
                emit.store(sums[i * width + v], pointer)
            else:
                last.append((sums[i * width + v], pointer))
    with builder.if_else(builder.icmp_signed("==", lanes, emit.integer(emit.lanes))) as (
        whole,
        partial,
    ):
        with whole:
            for value, pointer in last:
                emit.store(value, pointer)
        with partial:
            emit.store_first([value for value, _ in last], [pointer for _, pointer in last], lanes)


def inner_step(
    emit: Emitter, a_row: Any, a_k: Any, shape: tuple[int, int]
) -> Callable[[Any, list[Any]], list[Any]]:
    """Return what emits a step along the inner index, as the body of a loop that carries the
    addresses in a and in the panel of b, and the sums of a tile of this shape (rows, vectors).
    """
    height, width = shape
    row_offsets = emit.multiples(a_row, height)

    def step(_: Any, carried: list[Any]) -> list[Any]:
        a_now, b_now, *sums = carried
        panel = [emit.load(emit.offset(b_now, v * VECTOR_BYTES)) for v in range(width)]
        new = []
        for i in range(height):
            x = emit.broadcast(emit.offset(a_now, row_offsets[i]) if i else a_now)
            new += [emit.multiply_add(x, panel[v], sums[i * width + v]) for v in range(width)]
        return [emit.offset(a_now, a_k), emit.offset(b_now, width * VECTOR_BYTES), *new]

    return step


@intrinsic(prefer_literal=True)
def tile_product(
    typingctx: Any,
    like: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_row: Any,
    a_k: Any,
    b: Any,
    k: Any,
    lanes: Any,
    bias: Any,
    accumulate: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """Multiply a (rows, k) tile of a by a packed (k, vectors) panel of b into a (rows, vectors)
    tile of c.

    c[i, j] = (c[i, j] if accumulate) + sum_k a[i, k] b[k, j] + (bias[j] if bias)

    Each sum is one chain of multiply-adds over k from zero, so an element's bits depend on its row
    of a, its column of b and k alone. Addresses and strides are in bytes; a bias of 0 means none;
    of the last vector only the first `lanes` are stored.
    """
    integers = (c, c_row, a, a_row, a_k, b, k, lanes, bias, accumulate)
    signature = types.void(like, *([types.intp] * len(integers)), rows, vectors)
    height, width = rows.literal_value, vectors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, c, c_row, a, a_row, a_k, b, k, lanes, bias, accumulate, *_ = arguments
        body = inner_step(emit, a_row, a_k, (height, width))

        # The rows of c are asked for one by one while the sums run: all at once they would hold up
        # the loads of b.
        share = builder.sdiv(k, emit.integer(height))

        def part(r: Any, carried: list[Any]) -> list[Any]:
            prefetched, *carried = carried
            for at in range(0, width * VECTOR_BYTES, CACHE_LINE):
                emit.prefetch(emit.offset(prefetched, at))
            last = builder.icmp_signed("==", r, emit.integer(height - 1))
            rest = builder.sub(k, builder.mul(share, emit.integer(height - 1)))
            steps = builder.select(last, rest, share)
            return [emit.offset(prefetched, c_row), *emit.loop(steps, carried, body)]

        start = [emit.pointer(a), emit.pointer(b)] + [emit.zero] * (height * width)
        sums = emit.loop(emit.integer(height), [emit.pointer(c), *start], part)[3:]

        finish_tile(emit, sums, (height, width), c, c_row, lanes, bias, accumulate)
        return context.get_dummy_value()

    return signature, generate


def write_transpose(
    emit: Emitter, out: Any, out_row: Any, source: Any, source_row: Any, rows: Any = None
) -> None:
    """Emit the transpose of a square block of vector-width rows, of which only so many are there
    if that is said: the others are zero.
    """
    builder = emit.builder
    pointer, block = emit.pointer(source), []
    for i in range(emit.lanes):
        row = emit.load(pointer)
        step = source_row
        if rows is not None:
            row = builder.select(builder.icmp_signed("<", emit.integer(i), rows), row, emit.zero)
            step = builder.select(
                builder.icmp_signed("<", emit.integer(i + 1), rows), step, emit.integer(0)
            )
        block.append(row)
        pointer = emit.offset(pointer, step)
    pointer = emit.pointer(out)
    for row in emit.transpose(block):
        emit.store(row, pointer)
        pointer = emit.offset(pointer, out_row)


def _transposition(like: Any, integers: int) -> tuple[Any, Callable[..., Any]]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write_transpose(Emitter(builder, like.dtype), *arguments[1:])
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * integers)), generate


@intrinsic(prefer_literal=True)
def transpose_block(
    typingctx: Any, like: Any, out: Any, out_row: Any, source: Any, source_row: Any
) -> Any:
    """Write the transpose of a square block of vector-width rows: out[j, i] = source[i, j]."""
    return _transposition(like, 4)


@intrinsic(prefer_literal=True)
def transpose_rows(
    typingctx: Any, like: Any, out: Any, out_row: Any, source: Any, source_row: Any, rows: Any
) -> Any:
    """Write the transpose of a square block of which only so many `rows`, one or more, are there:
    the others are zero.
    """
    return _transposition(like, 5)


@intrinsic(prefer_literal=True)
def copy_panel(
    typingctx: Any,
    like: Any,
    out: Any,
    source: Any,
    source_row: Any,
    k: Any,
    lanes: Any,
    vectors: Any,
) -> Any:
    """Write k rows of `vectors` vectors one after the other; of the last vector only `lanes` are
    read, the rest is zero.
    """
    signature = types.void(like, *([types.intp] * 5), vectors)
    width = vectors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, out, source, source_row, k, lanes, _ = arguments

        def copy(mask: Any) -> None:
            def body(_: Any, carried: list[Any]) -> list[Any]:
                to, of = carried
                for v in range(width):
                    where = emit.offset(of, v * VECTOR_BYTES)
                    whole = mask is None or v < width - 1
                    emit.store(
                        emit.load(where) if whole else emit.masked_load(where, mask),
                        emit.offset(to, v * VECTOR_BYTES),
                    )
                return [emit.offset(to, width * VECTOR_BYTES), emit.offset(of, source_row)]

            emit.loop(k, [emit.pointer(out), emit.pointer(source)], body)

        with builder.if_else(builder.icmp_signed("==", lanes, emit.integer(emit.lanes))) as (
            full,
            partial,
        ):
            with full:
                copy(None)
            with partial:
                copy(emit.first_lanes(lanes))
        return context.get_dummy_value()

    return signature, generate
