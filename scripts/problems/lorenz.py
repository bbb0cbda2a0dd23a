"""A chaotic series: the first coordinate of Lorenz's equations (Lorenz 1963, "Deterministic
nonperiodic flow", J. Atmos. Sci. 20, eqs. 25-27).

Two series that begin with other last bits are soon two different ones. So the equations are
integrated in steps of one size by sums and products alone, which are the same on every processor.
"""

import numpy as np

from layers.types import Array


def lorenz(points: int) -> Array:
    """Return the first coordinate every 0.05 units of time, on the attractor, by the classical
    Runge-Kutta method.
    """
    step, of_point, before = 0.005, 10, 4000

    def slope(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    x = y = z = 1.0
    series = []
    for i in range(before + of_point * points):
        if i >= before and i % of_point == 0:
            series.append(x)
        a, b, c = slope(x, y, z)
        d, e, f = slope(x + step / 2 * a, y + step / 2 * b, z + step / 2 * c)
        g, h, k = slope(x + step / 2 * d, y + step / 2 * e, z + step / 2 * f)
        p, q, r = slope(x + step * g, y + step * h, z + step * k)
        x += step / 6 * (a + 2 * (d + g) + p)
        y += step / 6 * (b + 2 * (e + h) + q)
        z += step / 6 * (c + 2 * (f + k) + r)
    return np.array(series)
