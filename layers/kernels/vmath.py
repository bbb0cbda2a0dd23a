"""Branch-free exp, tanh, sigmoid and the normal distribution, for float32, float64 and complex128.

LLVM vectorises loops over these; calls into the C library it does not. The real versions round x / ln 2 to an integer n by
adding and subtracting 1.5 times two to the number of fraction bits, and take exp of the remainder, at most ln(2)/2 in size, from
its Taylor polynomial: Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapter 6. NaN stays NaN.
The complex versions serve the complex step of the gradient check.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from .jit import OPTIONS, inlined

_LN2 = Fraction("0.693147180559945309417232121458176568075500134")

# Chebyshev coefficients of erfcx(z) / t in 2 t - 1, where erfcx(z) = exp(z^2) erfc(z) and t = 1 / (1 + z/2), z >= 0. Computed with
# 60 digits from the definition at 80 Chebyshev nodes; `tests/layers/test_vmath.py` compares with the C library's erfc.
_ERFCX = (
    0.57703373861646968862, 0.35543692127049848731, 0.06509515882878652455, 0.0036711423958366391659,
    -0.0011128447433526324969, -0.00016075829915378079758, 0.000032780315741731370605, 5.4424416455050160333e-6,
    -1.5154665553171481622e-6, -1.4297608181169864917e-7, 8.234608827419493433e-8, -1.2962846852306562536e-9,
    -4.1547216310151983042e-9, 6.3470582783628111814e-10, 1.4320822712256223707e-10, -6.1603901052045855418e-11,
    2.0612138554721696306e-12, 3.571493148847704445e-12, -8.5864228432517964757e-13, -6.145600213790630554e-14,
    7.4187257485966170573e-14, -1.2895042755032325615e-14, -2.3587263857106323568e-15, 1.5729349381685911397e-15,
    -2.2782966239546465174e-16, -6.3123304507564298102e-17,
)  # fmt: skip


def _powers(chebyshev: Sequence[float]) -> list[float]:
    """Return the coefficients c_k of sum_k c_k x^k that is the sum of Chebyshev polynomials with these coefficients.

    Theirs fall so fast that the powers' are small, too: Horner's rule then rounds no worse than Clenshaw's, in half the operations.
    """
    before, last = [Fraction(0), Fraction(1)], [Fraction(1)]  # T_(-1) and T_0, of which T_(k+1) = 2 x T_k - T_(k-1).
    total = [Fraction(0)] * len(chebyshev)
    for c in chebyshev:
        for k, of_power in enumerate(last):
            total[k] += Fraction(c) * of_power
        following = [Fraction(0), *(2 * of_power for of_power in last)]
        for k, of_power in enumerate(before):
            following[k] -= of_power
        before, last = last, following
    return [float(c) for c in total]


class _Format:
    """Constants of one floating format."""

    def __init__(self, fraction_bits: int, bias: int, degree: int, low: float, high: float, terms: int) -> None:
        # Outside [low, high] exp would leave the normal numbers; the argument is moved to the nearer end.
        self.low, self.high = low, high
        self.log2_e = float(1 / _LN2)
        head = Fraction(round(_LN2 * 2**9), 2**9)
        self.ln2_head, self.ln2_tail = float(head), float(_LN2 - head)
        self.magic = 1.5 * 2.0**fraction_bits
        real, integer = (np.float32, np.int32) if fraction_bits == 23 else (np.float64, np.int64)
        self.magic_bits = int(np.array(self.magic, real).view(integer))
        self.fraction_bits = fraction_bits
        self.bias = bias
        self.zero, self.half, self.one, self.three = 0.0, 0.5, 1.0, 3.0
        self.half_sqrt, self.inverse_sqrt_two_pi = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
        # Of the tanh form of GELU: Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2.
        self.gelu_root, self.gelu_cubic = math.sqrt(2 / math.pi), 0.044715
        self.exp = [1 / math.factorial(k) for k in range(2, degree + 1)]
        self.erfcx = _powers(_ERFCX[:terms])


FORMATS = {
    types.float32: _Format(23, 127, 7, -87.3, 88.37, 12),
    types.float64: _Format(52, 1023, 13, -708.3, 709.4, 26),
}


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit a b + c, fused where the processor can."""
    element, lanes = (a.type.element, f"v{a.type.count}") if isinstance(a.type, ir.VectorType) else (a.type, "")
    name = f"llvm.fmuladd.{lanes}{'f32' if element == ir.FloatType() else 'f64'}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, fused where the processor can."""
    return a(a, a, a), lambda context, builder, signature, arguments: _fused(builder, *arguments)


@intrinsic(prefer_literal=True)
def constant(typingctx: Any, like: Any, name: Any) -> Any:
    """Return the constant of this name (of `_Format`) in the real format of `like`, a number or an array.

    A literal such as 1 would turn float32 arithmetic into float64.
    """
    dtype = like.dtype if isinstance(like, types.Array) else like
    dtype = types.float64 if dtype == types.complex128 else dtype
    value = getattr(FORMATS[dtype], name.literal_value)
    element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return dtype(like, name), lambda context, builder, signature, arguments: ir.Constant(element, value)


@intrinsic
def number(typingctx: Any, like: Any, value: Any) -> Any:
    """Return a value, such as a Python float that a kernel is given, rounded to the real format of `like`, a number or an array."""
    dtype = like.dtype if isinstance(like, types.Array) else like
    dtype = types.float64 if dtype == types.complex128 else dtype
    return dtype(like, value), lambda context, builder, signature, arguments: context.cast(builder, arguments[1], value, dtype)


class Formulas:
    """Emits elementary functions of several numbers at once, or of vectors of so many `lanes`.

    Each step is emitted for all of them before the next one: so the processor has work while it waits for a result.
    """

    def __init__(self, builder: Any, dtype: Any, lanes: int = 0) -> None:
        self.builder, self.format, self._lanes = builder, FORMATS[dtype], lanes
        element, integer = (ir.FloatType(), ir.IntType(32)) if dtype == types.float32 else (ir.DoubleType(), ir.IntType(64))
        self.type, self._integers = (ir.VectorType(kind, lanes) if lanes else kind for kind in (element, integer))

    def constant(self, value: float, kind: Any = None) -> Any:
        """Return a constant, in every lane of a vector."""
        return ir.Constant(kind or self.type, [value] * self._lanes if self._lanes else value)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return _fused(self.builder, a, b, c)

    def polynomial(self, xs: list[Any], coefficients: Sequence[float]) -> list[Any]:
        """Return sum_k c_k x^k by Horner's rule."""
        totals = [self.constant(coefficients[-1])] * len(xs)
        for c in reversed(coefficients[:-1]):
            term = self.constant(c)
            totals = [self.multiply_add(total, x, term) for total, x in zip(totals, xs, strict=True)]
        return totals

    def _clamped(self, xs: list[Any]) -> list[Any]:
        """Return the arguments within [low, high]; NaN stays NaN."""
        builder = self.builder
        for limit, beyond in ((self.constant(self.format.high), "<"), (self.constant(self.format.low), ">")):
            xs = [builder.select(builder.fcmp_ordered(beyond, limit, x), limit, x) for x in xs]
        return xs

    def _exp_parts(self, xs: list[Any]) -> list[tuple[Any, Any]]:
        """Return s = 2^n and p with exp(x) = s + s p; p keeps its relative accuracy when x is small."""
        builder, form = self.builder, self.format
        xs = self._clamped(xs)
        magic = self.constant(form.magic)
        # n stands in the lowest bits of n + magic, from where it moves to the exponent of 2^n.
        rounded = [self.multiply_add(x, self.constant(form.log2_e), magic) for x in xs]
        negative = [builder.fsub(magic, n) for n in rounded]
        for part in (form.ln2_head, form.ln2_tail):
            xs = [self.multiply_add(n, self.constant(part), x) for n, x in zip(negative, xs, strict=True)]
        bits = [builder.bitcast(n, self._integers) for n in rounded]
        bits = [builder.sub(n, self.constant(form.magic_bits - form.bias, self._integers)) for n in bits]
        bits = [builder.shl(n, self.constant(form.fraction_bits, self._integers)) for n in bits]
        squares = [builder.fmul(x, x) for x in xs]
        polynomials = self.polynomial(xs, form.exp)
        parts = [self.multiply_add(p, square, x) for p, square, x in zip(polynomials, squares, xs, strict=True)]
        return [(builder.bitcast(n, self.type), p) for n, p in zip(bits, parts, strict=True)]

    def exp(self, xs: list[Any]) -> list[Any]:
        return [self.multiply_add(scale, p, scale) for scale, p in self._exp_parts(xs)]

    def tanh(self, xs: list[Any]) -> list[Any]:
        builder, one, two = self.builder, self.constant(1.0), self.constant(2.0)
        parts = self._exp_parts([builder.fadd(x, x) for x in xs])
        # e^(2x) - 1
        ms = [self.multiply_add(scale, p, builder.fsub(scale, one)) for scale, p in parts]
        return [builder.fdiv(m, builder.fadd(m, two)) for m in ms]

    def sigmoid(self, xs: list[Any]) -> list[Any]:
        builder, one = self.builder, self.constant(1.0)
        return [builder.fdiv(one, builder.fadd(one, e)) for e in self.exp([builder.fneg(x) for x in xs])]


@intrinsic(prefer_literal=True)
def _formula(typingctx: Any, x: Any, name: Any) -> Any:
    """Return the function of this name (of `Formulas`) of a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(Formulas(builder, x), name.literal_value)([arguments[0]])[0]

    return x(x, name), generate


@intrinsic(prefer_literal=True)
def _polynomial(typingctx: Any, x: Any, name: Any) -> Any:
    """Return sum_k c_k x^k, c being the constants of this name."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        formulas = Formulas(builder, x)
        return formulas.polynomial([arguments[0]], getattr(formulas.format, name.literal_value))[0]

    return x(x, name), generate


def exp(x: Any) -> Any:
    """Return e^x."""
    raise NotImplementedError("for kernels only")


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent: with m = e^(2x) - 1, m / (m + 2)."""
    raise NotImplementedError("for kernels only")


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e^-x)."""
    raise NotImplementedError("for kernels only")


@overload(exp, jit_options=OPTIONS)
def _exp(x):
    return (lambda x: np.exp(x)) if isinstance(x, types.Complex) else lambda x: _formula(x, "exp")


@overload(tanh, jit_options=OPTIONS)
def _tanh(x):
    return (lambda x: np.tanh(x)) if isinstance(x, types.Complex) else lambda x: _formula(x, "tanh")


@overload(sigmoid, jit_options=OPTIONS)
def _sigmoid(x):
    return (lambda x: 1 / (1 + np.exp(-x))) if isinstance(x, types.Complex) else lambda x: _formula(x, "sigmoid")


@inlined
def normal_parts(x):
    """Return e^(-x^2/2) and the normal distribution function Phi(x) = erfc(-x / sqrt(2)) / 2; x is real."""
    one = constant(x, "one")
    z = abs(x) * constant(x, "half_sqrt")
    t = one / fma(z, constant(x, "half"), one)
    bell = exp(-z * z)
    tail = constant(x, "half") * bell * t * _polynomial(t + t - one, "erfcx")
    return bell, (tail if x < 0 else one - tail)


@inlined
def gelu_parts(x):
    """Return x Phi(x) and its derivative Phi(x) + x e^(-x^2/2) / sqrt(2 pi); x is real."""
    bell, phi = normal_parts(x)
    return x * phi, phi + x * bell * constant(x, "inverse_sqrt_two_pi")
