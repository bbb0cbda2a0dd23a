"""The elementary functions as formulas of LLVM, for numbers or vectors, and their constants.

exp rounds x / ln 2 to an integer n by adding and subtracting 1.5 times two to the number of
fraction bits, and takes exp of the remainder, at most ln(2)/2 in size, from a polynomial: Cody and
Waite, "Software Manual for the Elementary Functions", 1980, chapter 6. All of it is free of
branches, and NaN stays NaN. What is below the normal numbers is 0: `layers.kernels.underflow` has
the reasons.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba.core import types

_LN2 = Fraction("0.693147180559945309417232121458176568075500134")

# (e^r - 1 - r) / r^2, |r| <= ln(2)/2, as polynomials in r for float32 and float64, interpolated at
# Chebyshev's nodes. They are not computed here, as the C library's cosine is not the same on every
# processor.
_EXP_REMAINDER_32 = (
    0.5,
    0.1666657702559799,
    0.041666554662050534,
    0.008363173074513711,
    0.001392617611993558,
)
_EXP_REMAINDER_64 = (
    0.5,
    0.1666666666666667,
    0.04166666666666667,
    0.008333333333326141,
    0.0013888888888883752,
    0.00019841269874800493,
    2.4801587325533363e-05,
    2.7557255425746435e-06,
    2.7557273661348637e-07,
    2.510520637395701e-08,
    2.0914679376583935e-09,
)

# Chebyshev coefficients of erfcx(z) / t in 2 t - 1, where erfcx(z) = exp(z^2) erfc(z) and t = 1 /
# (1 + z/2), z >= 0. Computed with 60 digits from the definition at 80 Chebyshev nodes;
# `tests/layers/kernels/test_vmath.py` compares with the C library's erfc.
_ERFCX = (
    0.57703373861646968862,
    0.35543692127049848731,
    0.06509515882878652455,
    0.0036711423958366391659,
    -0.0011128447433526324969,
    -0.00016075829915378079758,
    0.000032780315741731370605,
    5.4424416455050160333e-6,
    -1.5154665553171481622e-6,
    -1.4297608181169864917e-7,
    8.234608827419493433e-8,
    -1.2962846852306562536e-9,
    -4.1547216310151983042e-9,
    6.3470582783628111814e-10,
    1.4320822712256223707e-10,
    -6.1603901052045855418e-11,
    2.0612138554721696306e-12,
    3.571493148847704445e-12,
    -8.5864228432517964757e-13,
    -6.145600213790630554e-14,
    7.4187257485966170573e-14,
    -1.2895042755032325615e-14,
    -2.3587263857106323568e-15,
    1.5729349381685911397e-15,
    -2.2782966239546465174e-16,
    -6.3123304507564298102e-17,
)


def _powers(chebyshev: Sequence[float]) -> list[float]:
    """Return the coefficients c_k of sum_k c_k x^k that is the sum of Chebyshev polynomials with
    these coefficients.

    Theirs fall so fast that the powers' are small, too: Horner's rule then rounds no worse than
    Clenshaw's, in half the operations.
    """
    before, last = (
        [Fraction(0), Fraction(1)],
        [Fraction(1)],
    )  # T_(-1) and T_0, of which T_(k+1) = 2 x T_k - T_(k-1).
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

    def __init__(
        self,
        fraction_bits: int,
        bias: int,
        exp: tuple[float, ...],
        low: float,
        high: float,
        terms: int,
    ) -> None:
        # The least argument whose exp is a normal number, rounded up, and one that 2^n still fits.
        self.low = low
        self.high = high
        self.largest = 2.0**bias * (2 - 2.0**-fraction_bits)
        self.log2_e = float(1 / _LN2)
        head = Fraction(round(_LN2 * 2**9), 2**9)
        self.ln2_head = float(head)
        self.ln2_tail = float(_LN2 - head)
        # With the bias of the exponent, which then stands beside n where the exponent of 2^n is
        # made of it.
        self.magic = 1.5 * 2.0**fraction_bits + bias
        self.fraction_bits = fraction_bits
        self.bias = bias
        self.zero = 0.0
        self.half = 0.5
        self.one = 1.0
        self.three = 3.0
        # Of the tanh form of GELU: Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2.
        self.gelu_root = math.sqrt(2 / math.pi)
        self.gelu_cubic = 0.044715
        self.exp = exp
        # Halves of the coefficients, for half of erfc.
        self.erfcx = [c / 2 for c in _powers(_ERFCX[:terms])]


FORMATS = {
    types.float32: _Format(23, 127, _EXP_REMAINDER_32, -87.33654, 88.37, 11),
    types.float64: _Format(52, 1023, _EXP_REMAINDER_64, -708.3964185322641, 709.4, 26),
}


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit a b + c, rounded once: where the processor cannot, the C library does it."""
    element, lanes = (
        (a.type.element, f"v{a.type.count}") if isinstance(a.type, ir.VectorType) else (a.type, "")
    )
    name = f"llvm.fma.{lanes}{'f32' if element == ir.FloatType() else 'f64'}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, c])


class Formulas:
    """Emits elementary functions of several numbers at once, or of vectors of so many `lanes`; they
    return a list, one for each.

    Each step is emitted for all of them before the next one: so the processor has work while it
    waits for a result.
    """

    def __init__(self, builder: Any, dtype: Any, lanes: int = 0) -> None:
        self.builder = builder
        self.format = FORMATS[dtype]
        self._lanes = lanes
        element, integer = (
            (ir.FloatType(), ir.IntType(32))
            if dtype == types.float32
            else (ir.DoubleType(), ir.IntType(64))
        )
        self._type, self._integers = (
            ir.VectorType(kind, lanes) if lanes else kind for kind in (element, integer)
        )

    def _constant(self, value: float, kind: Any = None) -> Any:
        """Return a constant, in every lane of a vector."""
        return ir.Constant(kind or self._type, [value] * self._lanes if self._lanes else value)

    def _fused(self, a: list[Any], b: list[Any], c: list[Any]) -> list[Any]:
        return [fused(self.builder, *abc) for abc in zip(a, b, c, strict=True)]

    def _times(self, a: list[Any], b: list[Any]) -> list[Any]:
        return [self.builder.fmul(*ab) for ab in zip(a, b, strict=True)]

    def polynomial(self, xs: list[Any], coefficients: Sequence[float]) -> list[Any]:
        """Return sum_k c_k x^k by Horner's rule in x^2 for the even and the odd k apart: so fewer
        steps wait for one another.
        """
        count, squares, halves = len(xs), self._times(xs, xs), []
        for first in (0, 1):
            last, *others = reversed(coefficients[first::2])
            totals = [self._constant(last)] * count
            for c in others:
                totals = self._fused(totals, squares, [self._constant(c)] * count)
            halves.append(totals)
        return self._fused(halves[1], xs, halves[0])

    def _at_most(self, limit: float, xs: list[Any]) -> list[Any]:
        """Return the lesser of each x and the limit; NaN stays NaN."""
        builder, bound = self.builder, self._constant(limit)
        return [builder.select(builder.fcmp_ordered("<", bound, x), bound, x) for x in xs]

    def _at_least(self, limit: float, xs: list[Any]) -> list[Any]:
        """Return the greater of each x and the limit; NaN stays NaN."""
        builder, bound = self.builder, self._constant(limit)
        return [builder.select(builder.fcmp_ordered(">", bound, x), bound, x) for x in xs]

    def _zero_below(self, xs: list[Any], results: list[Any]) -> list[Any]:
        """Return the results, or 0 where x is less than `low`."""
        builder, low, zero = self.builder, self._constant(self.format.low), self._constant(0.0)
        return [
            builder.select(builder.fcmp_ordered("<", x, low), zero, y)
            for x, y in zip(xs, results, strict=True)
        ]

    def _rounded(self, xs: list[Any]) -> list[Any]:
        """Return x / ln 2 rounded to an integer n, plus the magic number."""
        count, magic = len(xs), self._constant(self.format.magic)
        return self._fused(xs, [self._constant(self.format.log2_e)] * count, [magic] * count)

    def _power_of_two(self, rounded: list[Any]) -> list[Any]:
        """Return 2^n: n and the exponent's bias stand in the lowest bits, and move to the
        exponent.
        """
        builder, form = self.builder, self.format
        bits = [builder.bitcast(n, self._integers) for n in rounded]
        bits = [builder.shl(n, self._constant(form.fraction_bits, self._integers)) for n in bits]
        return [builder.bitcast(n, self._type) for n in bits]

    def _exp_remainders(self, xs: list[Any], rounded: list[Any]) -> list[Any]:
        """Return p = e^(x - n ln 2) - 1, which keeps its relative accuracy when x is small."""
        form, count, magic = self.format, len(xs), self._constant(self.format.magic)
        negative = [self.builder.fsub(magic, n) for n in rounded]
        for part in (form.ln2_head, form.ln2_tail):
            xs = self._fused(negative, [self._constant(part)] * count, xs)
        return self._fused(self.polynomial(xs, form.exp), self._times(xs, xs), xs)

    def _exp_parts(self, xs: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return s = 2^n and p with exp(x) = s + s p, x between `low` and `high`."""
        rounded = self._rounded(xs)
        return self._power_of_two(rounded), self._exp_remainders(xs, rounded)

    def exp(self, xs: list[Any]) -> list[Any]:
        """Return e^x: 0 where that is no normal number, inf where it is too large."""
        builder, top = self.builder, self.format.magic + self.format.bias
        rounded = self._rounded(xs)
        # Beyond the greatest exponent, where e^x is finite still for a while, 2^n is 2 times 2^127.
        fitting = self._at_most(top, rounded)
        rounded = self._at_most(top + 1, rounded)
        scales, parts = self._power_of_two(fitting), self._exp_remainders(xs, rounded)
        excess = [
            builder.fadd(builder.fsub(n, fits), self._constant(1.0))
            for n, fits in zip(rounded, fitting, strict=True)
        ]
        return self._zero_below(xs, self._times(self._fused(scales, parts, scales), excess))

    def exp_of_nonpositive(self, xs: list[Any]) -> list[Any]:
        """Return e^x for x <= 0, with the bits of `exp`, which is slower."""
        scales, parts = self._exp_parts(xs)
        return self._zero_below(xs, self._fused(scales, parts, scales))

    def tanh(self, xs: list[Any]) -> list[Any]:
        """Return the hyperbolic tangent: with m = e^(2x) - 1, m / (m + 2)."""
        builder, one, two = self.builder, self._constant(1.0), self._constant(2.0)
        doubles = self._at_most(self.format.high, [builder.fadd(x, x) for x in xs])
        scales, parts = self._exp_parts(self._at_least(self.format.low, doubles))
        ms = self._fused(scales, parts, [builder.fsub(scale, one) for scale in scales])
        return [builder.fdiv(m, builder.fadd(m, two)) for m in ms]

    def sigmoid(self, xs: list[Any]) -> list[Any]:
        """Return 1 / (1 + e^-x)."""
        builder, one = self.builder, self._constant(1.0)
        opposite = self._at_least(self.format.low, [builder.fneg(x) for x in xs])
        scales, parts = self._exp_parts(opposite)
        powers = self._fused(scales, parts, scales)
        return self._zero_below(xs, [builder.fdiv(one, builder.fadd(one, e)) for e in powers])

    def _normal_parts(self, xs: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return e^(-x^2/2) and the normal distribution function Phi(x) = erfc(-x / sqrt(2)) /
        2.
        """
        builder, count = self.builder, len(xs)
        zero, one = self._constant(0.0), self._constant(1.0)
        negative = [builder.fcmp_ordered("<", x, zero) for x in xs]
        sizes = [
            builder.select(less, builder.fneg(x), x) for less, x in zip(negative, xs, strict=True)
        ]
        below = self._fused(sizes, [self._constant(math.sqrt(0.125))] * count, [one] * count)
        ts = [builder.fdiv(one, z) for z in below]
        bells = self.exp_of_nonpositive(
            [builder.fmul(square, self._constant(-0.5)) for square in self._times(xs, xs)]
        )
        arguments = self._fused(ts, [self._constant(2.0)] * count, [self._constant(-1.0)] * count)
        tails = self._times(self._times(bells, ts), self.polynomial(arguments, self.format.erfcx))
        phis = [
            builder.select(less, tail, builder.fsub(one, tail))
            for less, tail in zip(negative, tails, strict=True)
        ]
        return bells, phis

    def lower_tail(self, xs: list[Any]) -> list[Any]:
        """Return the normal distribution function Phi(x)."""
        return self._normal_parts(xs)[1]

    def gelu(self, xs: list[Any]) -> list[Any]:
        """Return x Phi(x)."""
        return self._gelus(xs, self._normal_parts(xs)[1])

    def gelu_slope(self, xs: list[Any]) -> list[Any]:
        """Return Phi(x) + x e^(-x^2/2) / sqrt(2 pi), the derivative of `gelu`."""
        return self._slopes(xs, *self._normal_parts(xs))

    def gelu_and_slope(self, xs: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return both."""
        bells, phis = self._normal_parts(xs)
        return self._gelus(xs, phis), self._slopes(xs, bells, phis)

    def _gelus(self, xs: list[Any], phis: list[Any]) -> list[Any]:
        # -inf times Phi, which is 0 there, would be NaN.
        return self._times(self._at_least(-self.format.largest, xs), phis)

    def _slopes(self, xs: list[Any], bells: list[Any], phis: list[Any]) -> list[Any]:
        xs = self._at_most(self.format.largest, self._at_least(-self.format.largest, xs))
        root = self._constant(1 / math.sqrt(2 * math.pi))
        return self._fused(self._times(xs, bells), [root] * len(xs), phis)
