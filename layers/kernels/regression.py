"""Losses that compare predictions x with targets t element by element, all flat (n,).

Each writes the losses and their derivatives dx by x.
"""

import numpy as np

from .jit import kernel
from .llvm.vmath import constant, exp, number, sigmoid
from .loss import log, log_of_one_plus_exp


@kernel
def squared_error(losses, dx, x, t):
    """Writes (x - t)^2 and 2 (x - t)."""
    for j in range(x.size):
        difference = x[j] - t[j]
        losses[j] = difference * difference
        dx[j] = difference + difference


@kernel
def absolute_error(losses, dx, x, t):
    """Writes |x - t| and the sign of x - t, 0 where they are equal."""
    one, zero = constant(x, "one"), constant(x, "zero")
    for j in range(x.size):
        difference = x[j] - t[j]
        losses[j] = abs(difference)
        # NaN stays NaN.
        dx[j] = one if difference > 0 else -one if difference < 0 else zero * difference


@kernel
def huber(losses, dx, x, t, delta, slope):
    """Writes slope (x - t)^2 / 2 where |x - t| <= delta, and slope delta (|x - t| - delta / 2)
    elsewhere; dx = slope (x - t), at most slope delta in size.
    """
    delta, slope = number(x, delta), number(x, slope)
    half = constant(x, "half")
    for j in range(x.size):
        difference = x[j] - t[j]
        size = abs(difference)
        quadratic = half * difference * difference
        linear = delta * (size - half * delta)
        losses[j] = slope * (linear if size > delta else quadratic)
        bounded = delta if difference > delta else -delta if difference < -delta else difference
        dx[j] = slope * bounded


@kernel
def binary_cross_entropy(losses, dx, x, t):
    """Writes max(x, 0) - x t + log(1 + e^-|x|), NaN where t is not in [0, 1], and s(x) - t, s =
    logistic function. Where x is infinite and t agrees with it the loss is 0.
    """
    zero = x.dtype.type(0)
    for j in range(x.size):
        above = x[j].real > 0
        loss = log_of_one_plus_exp(-x[j] if above else x[j])
        # What is left of an infinite x is 0 where t agrees.
        if t[j] != (1 if above else 0):
            loss += (x[j] if above else zero) - (x[j] * t[j] if t[j] != 0 else zero)
        losses[j] = loss if t[j].real >= 0 and t[j].real <= 1 else loss * number(x, np.nan)
        dx[j] = sigmoid(x[j]) - t[j]


@kernel
def weighted_binary_cross_entropy(losses, dx, x, t, positive_weights):
    """Writes (1 - t) log(1 + e^x) + p t log(1 + e^-x), NaN where t is not in [0, 1], and its
    derivative; p = positive_weights (P,) in turns, P a divisor of n. A factor 0 makes 0 of inf.
    """
    one, zero = constant(x, "one"), x.dtype.type(0)
    for start in range(0, x.size, positive_weights.size):
        for k in range(positive_weights.size):
            j = start + k
            above = x[j].real > 0
            rest = log_of_one_plus_exp(-x[j] if above else x[j])
            negative, positive = one - t[j], positive_weights[k] * t[j]
            loss = zero * t[j]
            if negative != 0:
                loss += negative * (rest + x[j] if above else rest)
            if positive != 0:
                loss += positive * (rest if above else rest - x[j])
            losses[j] = loss if t[j].real >= 0 and t[j].real <= 1 else loss * number(x, np.nan)
            dx[j] = negative * sigmoid(x[j]) - positive * sigmoid(-x[j])


@kernel
def hinge(losses, dx, x, t, squared):
    """Writes max(0, 1 - x t), or its square, NaN where t is neither 1 nor -1, and its derivative;
    0 where 1 = x t.
    """
    one, zero = constant(x, "one"), constant(x, "zero")
    for j in range(x.size):
        margin = one - x[j] * t[j]
        # NaN stays NaN.
        margin = zero if margin <= 0 else margin
        loss = margin * margin if squared else margin
        slope = -(margin + margin) * t[j] if squared else (zero if margin == 0 else -t[j])
        losses[j] = loss if abs(t[j]) == 1 else loss * number(x, np.nan)
        dx[j] = slope


@kernel
def poisson(losses, dx, x, t, log_input):
    """Writes e^x - t x and e^x - t with `log_input`; without, x - t log x and 1 - t / x. NaN where
    t < 0.
    """
    one = constant(x, "one")
    for j in range(x.size):
        if log_input:
            mean = exp(x[j])
            loss = mean - t[j] * x[j]
            dx[j] = mean - t[j]
        else:
            loss = x[j] - t[j] * log(x[j])
            dx[j] = one - t[j] / x[j]
        losses[j] = loss if t[j].real >= 0 else loss * number(x, np.nan)


@kernel
def gaussian(losses, dx, dv, x, variance, t, least):
    """Writes (log v + (x - t)^2 / v) / 2 for v = max(variance, least), and its derivatives by x and
    by the variance, 0 where that is less than `least`. NaN where the variance is negative.
    """
    least, half = number(x, least), constant(x, "half")
    zero, one = constant(x, "zero"), constant(x, "one")
    for j in range(x.size):
        bounded = variance[j].real < least
        v = least * one if bounded else variance[j]
        difference = x[j] - t[j]
        loss = half * (log(v) + difference * difference / v)
        losses[j] = loss * number(x, np.nan) if variance[j].real < 0 else loss
        dx[j] = difference / v
        dv[j] = zero if bounded else half * (one - difference * difference / v) / v
