"""Numeric derivatives along a line, with an estimate of their own error: central differences at
three steps, and the complex step.

A line is a function t -> y(x + t v), an array. Its derivative at t = 0 is contracted with the
cotangent c: the number sum c dy/dt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from layers.types import Array

Line = Callable[[complex], Array]

STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Largest of the three steps, relative to the size of x: the first serves smooth functions, the
others those with a kink or a singularity nearby. At 1e-3 rounding (eps / h) and the error after
extrapolation (h^6) are both below 1e-11.
"""

COMPLEX_STEP = 1e-25
"""Its square vanishes beside 1 in float64, so that there is no truncation error; nothing is
subtracted, so no rounding either.
"""

_EPS = float(np.finfo(np.float64).eps)
# Roundings that an output is assumed to have suffered; the verdict allows ten times the uncertainty
# on top.
_ROUNDINGS = 4


@dataclass
class Derivative:
    """A derivative along one line, as the differences at steps h, h/2 and h/4 give it.

    Attributes
    ----------
    value
        Richardson's extrapolation of the three central differences to h = 0; it removes the h² and
        h⁴ terms.
    uncertainty
        Rounding at the smallest step, plus what the last extrapolation changed.
    noise
        The first of the two.
    differences
        The three central differences.
    left, right
        One-sided differences at the smallest step.
    smooth
        Whether the one-sided differences approach each other as h shrinks.
    kink
        Whether they do not, yet each of them stays the same: a corner, and not mere noise.
    """

    value: float
    uncertainty: float
    noise: float
    differences: tuple[float, float, float]
    left: float
    right: float
    smooth: bool
    kink: bool


def central(line: Line, y: Array, cotangent: Array, h: float, size: float) -> Derivative:
    """Return the derivative at t = 0 from steps h, h/2 and h/4; y = line(0), `size` is that of x in
    units of t.
    """
    slopes, bends = [], []
    moved = 0.0
    for step in (h, h / 2, h / 4):
        up, down = line(step), line(-step)
        slopes.append(_contract(cotangent, up - down) / (2 * step))
        bends.append(_contract(cotangent, (up - y) - (y - down)) / step)
        moved = max(moved, float(np.abs(cotangent * y)[up != down].sum()))
    first = [(4 * slopes[1] - slopes[0]) / 3, (4 * slopes[2] - slopes[1]) / 3]
    value = (16 * first[1] - first[0]) / 15
    noise = _ROUNDINGS * _EPS * (moved + abs(slopes[2]) * size) / (h / 4)
    # The difference of the one-sided slopes is t f'' + t³ f''''/12 + jump: extrapolated to t = 0
    # twice, the jump stays and the rest falls by 8.
    jumps = (2 * bends[1] - bends[0], 2 * bends[2] - bends[1])
    smooth = bool(np.isfinite(value)) and (
        abs(jumps[1]) <= 30 * noise or abs(jumps[1]) <= abs(jumps[0]) / 4
    )
    sides = [
        slope + sign * bend / 2
        for sign in (-1, 1)
        for slope, bend in zip(slopes, bends, strict=True)
    ]
    settled = max(np.ptp(sides[:3]), np.ptp(sides[3:])) <= abs(jumps[1]) / 10
    return Derivative(
        value,
        noise + abs(value - first[1]),
        noise,
        (slopes[0], slopes[1], slopes[2]),
        sides[2],
        sides[5],
        smooth,
        bool(np.isfinite(value)) and not smooth and bool(settled),
    )


def refined(
    line: Line, y: Array, cotangent: Array, size: float, steps: Sequence[float] = STEPS
) -> Derivative:
    """Return the most certain derivative over several triples of steps: a smooth one if there is
    any, else one of a kink.
    """
    results = [central(line, y, cotangent, step * size, size) for step in steps]
    return min(results, key=lambda d: (not d.smooth, not d.kink, d.uncertainty))


def complex_step(line: Line, cotangent: Array) -> float:
    """Return Im y(x + ih v) / h: Squire and Trapp, "Using complex variables to estimate
    derivatives", SIAM Review 40(1), 1998.
    """
    return _contract(cotangent, line(1j * COMPLEX_STEP).imag) / COMPLEX_STEP


def observed_order(derivatives: Sequence[Derivative], analytic: Array) -> float | None:
    """Return the power of h with which the differences approach the analytic gradient; None if
    rounding hides it.

    From ‖D(h) - g‖ / ‖D(h/4) - g‖ = 4^order. A correct gradient shows 2, the order of central
    differences; a wrong one 0, as the differences then approach another number.
    """
    errors = np.abs(np.array([d.differences for d in derivatives]) - analytic[:, np.newaxis])
    norms = np.sqrt((errors**2).sum(axis=0))
    noise = np.sqrt(sum(d.noise**2 for d in derivatives))
    if not norms[2] > 30 * noise:
        return None
    return float(np.log(norms[0] / norms[2]) / np.log(4))


def _contract(cotangent: Array, change: Array) -> float:
    return float((cotangent * change).sum())
