"""Train a surrogate of a battery cell on a cold plate: how warm it will be in ten minutes, in which
the current changes four times, without solving its equations.
"""

import argparse
from typing import Any

import numpy as np
from problems.battery_cell import Scaling, simulations

from ddbp import Adam, Trainer, script
from layers import Linear, MeanSquaredError, Sequential, SiLU

LOADS = 4


def train(options: argparse.Namespace, loads: int) -> tuple[Trainer, dict[str, Any], Scaling]:
    """Simulate so many load steps, `options.samples` times, and train by the common flags; the
    result has the error in kelvin beside those of a linear fit and of the mean.
    """
    rng = np.random.default_rng(options.seed)
    data, scaling = simulations(options.samples, loads, rng)
    training, test = data.split(0.2, seed=options.seed)
    model = Sequential(
        Linear(5 + loads, 64, rng=rng),
        SiLU(),
        Linear(64, 64, rng=rng),
        SiLU(),
        Linear(64, 3, rng=rng),
    )
    loss, optimizer = MeanSquaredError(), Adam(script.cosine(options, training))
    trainer, result = script.fit(options, model, loss, optimizer, training, test)
    forecasts = {
        "rmse_kelvin": trainer.predict(test.x),
        "linear_rmse_kelvin": script.linear_fit(training, test),
        "mean_rmse_kelvin": np.zeros_like(test.y),
    }
    result["metrics"] |= script.root_mean_square_errors(forecasts, test.y, scaling.deviation)
    return trainer, result, scaling


def flags(about: str) -> script.Flags:
    """Return the flags of a script that trains one."""
    flags = script.Flags(about, epochs=60, batch_size=128, learning_rate=0.01)
    flags.add_size("--samples", 20_000, "simulations, a fifth of them for the test")
    return flags


def main() -> None:
    """Train and print the result."""
    options = flags(__doc__).parse_args()
    trainer, result, _ = train(options, LOADS)
    script.finish(options, trainer, result)


if __name__ == "__main__":
    script.start(main)
