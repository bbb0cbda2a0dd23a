"""Forecast a time series several steps ahead with a recurrent network, beside two baselines:
persistence and a linear fit. Nothing of the last fifth, which is the test, takes part in training.
"""

from pathlib import Path
from typing import Any

import numpy as np
from problems.lorenz import lorenz

from ddbp import Adam, script
from ddbp.data.series import windows
from ddbp.data.series_files import read_column
from ddbp.recipes import networks
from layers import Composite, MeanSquaredError, Module


class Forecaster(Composite):
    """The last value of what is read, (N, T, 1), and what a network adds to it for each step."""

    def __init__(self, network: Module) -> None:
        self.network = network

    def __call__(self, x: Any) -> Any:
        return self.network(x) + x[:, -1]


def main() -> None:
    """Train and print the result: errors in the series' own units, beside the baselines'."""
    usual = {"epochs": 15, "batch_size": 64, "learning_rate": 0.005}
    flags = script.Flags(__doc__, **usual, without={"--memory": "the model is no Sequential"})
    about = "a table with a header line (Lorenz's equations unless given)"
    flags.add_argument("--csv", type=Path, metavar="FILE", help=about)
    flags.add_argument("--column", help="its column (the last)")
    flags.add_choice("--model", script.RECURRENT, "which recurrent layer", default="gru")
    flags.add_size("--hidden", 64, "its width")
    flags.add_size("--past", 40, "values that the network reads")
    flags.add_size("--steps", 10, "values that it forecasts")
    options = flags.parse_args()
    series = read_column(options.csv, options.column)[0] if options.csv else lorenz(12_000)
    known, unknown = np.split(series, [len(series) * 4 // 5])
    mean, deviation = known.mean(), known.std() or 1.0
    scaled = ((part - mean) / deviation for part in (known, unknown))
    training, test = (windows(part, options.past, options.steps) for part in scaled)
    rng = np.random.default_rng(options.seed)
    network = networks.of_series(options.model, 1, options.hidden, options.steps, rng)
    model, loss = Forecaster(network), MeanSquaredError()
    optimizer = Adam(script.cosine(options, training))
    trainer, result = script.fit(options, model, loss, optimizer, training, test, clip_norm=1.0)
    forecasts = {
        "rmse": trainer.predict(test.x),
        "linear_rmse": script.linear_fit(training, test),
        "persistence_rmse": test.x[:, -1],
    }
    result["metrics"] |= script.root_mean_square_errors(forecasts, test.y, deviation)
    script.finish(options, trainer, result)


if __name__ == "__main__":
    script.start(main)
