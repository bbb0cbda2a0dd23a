"""Pooling of sequences x (N, T, C) over the steps that are valid, to y (N, C); lengths (N,), 1 to
T.
"""

from .jit import inlined, kernel
from .llvm.memory import address_of
from .llvm.windows import route_to_maximum, spread, window_maximum, window_mean
from .machine import VECTOR_BYTES

MEAN, MAXIMUM, LAST = 0, 1, 2


@kernel
def over_time(y, x, lengths, kind):
    """Writes y = the mean, the maximum (NaN if there is one) or the last of the valid steps."""
    _, steps, channels = x.shape
    step, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    for n in range(len(x)):
        count = lengths[n]
        if kind == LAST:
            to, of = y[n], x[n, count - 1]
            for c in range(channels):
                to[c] = of[c]
            continue
        for c in range(0, channels, vector):
            at, lanes = c * x.itemsize, min(vector, channels - c)
            to, of = address_of(y) + n * step + at, address_of(x) + n * steps * step + at
            if kind == MEAN:
                window_mean(y, to, of, 0, step, 1, count, lanes, count)
            else:
                window_maximum(y, to, of, 0, step, 1, count, lanes, 0)


@inlined
def _clear(dx, start, stop):
    """Write zeros to rows start..stop."""
    for t in range(start, stop):
        dx[t] = 0


@kernel
def over_time_backward(dx, dy, y, x, lengths, kind):
    """Writes dx = dy over the length at valid steps, dy at the first that is the maximum, or dy at
    the last; 0 elsewhere.
    """
    _, steps, channels = dx.shape
    step, vector = channels * dx.itemsize, VECTOR_BYTES // dx.itemsize
    for n in range(len(dx)):
        count = lengths[n]
        if kind == LAST:
            _clear(dx[n], 0, steps)
            into, given = dx[n, count - 1], dy[n]
            for c in range(channels):
                into[c] = given[c]
            continue
        _clear(dx[n], count, steps)
        for c in range(0, channels, vector):
            at, lanes = c * dx.itemsize, min(vector, channels - c)
            first, here = n * steps * step + at, n * step + at
            to, of = address_of(dx) + first, address_of(dy) + here
            if kind == MEAN:
                spread(dx, to, of, 0, step, 1, count, lanes, count, 0)
            else:
                best, seen = address_of(y) + here, address_of(x) + first
                route_to_maximum(dx, to, of, best, seen, 0, step, 1, count, lanes, 0, 0)
