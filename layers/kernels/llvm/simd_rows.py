"""Sums, maxima and exponentials of a row, in a fixed order whatever the processor.

A row is taken in vectors of 64 bytes, four at a time as long as there are four, then one by one;
the last one is filled up. So the bits of a sum depend on the row and its length alone. Arguments
are addresses and a number of elements; the first argument is an array that only tells the element
type.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from layers.kernels.jit import inlined

from .emitter import Emitter
from .formulas import Formulas
from .memory import address_of

# Part of the order of the sums, hence the same for every processor.
ROW_BYTES = 64
CHAINS = 4


class RowEmitter(Emitter):
    """Emits instructions on vectors of ROW_BYTES, whatever the processor has."""

    def __init__(self, builder: Any, dtype: Any) -> None:
        super().__init__(builder, dtype)
        self.lanes = ROW_BYTES // self.size
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, None)
        self.formulas = Formulas(builder, dtype, self.lanes)

    def filled_load(self, pointer: Any, mask: Any, fill: Any) -> Any:
        """Load the lanes of the mask, and take `fill` for the others."""
        name = f"llvm.masked.load.{self.suffix}.p0"
        return self.call(
            name, self.vector, pointer, ir.Constant(ir.IntType(32), self.size), mask, fill
        )

    def folded(self, x: Any, join: Callable[[Any, Any], Any]) -> Any:
        """Return the lanes of a vector joined in a binary tree: lane i with lane i + n/2, and so
        on.
        """
        count = self.lanes
        while count > 1:
            count //= 2
            halves = []
            for start in (0, count):
                order = ir.Constant(
                    ir.VectorType(ir.IntType(32), count),
                    [ir.Constant(ir.IntType(32), start + i) for i in range(count)],
                )
                halves.append(
                    self.builder.shuffle_vector(x, ir.Constant(x.type, ir.Undefined), order)
                )
            x = join(*halves)
        return self.builder.extract_element(x, ir.Constant(ir.IntType(32), 0))

    def exp(self, x: Any) -> Any:
        """Return e^x for x <= 0."""
        (result,) = self.formulas.exp_of_nonpositive([x])
        return result

    def over_row(
        self, n: Any, sums: int, start: Any, body: Callable[[Any, Any, list[Any]], list[Any]]
    ) -> list[list[Any]]:
        """Run body(byte offset, mask or None, chains of sums) over n elements; return the CHAINS
        values of each of `sums` sums.
        """
        builder = self.builder
        lanes, bits = self.lanes, ROW_BYTES.bit_length() - 1
        whole = builder.sdiv(n, self.integer(lanes))
        fours = builder.sdiv(whole, self.integer(CHAINS))

        def four(i: Any, carried: list[Any]) -> list[Any]:
            at = builder.shl(i, self.integer(bits + 2))
            new = []
            for chain in range(CHAINS):
                place = builder.add(at, self.integer(chain * ROW_BYTES))
                new += body(place, None, carried[chain * sums : (chain + 1) * sums])
            return new

        carried = self.loop(fours, [start] * (CHAINS * sums), four)
        done = builder.mul(fours, self.integer(CHAINS))

        def one(i: Any, first: list[Any]) -> list[Any]:
            return body(builder.shl(builder.add(done, i), self.integer(bits)), None, first)

        carried = [*self.loop(builder.sub(whole, done), carried[:sums], one), *carried[sums:]]
        rest = builder.sub(n, builder.mul(whole, self.integer(lanes)))

        def last(first: list[Any]) -> list[Any]:
            return body(builder.shl(whole, self.integer(bits)), self.first_lanes(rest), first)

        # A loop of one step where there is a rest, of none where there is not: it needs no result
        # without sums.
        some = builder.zext(builder.icmp_signed(">", rest, self.integer(0)), ir.IntType(64))
        carried = [*self.loop(some, carried[:sums], lambda _, first: last(first)), *carried[sums:]]
        return [[carried[chain * sums + s] for chain in range(CHAINS)] for s in range(sums)]

    def over_strip(
        self,
        arrays: list[Any],
        row: Any,
        rows: Any,
        n: Any,
        seen: Any,
        step: Any,
        start: Callable[[Any], Any],
        sums: list[Any],
        body: Callable[..., list[Any]],
        end: Callable[[Any, list[Any]], None],
    ) -> None:
        """Run body(pointers, mask or None, sums, start(row)) over the rows of a strip, and end(row,
        sums) after each.

        Of n elements, the first row sees `seen`, each other `step` more than that before. All rows
        are taken in as many vectors, so that processors foresee the branches; those that every row
        sees whole need no mask.
        """
        builder, lanes = self.builder, self.integer(self.lanes)
        nothing = self.integer(0)

        def least(a: Any, b: Any) -> Any:
            return builder.select(builder.icmp_signed("<", a, b), a, b)

        first = least(seen, n)
        whole = builder.sdiv(
            builder.select(builder.icmp_signed("<", first, nothing), nothing, first), lanes
        )
        partial = builder.sub(
            builder.sdiv(builder.add(n, self.integer(self.lanes - 1)), lanes), whole
        )

        def one(r: Any, carried: list[Any]) -> list[Any]:
            seen, *pointers = carried
            given = start(r)

            def unmasked(v: Any, sums: list[Any]) -> list[Any]:
                at = builder.mul(v, self.integer(ROW_BYTES))
                return body([self.offset(pointer, at) for pointer in pointers], None, sums, given)

            def masked(v: Any, sums: list[Any]) -> list[Any]:
                v = builder.add(v, whole)
                at = builder.mul(v, self.integer(ROW_BYTES))
                left = builder.sub(least(seen, n), builder.mul(v, lanes))
                return body(
                    [self.offset(pointer, at) for pointer in pointers],
                    self.lanes_before(left),
                    sums,
                    given,
                )

            end(r, self.loop(partial, self.loop(whole, sums, unmasked), masked))
            return [builder.add(seen, step), *(self.offset(pointer, row) for pointer in pointers)]

        self.loop(rows, [seen, *(self.pointer(array) for array in arrays)], one)

    def lanes_before(self, count: Any) -> Any:
        """Return `first_lanes(count)`, made of numbers that are as wide as the elements; count may
        be negative.
        """
        integer = ir.IntType(self.size * 8)
        if self.size < 8:
            count = self.builder.trunc(count, integer)
        numbers = ir.Constant(
            ir.VectorType(integer, self.lanes), [ir.Constant(integer, i) for i in range(self.lanes)]
        )
        return self.builder.icmp_signed("<", numbers, self.splat(count))

    def element_at(self, address: Any, index: Any) -> Any:
        """Return the pointer to an element of an array."""
        return self.offset(self.pointer(address), self.builder.mul(index, self.integer(self.size)))

    def total(self, chains: list[Any]) -> Any:
        """Return the sum of four chains."""
        fadd = self.builder.fadd
        return self.folded(fadd(fadd(chains[0], chains[1]), fadd(chains[2], chains[3])), fadd)


@intrinsic
def _row_sum(typingctx: Any, like: Any, x: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, x, n = arguments

        def body(at: Any, mask: Any, sums: list[Any]) -> list[Any]:
            pointer = emit.offset(emit.pointer(x), at)
            value = (
                emit.load(pointer) if mask is None else emit.filled_load(pointer, mask, emit.zero)
            )
            return [builder.fadd(sums[0], value)]

        return emit.total(emit.over_row(n, 1, emit.zero, body)[0])

    return like.dtype(like, types.intp, types.intp), generate


@intrinsic
def _row_squares(typingctx: Any, like: Any, x: Any, n: Any, centre: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, x, n, centre = arguments
        middle = emit.splat(centre)

        def body(at: Any, mask: Any, sums: list[Any]) -> list[Any]:
            pointer = emit.offset(emit.pointer(x), at)
            value = emit.load(pointer) if mask is None else emit.filled_load(pointer, mask, middle)
            d = builder.fsub(value, middle)
            return [emit.multiply_add(d, d, sums[0])]

        return emit.total(emit.over_row(n, 1, emit.zero, body)[0])

    return like.dtype(like, types.intp, types.intp, like.dtype), generate


@intrinsic
def _row_dot(typingctx: Any, like: Any, x: Any, y: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, x, y, n = arguments

        def body(at: Any, mask: Any, sums: list[Any]) -> list[Any]:
            a, b = (
                emit.load(pointer) if mask is None else emit.filled_load(pointer, mask, emit.zero)
                for pointer in (emit.offset(emit.pointer(address), at) for address in (x, y))
            )
            return [emit.multiply_add(a, b, sums[0])]

        return emit.total(emit.over_row(n, 1, emit.zero, body)[0])

    return like.dtype(like, types.intp, types.intp, types.intp), generate


@intrinsic
def _row_max(typingctx: Any, like: Any, x: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, x, n = arguments
        lowest = emit.constant(float("-inf"))

        def greater(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def body(at: Any, mask: Any, sums: list[Any]) -> list[Any]:
            pointer = emit.offset(emit.pointer(x), at)
            return [
                greater(
                    emit.load(pointer) if mask is None else emit.filled_load(pointer, mask, lowest),
                    sums[0],
                )
            ]

        a, b, c, d = emit.over_row(n, 1, lowest, body)[0]
        return emit.folded(greater(greater(a, b), greater(c, d)), greater)

    return like.dtype(like, types.intp, types.intp), generate


@intrinsic
def _strip_max(
    typingctx: Any, like: Any, out: Any, x: Any, row: Any, rows: Any, n: Any, seen: Any, step: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, out, x, *strip = arguments
        lowest = emit.constant(float("-inf"))

        def greater(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def body(at: Any, mask: Any, sums: list[Any], _: Any) -> list[Any]:
            value = emit.load(at[0])
            return [
                greater(value if mask is None else builder.select(mask, value, lowest), sums[0])
            ]

        def end(r: Any, sums: list[Any]) -> None:
            builder.store(emit.folded(sums[0], greater), emit.element_at(out, r), align=emit.size)

        emit.over_strip([x], *strip, lambda r: None, [lowest], body, end)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 7)), generate


@intrinsic
def _strip_dot(
    typingctx: Any, like: Any, out: Any, x: Any, y: Any, row: Any, rows: Any, n: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, out, x, y, row, rows, n = arguments

        def body(at: Any, mask: Any, sums: list[Any], _: Any) -> list[Any]:
            a, b = (
                emit.load(pointer) if mask is None else emit.filled_load(pointer, mask, emit.zero)
                for pointer in at
            )
            return [emit.multiply_add(a, b, sums[0])]

        def end(r: Any, sums: list[Any]) -> None:
            builder.store(
                emit.folded(sums[0], builder.fadd), emit.element_at(out, r), align=emit.size
            )

        emit.over_strip(
            [x, y], row, rows, n, n, emit.integer(0), lambda r: None, [emit.zero], body, end
        )
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 6)), generate


@intrinsic
def _strip_exp(
    typingctx: Any,
    like: Any,
    sums: Any,
    p: Any,
    row: Any,
    rows: Any,
    n: Any,
    seen: Any,
    step: Any,
    scale: Any,
    shifts: Any,
) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, out, p, *strip, scale, shifts = arguments
        factor = emit.splat(scale)

        def start(r: Any) -> Any:
            return builder.fneg(emit.broadcast(emit.element_at(shifts, r)))

        def body(at: Any, mask: Any, sums: list[Any], down: Any) -> list[Any]:
            e = emit.exp(emit.multiply_add(emit.load(at[0]), factor, down))
            if mask is not None:
                e = builder.select(mask, e, emit.zero)
            emit.store(e, at[0])
            return [builder.fadd(sums[0], e)]

        def end(r: Any, sums: list[Any]) -> None:
            builder.store(
                emit.folded(sums[0], builder.fadd), emit.element_at(out, r), align=emit.size
            )

        emit.over_strip([p], *strip, start, [emit.zero], body, end)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 7), like.dtype, types.intp), generate


@intrinsic
def _strip_softmax_gradient(
    typingctx: Any,
    like: Any,
    p: Any,
    g: Any,
    row: Any,
    rows: Any,
    n: Any,
    seen: Any,
    step: Any,
    scale: Any,
    shifts: Any,
    inverses: Any,
    means: Any,
) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = RowEmitter(builder, like.dtype)
        _, p, g, *strip, scale, shifts, inverses, means = arguments
        factor = emit.splat(scale)

        def start(r: Any) -> list[Any]:
            shift, inverse, mean = (
                emit.broadcast(emit.element_at(array, r)) for array in (shifts, inverses, means)
            )
            return [builder.fneg(shift), inverse, mean]

        def body(at: Any, mask: Any, sums: list[Any], given: Any) -> list[Any]:
            down, share, centre = given
            e = builder.fmul(share, emit.exp(emit.multiply_add(emit.load(at[0]), factor, down)))
            gradient = builder.fmul(builder.fmul(e, factor), builder.fsub(emit.load(at[1]), centre))
            if mask is not None:
                e, gradient = (
                    builder.select(mask, e, emit.zero),
                    builder.select(mask, gradient, emit.zero),
                )
            emit.store(e, at[0])
            emit.store(gradient, at[1])
            return sums

        emit.over_strip([p, g], *strip, start, [], body, lambda r, sums: None)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 7), like.dtype, *([types.intp] * 3)), generate


@inlined
def row_sum(x):
    """Return the sum of x (n,)."""
    return _row_sum(x, address_of(x), x.size)


@inlined
def row_squares(x, centre):
    """Return the sum of (x - centre)^2; x (n,)."""
    return _row_squares(x, address_of(x), x.size, centre)


@inlined
def row_dot(x, y):
    """Return the sum of x y, both (n,)."""
    return _row_dot(x, address_of(x), address_of(y), x.size)


@inlined
def row_max(x, n):
    """Return the greatest of the first n elements of x; -inf if there is none. NaN counts for
    nothing.
    """
    return _row_max(x, address_of(x), n)


@inlined
def strip_max(out, x, row, n, seen, step):
    """Write to out (R,) the greatest of the elements seen of each row of a strip; -inf if there is
    none. NaN counts for nothing.

    Of the rows of x, `row` elements apart, the first sees the first `seen` elements of n, each
    other `step` more than that before.
    """
    size = x.itemsize
    _strip_max(x, address_of(out), address_of(x), row * size, out.size, n, seen, step)


@inlined
def strip_dot(out, x, y):
    """Write to out (R,) the sums of x y over the columns of two strips (R, n) whose rows are as far
    apart.
    """
    _strip_dot(x, address_of(out), address_of(x), address_of(y), x.strides[0], out.size, x.shape[1])


@inlined
def strip_exp(sums, p, row, n, seen, step, scale, shifts):
    """Write p_j = e^(scale p_j - shift) where it is seen, else 0, up to the end of the vector of
    element n - 1; and the rows' sums.

    Exponents are at most 0. Rows end at a whole vector of ROW_BYTES.
    See `strip_max`.
    """
    size = p.itemsize
    _strip_exp(
        p,
        address_of(sums),
        address_of(p),
        row * size,
        sums.size,
        n,
        seen,
        step,
        scale,
        address_of(shifts),
    )


@inlined
def strip_softmax_gradient(p, g, row, n, seen, step, scale, shifts, inverses, means):
    """Write p_j = inverse e^(scale p_j - shift), then g_j = scale p_j (g_j - mean), where it is
    seen, else 0: see `strip_exp`.
    """
    size = p.itemsize
    _strip_softmax_gradient(
        p,
        address_of(p),
        address_of(g),
        row * size,
        means.size,
        n,
        seen,
        step,
        scale,
        address_of(shifts),
        address_of(inverses),
        address_of(means),
    )
