"""Formulas of elements of arrays, of which a vector at a time is computed: they are written with
operators, and with the functions of this file.
"""

from typing import Any

from .emitter import Emitter


class Elements:
    """Elements of an array, or a number for all of them, in a formula; of comparisons, conditions.

    Parameters
    ----------
    emit
        What emits instructions.
    value
        A vector of LLVM's, or one condition.
    """

    def __init__(self, emit: Emitter, value: Any) -> None:
        self.emit = emit
        self.value = value

    def _value_of(self, other: Any) -> Any:
        return other.value if isinstance(other, Elements) else self.emit.constant(other)

    def _joined(self, operation: Any, first: Any, second: Any) -> "Elements":
        return Elements(self.emit, operation(self._value_of(first), self._value_of(second)))

    def __add__(self, other: Any) -> "Elements":
        return self._joined(self.emit.builder.fadd, self, other)

    def __sub__(self, other: Any) -> "Elements":
        return self._joined(self.emit.builder.fsub, self, other)

    def __rsub__(self, other: Any) -> "Elements":
        return self._joined(self.emit.builder.fsub, other, self)

    def __mul__(self, other: Any) -> "Elements":
        return self._joined(self.emit.builder.fmul, self, other)

    def __truediv__(self, other: Any) -> "Elements":
        return self._joined(self.emit.builder.fdiv, self, other)

    def __rtruediv__(self, other: Any) -> "Elements":
        return self._joined(self.emit.builder.fdiv, other, self)

    def __neg__(self) -> "Elements":
        return Elements(self.emit, self.emit.builder.fneg(self.value))

    def _compared(self, sign: str, other: Any) -> "Elements":
        """Return conditions, which do not hold for NaN."""
        compare = self.emit.builder.fcmp_ordered
        return Elements(self.emit, compare(sign, self.value, self._value_of(other)))

    def __gt__(self, other: Any) -> "Elements":
        return self._compared(">", other)

    def __ge__(self, other: Any) -> "Elements":
        return self._compared(">=", other)

    def __lt__(self, other: Any) -> "Elements":
        return self._compared("<", other)


def fma(a: Elements, b: Elements, c: Elements) -> Elements:
    """Return a b + c, rounded once."""
    return Elements(a.emit, a.emit.multiply_add(a.value, b.value, c.value))


def sqrt(x: Elements) -> Elements:
    """Return the square root."""
    return Elements(x.emit, x.emit.call(f"llvm.sqrt.{x.emit.suffix}", x.emit.vector, x.value))


def where(condition: Elements, a: Elements, b: Elements) -> Elements:
    """Return a where the condition holds, else b."""
    return Elements(a.emit, a.emit.builder.select(condition.value, a.value, b.value))


def sign(x: Elements) -> Elements:
    """Return -1, 0 or 1; NaN stays NaN."""
    one, minus_one, zero = (Elements(x.emit, x.emit.constant(each)) for each in (1, -1, 0))
    return where(x > 0, one, where(x < 0, minus_one, where(x._compared("==", 0), zero, x)))
