"""Microkernels of packed arrays (`layers.kernels.packed`): a line of elements to 8 bits each, and
back.

The code of an element x, in a line whose largest is at least 2^E and below 2^(E + 1), is

    c = floor(C (|x| / 2^(E + 1))^(1/4) + u),

C being the largest code, and stands for 2^(E + 1) (c / C)^4. So steps are fine where elements are
large, a sixtieth of them for codes to 255, and reach down to C^-4 of the largest, as those of
dynamic quantisation do (Dettmers et al. 2022, section 2.1), without a table.

u in [0, 1) is another one in each step, evenly spread. An average mostly changes by less than half
a step of codes, and rounding to the nearest would keep it where it is.
"""

import math
from typing import Any

from llvmlite import ir

from layers.kernels.machine import VECTOR_BYTES
from layers.kernels.packed import LINE_BYTES

from .emitter import Emitter

_BYTE, _WORD = ir.IntType(8), ir.IntType(32)
_NOT_FINITE = 255
"""The exponent of a line whose largest element is not finite, or above 2^127: that of float32."""


class Raw:
    """A packed line as it is in memory.

    Attributes
    ----------
    codes
        A vector of bytes.
    exponent
        A byte.
    """

    def __init__(self, codes: Any, exponent: Any) -> None:
        self.codes = codes
        self.exponent = exponent


class Packed:
    """Emits what turns lines into vectors of numbers and back.

    Parameters
    ----------
    emit
        Of the type of the parameters.
    signed
        Whether there are negative elements. Where there are none, one above 0 never becomes 0: it
        is something that others are divided by.
    """

    def __init__(self, emit: Emitter, *, signed: bool) -> None:
        self.emit = emit
        self.signed = signed
        self.line = LINE_BYTES // emit.size
        self.vectors = LINE_BYTES // VECTOR_BYTES
        self._codes = ir.VectorType(_BYTE, self.line)
        self._integer = ir.IntType(8 * emit.size)
        self._integers = ir.VectorType(self._integer, emit.lanes)
        self._most = 127 if signed else 255
        self._fraction = 23 if emit.size == 4 else 52
        # From the exponents of the type to those of float32.
        self._excess = 0 if emit.size == 4 else 1023 - 127

    def place(self, start: Any, elements: Any) -> Any:
        """Return the place of the line at so many elements from a start of lines."""
        builder, emit = self.emit.builder, self.emit
        lines = builder.udiv(elements, emit.integer(self.line))
        return emit.offset(start, builder.mul(lines, emit.integer(self.line + 1)))

    def load(self, place: Any) -> Raw:
        """Return the line at a place."""
        builder = self.emit.builder
        codes = builder.load(place, align=1, typ=self._codes)
        return Raw(codes, builder.load(self.emit.offset(place, self.line), align=1, typ=_BYTE))

    def store(self, raw: Raw, place: Any) -> None:
        """Store a line at a place."""
        self.emit.builder.store(raw.codes, place, align=1)
        self.emit.builder.store(raw.exponent, self.emit.offset(place, self.line), align=1)

    def words(self, raw: Raw, into: ir.VectorType) -> Any:
        """Return the words of a line as a vector of more of them, the last byte added to the
        first.
        """
        builder = self.emit.builder
        count = self.line // 4
        words = builder.bitcast(raw.codes, ir.VectorType(_WORD, count))
        zeros = ir.Constant(words.type, None)
        order = [ir.Constant(_WORD, min(i, count)) for i in range(into.count)]
        mask = ir.Constant(ir.VectorType(_WORD, into.count), order)
        wide = builder.shuffle_vector(words, zeros, mask)
        first = ir.Constant(_WORD, 0)
        exponent = builder.zext(raw.exponent, _WORD)
        return builder.add(wide, builder.insert_element(ir.Constant(into, None), exponent, first))

    def unpacked(self, raw: Raw) -> list[Any]:
        """Return the vectors of numbers of a line."""
        emit, builder = self.emit, self.emit.builder
        scale = emit.splat(self._scale(builder.zext(raw.exponent, self._integer)))
        # The fourth root of 2 is in the scale of the codes.
        step = emit.constant(math.sqrt(math.sqrt(2)) / self._most)
        vectors = []
        for k in range(self.vectors):
            order = [ir.Constant(_WORD, k * emit.lanes + i) for i in range(emit.lanes)]
            mask = ir.Constant(ir.VectorType(_WORD, emit.lanes), order)
            codes = builder.shuffle_vector(raw.codes, ir.Constant(self._codes, None), mask)
            if self.signed:
                numbers = builder.sitofp(builder.sext(codes, self._integers), emit.vector)
            else:
                numbers = builder.uitofp(builder.zext(codes, self._integers), emit.vector)
            root = builder.fmul(numbers, step)
            square = builder.fmul(root, root)
            size = builder.fmul(builder.fmul(square, square), scale)
            negative = builder.fcmp_ordered("<", numbers, emit.zero)
            vectors.append(builder.select(negative, builder.fneg(size), size))
        return vectors

    def _scale(self, exponent: Any) -> Any:
        """Return 2^(exponent - 127): 0 for 0, inf for `_NOT_FINITE`."""
        builder = self.emit.builder
        field = exponent
        if self._excess:
            field = builder.add(exponent, self._constant(self._excess))
            for limit, end in ((0, 0), (_NOT_FINITE, 2047)):
                there = builder.icmp_unsigned("==", exponent, self._constant(limit))
                field = builder.select(there, self._constant(end), field)
        bits = builder.shl(field, self._constant(self._fraction))
        return builder.bitcast(bits, self.emit.element)

    def _constant(self, value: int) -> Any:
        return ir.Constant(self._integer, value)

    def packed(self, vectors: list[Any], dither: Any) -> Raw:
        """Return the line of vectors of numbers, rounded by vectors `dither`, one for each."""
        emit, builder = self.emit, self.emit.builder
        exponent = self._exponent(vectors)
        field = builder.sub(self._constant(254 + self._excess), exponent)
        bits = builder.shl(field, self._constant(self._fraction))
        by = emit.splat(builder.bitcast(bits, emit.element))
        most = emit.constant(self._most)
        step = emit.constant(self._most / math.sqrt(math.sqrt(2)))
        parts = []
        for x, u in zip(vectors, dither, strict=True):
            root = builder.fmul(emit.call(f"llvm.fabs.{emit.suffix}", emit.vector, x), by)
            for _ in range(2):
                root = emit.call(f"llvm.sqrt.{emit.suffix}", emit.vector, root)
            code = builder.fadd(builder.fmul(root, step), u)
            # Of what is not finite, too.
            code = builder.select(builder.fcmp_ordered("<", code, most), code, most)
            code = builder.fptosi(code, self._integers)
            if self.signed:
                negative = builder.fcmp_ordered("<", x, emit.zero)
                opposite = builder.sub(ir.Constant(self._integers, None), code)
                code = builder.select(negative, opposite, code)
            else:
                above = builder.fcmp_ordered(">", root, emit.zero)
                least = builder.zext(above, self._integers)
                code = builder.select(builder.icmp_signed(">", code, least), code, least)
            parts.append(builder.trunc(code, ir.VectorType(_BYTE, emit.lanes)))
        return Raw(self._joined(parts), builder.trunc(exponent, _BYTE))

    def _exponent(self, vectors: list[Any]) -> Any:
        """Return the exponent of the largest of all elements: 0 for what is less than 2^-126."""
        emit, builder = self.emit, self.emit.builder
        largest = None
        for x in vectors:
            size = emit.call(f"llvm.fabs.{emit.suffix}", emit.vector, x)
            bits = builder.bitcast(size, self._integers)
            if largest is not None:
                larger = builder.icmp_unsigned(">", bits, largest)
                bits = builder.select(larger, bits, largest)
            largest = bits
        name = f"llvm.vector.reduce.umax.v{emit.lanes}i{8 * emit.size}"
        top = builder.lshr(emit.call(name, self._integer, largest), self._constant(self._fraction))
        if self._excess:
            top = builder.sub(top, self._constant(self._excess))
            low = builder.icmp_signed("<", top, self._constant(0))
            top = builder.select(low, self._constant(0), top)
        high = builder.icmp_signed(">=", top, self._constant(_NOT_FINITE - 1))
        return builder.select(high, self._constant(_NOT_FINITE), top)

    def _joined(self, parts: list[Any]) -> Any:
        """Return vectors of bytes, a power of two of them, as one."""
        builder = self.emit.builder
        while len(parts) > 1:
            count = 2 * parts[0].type.count
            order = [ir.Constant(_WORD, i) for i in range(count)]
            mask = ir.Constant(ir.VectorType(_WORD, count), order)
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [builder.shuffle_vector(*pair, mask) for pair in pairs]
        return parts[0]

    def dithers(self, step: Any) -> list[Any]:
        """Return what `packed` rounds each vector of a line by, given a number of the step in [0,
        1): lanes are evenly apart, in the order of reversed bits.
        """
        emit, builder = self.emit, self.emit.builder
        bits = self.line.bit_length() - 1
        places = [int(f"{i:0{bits}b}"[::-1], 2) / self.line for i in range(self.line)]
        one = emit.constant(1)
        vectors = []
        for k in range(self.vectors):
            own = ir.Constant(emit.vector, places[k * emit.lanes : (k + 1) * emit.lanes])
            moved = builder.fadd(step, own)
            over = builder.fcmp_ordered(">=", moved, one)
            vectors.append(builder.select(over, builder.fsub(moved, one), moved))
        return vectors
