"""Microkernels of products of bfloat16 numbers, with float32 sums.

Two numbers of one column that follow each other along the inner index, a pair, lie in one 32-bit
word, the first in its lower half.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from layers.kernels.machine import REGISTERS, VECTOR_BYTES, has

from .emitter import Emitter
from .halves import rounded
from .simd import finish_tile, write_transpose

PAIRS = 16
"""Pairs whose two chains of multiply-adds are added up, before the sum is added to the others."""
CHAIN_ROWS, CHAIN_VECTORS = (4, 3) if REGISTERS == 32 else (2, 1)
"""A tile of two accumulators for each element that fills the registers."""
DOT_ROWS, DOT_VECTORS = 8, 3

_I32 = ir.IntType(32)


HAS_DOTS = VECTOR_BYTES == 64 and has("avx512bf16")
"""Whether this processor multiplies and adds pairs (AVX512-BF16)."""


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash("bfloat")


Body = Callable[[Any, list[Any]], list[Any]]
"""What a loop does once: see `Emitter.loop`."""


def _words(emit: Emitter) -> Any:
    return ir.VectorType(_I32, emit.lanes)


def _filled(emit: Emitter, number: int) -> Any:
    return ir.Constant(_words(emit), [number] * emit.lanes)


def _load_pairs(emit: Emitter, pointer: Any, width: int) -> list[Any]:
    """Return a row of a panel: so many vectors of words."""
    places = [emit.offset(pointer, v * VECTOR_BYTES) for v in range(width)]
    return [emit.builder.load(place, align=4, typ=_words(emit)) for place in places]


def _chains(emit: Emitter, rows: list[Any], width: int) -> Body:
    """Return how sums take 32 inner indices."""
    builder, count = emit.builder, len(rows) * width
    upper = _filled(emit, 0xFFFF0000)

    def pair(_: Any, carried: list[Any]) -> list[Any]:
        a, b, *sums = carried
        words = _load_pairs(emit, b, width)
        even = [builder.bitcast(builder.shl(x, _filled(emit, 16)), emit.vector) for x in words]
        odd = [builder.bitcast(builder.and_(x, upper), emit.vector) for x in words]
        new = []
        for half, panel in enumerate((even, odd)):
            for row in rows:
                x = emit.broadcast(emit.offset(emit.offset(a, row), 4 * half))
                new += [emit.multiply_add(x, y, sums[len(new) + v]) for v, y in enumerate(panel)]
        return [emit.offset(a, 8), emit.offset(b, width * VECTOR_BYTES), *new]

    def tile(_: Any, carried: list[Any]) -> list[Any]:
        a, b, *totals = carried
        a, b, *sums = emit.loop(emit.integer(PAIRS), [a, b] + [emit.zero] * (2 * count), pair)
        added = map(builder.fadd, sums[:count], sums[count:])
        return [a, b, *map(builder.fadd, totals, added)]

    return tile


def _dots(emit: Emitter, rows: list[Any], width: int) -> Body:
    """Return how sums take a pair."""
    builder = emit.builder
    halves = ir.VectorType(BFloat(), 2 * emit.lanes)
    name = "llvm.x86.avx512bf16.dpbf16ps.512"

    def pair(_: Any, carried: list[Any]) -> list[Any]:
        a, b, *sums = carried
        panel = [builder.bitcast(words, halves) for words in _load_pairs(emit, b, width)]
        new: list[Any] = []
        for row in rows:
            word = builder.load(emit.offset(a, row), align=4, typ=_I32)
            x = builder.bitcast(emit.splat(word), halves)
            first = len(new)
            new += [
                emit.call(name, emit.vector, sums[first + v], x, y) for v, y in enumerate(panel)
            ]
        return [emit.offset(a, 4), emit.offset(b, width * VECTOR_BYTES), *new]

    return pair


def _tile(body_of: Callable[[Emitter, list[Any], int], Body]) -> Any:
    """Return the microkernel that multiplies rows of a by a packed panel of `vectors` vectors into
    a (rows, vectors) tile of c: each sum begins at +0, and takes `count` times what the body does.
    Addresses and strides are in bytes; see `simd.finish_tile` for the rest.
    """

    def tile(
        typingctx: Any,
        like: Any,
        c: Any,
        c_row: Any,
        a: Any,
        a_row: Any,
        b: Any,
        count: Any,
        lanes: Any,
        bias: Any,
        accumulate: Any,
        rows: Any,
        vectors: Any,
    ) -> Any:
        integers = (c, c_row, a, a_row, b, count, lanes, bias, accumulate)
        signature = types.void(like, *([types.intp] * len(integers)), rows, vectors)
        height, width = rows.literal_value, vectors.literal_value

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(builder, like.dtype)
            _, c, c_row, a, a_row, b, count, lanes, bias, accumulate, *_ = arguments
            start = [emit.pointer(a), emit.pointer(b)] + [emit.zero] * (height * width)
            body = body_of(emit, emit.multiples(a_row, height), width)
            sums = emit.loop(count, start, body)[2:]
            finish_tile(emit, sums, (height, width), c, c_row, lanes, bias, accumulate)
            return context.get_dummy_value()

        return signature, generate

    # The name by which kernels tell what they close over.
    tile.__qualname__ = f"tile{body_of.__name__}"
    return intrinsic(prefer_literal=True)(tile)


chains_tile = _tile(_chains)
"""Takes float32 numbers that bfloat16 can hold, as TDPBF16PS does: for each 32 inner indices one
chain of fused multiply-adds over the even and one over the odd of them, both from +0, are added to
each other and then to the sum. In the mode that takes subnormal numbers for 0, these are the bits
of TDPBF16PS (Intel's Architecture Instruction Set Extensions manual), which uses no other.
"""
dots_tile = _tile(_dots)
"""Takes words, by VDPBF16PS: one chain over the pairs, of each the odd one first."""


def rounded_words(emit: Emitter, first: Any, second: Any, *, beside: bool) -> Any:
    """Return the words of the pairs of two vectors of 16 numbers: one of the first and that of the
    second, or, if `beside`, neighbours within one and then within the other. Float32 numbers are
    rounded to bfloat16; others are words of that.
    """
    builder, lanes = emit.builder, first.type.count
    halves = ir.IntType(16)

    def ordered(low: Any, high: Any, order: Sequence[int]) -> Any:
        places = ir.Constant(ir.VectorType(_I32, len(order)), [ir.Constant(_I32, i) for i in order])
        return builder.shuffle_vector(low, high, places)

    words, in_turn = ir.VectorType(_I32, lanes), [*range(2 * lanes)]
    if not beside:
        in_turn = [i for lane in range(lanes) for i in (lane, lanes + lane)]
    if first.type.element == halves:
        return builder.bitcast(ordered(first, second, in_turn), words)
    if HAS_DOTS:
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        both = emit.call(name, ir.VectorType(BFloat(), 2 * lanes), second, first)
        both = builder.bitcast(both, ir.VectorType(halves, 2 * lanes))
        return builder.bitcast(ordered(both, both, in_turn), words)
    if beside:
        first, second = (ordered(first, second, range(k, 2 * lanes, 2)) for k in (0, 1))
    low, high = rounded(builder, first), rounded(builder, second)
    return builder.or_(low, builder.shl(high, ir.Constant(words, [16] * lanes)))


@intrinsic
def pair_of(typingctx: Any, first: Any, second: Any) -> Any:
    """Return the word of a pair of numbers: float32, which are rounded to bfloat16, or words of
    that.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high = (
            builder.zext(x, _I32) if kind == types.uint16 else rounded(builder, x)
            for x, kind in zip(arguments, signature.args, strict=True)
        )
        return builder.or_(low, builder.shl(high, ir.Constant(_I32, 16)))

    kinds = [x if x == types.uint16 else types.float32 for x in (first, second)]
    return types.uint32(*kinds), generate


@intrinsic
def transpose_words(typingctx: Any, out: Any, out_row: Any, source: Any, source_row: Any) -> Any:
    """Write the transpose of a square block of words, a vector in each row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Bits pass through vectors of float32 as they are.
        write_transpose(Emitter(builder, types.float32), *arguments)
        return context.get_dummy_value()

    return types.void(*([types.intp] * 4)), generate
