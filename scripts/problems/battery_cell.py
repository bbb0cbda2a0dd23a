"""A battery cell on a cold plate: three lumped nodes, core, case and plate, with temperatures in
kelvin and heat flows in watts.

    C_core  dT_core/dt  = I(t)² R(T_core) - (T_core - T_case) / R_1
    C_case  dT_case/dt  = (T_core - T_case) / R_1 - (T_case - T_plate) / R_2
    C_plate dT_plate/dt = (T_case - T_plate) / R_2 - m c (1 - exp(-h(m) A / (m c))) (T_plate -
    T_inlet)

The current I changes by steps, every 150 s. The coolant channel is in its steady state, a heat
exchanger whose other side has one temperature; h grows with the flow m as m^0.8 (Dittus and Boelter
1930). The resistance falls with the temperature, R = R_0 exp(b (1/T - 1/T_0)). The values are of
the order of a large prismatic cell's, not those of a product.
"""

from typing import Any, NamedTuple

import numpy as np

from ddbp import ArrayDataset
from layers import Module, exp, log
from layers.types import Array

SECONDS, STEP = 150.0, 2.5  # of a load step, and of the integration
CAPACITY = np.array([900.0, 250.0, 400.0])  # J/K of core, case, plate
FLOW = 0.002, 0.03  # kg/s, of the coolant


def bounds(loads: int) -> tuple[Array, Array]:
    """Return least and greatest inputs (5 + loads,): initial core, case and plate (K), currents
    (A), coolant flow, inlet temperature (K).
    """
    low = [283.0, 283.0, 283.0, *[0.0] * loads, FLOW[0], 278.0]
    high = [323.0, 323.0, 323.0, *[200.0] * loads, FLOW[1], 308.0]
    return np.array(low), np.array(high)


def simulate(inputs: Array) -> Array:
    """Return the temperatures (N, 3) after so many load steps for inputs (N, 5 + loads), by the
    classical Runge-Kutta method.

    Its sums and products and the functions of layers are the same bits on every processor, which
    those of NumPy and SciPy are not.
    """
    flow, inlet = inputs[:, -2], inputs[:, -1]
    rate = flow * 3500.0  # W/K, water and glycol
    exchange = rate * (1 - exp(-15.0 * exp(0.8 * log(flow / 0.01)) / rate))

    def slope(state: Array, current: Array) -> Array:
        core, case, plate = state
        heat = current * current * 1.2e-3 * exp(2500.0 * (1 / core - 1 / 298.15))
        inward, outward = (core - case) / 0.35, (case - plate) / 0.15
        flows = np.array([heat - inward, inward - outward, outward - exchange * (plate - inlet)])
        return flows / CAPACITY[:, np.newaxis]

    state = inputs[:, :3].T
    for current in inputs[:, 3:-2].T:
        for _ in range(round(SECONDS / STEP)):
            first = slope(state, current)
            second = slope(state + STEP / 2 * first, current)
            third = slope(state + STEP / 2 * second, current)
            last = slope(state + STEP * third, current)
            state = state + STEP / 6 * (first + 2 * (second + third) + last)
    return state.T


class Scaling(NamedTuple):
    """How inputs and temperatures become numbers about 0, of about 1.

    Attributes
    ----------
    middle, scale
        Inputs become (inputs - middle) scale.
    mean, deviation
        Of temperatures.
    """

    middle: Array
    scale: Array
    mean: Array
    deviation: Array


class Surrogate:
    """Returns the temperatures (N, 3) after the load steps for inputs (N, 5 + loads), arrays or
    values, by a model of scaled numbers.
    """

    def __init__(self, model: Module, scaling: Scaling) -> None:
        self.model = model
        single = (each.astype(np.float32) for each in scaling)
        self.middle, self.scale, self.mean, self.deviation = single

    def __call__(self, inputs: Any) -> Any:
        return self.model((inputs - self.middle) * self.scale) * self.deviation + self.mean


def simulations(samples: int, loads: int, rng: np.random.Generator) -> tuple[ArrayDataset, Scaling]:
    """Return scaled inputs and temperatures of so many simulations, and their scaling."""
    low, high = bounds(loads)
    x = rng.uniform(-1, 1, (samples, len(low)))
    kelvin = simulate(low + (high - low) * (x + 1) / 2)
    mean, deviation = kelvin.mean(axis=0), kelvin.std(axis=0)
    scaling = Scaling((high + low) / 2, 2 * np.sqrt(3) / (high - low), mean, deviation)
    return ArrayDataset(x * np.sqrt(3), (kelvin - mean) / deviation), scaling
