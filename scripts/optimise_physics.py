"""Find the constants of a physical model from measurements, by gradients through its integrator,
`problems/heated_cell.py`, which is the model that is trained. Beside it SciPy's `least_squares`, if
SciPy is installed, has the same integrator for its residuals. With `--recompute` each minute is
computed again on the way back instead of being kept.
"""

import numpy as np
from problems.heated_cell import GUESS, NAMES, TRUE, Cell, by_scipy, measured

from ddbp import Adam, ArrayDataset, script
from layers import MeanSquaredError

WITHOUT = {
    **dict.fromkeys(("--compression", "--precision"), "the constants are in float64"),
    "--memory": "the model is no Sequential of layers; --recompute takes less",
    "--rule": "the model has no layers",
}


def main() -> None:
    """Make measurements, fit the constants to them and print these, the true ones and SciPy's."""
    flags = script.Flags(__doc__, epochs=200, batch_size=16, learning_rate=0.1, without=WITHOUT)
    flags.add_size("--experiments", 24, "a third of them for the test")
    flags.add_argument("--recompute", action="store_true", help="keep only what minutes begin with")
    options = flags.parse_args()
    if (count := options.experiments) < 3:
        flags.error(f"--experiments must be 3 or more, of which one is the test; got {count}")
    data = ArrayDataset(*measured(count, np.random.default_rng(options.seed)))
    training, test = data.split(1 / 3, seed=options.seed)
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
    script.start(main)
