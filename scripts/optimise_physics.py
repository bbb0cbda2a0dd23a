"""Find the constants of a physical model from measurements, by gradients through its integrator,
beside SciPy's `least_squares`, if SciPy is installed.

A battery cell is heated by its current; one thermocouple is in its core and one on its case. Two
lumped nodes, with temperatures in kelvin over the surroundings':

    C_core dT_core/dt = I² R (1 + a T_core) - (T_core - T_case) / R_1
    C_case dT_case/dt = (T_core - T_case) / R_1 - T_case / R_2

The electrical resistance R is known; the other five constants are wanted. Experiments are samples:
a current that changes every minute, and both temperatures every quarter of one. The
integrator, the classical Runge-Kutta method, is ordinary Python: called with arrays it makes the
measurements and gives SciPy its residuals, called with values it is differentiated. With
`--recompute` each minute is computed again on the way back instead of being kept.
"""

import time
from typing import Any

import numpy as np

from ddbp import Adam, ArrayDataset, script
from layers import Coefficients, Composite, MeanSquaredError, Recompute, exp, stack
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


def main() -> None:
    """Make measurements, fit the constants to them and print these, the true ones and SciPy's."""
    flags = script.Flags(
        "Find the constants of a thermal model from measurements.",
        epochs=200,
        batch_size=16,
        learning_rate=0.1,
    )
    flags.add_size("--experiments", 24, "a third of them for the test")
    flags.add_argument("--recompute", action="store_true", help="keep only what minutes begin with")
    options = flags.parse_args()
    if options.experiments < 3:
        flags.error(
            f"--experiments must be 3 or more, of which one is the test; got {options.experiments}"
        )
    script.use_one_thread()
    rng = np.random.default_rng(options.seed)
    currents = rng.uniform(0, 200, (options.experiments, MINUTES))
    measured = Cell(TRUE)(currents)
    measured = measured + NOISE * rng.standard_normal(measured.shape)
    training, test = ArrayDataset(currents, measured).split(1 / 3, seed=options.seed)
    options.batch_size = min(options.batch_size, len(training))
    model = Cell(GUESS, recompute=options.recompute)
    # The gradients of a batch that is all there is have no noise to average over.
    optimizer = Adam(script.cosine(options, training), betas=(0.9, 0.9))
    trainer, result = script.fit(options, model, MeanSquaredError(), optimizer, training, test)
    found = np.exp(model.logarithms.values.value)
    result["metrics"] |= {
        "constants": dict(zip(NAMES, found.tolist(), strict=True)),
        "largest_error": float(np.max(np.abs(found / TRUE - 1))),
        "rmse_kelvin": script.root_mean_square(trainer.predict(training.x) - training.y),
        "test_rmse_kelvin": script.root_mean_square(trainer.predict(test.x) - test.y),
        "true": dict(zip(NAMES, TRUE.tolist(), strict=True)),
        "least_squares": by_scipy(training.x, training.y),
    }
    script.finish(options, trainer, result)


if __name__ == "__main__":
    main()
