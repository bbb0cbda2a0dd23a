"""A battery cell that is heated by its current, with one thermocouple in its core and one on its
case: two lumped nodes, with temperatures in kelvin over the surroundings'.

    C_core dT_core/dt = I² R (1 + a T_core) - (T_core - T_case) / R_1
    C_case dT_case/dt = (T_core - T_case) / R_1 - T_case / R_2

The electrical resistance R is known; the other five constants are wanted. Experiments are samples:
a current that changes every minute, and both temperatures every quarter of one. The integrator, the
classical Runge-Kutta method, is ordinary Python: called with arrays it makes the measurements and
gives SciPy its residuals, called with values it is differentiated.
"""

import time
from typing import Any

import numpy as np

from ddbp import script
from layers import Coefficients, Composite, Recompute, exp, stack
from layers.types import Array

try:
    from scipy.optimize import least_squares
except ImportError:
    least_squares = None

NAMES = ("core_capacity", "case_capacity", "inner_resistance", "outer_resistance", "coefficient")
TRUE = np.array([900.0, 400.0, 1.0, 1.5, 0.004])  # J/K, J/K, K/W, K/W, 1/K
GUESS = np.array([500.0, 500.0, 0.5, 1.0, 0.01])
RESISTANCE, MINUTES, STEPS = 1.2e-3, 20, 4  # ohm, of an experiment, steps of a minute
NOISE = 0.02  # K, of a thermocouple


class Minute(Composite):
    """The core and the case after each step of a minute, 2 STEPS values (N,), from those before,
    the heat (N,) and constants (N, 5).
    """

    def __call__(self, core: Any, case: Any, heat: Any, constants: Any) -> Any:
        inverse = 1 / constants[:, :4]
        of_core, of_case, inner, outer = (inverse[:, i] for i in range(4))
        coefficient, step = constants[:, 4], 60 / STEPS
        both = []

        def slope(core: Any, case: Any) -> tuple[Any, Any]:
            inward = (core - case) * inner
            return (heat * (1 + coefficient * core) - inward) * of_core, (
                inward - case * outer
            ) * of_case

        for _ in range(STEPS):
            a, b = slope(core, case)
            c, d = slope(core + step / 2 * a, case + step / 2 * b)
            e, f = slope(core + step / 2 * c, case + step / 2 * d)
            g, h = slope(core + step * e, case + step * f)
            core = core + step / 6 * (a + 2 * (c + e) + g)
            case = case + step / 6 * (b + 2 * (d + f) + h)
            both += [core, case]
        return tuple(both)


class Cell(Composite):
    """Both temperatures after each step, (N, MINUTES 2 STEPS), for currents (N, MINUTES)."""

    def __init__(self, constants: Array, *, recompute: bool = False) -> None:
        self.logarithms = Coefficients(np.log(constants), dtype=np.float64)
        self.minute = Recompute(Minute()) if recompute else Minute()

    def __call__(self, currents: Any) -> Any:
        constants = exp(self.logarithms(currents))
        heat = currents * currents * RESISTANCE
        core = case = 0 * heat[:, 0]
        temperatures = []
        for minute in range(MINUTES):
            both = self.minute(core, case, heat[:, minute], constants)
            temperatures += both
            core, case = both[-2:]
        return stack(temperatures, axis=1)


def measured(experiments: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return currents (N, MINUTES) and what thermocouples say, (N, MINUTES 2 STEPS)."""
    currents = rng.uniform(0, 200, (experiments, MINUTES))
    temperatures = Cell(TRUE)(currents)
    return currents, temperatures + NOISE * rng.standard_normal(temperatures.shape)


def by_scipy(currents: Array, measured: Array) -> dict[str, Any] | None:
    """Return the constants that `least_squares` finds with differences for its Jacobian, and what
    that took; nothing without SciPy.
    """
    if least_squares is None:
        return None
    model = Cell(GUESS)

    def residuals(logarithms: Array) -> Array:
        model.logarithms.values.value = logarithms
        return np.asarray(model(currents) - measured).ravel()

    started = time.perf_counter()
    found = least_squares(residuals, np.log(GUESS))
    return {
        "constants": dict(zip(NAMES, np.exp(found.x).tolist(), strict=True)),
        "rmse_kelvin": script.root_mean_square(found.fun),
        "simulations": int(found.nfev + found.njev * len(GUESS)),
        "seconds": time.perf_counter() - started,
    }
