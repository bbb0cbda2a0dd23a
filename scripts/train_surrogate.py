"""Train a surrogate of a battery cell on a cold plate: what it will be like in ten minutes, without
solving its equations.

Three lumped nodes: core, case and cold plate, with temperatures in kelvin and heat flows in watts.

    C_core  dT_core/dt  = I(t)² R(T_core) - (T_core - T_case) / R_1
    C_case  dT_case/dt  = (T_core - T_case) / R_1 - (T_case - T_plate) / R_2
    C_plate dT_plate/dt = (T_case - T_plate) / R_2 - m c (1 - exp(-h(m) A / (m c))) (T_plate -
    T_inlet)

The current I steps four times in the horizon. The coolant channel is in its steady state, a heat
exchanger whose other side has one temperature; h grows with the flow m as m^0.8 (Dittus and Boelter
1930). The resistance falls with the temperature, R = R_0 exp(b (1/T - 1/T_0)). The values are of
the order of a large prismatic cell's, not those of a product.
"""

import numpy as np
from scipy.integrate import solve_ivp

from ddbp import Adam, ArrayDataset, script
from layers import Linear, MeanSquaredError, Sequential, SiLU
from layers.types import Array

HORIZON, STEPS = 600.0, 4  # seconds, load steps
CAPACITY = np.array([900.0, 250.0, 400.0])  # J/K of core, case, plate
# Initial core, case and plate (K), currents (A), coolant flow (kg/s), inlet temperature (K).
LOW = np.array([283.0, 283.0, 283.0, *[0.0] * STEPS, 0.002, 278.0])
HIGH = np.array([323.0, 323.0, 323.0, *[200.0] * STEPS, 0.03, 308.0])


def simulate(inputs: Array) -> Array:
    """Return the temperatures (N, 3) after the horizon for inputs (N, 9), all samples as one system
    of equations.
    """
    flow, inlet = inputs[:, -2], inputs[:, -1]
    rate = flow * 3500.0  # W/K, water and glycol
    exchange = rate * (1 - np.exp(-15.0 * (flow / 0.01) ** 0.8 / rate))

    def slope(_: float, state: Array, current: Array) -> Array:
        core, case, plate = state.reshape(3, -1)
        heat = current**2 * 1.2e-3 * np.exp(2500.0 * (1 / core - 1 / 298.15))
        inward, outward = (core - case) / 0.35, (case - plate) / 0.15
        flows = np.array([heat - inward, inward - outward, outward - exchange * (plate - inlet)])
        return (flows / CAPACITY[:, np.newaxis]).reshape(-1)

    state = inputs[:, :3].T.reshape(-1)
    for current in inputs[:, 3 : 3 + STEPS].T:
        state = solve_ivp(
            slope,
            (0.0, HORIZON / STEPS),
            state,
            args=(current,),
            rtol=1e-6,
            t_eval=[HORIZON / STEPS],
        ).y[:, -1]
    return state.reshape(3, -1).T


def main() -> None:
    """Simulate, train and print the result: the error in kelvin beside those of a linear fit and of
    the mean.
    """
    flags = script.Flags(
        "Train a surrogate of the thermal model of a battery cell.",
        epochs=60,
        batch_size=128,
        learning_rate=0.01,
    )
    flags.add_size("--samples", 20_000, "simulations, a fifth of them for the test")
    options = flags.parse_args()
    # before the simulation, so that its sums do not depend on how many cores a rank may use
    script.use_one_thread()
    rng = np.random.default_rng(options.seed)
    x = rng.uniform(-1, 1, (options.samples, len(LOW)))
    kelvin = simulate(LOW + (HIGH - LOW) * (x + 1) / 2)
    mean, deviation = kelvin.mean(axis=0), kelvin.std(axis=0)
    training, test = ArrayDataset(x * np.sqrt(3), (kelvin - mean) / deviation).split(
        0.2, seed=options.seed
    )
    model = Sequential(
        Linear(9, 64, rng=rng), SiLU(), Linear(64, 64, rng=rng), SiLU(), Linear(64, 3, rng=rng)
    )
    optimizer = Adam(script.cosine(options, training))
    trainer, result = script.fit(options, model, MeanSquaredError(), optimizer, training, test)
    line, *_ = np.linalg.lstsq(np.c_[training.x, np.ones(len(training))], training.y)
    result["metrics"] |= {
        "rmse_kelvin": script.root_mean_square((trainer.predict(test.x) - test.y) * deviation),
        "linear_rmse_kelvin": script.root_mean_square(
            (np.c_[test.x, np.ones(len(test))] @ line - test.y) * deviation
        ),
        "mean_rmse_kelvin": script.root_mean_square(test.y * deviation),
    }
    script.finish(options, trainer, result)


if __name__ == "__main__":
    main()
