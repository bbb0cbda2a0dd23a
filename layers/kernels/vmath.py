"""Branch-free exp, tanh, sigmoid and the normal distribution, for float32, float64 and complex128.

LLVM vectorises loops over these; calls into the C library it does not. The real versions round x / ln 2 to an integer n by
adding and subtracting 1.5 times two to the number of fraction bits, and take exp of the remainder, at most ln(2)/2 in size, from
a polynomial: Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapter 6. NaN stays NaN.
The complex versions serve the complex step of the gradient check.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
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


def _exp_remainder(degree: int) -> list[float]:
    """Return the coefficients of the polynomial in r that interpolates (e^r - 1 - r) / r^2 at Chebyshev's nodes, |r| <= ln(2)/2.

    Two degrees less than those of e^r. The values come from a Taylor series that is long enough, the sum from Newton's differences.
    """
    n = degree - 1
    nodes = [Fraction(math.cos((k + 0.5) * math.pi / n)) * _LN2 / 2 for k in range(n)]
    differences = [sum(r**k / math.factorial(k + 2) for k in range(24)) for r in nodes]
    for step in range(1, n):
        for i in range(n - 1, step - 1, -1):
            differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - step])
    total = [Fraction(0)]
    for difference, node in zip(reversed(differences), reversed(nodes), strict=True):
        shifted = [Fraction(0), *total]
        for k, c in enumerate(total):
            shifted[k] -= c * node
        shifted[0] += difference
        total = shifted
    return [float(c) for c in total[:n]]


class _Format:
    """Constants of one floating format."""

    def __init__(self, fraction_bits: int, bias: int, degree: int, low: float, high: float, terms: int) -> None:
        # Outside [low, high] exp would leave the normal numbers; the argument is moved to the nearer end.
        self.low, self.high = low, high
        self.log2_e = float(1 / _LN2)
        head = Fraction(round(_LN2 * 2**9), 2**9)
        self.ln2_head, self.ln2_tail = float(head), float(_LN2 - head)
        # With the bias of the exponent, which then stands beside n where the exponent of 2^n is made of it.
        self.magic = 1.5 * 2.0**fraction_bits + bias
        self.fraction_bits = fraction_bits
        self.zero, self.half, self.one, self.two, self.three = 0.0, 0.5, 1.0, 2.0, 3.0
        self.minus_half, self.sqrt_eighth, self.inverse_sqrt_two_pi = -0.5, math.sqrt(0.125), 1 / math.sqrt(2 * math.pi)
        # Of the tanh form of GELU: Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2.
        self.gelu_root, self.gelu_cubic = math.sqrt(2 / math.pi), 0.044715
        self.exp = _exp_remainder(degree)
        # Halves of the coefficients, for half of erfc.
        self.erfcx = [c / 2 for c in _powers(_ERFCX[:terms])]


FORMATS = {
    types.float32: _Format(23, 127, 6, -87.3, 88.37, 11),
    types.float64: _Format(52, 1023, 12, -708.3, 709.4, 26),
}


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit a b + c, fused where the processor can."""
    name = f"llvm.fmuladd.{'f32' if a.type == ir.FloatType() else 'f64'}"
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


def polynomial(
    builder: Any, x: Any, coefficients: Sequence[float], constant: Callable[[float], Any], fused: Callable[[Any, Any, Any], Any]
) -> Any:
    """Emit sum_k c_k x^k by Horner's rule in x^2 for the even and the odd k apart: half as many operations wait for one another."""
    square = builder.fmul(x, x)
    halves = []
    for first in (0, 1):
        last, *others = reversed(coefficients[first::2])
        total = constant(last)
        for c in others:
            total = fused(total, square, constant(c))
        halves.append(total)
    return fused(halves[1], x, halves[0])


@intrinsic(prefer_literal=True)
def _polynomial(typingctx: Any, x: Any, name: Any) -> Any:
    """Return sum_k c_k x^k, c being the constants of this name."""
    coefficients = getattr(FORMATS[x], name.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return polynomial(
            builder, arguments[0], coefficients, lambda c: ir.Constant(arguments[0].type, c), partial(_fused, builder)
        )

    return x(x, name), generate


@intrinsic
def _two_to(typingctx: Any, rounded: Any) -> Any:
    """Return 2^n for `rounded` = n + magic: n and the bias stand in its lowest bits, and move to the exponent."""
    form = FORMATS[rounded]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = arguments[0].type
        integer = ir.IntType(32 if element == ir.FloatType() else 64)
        bits = builder.bitcast(arguments[0], integer)
        return builder.bitcast(builder.shl(bits, ir.Constant(integer, form.fraction_bits)), element)

    return rounded(rounded), generate


@inlined
def _exp_parts(x):
    """Return s = 2^n and p with exp(x) = s + s p; p keeps its relative accuracy when x is small."""
    low, high = constant(x, "low"), constant(x, "high")
    x = low if x < low else (high if x > high else x)
    magic = constant(x, "magic")
    rounded = fma(x, constant(x, "log2_e"), magic)
    n = rounded - magic
    r = fma(-n, constant(x, "ln2_head"), x)
    r = fma(-n, constant(x, "ln2_tail"), r)
    return _two_to(rounded), fma(_polynomial(r, "exp"), r * r, r)


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
    if isinstance(x, types.Complex):
        return lambda x: np.exp(x)

    def real(x):
        scale, p = _exp_parts(x)
        return fma(scale, p, scale)

    return real


@overload(tanh, jit_options=OPTIONS)
def _tanh(x):
    if isinstance(x, types.Complex):
        return lambda x: np.tanh(x)

    def real(x):
        scale, p = _exp_parts(x + x)
        one = constant(x, "one")
        m = fma(scale, p, scale - one)
        return m / (m + one + one)

    return real


@overload(sigmoid, jit_options=OPTIONS)
def _sigmoid(x):
    if isinstance(x, types.Complex):
        return lambda x: 1 / (1 + np.exp(-x))

    def real(x):
        one = constant(x, "one")
        scale, p = _exp_parts(-x)
        return one / (one + fma(scale, p, scale))

    return real


@inlined
def normal_parts(x):
    """Return e^(-x^2/2) and the normal distribution function Phi(x) = erfc(-x / sqrt(2)) / 2; x is real."""
    one = constant(x, "one")
    t = one / fma(abs(x), constant(x, "sqrt_eighth"), one)
    bell = exp(x * x * constant(x, "minus_half"))
    tail = bell * t * _polynomial(fma(t, constant(x, "two"), -one), "erfcx")
    return bell, (tail if x < 0 else one - tail)


@inlined
def gelu_parts(x):
    """Return x Phi(x) and its derivative Phi(x) + x e^(-x^2/2) / sqrt(2 pi); x is real."""
    bell, phi = normal_parts(x)
    return x * phi, fma(x * bell, constant(x, "inverse_sqrt_two_pi"), phi)
