"""Microkernels of optimizers: an update by a formula of elements, and what guards it, a block at a
time.

Arrays that are changed are a tuple, parameters first and then their moments. A log or checksums
that are None cost nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from layers.kernels.machine import VECTOR_BYTES

from .elements import Elements
from .emitter import Emitter

SUM_WORDS = 4
"""Numbers of 32 bits of a checksum: sums of every fourth word, as many as the narrowest vectors
have.
"""
NOTE = 1 << 30
"""In place of the first array whose checksums are compared: none is, and all are noted."""

_WORD = ir.IntType(32)


def _is_given(of: Any) -> bool:
    return not isinstance(of, types.NoneType)


class _Vector:
    """A vector of a block: `at` bytes from where the block begins. Of the last one only the first
    `rest` lanes count.
    """

    def __init__(self, emit: Emitter, at: Any, rest: Any = None) -> None:
        self._emit = emit
        self._at = at
        self._rest = rest
        self._mask = None if rest is None else emit.first_lanes(rest)

    def load(self, pointers: list[Any]) -> list[Any]:
        """Return a vector of each array; lanes that do not count are 0."""
        emit, places = self._emit, [self._emit.offset(each, self._at) for each in pointers]
        if self._mask is None:
            return [emit.load(place) for place in places]
        return [emit.masked_load(place, self._mask) for place in places]

    def store(self, values: list[Any], pointers: list[Any]) -> None:
        """Store a vector to each array."""
        emit, places = self._emit, [self._emit.offset(each, self._at) for each in pointers]
        if self._rest is not None:
            emit.store_first(values, places, self._rest)
            return
        for value, place in zip(values, places, strict=True):
            emit.store(value, place)

    def log(self, values: list[Any], rows: list[Any], begun: Any) -> None:
        """Store vectors to rows of the log, and then how many elements of them there are, before
        all that is stored afterwards.
        """
        emit, builder = self._emit, self._emit.builder
        for value, row in zip(values, rows, strict=True):
            emit.store(value, emit.offset(row, self._at))
        lanes = emit.integer(emit.lanes) if self._rest is None else self._rest
        before = builder.udiv(self._at, emit.integer(emit.size))
        emit.keep_order()
        builder.store(builder.add(before, lanes), begun, align=8)
        emit.keep_order()

    def counted(self, value: Any) -> Any:
        """Return a vector with 0 in lanes that do not count."""
        if self._mask is None:
            return value
        return self._emit.builder.select(self._mask, value, self._emit.zero)


class _Work(NamedTuple):
    """What is done to a block.

    Attributes
    ----------
    on
        Called with each vector of the block; it returns values.
    sums
        How many, whose words are added up.
    end
        Called with these sums.
    """

    on: Callable[[_Vector], list[Any]]
    sums: int
    end: Callable[[list[Any]], Any]


class _Update:
    """Emits what is done to blocks of arrays.

    Parameters
    ----------
    context, builder
        Of Numba and LLVM.
    changed, log, sums
        Types and values of the arrays.
    """

    def __init__(self, context: Any, builder: Any, changed: Any, log: Any, sums: Any) -> None:
        self._context = context
        self._builder = builder
        of, arrays = changed
        self.emit = emit = Emitter(builder, of[0].dtype)
        self._count = len(of)
        unpacked = cgutils.unpack_tuple(builder, arrays, len(of))
        self._starts = [self._start_of(*each) for each in zip(of, unpacked, strict=True)]
        self._logged, self._summed = _is_given(log[0]), _is_given(sums[0])
        if self._logged:
            strides = context.make_array(log[0])(context, builder, log[1]).strides
            self._row = builder.extract_value(strides, 0)
            self._log = self._start_of(*log)
        if self._summed:
            self._held = self._start_of(*sums)
        self._sum = ir.VectorType(_WORD, VECTOR_BYTES // 4)
        self._zero = emit.integer(0)

    def _start_of(self, of: Any, array: Any) -> Any:
        data = self._context.make_array(of)(self._context, self._builder, array).data
        return self.emit.pointer(self._builder.ptrtoint(data, self.emit.int64))

    def _at(self, pointer: Any, element: Any) -> Any:
        by = self._builder.mul(element, self.emit.integer(self.emit.size))
        return self.emit.offset(pointer, by)

    def _sums_of(self, block: Any) -> list[Any]:
        row = self._builder.mul(block, self.emit.integer(4 * SUM_WORDS * self._count))
        first = self.emit.offset(self._held, row)
        return [self.emit.offset(first, 4 * SUM_WORDS * k) for k in range(self._count)]

    def looked_at(self, start: Any, block: Any, first: Any) -> _Work:
        """Return what compares the checksums of a block, or notes them: see `look_at`."""
        sources = [self._at(pointer, start) for pointer in self._starts]

        def end(totals: list[Any]) -> Any:
            places = self._sums_of(block)
            found = self._compared(totals, places, first)
            builder = self._builder
            with builder.if_then(builder.icmp_signed("==", first, self.emit.integer(NOTE))):
                self._note(totals, places)
            return found

        return _Work(lambda vector: vector.load(sources), self._count, end)

    def changed(
        self,
        formula: Callable[..., Any],
        gradients: Any,
        factors: Any,
        begun: Any,
        scalars: Any,
        start: Any,
        block: Any,
        first: Any,
    ) -> _Work:
        """Return what changes a block by a formula: see `updating`."""
        emit, builder = self.emit, self._builder
        places = [self._at(pointer, start) for pointer in self._starts]
        gradient = self._at(self._start_of(*gradients), start)
        factor = self._start_of(*factors)
        rows = [
            emit.offset(self._log, builder.mul(self._row, emit.integer(k)))
            for k in range(self._count * self._logged)
        ]
        count = emit.pointer(begun)
        of, values = scalars
        unpacked = cgutils.unpack_tuple(builder, values, len(of))
        numbers = [
            value
            if isinstance(each, types.Boolean)
            else emit.splat(self._context.cast(builder, value, each, gradients[0].dtype))
            for each, value in zip(of, unpacked, strict=True)
        ]

        def on(vector: _Vector) -> list[Any]:
            g, by, *old = vector.load([gradient, factor, *places])
            if rows:
                vector.log(old, rows, count)
            p, *moments = old
            p = builder.fmul(by, p)
            new = formula(*(Elements(emit, each) for each in (p, g, *moments, *numbers)))
            results = [each.value for each in (new if isinstance(new, tuple) else (new,))]
            vector.store(results, places)
            return [*old, *results] if self._summed else []

        def end(totals: list[Any]) -> Any:
            if not totals:
                return emit.integer(-1)
            held = self._sums_of(block)
            found = self._compared(totals[: self._count], held, first)
            self._note(totals[self._count :], held)
            return found

        return _Work(on, 2 * self._count * self._summed, end)

    def _compared(self, totals: list[Any], places: list[Any], first: Any) -> Any:
        """Return the number of the first array whose checksum differs, or -1."""
        emit, builder = self.emit, self._builder
        found, bits = emit.integer(-1), ir.IntType(SUM_WORDS)
        for k in reversed(range(self._count)):
            before = builder.load(places[k], align=4, typ=totals[k].type)
            other = builder.bitcast(builder.icmp_signed("!=", before, totals[k]), bits)
            differs = builder.icmp_signed("!=", other, ir.Constant(bits, 0))
            compared = builder.icmp_signed("<=", first, emit.integer(k))
            found = builder.select(builder.and_(differs, compared), emit.integer(k), found)
        return found

    def _note(self, totals: list[Any], places: list[Any]) -> None:
        for total, place in zip(totals, places, strict=True):
            self._builder.store(total, place, align=4)

    def do(self, work: _Work, size: Any) -> Any:
        """Do work to so many elements, and return what its end returns."""
        emit, builder = self.emit, self._builder
        lanes = emit.integer(emit.lanes)
        rest = builder.urem(size, lanes)

        def add(totals: list[Any], vector: _Vector) -> list[Any]:
            values = [vector.counted(each) for each in work.on(vector)]
            words = [builder.bitcast(each, self._sum) for each in values]
            return [builder.add(*each) for each in zip(totals, words, strict=True)]

        def one(_: Any, carried: list[Any]) -> list[Any]:
            at, *totals = carried
            new = add(totals, _Vector(emit, at))
            return [builder.add(at, emit.integer(VECTOR_BYTES)), *new]

        def last(carried: list[Any]) -> list[Any]:
            at, *totals = carried
            return [at, *add(totals, _Vector(emit, at, rest))]

        start = [self._zero, *[ir.Constant(self._sum, None)] * work.sums]
        carried = emit.loop(builder.udiv(size, lanes), start, one)
        _, *totals = emit.changed_if(rest, carried, last)
        return work.end([self._folded(total) for total in totals])

    def _folded(self, total: Any) -> Any:
        """Return the sums of every fourth lane."""
        count = total.type.count
        while count > SUM_WORDS:
            count //= 2
            halves = []
            for first in (0, count):
                order = [ir.Constant(_WORD, first + i) for i in range(count)]
                mask = ir.Constant(ir.VectorType(_WORD, count), order)
                halves.append(self._builder.shuffle_vector(total, total, mask))
            total = self._builder.add(*halves)
        return total


@intrinsic
def look_at(
    typingctx: Any, changed: Any, start: Any, size: Any, sums: Any, block: Any, first: Any
) -> Any:
    """Compare the checksums of elements [start, start + size) of the arrays from number `first` on
    with sums[block], or write these, if `first` is NOTE.

    Return the number of the first array that has another one, or -1.
    """
    signature = types.int64(changed, types.int64, types.int64, sums, types.int64, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays, start, size, held, block, first = arguments
        none = types.none, None
        update = _Update(context, builder, (changed, arrays), none, (sums, held))
        return update.do(update.looked_at(start, block, first), size)

    return signature, generate


def updating(formula: Callable[..., Any]) -> Any:
    """Return the intrinsic that updates elements [start, start + size) of the arrays by a formula
    (values, gradients, \\*moments, \\*scalars) of `Elements`, which returns what takes the places
    of values and moments. The values are multiplied by factors (at least size,) before.

    In the same pass it

    - copies each vector to the rows of log (A, at least size) before it changes, and how many
      elements have been copied to the address `begun`;
    - compares the checksums of before as `look_at` does, returns what that does, and writes those
      of afterwards to sums[block].
    """

    def update(
        typingctx: Any,
        changed: Any,
        g: Any,
        factors: Any,
        start: Any,
        size: Any,
        log: Any,
        begun: Any,
        sums: Any,
        block: Any,
        first: Any,
        scalars: Any,
    ) -> Any:
        integer = types.int64
        signature = integer(
            *(changed, g, factors, integer, integer),
            *(log, integer, sums, integer, integer, scalars),
        )

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays, gradients, by, start, size, to, begun, held, block, first, given = arguments
            update = _Update(context, builder, (changed, arrays), (log, to), (sums, held))
            work = update.changed(
                formula,
                (g, gradients),
                (factors, by),
                begun,
                (scalars, given),
                start,
                block,
                first,
            )
            return update.do(work, size)

        return signature, generate

    # Kernels are told apart by the names of what they are made of.
    update.__qualname__ = f"{formula.__module__}.{formula.__qualname__}"
    return intrinsic(update)
