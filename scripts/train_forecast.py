"""Forecast a time series several steps ahead with a recurrent network, beside two baselines:
persistence and a linear fit.

The series is a column of `--csv FILE` or, without one, the first coordinate of Lorenz's equations
(Lorenz 1963, "Deterministic nonperiodic flow", J. Atmos. Sci. 20, eqs. 25-27). They are chaotic:
two series that begin with other last bits are soon two different ones. So they are integrated in
steps of one size by sums and products alone, which are the same on every processor. The last fifth
of the series is the test; nothing of it takes part in training or scaling.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ddbp import Adam, script
from ddbp.data.series import windows
from ddbp.data.series_files import read_column
from layers import Composite, Linear, MeanSquaredError
from layers.types import Array


class Forecaster(Composite):
    """A recurrent layer that reads the past, and a linear one of its last output: what is to come
    less the last value.
    """

    def __init__(self, cell: str, hidden: int, steps: int, rng: np.random.Generator) -> None:
        self.recurrent: Any = script.RECURRENT[cell](1, hidden, rng=rng)
        self.head = Linear(hidden, steps, rng=rng)

    def __call__(self, x: Any) -> Any:
        return self.head(self.recurrent(x)[:, -1]) + x[:, -1]


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


def main() -> None:
    """Train and print the result: errors in the series' own units, beside the baselines'."""
    flags = script.Flags(
        "Forecast a time series several steps ahead.", epochs=15, batch_size=64, learning_rate=0.005
    )
    flags.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="a table with a header line (Lorenz's equations unless given)",
    )
    flags.add_argument("--column", help="its column (the last)")
    flags.add_choice("--model", script.RECURRENT, "which recurrent layer", default="gru")
    flags.add_size("--hidden", 64, "its width")
    flags.add_size("--past", 40, "values that the network reads")
    flags.add_size("--steps", 10, "values that it forecasts")
    options = flags.parse_args()
    script.use_one_thread()
    series = read_column(options.csv, options.column)[0] if options.csv else lorenz(12_000)
    cut = len(series) * 4 // 5
    mean, deviation = series[:cut].mean(), series[:cut].std() or 1.0
    training, test = (
        windows((part - mean) / deviation, options.past, options.steps)
        for part in (series[:cut], series[cut:])
    )
    model = Forecaster(
        options.model, options.hidden, options.steps, np.random.default_rng(options.seed)
    )
    optimizer = Adam(script.cosine(options, training))
    trainer, result = script.fit(
        options, model, MeanSquaredError(), optimizer, training, test, clip_norm=1.0
    )
    past = [np.c_[data.x[:, :, 0], np.ones(len(data))] for data in (training, test)]
    line, *_ = np.linalg.lstsq(past[0], training.y)
    forecasts = {
        "rmse": trainer.predict(test.x),
        "linear_rmse": past[1] @ line,
        "persistence_rmse": test.x[:, -1],
    }
    result["metrics"] |= {
        name: script.root_mean_square((forecast - test.y) * deviation)
        for name, forecast in forecasts.items()
    }
    script.finish(options, trainer, result)


if __name__ == "__main__":
    main()
