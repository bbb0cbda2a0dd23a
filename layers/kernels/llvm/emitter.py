"""What microkernels are written with: vector instructions, loops and conditions of LLVM."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from layers.kernels.machine import VECTOR_BYTES

from .formulas import fused

_I32, _I64, _I8 = ir.IntType(32), ir.IntType(64), ir.IntType(8)
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

    def multiples(self, step: Any, count: int) -> list[Any]:
        """Return 0, step, …, (count - 1) step."""
        multiples = [self.integer(0)]
        for _ in range(1, count):
            multiples.append(self.builder.add(multiples[-1], step))
        return multiples

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

    def keep_order(self) -> None:
        """Keep the compiler from moving an access to memory to the other side of this place."""
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", (), side_effect=True)

    def trailing_zeros(self, number: Any) -> Any:
        """Return with how many binary zeros a 64-bit number ends, which is not 0."""
        return self.call("llvm.cttz.i64", _I64, number, ir.Constant(ir.IntType(1), 1))

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
