"""Activations that are pieced together of two or three functions, element by element. Arrays are
flat (n,) unless said.
"""

import numpy as np

from .jit import inlined, kernel
from .llvm.vmath import constant, exp, fma, sigmoid, tanh
from .loss import log_from_one
from .slices import LANES, fold, repeat, slice_width

# Slices whose products are summed in the arrays' own type before they are in float64.
SLICES = 16


@kernel
def elu(y, x, above, below, rate):
    """Writes y = above x where x > 0, else below (e^(rate x) - 1).

    e^z - 1 = 2 t / (1 - t) with t = tanh(z / 2), which keeps its relative accuracy near 0.
    """
    zero, half, one = constant(y, "zero"), constant(y, "half"), constant(y, "one")
    for i in range(y.size):
        t = tanh(half * rate * x[i])
        y[i] = above * x[i] if x[i] > zero else below * ((t + t) / (one - t))


@kernel
def elu_backward(dx, dy, x, above, below, rate):
    """Writes dx = above dy where x > 0, else below rate e^(rate x) dy."""
    zero = constant(dx, "zero")
    for i in range(dx.size):
        e = exp(rate * (zero if x[i] > zero else x[i]))
        dx[i] = dy[i] * (above if x[i] > zero else below * rate * e)


@inlined
def _log1p(t):
    """Return log(1 + t), 0 <= t <= 1: that of 1 + t as rounded, and what the rounding has lost."""
    one = constant(t, "one")
    near = one + t
    return log_from_one(near) + (t - (near - one)) / near


@kernel
def softplus(y, x, beta):
    """Writes y = log(1 + e^(beta x)) / beta, as max(z, 0) + log(1 + e^-|z|), z = beta x."""
    zero = constant(y, "zero")
    for i in range(y.size):
        z = beta * x[i]
        y[i] = ((z if z > zero else zero) + _log1p(exp(-abs(z)))) / beta


@kernel
def softplus_backward(dx, dy, x, beta):
    """Writes dx = dy / (1 + e^(-beta x))."""
    for i in range(dx.size):
        dx[i] = dy[i] * sigmoid(beta * x[i])


@kernel
def mish(y, x):
    """Writes y = x tanh(log(1 + e^x)) = x w: with t = e^-|x|, w = (1 + 2 t) / (1 + 2 t + 2 t^2)
    where x > 0, else (t^2 + 2 t) / (t^2 + 2 t + 2); 0 at -inf.
    """
    zero, one, least = constant(y, "zero"), constant(y, "one"), -constant(y, "largest")
    for i in range(y.size):
        t = exp(-abs(x[i]))
        above, below = one + t + t, t * t + t + t
        over = above if x[i] > zero else below
        w = over / (over + (t * t + t * t if x[i] > zero else one + one))
        y[i] = (least if x[i] < least else x[i]) * w


@kernel
def mish_backward(dx, dy, x):
    """Writes dx = dy (w + x (1 - w^2) / (1 + e^-x)), w that of the forward pass."""
    zero, one = constant(dx, "zero"), constant(dx, "one")
    for i in range(dx.size):
        t = exp(-abs(x[i]))
        above, below = one + t + t, t * t + t + t
        over = above if x[i] > zero else below
        w = over / (over + (t * t + t * t if x[i] > zero else one + one))
        s = (one - w * w) * ((one if x[i] > zero else t) / (one + t))
        # Where x is infinite s is 0.
        dx[i] = dy[i] * (w + (zero if s == zero else x[i] * s))


@kernel
def clip(y, x, low, high):
    """Writes y = x between low and high, else the nearer of them; NaN stays NaN."""
    for i in range(y.size):
        y[i] = low if x[i] < low else (high if x[i] > high else x[i])


@kernel
def clip_backward(dx, dy, x, low, high):
    """Writes dx = dy between low and high, else 0: the derivative at both is 0."""
    zero = constant(dx, "zero")
    for i in range(dx.size):
        dx[i] = zero if x[i] <= low or x[i] >= high else dy[i]


@kernel
def hard_sigmoid(y, x, half, sixth):
    """Writes y = x / 6 + 1/2 between 0 and 1."""
    zero, one = constant(y, "zero"), constant(y, "one")
    for i in range(y.size):
        z = fma(x[i], sixth, half)
        y[i] = zero if z < zero else (one if z > one else z)


@kernel
def hard_sigmoid_backward(dx, dy, x, half, sixth):
    """Writes dx = dy / 6 where -3 < x < 3, else 0."""
    zero, three = constant(dx, "zero"), constant(dx, "three")
    for i in range(dx.size):
        dx[i] = zero if x[i] <= -three or x[i] >= three else dy[i] * sixth


@kernel
def hard_swish(y, x, half, sixth):
    """Writes y = x h, h = x / 6 + 1/2 between 0 and 1; 0 at -inf."""
    zero, one = constant(y, "zero"), constant(y, "one")
    for i in range(y.size):
        z = fma(x[i], sixth, half)
        y[i] = zero if z < zero else x[i] * (one if z > one else z)


@kernel
def hard_swish_backward(dx, dy, x, half, sixth):
    """Writes dx = dy (x / 3 + 1/2) where -3 < x < 3, 0 below and dy above."""
    zero, three = constant(dx, "zero"), constant(dx, "three")
    for i in range(dx.size):
        inner = dy[i] * fma(x[i], sixth + sixth, half)
        dx[i] = zero if x[i] <= -three else (dy[i] if x[i] >= three else inner)


@kernel
def prelu(y, x, slopes):
    """Writes y = x where x > 0, else slope x; y, x flat (R C,), slopes (C,)."""
    channels, zero = slopes.size, constant(y, "zero")
    most = slice_width(channels, max(LANES, channels))
    slope = np.empty(most, y.dtype)
    for c in range(channels):
        slope[c] = slopes[c]
    repeat(slope, channels)
    for start in range(0, x.size, most):
        to, of = y[start : start + most], x[start : start + most]
        for i in range(to.size):
            to[i] = of[i] if of[i] > zero else slope[i] * of[i]


@kernel
def prelu_backward(dx, dw, dy, x, slopes, bounds, accumulate):
    """Writes dx = dy where x > 0, else slope dy, and writes (adds, if so said) for each shard dw =
    sum of dy x where x <= 0.

    dx, dy, x flat (R C,), slopes (C,), dw (S, C), bounds (S + 1,) in rows. A slice is summed over
    SLICES of its like in the arrays' own type, and these sums in float64.
    """
    channels, zero = slopes.size, constant(x, "zero")
    most = slice_width(channels, max(LANES, channels))
    slope, parts = np.empty(most, x.dtype), np.empty(most, x.dtype)
    totals, total = np.empty(most, np.float64), np.empty(channels, np.float64)
    for c in range(channels):
        slope[c] = slopes[c]
    repeat(slope, channels)
    for s in range(len(dw)):
        begin, end = bounds[s] * channels, bounds[s + 1] * channels
        totals[:] = 0
        while begin < end:
            stop = min(begin + SLICES * most, end)
            parts[:] = 0
            for start in range(begin, stop, most):
                last = min(start + most, stop)
                to, given, of = dx[start:last], dy[start:last], x[start:last]
                for i in range(to.size):
                    below = zero if of[i] > zero else of[i]
                    to[i] = given[i] if of[i] > zero else slope[i] * given[i]
                    parts[i] = fma(given[i], below, parts[i])
            for i in range(most):
                totals[i] += np.float64(parts[i])
            begin = stop
        fold(total, totals)
        for c in range(channels):
            dw[s, c] = dw[s, c] + total[c] if accumulate else total[c]
