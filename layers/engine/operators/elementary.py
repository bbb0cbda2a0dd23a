"""Functions of one input, element by element, by kernels of our own: the same bits on every
processor.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import require_floating
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import contiguous
from layers.errors import wording
from layers.kernels import elementary, elementwise
from layers.types import Array

if TYPE_CHECKING:
    from layers.engine.call import Call

_LARGEST = 2.0**50
"""What `sin` and `cos` of kernels take."""


class Function(Layer):
    """An elementwise function, with its derivative as a function of (x, y).

    Parameters
    ----------
    function
        Writes to its second argument the function of the first, both of one shape and
        contiguous.
    derivative
        Returns the derivative, given x and y.
    name
        What the call is shown as.
    """

    elementwise = True
    replayable = True

    def __init__(
        self,
        function: Callable[[Array, Array], Any],
        derivative: Callable[[Array, Array], Any],
        *,
        name: str,
        analytic: bool = True,
    ) -> None:
        self.function = function
        self.derivative = derivative
        self.name = name
        self.analytic = analytic

    def __repr__(self) -> str:
        return self.name

    def forward(self, call: ForwardCall, x: Any) -> Array:
        x = np.asarray(x)
        if x.dtype.kind in "biu":
            x = x.astype(np.float64)
        require_floating(self, x)
        x = contiguous(x)
        y = call.output_buffer("y", x.shape, x.dtype)
        call.run(self.function, x, y)
        call.save(x, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, y = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        call.run(self._write_gradient, dx, dy, x, y)
        return (dx,)

    def _write_gradient(self, dx: Array, dy: Array, x: Array, y: Array) -> None:
        np.multiply(dy, self.derivative(x, y), dx)


def _by_kernel(kernel: Any, of_complex: Any = None) -> Callable[[Array, Array], None]:
    """Return a function of arrays that a kernel computes; of complex ones, NumPy's."""

    def function(x: Array, y: Array) -> None:
        if x.dtype.kind == "c":
            of_complex(x, y)
        else:
            kernel(y.reshape(-1), x.reshape(-1))

    return function


def _of(function: Callable[[Array, Array], None], x: Array) -> Array:
    y = np.empty(x.shape, x.dtype)
    function(contiguous(x), y)
    return y


def _wave_kernel(kernel: Any) -> Callable[[Array, Array], None]:
    def of_all(y: Array, x: Array) -> None:
        if not np.all(np.abs(x) <= _LARGEST):
            x = np.array([_within_a_period(number) for number in x.tolist()], x.dtype)
        kernel(y, x)

    return of_all


def _within_a_period(x: float) -> float:
    """Return x less a multiple of 2 pi if it is too large for the kernels, NaN if it is
    infinite.
    """
    if abs(x) <= _LARGEST or math.isnan(x):
        return x
    return math.nan if math.isinf(x) else float(Fraction(x) % _two_pi())


@cache
def _two_pi() -> Fraction:
    """Return 2 pi to 400 digits, 16 more than float64 has before the point: Machin's formula,
    pi = 16 arctan(1/5) - 4 arctan(1/239).
    """
    one = 10**400

    def arctan_of_inverse(n: int) -> int:
        total, power, k = 0, one // n, 0
        while power:
            total += (-1) ** k * power // (2 * k + 1)
            power, k = power // n**2, k + 1
        return total

    return Fraction(32 * arctan_of_inverse(5) - 8 * arctan_of_inverse(239), one)


_exp = _by_kernel(elementary.exp_forward, np.exp)
_sin = _by_kernel(_wave_kernel(elementary.sin), np.sin)
_cos = _by_kernel(_wave_kernel(elementary.cos), np.cos)
_SLOPE_OF_ERF = 2 / math.sqrt(math.pi)

_EXP = Function(_exp, lambda x, y: y, name="exp")
_EXPM1 = Function(_by_kernel(elementary.expm1, np.expm1), lambda x, y: y + 1, name="expm1")
_LOG = Function(_by_kernel(elementary.log, np.log), lambda x, y: 1 / x, name="log")
_LOG1P = Function(_by_kernel(elementary.log1p, np.log1p), lambda x, y: 1 / (1 + x), name="log1p")
_SQRT = Function(np.sqrt, lambda x, y: 0.5 / y, name="sqrt")
_SIN = Function(_sin, lambda x, y: _of(_cos, x), name="sin")
_COS = Function(_cos, lambda x, y: -_of(_sin, x), name="cos")
_TANH = Function(_by_kernel(elementwise.tanh_forward, np.tanh), lambda x, y: 1 - y * y, name="tanh")
_ERF = Function(
    _by_kernel(elementary.erf),
    lambda x, y: _SLOPE_OF_ERF * _of(_exp, -x * x),
    name="erf",
    analytic=False,
)
_ABSOLUTE = Function(np.abs, lambda x, y: np.sign(x), name="absolute", analytic=False)
_NEGATIVE = Function(np.negative, lambda x, y: -1, name="negative")


@wording("exp")
def exp(x: Any) -> Any:
    """Return the exponential; 0 where that would be no normal number."""
    return _EXP(x)


@wording("expm1")
def expm1(x: Any) -> Any:
    """Return the exponential less 1, accurate near 0."""
    return _EXPM1(x)


@wording("log")
def log(x: Any) -> Any:
    """Return the natural logarithm."""
    return _LOG(x)


@wording("log1p")
def log1p(x: Any) -> Any:
    """Return the natural logarithm of 1 + x, accurate near 0."""
    return _LOG1P(x)


@wording("sqrt")
def sqrt(x: Any) -> Any:
    """Return the square root."""
    return _SQRT(x)


@wording("sin")
def sin(x: Any) -> Any:
    """Return the sine."""
    return _SIN(x)


@wording("cos")
def cos(x: Any) -> Any:
    """Return the cosine."""
    return _COS(x)


@wording("tanh")
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent."""
    return _TANH(x)


@wording("erf")
def erf(x: Any) -> Any:
    """Return the error function, 2/√π times the integral of e^-t² from 0 to x."""
    return _ERF(x)


@wording("absolute")
def absolute(x: Any) -> Any:
    """Return the absolute value; the derivative at 0 is 0."""
    return _ABSOLUTE(x)


@wording("negative")
def negative(x: Any) -> Any:
    """Return the number with the opposite sign."""
    return _NEGATIVE(x)
