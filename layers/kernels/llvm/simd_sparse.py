"""What sparse products take: how many numbers of a row are large, and sums of some rows of a
matrix.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from layers.kernels.jit import inlined
from layers.kernels.machine import VECTOR_BYTES

from .emitter import Emitter
from .memory import address_of
from .simd_rows import RowEmitter

# Vectors of a row that are summed side by side, the first number of them that the row has.
WIDTHS = (8, 4, 2, 1)


@intrinsic
def number_of_bits(typingctx: Any, like: Any, bits: Any) -> Any:
    """Return the number of an array's real type that has these bits, the lowest of an integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        word = builder.trunc(arguments[1], ir.IntType(8 * emit.size))
        return builder.bitcast(word, emit.element)

    return like.dtype(like, types.int64), generate


@intrinsic
def _count_from(typingctx: Any, like: Any, x: Any, n: Any, least: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, x, n, least = arguments
        least, word = emit.splat(least), ir.IntType(emit.lanes)

        def body(at: Any, mask: Any, sums: list[Any]) -> list[Any]:
            pointer = emit.offset(emit.pointer(x), at)
            some = emit.load(pointer) if mask is None else emit.masked_load(pointer, mask)
            found = builder.fcmp_ordered(">=", some, least)
            if mask is not None:
                found = builder.and_(found, mask)
            count = emit.call(f"llvm.ctpop.i{emit.lanes}", word, builder.bitcast(found, word))
            return [builder.add(sums[0], builder.zext(count, emit.int64))]

        (a, b, c, d), *_ = emit.over_row(n, 1, emit.integer(0), body)
        return builder.add(builder.add(a, b), builder.add(c, d))

    return types.int64(like, types.intp, types.intp, like.dtype), generate


@intrinsic
def _row_chain(
    typingctx: Any,
    like: Any,
    to: Any,
    n: Any,
    factors: Any,
    source: Any,
    source_row: Any,
    places: Any,
    count: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, to, n, factors, source, source_row, places, count = arguments
        start = [emit.pointer(factors), emit.pointer(places)]

        def chain(of: Any, width: int, mask: Any = None) -> list[Any]:
            """Return the sums of so many vectors of the rows, from an address on."""

            def entry(_: Any, carried: list[Any]) -> list[Any]:
                factor, place, *sums = carried
                row = builder.sext(builder.load(place, typ=ir.IntType(32)), emit.int64)
                pointer = emit.offset(of, builder.mul(row, source_row))
                by = emit.broadcast(factor)
                for v in range(width):
                    at = emit.offset(pointer, v * VECTOR_BYTES)
                    x = emit.load(at) if mask is None else emit.masked_load(at, mask)
                    sums[v] = emit.multiply_add(by, x, sums[v])
                return [emit.offset(factor, emit.size), emit.offset(place, 4), *sums]

            return emit.loop(count, [*start, *[emit.zero] * width], entry)[2:]

        undone: Any = n
        for width in WIDTHS:
            whole = emit.integer(width * emit.lanes)
            fits = builder.icmp_signed(">=", undone, whole)
            blocks = builder.sdiv(builder.add(n, builder.sub(whole, emit.integer(1))), whole)

            def block(i: Any, _: list[Any], width: int = width, whole: Any = whole) -> list[Any]:
                # The last block overlaps the one before it: what both write is the same.
                first, last = builder.mul(i, whole), builder.sub(n, whole)
                first = builder.select(builder.icmp_signed("<", first, last), first, last)
                at = builder.mul(first, emit.integer(emit.size))
                for v, x in enumerate(chain(emit.offset(emit.pointer(source), at), width)):
                    place = emit.offset(emit.pointer(to), at)
                    emit.store(x, emit.offset(place, v * VECTOR_BYTES))
                return []

            emit.loop(builder.select(fits, blocks, emit.integer(0)), [], block)
            undone = builder.select(fits, emit.integer(0), undone)
        with builder.if_then(builder.icmp_signed("!=", undone, emit.integer(0))):
            sums = chain(emit.pointer(source), 1, emit.first_lanes(undone))
            emit.store_first(sums, [emit.pointer(to)], undone)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 7)), generate


@inlined
def count_from(x, least):
    """Return how many of x (n,) are at least so large; NaN is not."""
    return _count_from(x, address_of(x), x.size, least)


@inlined
def row_chain(to, factors, source, places):
    """Write the sum of factors[e] source[places[e]] to a row, one chain from zero; to (n,), factors
    and places (E,), which is int32, source (M, n).
    """
    _row_chain(
        to,
        address_of(to),
        to.size,
        address_of(factors),
        address_of(source),
        source.strides[0],
        address_of(places),
        places.size,
    )
