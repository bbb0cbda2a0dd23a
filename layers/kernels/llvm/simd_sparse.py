"""What sparse products take: how many numbers of a row are large, and sums of some rows of a
matrix.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from layers.kernels.jit import inlined, shared
from layers.kernels.machine import VECTOR_BYTES

from .emitter import Emitter
from .memory import address_of
from .simd_rows import RowEmitter

# Vectors of a row that are summed side by side, for all rows before the next: so what they are made
# of stays in the first-level cache.
SIDE = 8


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
def _row_sums(
    typingctx: Any,
    like: Any,
    to: Any,
    to_row: Any,
    m: Any,
    n: Any,
    factors: Any,
    places: Any,
    begins: Any,
    ends: Any,
    source: Any,
    source_row: Any,
    add: Any,
) -> Any:
    """Do what `row_sums` does for so many columns as SIDE vectors have, or fewer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, to, to_row, m, n, factors, places, begins, ends, source, source_row, add = arguments
        lanes, size, zero = emit.integer(emit.lanes), emit.integer(emit.size), emit.integer(0)

        def number(pointer: Any) -> Any:
            return builder.sext(builder.load(pointer, typ=ir.IntType(32)), emit.int64)

        def rows(width: int, mask: Any = None) -> None:
            """Write the rows of so many vectors each; of one, where there is a mask."""
            # The last vector overlaps the one before it: what both write is the same.
            end = zero if mask is not None else builder.mul(builder.sub(n, lanes), size)

            def vectors(pointer: Any) -> list[Any]:
                at = [*(emit.integer(v * VECTOR_BYTES) for v in range(width - 1)), end]
                return [emit.offset(pointer, each) for each in at]

            def load(at: Any) -> Any:
                return emit.load(at) if mask is None else emit.masked_load(at, mask)

            def entry(_: Any, carried: list[Any]) -> list[Any]:
                factor, place, *sums = carried
                by, row = emit.broadcast(factor), builder.mul(number(place), source_row)
                for v, at in enumerate(vectors(emit.offset(emit.pointer(source), row))):
                    sums[v] = emit.multiply_add(by, load(at), sums[v])
                return [emit.offset(factor, emit.size), emit.offset(place, 4), *sums]

            def row(_: Any, carried: list[Any]) -> list[Any]:
                to, begin, end = carried
                first = number(begin)
                count = builder.sub(number(end), first)
                some = builder.icmp_signed(">", count, zero)
                with builder.if_then(builder.or_(some, builder.icmp_signed("==", add, zero))):
                    start = [
                        emit.offset(emit.pointer(factors), builder.mul(first, size)),
                        emit.offset(emit.pointer(places), builder.mul(first, emit.integer(4))),
                    ]
                    sums = emit.loop(count, [*start, *[emit.zero] * width], entry)[2:]
                    at = vectors(to)

                    def added(sums: list[Any]) -> list[Any]:
                        old = [load(each) for each in at]
                        return [builder.fadd(a, b) for a, b in zip(old, sums, strict=True)]

                    sums = emit.changed_if(add, sums, added)
                    if mask is None:
                        for x, each in zip(sums, at, strict=True):
                            emit.store(x, each)
                    else:
                        emit.store_first(sums, at, n)
                return [emit.offset(to, to_row), emit.offset(begin, 4), emit.offset(end, 4)]

            emit.loop(m, [emit.pointer(each) for each in (to, begins, ends)], row)

        whole = builder.sdiv(builder.add(n, builder.sub(lanes, emit.integer(1))), lanes)
        masked = builder.icmp_signed("<", n, lanes)
        with builder.if_then(masked):
            rows(1, emit.first_lanes(n))
        whole = builder.select(masked, zero, whole)
        for width in range(SIDE, 0, -1):
            with builder.if_then(builder.icmp_signed("==", whole, emit.integer(width))):
                rows(width)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 11)), generate


@inlined
def count_from(x, least):
    """Return how many of x (n,) are at least so large; NaN is not."""
    return _count_from(x, address_of(x), x.size, least)


@shared
def _all_columns(like, to, to_row, m, n, factors, places, begins, ends, source, source_row, add):
    """Do what `row_sums` does."""
    step = SIDE * VECTOR_BYTES // like.itemsize
    for j in range(0, n, step):
        at, some = j * like.itemsize, min(step, n - j)
        _row_sums(
            like,
            to + at,
            to_row,
            m,
            some,
            factors,
            places,
            begins,
            ends,
            source + at,
            source_row,
            add,
        )


@inlined
def row_sums(to, factors, places, begins, ends, source, add):
    """Write to row i of `to` (M, n) the sum of factors[e] source[places[e]], e from begins[i] up to
    ends[i], one chain from zero; or add it, if there are any. All indices are int32.
    """
    _all_columns(
        factors,
        address_of(to),
        to.strides[0],
        to.shape[0],
        to.shape[1],
        address_of(factors),
        address_of(places),
        address_of(begins),
        address_of(ends),
        address_of(source),
        source.strides[0],
        1 if add else 0,
    )
