"""Where arrays lie, and microkernels that move memory without arithmetic of products."""

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from layers.kernels.machine import VECTOR_BYTES

from .emitter import Emitter


@intrinsic
def address_of(typingctx: Any, array: Any) -> Any:
    """Return where an array's first element lies, as a signed integer.

    NumPy's is unsigned: unsigned plus signed is floating, and what is called with both is compiled
    for both.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.int64))

    return types.int64(array), generate


@intrinsic
def fetch_lines(typingctx: Any, like: Any, address: Any, stride: Any, count: Any) -> Any:
    """Ask for `count` cache lines, `stride` bytes apart, to be brought to the second-level
    cache.
    """
    signature = types.void(like, types.intp, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, address, stride, count = arguments

        def fetch(_: Any, carried: list[Any]) -> list[Any]:
            emit.prefetch(carried[0], write=False, near=False)
            return [emit.offset(carried[0], stride)]

        emit.loop(count, [emit.pointer(address)], fetch)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_rows(
    typingctx: Any,
    like: Any,
    out: Any,
    out_row: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    n: Any,
    factors: Any,
) -> Any:
    """Write n elements of each of so many rows, times its factor unless `factors` is 0: out[i, j] =
    factors[i] source[i, j].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, out, out_row, source, source_row, rows, n, factors = arguments
        whole, rest = (
            divide(n, emit.integer(emit.lanes)) for divide in (builder.sdiv, builder.srem)
        )
        zero, mask = emit.integer(0), emit.first_lanes(rest)
        start = [emit.pointer(address) for address in (out, source, factors)]
        with builder.if_else(builder.icmp_signed("!=", factors, zero)) as branches:
            for branch, scaled in zip(branches, (True, False), strict=True):

                def row(_: Any, carried: list[Any], scaled: bool = scaled) -> list[Any]:
                    to, of, factor = carried
                    by = emit.broadcast(factor) if scaled else None

                    def vector(_: Any, at: list[Any]) -> list[Any]:
                        emit.store(
                            builder.fmul(emit.load(at[1]), by) if scaled else emit.load(at[1]),
                            at[0],
                        )
                        return [emit.offset(pointer, VECTOR_BYTES) for pointer in at]

                    end = emit.loop(whole, [to, of], vector)
                    with builder.if_then(builder.icmp_signed("!=", rest, zero)):
                        x = emit.masked_load(end[1], mask)
                        emit.store_first([builder.fmul(x, by) if scaled else x], [end[0]], rest)
                    return [
                        emit.offset(to, out_row),
                        emit.offset(of, source_row),
                        emit.offset(factor, emit.size),
                    ]

                with branch:
                    emit.loop(rows, start, row)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 7)), generate


@intrinsic
def add_rows(
    typingctx: Any,
    like: Any,
    out: Any,
    out_row: Any,
    source: Any,
    source_row: Any,
    rows: Any,
    n: Any,
) -> Any:
    """Add n elements of each of so many rows: out[i, j] += source[i, j]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, out, out_row, source, source_row, rows, n = arguments
        whole, rest = (
            divide(n, emit.integer(emit.lanes)) for divide in (builder.sdiv, builder.srem)
        )
        mask = emit.first_lanes(rest)

        def row(_: Any, carried: list[Any]) -> list[Any]:
            def vector(_: Any, at: list[Any]) -> list[Any]:
                emit.store(builder.fadd(emit.load(at[0]), emit.load(at[1])), at[0])
                return [emit.offset(pointer, VECTOR_BYTES) for pointer in at]

            end = emit.loop(whole, carried, vector)
            with builder.if_then(builder.icmp_signed("!=", rest, emit.integer(0))):
                x, more = (emit.masked_load(pointer, mask) for pointer in end)
                emit.store_first([builder.fadd(x, more)], [end[0]], rest)
            steps = (out_row, source_row)
            return [emit.offset(at, step) for at, step in zip(carried, steps, strict=True)]

        emit.loop(rows, [emit.pointer(out), emit.pointer(source)], row)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 6)), generate
