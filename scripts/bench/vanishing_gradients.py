"""Show how far an error reaches back in time: gradients of a loss at the last step with respect to
the input of each step.

    python scripts/bench/vanishing_gradients.py [--json FILE]

Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent is difficult",
IEEE Trans. Neural Networks 5(2), 1994. Networks as they are before training, over random sequences.
"""

from typing import Any

from lib import harness

import numpy as np

import layers
from layers import Tape

STEPS, SAMPLES, INPUTS, HIDDEN = 200, 32, 8, 64
NETWORKS = {
    "RNN, tanh": lambda rng: layers.RNN(INPUTS, HIDDEN, rng=rng),
    "LSTM, forget bias 0": lambda rng: layers.LSTM(INPUTS, HIDDEN, rng=rng, forget_bias=0.0),
    "LSTM, forget bias 1": lambda rng: layers.LSTM(INPUTS, HIDDEN, rng=rng),
    "LSTM, forget bias 3": lambda rng: layers.LSTM(INPUTS, HIDDEN, rng=rng, forget_bias=3.0),
    "GRU": lambda rng: layers.GRU(INPUTS, HIDDEN, rng=rng),
}


def reach(network: Any, rng: np.random.Generator) -> list[float]:
    """Return for each step, the last one first, the norm of its input's gradient over that of the
    last step's.
    """
    x = Tape().input(rng.standard_normal((SAMPLES, STEPS, INPUTS), np.float32))
    last = network(x)[:, -1]
    (last * rng.standard_normal(last.shape).astype(np.float32)).sum().backward()
    norms = np.linalg.norm(x.grad.astype(np.float64), axis=(0, 2))[::-1]
    return [float(f"{norm:.4g}") for norm in norms / norms[0]]


def main() -> None:
    """Measure, print every twentieth step and write the file."""
    options = harness.arguments(str(__doc__).splitlines()[0], None).parse_args()
    rows = []
    for name, make in NETWORKS.items():
        rows.append(
            {
                "name": name,
                "gradients": reach(make(np.random.default_rng(0)), np.random.default_rng(1)),
            }
        )
        print(f"{name:20}", *(f"{value:8.1e}" for value in rows[-1]["gradients"][::25]))
    harness.write(options.json, harness.machine(), rows)


if __name__ == "__main__":
    main()
