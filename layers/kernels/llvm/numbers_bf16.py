"""Microkernels that round rows to bfloat16 numbers, and move such numbers to where products read
them.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from layers.kernels.machine import VECTOR_BYTES
from layers.kernels.records import record

from .emitter import Emitter
from .halves import rounded
from .simd_bf16 import HAS_DOTS, BFloat

RUN = record("offset", "bytes")
"""Adjacent numbers of a window: how far behind its first pixel they begin, in bytes, and their
size.
"""
_I16, _I32 = ir.IntType(16), ir.IntType(32)


def _numbers(emit: Emitter, x: Any) -> Any:
    """Return the 16-bit numbers nearest to a vector."""
    if HAS_DOTS:
        of = ir.VectorType(BFloat(), emit.lanes)
        found = emit.call("llvm.x86.avx512bf16.cvtneps2bf16.512", of, x)
        return emit.builder.bitcast(found, ir.VectorType(_I16, emit.lanes))
    return emit.builder.trunc(rounded(emit.builder, x), ir.VectorType(_I16, emit.lanes))


@intrinsic
def write_numbers(typingctx: Any, like: Any, to: Any, of: Any, n: Any) -> Any:
    """Write n numbers next to each other, from an address to another: float32 numbers, as those of
    `like`, are rounded, and words of bfloat16 copied.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, types.float32)
        _, to, of, n = arguments
        rounds = like.dtype == types.float32
        size = 4 if rounds else 2
        lanes, vectors = emit.integer(emit.lanes), ir.VectorType(_I16, emit.lanes)
        whole, rest = builder.sdiv(n, lanes), builder.srem(n, lanes)

        def following(at: list[Any], count: int) -> list[Any]:
            return [emit.offset(at[0], 2 * count), emit.offset(at[1], size * count)]

        def vector(_: Any, at: list[Any]) -> list[Any]:
            x = emit.load(at[1]) if rounds else builder.load(at[1], align=2, typ=vectors)
            builder.store(_numbers(emit, x) if rounds else x, at[0], align=2)
            return following(at, emit.lanes)

        def single(_: Any, at: list[Any]) -> list[Any]:
            x = builder.load(at[1], align=size, typ=emit.element if rounds else _I16)
            x = builder.trunc(rounded(builder, x), _I16) if rounds else x
            builder.store(x, at[0], align=2)
            return following(at, 1)

        end = emit.loop(whole, [emit.pointer(to), emit.pointer(of)], vector)
        emit.loop(rest, end, single)
        return context.get_dummy_value()

    return types.void(like, types.intp, types.intp, types.intp), generate


@intrinsic
def write_parts(typingctx: Any, to: Any, again: Any, rest: Any, of: Any, n: Any) -> Any:
    """Write the numbers nearest to n float32 numbers next to each other, to two addresses, and
    those nearest to what they leave, to a third.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, types.float32)
        *places, of, n = arguments
        lanes = emit.integer(emit.lanes)

        def parts(x: Any) -> list[Any]:
            upper = _numbers(emit, x)
            words = builder.zext(upper, ir.VectorType(_I32, x.type.count))
            words = builder.shl(words, ir.Constant(words.type, [16] * x.type.count))
            return [upper, upper, _numbers(emit, builder.fsub(x, builder.bitcast(words, x.type)))]

        def following(at: list[Any], count: int) -> list[Any]:
            return [
                emit.offset(at[0], 4 * count),
                *(emit.offset(each, 2 * count) for each in at[1:]),
            ]

        def vector(_: Any, at: list[Any]) -> list[Any]:
            for numbers, place in zip(parts(emit.load(at[0])), at[1:], strict=True):
                builder.store(numbers, place, align=2)
            return following(at, emit.lanes)

        def single(_: Any, at: list[Any]) -> list[Any]:
            x = emit.splat(builder.load(at[0], align=4, typ=emit.element))
            for numbers, place in zip(parts(x), at[1:], strict=True):
                first = builder.extract_element(numbers, ir.Constant(_I32, 0))
                builder.store(first, place, align=2)
            return following(at, 1)

        start = [emit.pointer(of), *map(emit.pointer, places)]
        end = emit.loop(builder.sdiv(n, lanes), start, vector)
        emit.loop(builder.srem(n, lanes), end, single)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 5)), generate


@intrinsic
def copy_windows(
    typingctx: Any,
    to: Any,
    row: Any,
    of: Any,
    step: Any,
    windows: Any,
    runs: Any,
    count: Any,
) -> Any:
    """Write for each of so many windows, `step` bytes apart, the numbers of its runs one after the
    other: a row of `row` bytes. `runs` is the address of records RUN. Whole vectors are read and
    written: one more must be there.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, types.float32)
        to, row, of, step, windows, runs, count = arguments
        words = ir.VectorType(_I32, emit.lanes)
        size, less = emit.integer(VECTOR_BYTES), emit.integer(VECTOR_BYTES - 1)
        first_run = emit.pointer(runs)

        def vectors(bytes_: Any) -> Any:
            return builder.sdiv(builder.add(bytes_, less), size)

        def window(_: Any, carried: list[Any]) -> list[Any]:
            start, source = carried

            def run(_: Any, carried: list[Any]) -> list[Any]:
                to, at = carried
                offset = builder.load(at, align=8, typ=emit.int64)
                length = builder.load(emit.offset(at, 8), align=8, typ=emit.int64)

                def vector(_: Any, at: list[Any]) -> list[Any]:
                    builder.store(builder.load(at[1], align=2, typ=words), at[0], align=2)
                    return [emit.offset(pointer, VECTOR_BYTES) for pointer in at]

                emit.loop(vectors(length), [to, emit.offset(source, offset)], vector)
                return [emit.offset(to, length), emit.offset(at, RUN.itemsize)]

            emit.loop(count, [start, first_run], run)
            return [emit.offset(start, row), emit.offset(source, step)]

        emit.loop(windows, [emit.pointer(to), emit.pointer(of)], window)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 7)), generate


@intrinsic(prefer_literal=True)
def pair_rows(typingctx: Any, to: Any, of: Any, row: Any, rows: Any, vectors: Any) -> Any:
    """Write for every two of so many rows, `row` bytes apart, the words of their numbers, so many
    vectors of words; a last row without another is paired with zeros.
    """
    signature = types.void(*([types.intp] * 4), vectors)
    width = vectors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, types.float32)
        to, of, row, rows, _ = arguments
        numbers, words = ir.VectorType(_I16, emit.lanes), ir.VectorType(_I32, emit.lanes)
        upper = ir.Constant(words, [16] * emit.lanes)
        two = emit.integer(2)

        def half(at: Any, v: int) -> Any:
            of = emit.offset(at, v * VECTOR_BYTES // 2)
            return builder.zext(builder.load(of, align=2, typ=numbers), words)

        def pair(_: Any, carried: list[Any]) -> list[Any]:
            to, of = carried
            after = emit.offset(of, row)
            for v in range(width):
                word = builder.or_(half(of, v), builder.shl(half(after, v), upper))
                builder.store(word, emit.offset(to, v * VECTOR_BYTES), align=4)
            return [emit.offset(to, width * VECTOR_BYTES), emit.offset(after, row)]

        to, of = emit.loop(builder.sdiv(rows, two), [emit.pointer(to), emit.pointer(of)], pair)
        with builder.if_then(builder.icmp_signed("!=", builder.srem(rows, two), emit.integer(0))):
            for v in range(width):
                builder.store(half(of, v), emit.offset(to, v * VECTOR_BYTES), align=4)
        return context.get_dummy_value()

    return signature, generate
