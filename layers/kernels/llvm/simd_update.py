"""Microkernels of optimizers: an update by a formula of elements, and what guards it, a block at a
time.

Arrays that are changed are a tuple, parameters first and then their moments, which may be packed
(`layers.kernels.packed`). A log or checksums that are None cost nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from layers.kernels.machine import VECTOR_BYTES
from layers.kernels.packed import LINE_BYTES

from .elements import Elements
from .emitter import Emitter
from .simd_packed import Packed

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

    def log(self, values: list[Any], rows: list[Any]) -> None:
        """Store vectors to rows of the log."""
        for value, row in zip(values, rows, strict=True):
            self._emit.store(value, self._emit.offset(row, self._at))

    @property
    def first(self) -> Any:
        """The number of its first element in the block."""
        return self._emit.builder.udiv(self._at, self._emit.integer(self._emit.size))

    @property
    def end(self) -> Any:
        """The number of the element behind its last."""
        emit = self._emit
        lanes = emit.integer(emit.lanes) if self._rest is None else self._rest
        return emit.builder.add(self.first, lanes)

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
        Called with each vector of the block, or with those of each line if something is packed; it
        returns vectors of words.
    sums
        How many of them, which are added up.
    end
        Called with these sums.
    """

    on: Callable[[list[_Vector]], list[Any]]
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
        self._packed = [
            Packed(emit, signed=kind.signed) if isinstance(kind, types.Integer) else None
            for kind in (each.dtype for each in of)
        ]
        self.packs = any(self._packed)
        self._together = LINE_BYTES // VECTOR_BYTES if self.packs else 1
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

    def _places(self, start: Any) -> list[Any]:
        """Return where element `start` of each array is."""
        return [
            self._at(pointer, start) if packed is None else packed.place(pointer, start)
            for pointer, packed in zip(self._starts, self._packed, strict=True)
        ]

    def _sums_of(self, block: Any) -> list[Any]:
        row = self._builder.mul(block, self.emit.integer(4 * SUM_WORDS * self._count))
        first = self.emit.offset(self._held, row)
        return [self.emit.offset(first, 4 * SUM_WORDS * k) for k in range(self._count)]

    def _loaded(self, vectors: list[_Vector], places: list[Any]) -> list[Any]:
        """Return what arrays have there: a vector for each of these, or a packed line."""
        return [
            [vector.load([place])[0] for vector in vectors]
            if packed is None
            else packed.load(packed.place(place, vectors[0].first))
            for place, packed in zip(places, self._packed, strict=True)
        ]

    def _stored(self, held: list[Any], vectors: list[_Vector], places: list[Any]) -> None:
        """Store what `_loaded` would return."""
        plain = [k for k, packed in enumerate(self._packed) if packed is None]
        for i, vector in enumerate(vectors):
            vector.store([held[k][i] for k in plain], [places[k] for k in plain])
        for packed, raw, place in zip(self._packed, held, places, strict=True):
            if packed is not None:
                packed.store(raw, packed.place(place, vectors[0].first))

    def _log_of(self, held: list[Any], vectors: list[_Vector], rows: list[Any], begun: Any) -> None:
        """Store what arrays have to rows of the log, and then how many elements of them there are,
        before all that is stored afterwards.
        """
        for packed, each, row in zip(self._packed, held, rows, strict=True):
            if packed is not None:
                packed.store(each, packed.place(row, vectors[0].first))
                continue
            for value, vector in zip(each, vectors, strict=True):
                vector.log([value], [row])
        self.emit.keep_order()
        self._builder.store(vectors[-1].end, begun, align=8)
        self.emit.keep_order()

    def _words_of(self, held: list[Any], vectors: list[_Vector]) -> list[Any]:
        """Return the words of what each array has, added up to one vector."""
        builder, words = self._builder, []
        for packed, each in zip(self._packed, held, strict=True):
            if packed is not None:
                words.append(packed.words(each, self._sum))
                continue
            first, *others = [
                builder.bitcast(vector.counted(value), self._sum)
                for vector, value in zip(vectors, each, strict=True)
            ]
            for other in others:
                first = builder.add(first, other)
            words.append(first)
        return words

    def looked_at(self, start: Any, block: Any, first: Any) -> _Work:
        """Return what compares the checksums of a block, or notes them: see `look_at`."""
        sources = self._places(start)

        def on(vectors: list[_Vector]) -> list[Any]:
            return self._words_of(self._loaded(vectors, sources), vectors)

        def end(totals: list[Any]) -> Any:
            places = self._sums_of(block)
            found = self._compared(totals, places, first)
            builder = self._builder
            with builder.if_then(builder.icmp_signed("==", first, self.emit.integer(NOTE))):
                self._note(totals, places)
            return found

        return _Work(on, self._count, end)

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
        places = self._places(start)
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
        dither = numbers.pop() if self.packs else None
        dithers = [packed and packed.dithers(dither) for packed in self._packed]

        def on(vectors: list[_Vector]) -> list[Any]:
            given = [vector.load([gradient, factor]) for vector in vectors]
            old = self._loaded(vectors, places)
            if rows:
                self._log_of(old, vectors, rows, count)
            numbered = [
                each if packed is None else packed.unpacked(each)
                for packed, each in zip(self._packed, old, strict=True)
            ]
            results = []
            for (g, by), p, *moments in zip(given, *numbered, strict=True):
                p = builder.fmul(by, p)
                new = formula(*(Elements(emit, each) for each in (p, g, *moments, *numbers)))
                results.append([each.value for each in (new if isinstance(new, tuple) else (new,))])
            changed = [
                [*each] if packed is None else packed.packed([*each], by)
                for packed, by, *each in zip(self._packed, dithers, *results, strict=True)
            ]
            self._stored(changed, vectors, places)
            if not self._summed:
                return []
            return [*self._words_of(old, vectors), *self._words_of(changed, vectors)]

        def end(totals: list[Any]) -> Any:
            if not totals:
                return emit.integer(-1)
            held = self._sums_of(block)
            before, after = totals[: self._count], totals[self._count :]
            found = self._compared(before, held, first)
            differs = builder.icmp_signed(">=", found, emit.integer(0))
            for k, place in enumerate(held):
                apart = builder.sub(before[k], builder.load(place, align=4, typ=before[k].type))
                after[k] = builder.select(differs, apart, after[k])
            self._note(after, held)
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
        """Do work to so many elements, whole lines if something is packed, and return what its end
        returns.
        """
        emit, builder, together = self.emit, self._builder, self._together
        lanes = emit.integer(together * emit.lanes)

        def add(totals: list[Any], vectors: list[_Vector]) -> list[Any]:
            return [builder.add(*each) for each in zip(totals, work.on(vectors), strict=True)]

        def one(_: Any, carried: list[Any]) -> list[Any]:
            at, *totals = carried
            places = [
                at if not k else builder.add(at, emit.integer(k * VECTOR_BYTES))
                for k in range(together)
            ]
            new = add(totals, [_Vector(emit, place) for place in places])
            return [builder.add(at, emit.integer(together * VECTOR_BYTES)), *new]

        start = [self._zero, *[ir.Constant(self._sum, None)] * work.sums]
        carried = emit.loop(builder.udiv(size, lanes), start, one)
        if not self.packs:
            rest = builder.urem(size, lanes)

            def last(carried: list[Any]) -> list[Any]:
                at, *totals = carried
                return [at, *add(totals, [_Vector(emit, at, rest)])]

            carried = emit.changed_if(rest, carried, last)
        _, *totals = carried
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
    of values and moments. The values are multiplied by factors (at least size,) before. If an array
    is packed, the last scalar is not the formula's: codes are rounded by it, in [0, 1).

    In the same pass it

    - copies each vector to the rows of log (A, at least size) before it changes, and how many
      elements have been copied to the address `begun`;
    - compares the checksums of before as `look_at` does, returns what that does, and writes those
      of afterwards to sums[block]; where one differs, by how much each has changed.
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
