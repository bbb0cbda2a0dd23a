"""Microkernels of products that are summed over shards: LLVM IR emitted at compile time."""

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from layers.kernels.machine import CACHE_LINE, VECTOR_BYTES

from .emitter import Emitter
from .simd import finish_tile, inner_step


@intrinsic(prefer_literal=True)
def tile_sum(
    typingctx: Any,
    like: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_row: Any,
    a_k: Any,
    b: Any,
    sizes: Any,
    count: Any,
    stack: Any,
    lanes: Any,
    accumulate: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """Multiply a tile of a by a packed panel of b as `tile_product` does, for each of `count`
    shards, a power of two, and add the products up by the fixed tree.

    Inner indices are shard after shard, of each as many as `sizes` (int64) say. `stack` is room for
    so many tiles as count has binary digits.
    """
    integers = (c, c_row, a, a_row, a_k, b, sizes, count, stack, lanes, accumulate)
    signature = types.void(like, *([types.intp] * len(integers)), rows, vectors)
    height, width = rows.literal_value, vectors.literal_value
    size = height * width * VECTOR_BYTES

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, c, c_row, a, a_row, a_k, b, sizes, count, stack, lanes, accumulate, *_ = arguments
        multiply = inner_step(emit, a_row, a_k, (height, width))

        def add_sibling(_: Any, carried: list[Any]) -> list[Any]:
            top, *sums = carried
            top = emit.offset(top, -size)
            left = [emit.load(emit.offset(top, n * VECTOR_BYTES)) for n in range(len(sums))]
            return [top, *(builder.fadd(x, y) for x, y in zip(left, sums, strict=True))]

        def shard(number: Any, carried: list[Any]) -> list[Any]:
            a_now, b_now, size_now, top, *_ = carried
            k = builder.load(size_now, align=8, typ=emit.int64)
            start = [a_now, b_now] + [emit.zero] * (height * width)
            a_now, b_now, *sums = emit.loop(k, start, multiply)
            # As many nodes end with this shard as its number ends with binary ones.
            following = builder.add(number, emit.integer(1))
            ends = emit.trailing_zeros(following)
            top, *sums = emit.loop(ends, [top, *sums], add_sibling)
            with builder.if_then(builder.icmp_signed("<", following, count)):
                for n, value in enumerate(sums):
                    emit.store(value, emit.offset(top, n * VECTOR_BYTES))
            return [a_now, b_now, emit.offset(size_now, 8), emit.offset(top, size), *sums]

        prefetched = emit.pointer(c)
        for _ in range(height):
            for at in range(0, width * VECTOR_BYTES, CACHE_LINE):
                emit.prefetch(emit.offset(prefetched, at))
            prefetched = emit.offset(prefetched, c_row)
        start = [emit.pointer(x) for x in (a, b, sizes, stack)] + [emit.zero] * (height * width)
        sums = emit.loop(count, start, shard)[4:]
        shape = height, width
        finish_tile(emit, sums, shape, c, c_row, lanes, emit.integer(0), accumulate)
        return context.get_dummy_value()

    return signature, generate
