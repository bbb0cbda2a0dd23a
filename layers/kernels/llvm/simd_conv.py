"""The microkernel of convolutions: a tile of a product whose inner sum runs over taps, and over
adjacent elements at each tap.
"""

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from layers.kernels.records import record

from .emitter import VECTOR_BYTES, Emitter

# Rows of a tile up to which each has an offset of its own in a register.
MOST_OFFSETS = 8

# A run of adjacent elements that a sum goes over: the offsets in bytes of its first element in a
# and in b, the number of elements, and whether a chain of multiply-adds ends with it.
RUN = record("a", "b", "length", "ends")


class _Tile:
    """Emits the loops of a tile of (height, width) sums over rows of a and a panel b.

    `row_offsets` are those of the rows in a; `a_k` and `b_k` the steps from an element to the next.
    """

    def __init__(
        self, emit: Emitter, width: int, row_offsets: list[Any], a_k: Any, b_k: Any
    ) -> None:
        self.emit = emit
        self.width = width
        self.row_offsets = row_offsets
        self.a_k = a_k
        self.b_k = b_k
        self.height = len(row_offsets)
        self.zeros = [emit.zero] * (self.height * width)
        # The offsets of many rows would not fit the registers: then every fourth row has a pointer
        # of its own.
        self.group = 4 if self.height > MOST_OFFSETS else self.height

    def run(self, a: Any, b: Any, sums: list[Any], steps: Any, unroll: int = 1) -> list[Any]:
        """Emit the sums with what `steps` times `unroll` elements add to them."""
        emit, width, group = self.emit, self.width, self.group
        bases = range(0, self.height, group)

        def element(_: Any, carried: list[Any]) -> list[Any]:
            b_now, *rest = carried
            a_now, sums = rest[: len(bases)], rest[len(bases) :]
            for _ in range(unroll):
                panel = [emit.load(emit.offset(b_now, v * VECTOR_BYTES)) for v in range(width)]
                new = []
                for i in range(self.height):
                    at = emit.offset(a_now[i // group], self.row_offsets[i % group])
                    x = emit.broadcast(at)
                    new += [
                        emit.multiply_add(x, panel[v], sums[i * width + v]) for v in range(width)
                    ]
                a_now = [emit.offset(pointer, self.a_k) for pointer in a_now]
                b_now, sums = emit.offset(b_now, self.b_k), new
            return [b_now, *a_now, *sums]

        pointers = [emit.offset(a, self.row_offsets[i]) if i else a for i in bases]
        return emit.loop(steps, [b, *pointers, *sums], element)[1 + len(bases) :]

    def _field(self, run: Any, name: str) -> Any:
        fields = RUN.fields
        assert fields is not None
        address = self.emit.offset(run, fields[name][1])
        return self.emit.builder.load(address, align=8, typ=self.emit.int64)

    def _extended(self, a: Any, b: Any, run: Any, sums: list[Any]) -> list[Any]:
        a, b = (self.emit.offset(p, self._field(run, name)) for p, name in ((a, "a"), (b, "b")))
        return self.run(a, b, sums, self._field(run, "length"))

    def chain(self, a: Any, b: Any, runs: Any, count: Any) -> list[Any]:
        """Emit the sums over `count` runs as one chain of multiply-adds from zero."""

        def extend(_: Any, carried: list[Any]) -> list[Any]:
            run, *sums = carried
            return [self.emit.offset(run, RUN.itemsize), *self._extended(a, b, run, sums)]

        return self.emit.loop(count, [runs, *self.zeros], extend)[1:]

    def chains(self, a: Any, b: Any, runs: Any, count: Any) -> list[Any]:
        """Emit the sums over `count` runs in chains from zero, each ending where a run says so;
        their sums are added in order.
        """
        emit, size = self.emit, len(self.zeros)

        def total(of: list[Any]) -> list[Any]:
            return [emit.builder.fadd(x, y) for x, y in zip(of[:size], of[size:], strict=True)]

        def extend(_: Any, carried: list[Any]) -> list[Any]:
            run, ended, *totals_and_sums = carried
            sums = self._extended(a, b, run, totals_and_sums[size:])
            ends = self._field(run, "ends")
            changed = emit.changed_if(
                ends, [*totals_and_sums[:size], *sums], lambda old: [*total(old), *self.zeros]
            )
            return [emit.offset(run, RUN.itemsize), emit.builder.or_(ended, ends), *changed]

        start = [runs, emit.integer(0), *self.zeros, *self.zeros]
        _, ended, *totals_and_sums = emit.loop(count, start, extend)
        # A single chain, the usual case, waits for no addition.
        return emit.changed_if(
            ended, totals_and_sums[size:], lambda last: total([*totals_and_sums[:size], *last])
        )

    def write(self, sums: list[Any], c: Any, c_row: Any, lanes: Any = None, **after: Any) -> None:
        """Emit their storing to c, of the last vector only the first `lanes` if given; before that
        what `after` says: `accumulate` adds what is at c, `bias` a vector at an address, `rectify`
        takes max(sum, 0). 0 means not.
        """
        emit, width = self.emit, self.width
        builder = emit.builder
        pointers = [emit.pointer(c)]
        for _ in range(1, self.height):
            pointers.append(emit.offset(pointers[-1], c_row))
        every = [(i, v) for i in range(self.height) for v in range(width)]
        targets = [emit.offset(pointers[i], v * VECTOR_BYTES) for i, v in every]

        def finish(mask: Any) -> None:
            def load(pointer: Any, v: int) -> Any:
                partial = mask is not None and v == width - 1
                return emit.masked_load(pointer, mask) if partial else emit.load(pointer)

            def add(pointers: list[Any]) -> Callable[[list[Any]], list[Any]]:
                return lambda old: [
                    builder.fadd(x, load(pointer, v))
                    for x, pointer, (_, v) in zip(old, pointers, every, strict=True)
                ]

            result = sums
            if "accumulate" in after:
                result = emit.changed_if(after["accumulate"], result, add(targets))
            if "bias" in after:
                bias = emit.pointer(after["bias"])
                of_bias = [emit.offset(bias, v * VECTOR_BYTES) for _, v in every]
                result = emit.changed_if(after["bias"], result, add(of_bias))
            if "rectify" in after:
                result = emit.changed_if(
                    after["rectify"], result, lambda old: [emit.rectified(x) for x in old]
                )
            stores = [
                (x, target, v) for x, target, (_, v) in zip(result, targets, every, strict=True)
            ]
            emit.store_columns(stores, width, None if mask is None else lanes)

        if lanes is None:
            finish(None)
            return
        full = builder.icmp_signed("==", lanes, emit.integer(emit.lanes))
        with builder.if_else(full) as (whole, partial):
            with whole:
                finish(None)
            with partial:
                finish(emit.first_lanes(lanes))


def named_intrinsic(function: Any, name: str) -> Any:
    """Return the intrinsic with a name of its own, by which kernels tell what they close over."""
    function.__qualname__ = name
    return intrinsic(function)


def tap_product(rows: int, vectors: int) -> Any:
    """Return what writes a (rows, vectors) tile of c, summed over `count` runs t.

    c[i, j] = sum_t sum_q a[A_t + i a_row + q] b[B_t + q b_k + j] + (bias[j] if bias)

    and max(c, 0) in its place if `rectify`. `runs` is the address of records RUN; the elements of a
    run are adjacent in a; steps are in bytes. Each sum is made of chains of multiply-adds from
    zero, added in order. A bias of 0 means none; of the last vector only the first `lanes` are
    stored.
    """

    def product(
        typingctx: Any,
        like: Any,
        c: Any,
        c_row: Any,
        a: Any,
        a_row: Any,
        b: Any,
        b_k: Any,
        runs: Any,
        count: Any,
        lanes: Any,
        bias: Any,
        rectify: Any,
    ) -> Any:
        signature = types.void(like, *([types.intp] * 11))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            c, c_row, a, a_row, b, b_k, runs, count, lanes, bias, rectify = arguments[1:]
            emit = Emitter(builder, like.dtype)
            offsets = emit.multiples(a_row, rows)
            tile = _Tile(emit, vectors, offsets, emit.integer(emit.size), b_k)
            sums = tile.chains(emit.pointer(a), emit.pointer(b), emit.pointer(runs), count)
            tile.write(sums, c, c_row, lanes, bias=bias, rectify=rectify)
            return context.get_dummy_value()

        return signature, generate

    return named_intrinsic(product, f"tap_product_{rows}_{vectors}")


def row_product(rows: int, vectors: int) -> Any:
    """Return what adds to a (rows, vectors) tile of c the sums of `tap_product`, each as one chain,
    the rows of a being anywhere.

    `a_rows` is the address of their offsets, 64-bit, and `a_k` the step from an element of a run to
    the next.
    """

    def product(
        typingctx: Any,
        like: Any,
        c: Any,
        c_row: Any,
        a_rows: Any,
        a: Any,
        a_k: Any,
        b: Any,
        b_k: Any,
        runs: Any,
        count: Any,
        lanes: Any,
    ) -> Any:
        signature = types.void(like, *([types.intp] * 10))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            c, c_row, a_rows, a, a_k, b, b_k, runs, count, lanes = arguments[1:]
            emit = Emitter(builder, like.dtype)
            table = emit.pointer(a_rows)
            offsets = [
                builder.load(emit.offset(table, 8 * i), align=8, typ=emit.int64)
                for i in range(rows)
            ]
            tile = _Tile(emit, vectors, offsets, a_k, b_k)
            sums = tile.chain(emit.pointer(a), emit.pointer(b), emit.pointer(runs), count)
            tile.write(sums, c, c_row, lanes, accumulate=emit.integer(1))
            return context.get_dummy_value()

        return signature, generate

    return named_intrinsic(product, f"row_product_{rows}_{vectors}")


def plane_product(unroll: int, rows: int, vectors: int) -> Any:
    """Return what writes (adds, if `accumulate`) a (rows, vectors) tile of the product of rows of a
    and a panel of whole vectors, each sum one chain over k elements, a multiple of `unroll`.
    """

    def product(
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
    ) -> Any:
        signature = types.void(like, *([types.intp] * 9))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            c, c_row, a, a_row, a_k, b, b_k, k, accumulate = arguments[1:]
            emit = Emitter(builder, like.dtype)
            offsets = emit.multiples(a_row, rows)
            tile = _Tile(emit, vectors, offsets, a_k, b_k)
            steps = k if unroll == 1 else builder.sdiv(k, emit.integer(unroll))
            sums = tile.run(emit.pointer(a), emit.pointer(b), tile.zeros, steps, unroll)
            tile.write(sums, c, c_row, accumulate=accumulate)
            return context.get_dummy_value()

        return signature, generate

    return named_intrinsic(product, f"plane_product_{unroll}_{rows}_{vectors}")
