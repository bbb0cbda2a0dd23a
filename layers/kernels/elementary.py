"""Elementary functions of numbers, or of arrays element by element, computed in float64 whatever
they are.

So float32 results are the true values rounded, nearly always, and the same bits on every processor.
Arrays are flat (n,).
"""

import math

import numpy as np

from .jit import inlined, kernel
from .llvm.vmath import bits_of, exp, fma, lower_tail, of_bits

# Of log: the first element of [sqrt(1/2), sqrt(2)), as bits, and ln 2 as a head of 32 bits, which
# times an exponent is exact, and a tail.
_ROOT_HALF = np.int64(0x3FE6A09E667F3BCD)
_FRACTION_BITS = np.int64(52)
_LN2_HEAD = float.fromhex("0x1.62e42ffp-1")
_LN2_TAIL = float.fromhex("-0x1.718432a1b0e26p-35")
# Below this a float64 has fewer bits than the others.
_LEAST_NORMAL = float(np.finfo(np.float64).tiny)
# atanh(s) / s = 1 + s^2 / 3 + s^4 / 5 + …: |s| is at most 0.1716 in `log_parts`.
_ATANH = tuple(1 / n for n in range(3, 26, 2))
# erf(x) / x, and the series of sin(r) / r and cos(r) in r^2, for |x| <= 1 and |r| <= pi/4.
_ERF = tuple(
    2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(20)
)
_SIN = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(9))
_COS = tuple((-1) ** n / math.factorial(2 * n) for n in range(9))
# pi/2 as a sum of three float64: Cody and Waite, "Software Manual for the Elementary Functions".
_HALF_PI = tuple(map(float.fromhex, ("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54")))
_HALF_PI_LAST = float.fromhex("-0x1.f1976b7ed8fbcp-110")
# Adding it rounds to an integer, whose lowest bits are then those of the sum.
_MAGIC = 1.5 * 2.0**52


@inlined
def polynomial(x, coefficients):
    """Return sum_k c_k x^k by Horner's rule."""
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = fma(total, x, coefficients[k])
    return total


@inlined
def log_parts(x):
    """Return log(x) as a sum of two float64, the second a rounding of the first; x positive and
    finite.

    With x = 2^e m, m from sqrt(1/2) to sqrt(2), f = m - 1 and s = f / (2 + f), it is e ln 2 +
    2 atanh(s).
    """
    small = x < _LEAST_NORMAL
    bits = bits_of(x * 2.0**54 if small else x)
    exponent = (bits - _ROOT_HALF) >> _FRACTION_BITS
    f = of_bits(bits - (exponent << _FRACTION_BITS)) - 1.0
    e = float(exponent) - (54.0 if small else 0.0)
    below = 2.0 + f
    s = f / below
    rest = (fma(-s, below, f) - s * (f - (below - 2.0))) / below
    z = s * s
    head, near = e * _LN2_HEAD, 2.0 * s
    high = head + near
    tail = near * z * polynomial(z, _ATANH)
    low = (near - (high - head)) + (fma(e, _LN2_TAIL, 2.0 * rest) + tail)
    total = high + low
    return total, low - (total - high)


@inlined
def log_of(x):
    """Return the natural logarithm, as `log_parts`; of 0, infinity and what has none, too."""
    high, low = log_parts(x)
    if x == 0.0:
        return -np.inf, 0.0
    if not x > 0.0 or x == np.inf:
        return (x if x > 0.0 else np.nan), 0.0
    return high, low


@inlined
def sin_of(x, quarters):
    """Return sin(x + quarters pi/2), |x| at most 2^50."""
    shifted = fma(x, 2.0 / math.pi, _MAGIC)
    n = shifted - _MAGIC
    r = fma(-n, _HALF_PI_LAST, fma(-n, _HALF_PI[1], fma(-n, _HALF_PI[0], x)))
    quadrant = bits_of(shifted) + quarters
    square = r * r
    y = polynomial(square, _COS) if quadrant & 1 else r * polynomial(square, _SIN)
    return -y if quadrant & 2 else y


@kernel
def exp_forward(y, x):
    """Writes y = e^x."""
    for i in range(y.size):
        y[i] = exp(np.float64(x[i]))


@kernel
def expm1(y, x):
    """Writes y = e^x - 1, accurate near 0: with e = e^x rounded, (e - 1) x / log(e) (Kahan; Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, section 1.14.1).
    """
    for i in range(y.size):
        of = np.float64(x[i])
        e = exp(of)
        high, _ = log_of(e)
        y[i] = of if e == 1.0 else ((e - 1.0) * of / high if abs(of) < 1.0 else e - 1.0)


@kernel
def log(y, x):
    """Writes y = log(x)."""
    for i in range(y.size):
        y[i], _ = log_of(np.float64(x[i]))


@kernel
def log1p(y, x):
    """Writes y = log(1 + x), accurate near 0: log(u) + c / u with u = 1 + x rounded, and c what the
    rounding lost.
    """
    for i in range(y.size):
        of = np.float64(x[i])
        u = 1.0 + of
        lost = 1.0 - (u - of) if of > 1.0 else of - (u - 1.0)
        high, low = log_of(u)
        y[i] = high + (low + lost / u) if 0.0 < u < np.inf else high


@kernel
def sin(y, x):
    """Writes y = sin(x), |x| at most 2^50."""
    for i in range(y.size):
        y[i] = sin_of(np.float64(x[i]), 0)


@kernel
def cos(y, x):
    """Writes y = cos(x), |x| at most 2^50."""
    for i in range(y.size):
        y[i] = sin_of(np.float64(x[i]), 1)


@kernel
def erf(y, x):
    """Writes y = erf(x): its series for |x| <= 1, else from the tail of the normal distribution."""
    for i in range(y.size):
        of = np.float64(x[i])
        size = abs(of)
        if size <= 1.0:
            y[i] = of * polynomial(of * of, _ERF)
        else:
            far = 1.0 - 2.0 * lower_tail(-size * math.sqrt(2.0))
            y[i] = far if of > 0.0 else -far if of < 0.0 else of


@inlined
def power_of(base, exponent):
    """Return base^exponent: e^(b log a), with more bits in b log a than a float64 has. A negative a
    gives its sign where b is odd, NaN where b is no integer.
    """
    size = abs(base)
    high, low = log_of(size)
    product = exponent * high
    e = exp(product)
    if 0.0 < e < np.inf:
        e = fma(e, fma(exponent, high, -product) + exponent * low, e)
    if exponent == 0.0 or base == 1.0 or (size == 1.0 and abs(exponent) == np.inf):
        e = 1.0
    if base < 0.0 and abs(exponent) < np.inf:
        if exponent != np.floor(exponent):
            e = np.nan if size < np.inf else e
        elif exponent * 0.5 != np.floor(exponent * 0.5):
            e = -e
    return e


@kernel
def power(y, a, b):
    """Writes y = a^b: see `power_of`."""
    for i in range(y.size):
        y[i] = power_of(np.float64(a[i]), np.float64(b[i]))


@kernel
def power_of_number(base, exponent):
    """Returns base^exponent of two numbers: see `power_of`."""
    return power_of(np.float64(base), np.float64(exponent))


@kernel
def cosine_of_number(x):
    """Returns cos(x) of a number, |x| at most 2^50."""
    return sin_of(np.float64(x), 1)
