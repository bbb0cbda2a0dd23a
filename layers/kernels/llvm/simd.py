"""SIMD microkernels: LLVM IR emitted at compile time, specialised on element type and tile size.

Everything else in `layers.kernels` is plain Numba. An intrinsic here receives addresses and byte
strides; its first argument is an array that only tells the element type, and literal integers
choose the tile.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .formulas import fused


def _vector_registers() -> tuple[int, int]:
    """Return (bytes of a vector register, number of vector registers) of this processor."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") or features.get("avx"):
        return 32, 16
    arm = "neon" in features or "aarch64" in llvmlite.binding.get_process_triple()
    return 16, 32 if arm else 16


VECTOR_BYTES, REGISTERS = _vector_registers()
# The width may be forced (16, 32 or 64), so that one machine can test the code of another.
VECTOR_BYTES = int(os.environ.get("LAYERS_VECTOR_BYTES", VECTOR_BYTES))

# A tile of ROWS x VECTORS accumulators, VECTORS loads of b and one broadcast of a fill the
# registers without spilling: 4 x 3 of 16 registers, 8 x 3 of 32.
TILE_ROWS = 8 if REGISTERS == 32 else 4
TILE_VECTORS = 3

CACHE_LINE = 64
"""Bytes that one prefetch brings: those of x86 and most ARM processors; elsewhere a few are asked
for twice or not at all.
"""

_I1, _I32, _I64, _I8 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.IntType(8)
_ELEMENT = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


class Emitter:
    """Emits vector instructions for one element type."""

    def __init__(self, builder: Any, dtype: Any) -> None:
        self.builder = builder
        self.element = _ELEMENT[dtype]
        self.size = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.size
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, None)

        self.int64 = _I64

    def integer(self, value: int) -> Any:
        return ir.Constant(_I64, value)

    def pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, ir.PointerType())

    def offset(self, pointer: Any, bytes_: Any) -> Any:
        if isinstance(bytes_, int):
            bytes_ = self.integer(bytes_)
        return self.builder.gep(pointer, [bytes_], source_etype=_I8)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(
                module, ir.FunctionType(result, [a.type for a in arguments]), name
            )
        return self.builder.call(function, arguments)

    @property
    def suffix(self) -> str:
        return f"v{self.lanes}f{self.size * 8}"

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.size, typ=self.vector)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=self.size)

    def masked_load(self, pointer: Any, mask: Any) -> Any:
        name = f"llvm.masked.load.{self.suffix}.p0"
        return self.call(name, self.vector, pointer, ir.Constant(_I32, self.size), mask, self.zero)

    def store_first(self, values: Sequence[Any], pointers: Sequence[Any], count: Any) -> None:
        """Store the first `count` lanes (a 64-bit value) of each vector: a half, a quarter, …, as
        the bits of `count` say.

        Masked stores would do, but some processors take a dozen cycles for each.
        """
        builder, n = self.builder, len(values)
        carried = [*values, *pointers]
        part = self.lanes // 2
        while part:

            def halved(old: list[Any], part: int = part) -> list[Any]:
                new = []
                for value, pointer in zip(old[:n], old[n:], strict=True):
                    builder.store(self.lanes_of(value, 0, part), pointer, align=self.size)
                    new.append(self.lanes_of(value, part, self.lanes))
                return new + [self.offset(pointer, part * self.size) for pointer in old[n:]]

            carried = self.changed_if(builder.and_(count, self.integer(part)), carried, halved)
            part //= 2

    def store_columns(self, stores: Sequence[tuple[Any, Any, int]], width: int, count: Any) -> None:
        """Store (value, pointer, column) of a tile; of the last column only the first `count` lanes
        unless that is None.
        """
        whole = [store for store in stores if count is None or store[2] < width - 1]
        for value, pointer, _ in whole:
            self.store(value, pointer)
        if count is not None:
            last = [store for store in stores if store[2] == width - 1]
            self.store_first(
                [value for value, _, _ in last], [pointer for _, pointer, _ in last], count
            )

    def lanes_of(self, value: Any, start: int, count: int) -> Any:
        """Return `count` lanes from lane `start` on; what lies beyond the vector is undefined."""
        order = [
            ir.Constant(_I32, start + i if start + i < self.lanes else 0) for i in range(count)
        ]
        mask = ir.Constant(ir.VectorType(_I32, count), order)
        return self.builder.shuffle_vector(value, ir.Constant(self.vector, ir.Undefined), mask)

    def first_lanes(self, count: Any) -> Any:
        """Return the mask whose first `count` (a 64-bit value) lanes are on."""
        numbers = ir.Constant(
            ir.VectorType(_I64, self.lanes), [ir.Constant(_I64, i) for i in range(self.lanes)]
        )
        return self.builder.icmp_signed("<", numbers, self.splat(count))

    def splat(self, scalar: Any) -> Any:
        vector = ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [ir.Constant(_I32, 0)] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, zeros)

    def constant(self, number: Any) -> Any:
        """Return a vector of a constant."""
        return ir.Constant(self.vector, [float(number)] * self.lanes)

    def rectified(self, x: Any) -> Any:
        """Return max(x, 0); NaN stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<=", x, self.zero), self.zero, x)

    def broadcast(self, pointer: Any) -> Any:
        return self.splat(self.builder.load(pointer, align=self.size, typ=self.element))

    def prefetch(self, pointer: Any, write: bool = True, near: bool = True) -> None:
        """Ask for the cache line at `pointer`, soon to be written (or read only), in the
        first-level cache or the second.
        """
        self.call(
            "llvm.prefetch.p0",
            ir.VoidType(),
            pointer,
            *(ir.Constant(_I32, i) for i in (int(write), 3 if near else 2, 1)),
        )

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return fused(self.builder, a, b, c)

    def loop(
        self, count: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Emit `for i in range(count): carried = body(i, carried)`; return the carried values after
        it.
        """
        builder = self.builder
        before = builder.block
        head = builder.append_basic_block("head")
        inside = builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(_I64)
        index.add_incoming(self.integer(0), before)
        values = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        builder.cbranch(builder.icmp_signed("<", index, count), inside, after)
        builder.position_at_end(inside)
        new = body(index, values)
        index.add_incoming(builder.add(index, self.integer(1)), builder.block)
        for phi, value in zip(values, new, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return values

    def changed_if(
        self, condition: Any, values: list[Any], change: Callable[[list[Any]], list[Any]]
    ) -> list[Any]:
        """Return `change(values)` where `condition` is not 0, else the values."""
        before = self.builder.block
        with self.builder.if_then(self.builder.icmp_signed("!=", condition, self.integer(0))):
            changed = change(values)
            inside = self.builder.block
        merged = []
        for old, new in zip(values, changed, strict=True):
            phi = self.builder.phi(old.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, inside)
            merged.append(phi)
        return merged

    def transpose(self, rows: list[Any]) -> list[Any]:
        """Transpose `lanes` vectors of `lanes` elements by log2(lanes) perfect shuffles."""
        half, lanes = self.lanes // 2, self.lanes

        def interleave(a: Any, b: Any, start: int) -> Any:
            order = [i for j in range(start, start + half) for i in (j, lanes + j)]
            mask = ir.Constant(ir.VectorType(_I32, lanes), [ir.Constant(_I32, i) for i in order])
            return self.builder.shuffle_vector(a, b, mask)

        stages = lanes.bit_length() - 1
        for _ in range(stages):
            rows = [
                interleave(rows[i], rows[i + half], start)
                for i in range(half)
                for start in (0, half)
            ]
        return rows


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
        zero = emit.integer(0)
        row_offsets = [zero]
        for _ in range(1, height):
            row_offsets.append(builder.add(row_offsets[-1], a_row))

        def body(_: Any, carried: list[Any]) -> list[Any]:
            a_now, b_now, *sums = carried
            panel = [emit.load(emit.offset(b_now, v * VECTOR_BYTES)) for v in range(width)]
            new = []
            for i in range(height):
                x = emit.broadcast(emit.offset(a_now, row_offsets[i]) if i else a_now)
                new += [emit.multiply_add(x, panel[v], sums[i * width + v]) for v in range(width)]
            return [emit.offset(a_now, a_k), emit.offset(b_now, width * VECTOR_BYTES), *new]

        prefetched = emit.pointer(c)
        for _ in range(height):
            for at in range(0, width * VECTOR_BYTES, CACHE_LINE):
                emit.prefetch(emit.offset(prefetched, at))
            prefetched = emit.offset(prefetched, c_row)
        start = [emit.pointer(a), emit.pointer(b)] + [emit.zero] * (height * width)
        sums = emit.loop(k, start, body)[2:]

        def finish(mask: Any) -> None:
            """Add what was there and the bias, and store; `mask` guards the last vector where it is
            not whole.
            """

            def load(pointer: Any, v: int) -> Any:
                return (
                    emit.masked_load(pointer, mask)
                    if mask is not None and v == width - 1
                    else emit.load(pointer)
                )

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
            result = emit.changed_if(
                accumulate, sums, added(lambda i, v: emit.offset(row_pointers[i], v * VECTOR_BYTES))
            )
            result = emit.changed_if(
                bias, result, added(lambda i, v: emit.offset(bias_pointer, v * VECTOR_BYTES))
            )
            every = [(i, v) for i in range(height) for v in range(width)]
            stores = [
                (x, emit.offset(row_pointers[i], v * VECTOR_BYTES), v)
                for x, (i, v) in zip(result, every, strict=True)
            ]
            emit.store_columns(stores, width, None if mask is None else lanes)

        with builder.if_else(builder.icmp_signed("==", lanes, emit.integer(emit.lanes))) as (
            whole,
            partial,
        ):
            with whole:
                finish(None)
            with partial:
                finish(emit.first_lanes(lanes))
        return context.get_dummy_value()

    return signature, generate


def _transposition(like: Any, integers: int) -> tuple[Any, Callable[..., Any]]:
    signature = types.void(like, *([types.intp] * integers))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, out, out_row, source, source_row, *rows = arguments
        pointer, block = emit.pointer(source), []
        for i in range(emit.lanes):
            row = emit.load(pointer)
            step = source_row
            if rows:
                row = builder.select(
                    builder.icmp_signed("<", emit.integer(i), rows[0]), row, emit.zero
                )
                step = builder.select(
                    builder.icmp_signed("<", emit.integer(i + 1), rows[0]), step, emit.integer(0)
                )
            block.append(row)
            pointer = emit.offset(pointer, step)
        pointer = emit.pointer(out)
        for row in emit.transpose(block):
            emit.store(row, pointer)
            pointer = emit.offset(pointer, out_row)
        return context.get_dummy_value()

    return signature, generate


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
