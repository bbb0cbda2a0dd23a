"""The microkernel of convolutions: a tile of a product whose inner sum runs over taps, and over
adjacent elements at each tap.
"""

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .emitter import VECTOR_BYTES, Emitter

# Rows of a tile up to which each has an offset of its own in a register.
MOST_OFFSETS = 8


def _tile(
    emit: Emitter,
    height: int,
    width: int,
    row_offsets: list[Any],
    arguments: dict[str, Any],
    unroll: int = 1,
) -> None:
    """Emit what the products below have in common, given the offset in a of each row of the tile.

    Without `taps` there is one, at a and b; without `lanes` all vectors are whole.
    """
    builder = emit.builder
    a, b = (emit.pointer(arguments[name]) for name in ("a", "b"))
    # The offsets of many rows would not fit the registers: then every fourth row has a pointer of
    # its own.
    group = 4 if height > MOST_OFFSETS else height
    bases = range(0, height, group)

    def element(_: Any, carried: list[Any]) -> list[Any]:
        b_now, *rest = carried
        a_now, sums = rest[: len(bases)], rest[len(bases) :]
        for _ in range(unroll):
            panel = [emit.load(emit.offset(b_now, v * VECTOR_BYTES)) for v in range(width)]
            new = []
            for i in range(height):
                x = emit.broadcast(emit.offset(a_now[i // group], row_offsets[i % group]))
                new += [emit.multiply_add(x, panel[v], sums[i * width + v]) for v in range(width)]
            a_now = [emit.offset(pointer, arguments["a_k"]) for pointer in a_now]
            b_now, sums = emit.offset(b_now, arguments["b_k"]), new
        return [b_now, *a_now, *sums]

    def elements(a: Any, b: Any, sums: list[Any]) -> list[Any]:
        pointers = [emit.offset(a, row_offsets[i]) if i else a for i in bases]
        return emit.loop(steps, [b, *pointers, *sums], element)[1 + len(bases) :]

    steps = arguments["k"] if unroll == 1 else builder.sdiv(arguments["k"], emit.integer(unroll))

    def tap(_: Any, carried: list[Any]) -> list[Any]:
        entry, *sums = carried
        here = [
            emit.offset(p, builder.load(emit.offset(entry, 8 * i), align=8, typ=emit.int64))
            for i, p in enumerate((a, b))
        ]
        return [emit.offset(entry, 16), *elements(*here, sums)]

    zeros = [emit.zero] * (height * width)
    if "taps" in arguments:
        sums = emit.loop(arguments["count"], [emit.pointer(arguments["taps"]), *zeros], tap)[1:]
    else:
        sums = elements(a, b, zeros)
    row_pointers = [emit.pointer(arguments["c"])]
    for _ in range(1, height):
        row_pointers.append(emit.offset(row_pointers[-1], arguments["c_row"]))
    every = [(i, v) for i in range(height) for v in range(width)]

    def finish(mask: Any) -> None:
        """Add what was there and the bias, rectify and store; `mask` guards the last vector where
        it is not whole.
        """

        def load(pointer: Any, v: int) -> Any:
            return (
                emit.masked_load(pointer, mask)
                if mask is not None and v == width - 1
                else emit.load(pointer)
            )

        def add(pointer: Callable[[int, int], Any]) -> Callable[[list[Any]], list[Any]]:
            return lambda old: [
                builder.fadd(x, load(pointer(i, v), v))
                for x, (i, v) in zip(old, every, strict=True)
            ]

        held = add(lambda i, v: emit.offset(row_pointers[i], v * VECTOR_BYTES))
        result = emit.changed_if(arguments["accumulate"], sums, held)
        if "bias" in arguments:
            bias = emit.pointer(arguments["bias"])
            result = emit.changed_if(
                arguments["bias"], result, add(lambda i, v: emit.offset(bias, v * VECTOR_BYTES))
            )
            result = emit.changed_if(
                arguments["rectify"], result, lambda old: [emit.rectified(x) for x in old]
            )
        targets = [emit.offset(row_pointers[i], v * VECTOR_BYTES) for i, v in every]
        stores = [(x, target, v) for x, target, (_, v) in zip(result, targets, every, strict=True)]
        emit.store_columns(stores, width, None if mask is None else arguments["lanes"])

    if "lanes" not in arguments:
        finish(None)
        return
    lanes = arguments["lanes"]
    with builder.if_else(builder.icmp_signed("==", lanes, emit.integer(emit.lanes))) as (
        whole,
        partial,
    ):
        with whole:
            finish(None)
        with partial:
            finish(emit.first_lanes(lanes))


@intrinsic(prefer_literal=True)
def tap_product(
    typingctx: Any,
    like: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_row: Any,
    a_k: Any,
    b: Any,
    b_k: Any,
    taps: Any,
    count: Any,
    k: Any,
    lanes: Any,
    accumulate: Any,
    bias: Any,
    rectify: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """Write a (rows, vectors) tile of c, summed over `count` taps and k elements at each.

    c[i, j] = (c[i, j] if accumulate) + sum_t sum_q a[A_t + i a_row + q a_k] b[B_t + q b_k + j] +
    (bias[j] if bias)

    and max(c, 0) in its place if `rectify`. `taps` is the address of the pairs (A_t, B_t), 64-bit;
    everything is in bytes. Each sum is one chain of multiply-adds from zero. A bias of 0 means
    none; of the last vector only the first `lanes` are stored.
    """
    names = (
        "c",
        "c_row",
        "a",
        "a_row",
        "a_k",
        "b",
        "b_k",
        "taps",
        "count",
        "k",
        "lanes",
        "accumulate",
        "bias",
        "rectify",
    )
    signature = types.void(like, *([types.intp] * len(names)), rows, vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        named = dict(zip(names, arguments[1:], strict=False))
        offsets = [emit.integer(0)]
        for _ in range(1, rows.literal_value):
            offsets.append(builder.add(offsets[-1], named["a_row"]))
        _tile(emit, rows.literal_value, vectors.literal_value, offsets, named)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def row_product(
    typingctx: Any,
    like: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_rows: Any,
    a_k: Any,
    b: Any,
    b_k: Any,
    taps: Any,
    count: Any,
    k: Any,
    lanes: Any,
    accumulate: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """Write a tile as `tap_product` does, the rows of a being anywhere: `a_rows` is the address of
    their offsets, 64-bit.
    """
    names = (
        "c",
        "c_row",
        "a",
        "a_rows",
        "a_k",
        "b",
        "b_k",
        "taps",
        "count",
        "k",
        "lanes",
        "accumulate",
    )
    signature = types.void(like, *([types.intp] * len(names)), rows, vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        named = dict(zip(names, arguments[1:], strict=False))
        table = emit.pointer(named["a_rows"])
        offsets = [
            builder.load(emit.offset(table, 8 * i), align=8, typ=emit.int64)
            for i in range(rows.literal_value)
        ]
        _tile(emit, rows.literal_value, vectors.literal_value, offsets, named)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def plane_product(
    typingctx: Any,
    like: Any,
    c: Any,
    c_row: Any,
    a: Any,
    a_row: Any,
    a_k: Any,
    b: Any,
    b_k: Any,
    k: Any,
    accumulate: Any,
    unroll: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """Write a tile as `tap_product` does for one tap, whole vectors, and k a multiple of `unroll`,
    a literal.
    """
    names = ("c", "c_row", "a", "a_row", "a_k", "b", "b_k", "k", "accumulate")
    signature = types.void(like, *([types.intp] * len(names)), unroll, rows, vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        named = dict(zip(names, arguments[1:], strict=False))
        offsets = [emit.integer(0)]
        for _ in range(1, rows.literal_value):
            offsets.append(builder.add(offsets[-1], named["a_row"]))
        _tile(emit, rows.literal_value, vectors.literal_value, offsets, named, unroll.literal_value)
        return context.get_dummy_value()

    return signature, generate
