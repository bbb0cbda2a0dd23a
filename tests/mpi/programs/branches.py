"""Use some parameters on no rank, some on all, and some only where a rank's own samples ask for
them.

Usage: branches.py FOLDER; every rank writes rank<r>.npz.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import Composite, Linear, SoftmaxCrossEntropy
from layers.types import Array

RNG = np.random.default_rng(3)
SAMPLES = 36
X, LABELS = RNG.standard_normal((SAMPLES, 5)), RNG.integers(0, 3, SAMPLES)
# Only the first few samples of the first batch need the expert: those of rank 0, or of ranks 0 and
# 1.
X[:, 0] = np.where(np.arange(SAMPLES) < 5, 1.0, -1.0)
DATA = ddbp.ArrayDataset(X, LABELS)


class Expert(Composite):
    """A layer that helps the samples whose first feature is positive, and is not called if there
    are none; one nobody calls.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        make = {"rng": rng, "dtype": np.float64}
        self.first, self.expert, self.last = (
            Linear(5, 40, **make),
            Linear(40, 40, **make),
            Linear(40, 3, **make),
        )
        self.unused = Linear(40, 40, **make)

    def __call__(self, x):
        array = x if isinstance(x, np.ndarray) else x.array
        chosen = (array[:, :1] > 0).astype(np.float64)
        h = self.first(x)
        if chosen.any():
            h = h + self.expert(h) * chosen
        return self.last(h)

    def __repr__(self) -> str:
        return "Expert()"


def make(shards: int | str) -> ddbp.Trainer:
    """Return a trainer whose parameters move by the gradient."""
    return ddbp.Trainer(
        Expert(),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(1.0),
        batch_size=SAMPLES,
        shards=shards,
        quiet=True,
    )


def moved(trainer: ddbp.Trainer) -> dict[str, Array]:
    """Return all parameters by name."""
    return {name: parameter.value.copy() for name, parameter in trainer.model.named_parameters()}


def main() -> None:
    """Take the same steps by a loop, by single steps and by fit."""
    results: dict[str, Array] = {}
    for kind, shards in (("one shard per rank", "ranks"), ("4 shards", 4)):
        looped = make(shards)
        for _ in range(3):
            batch = looped.batch(X, LABELS)
            looped.step(looped.loss(looped.model(batch.x), batch.y))
        # Two thirds by accumulation: the expert is used in the first batch only.
        accumulated = make(shards)
        for rows in np.split(np.arange(SAMPLES), 3)[:2]:
            with accumulated.no_sync():
                accumulated.train_step(X[rows], LABELS[rows])
        accumulated.train_step(X[24:], LABELS[24:])
        fitted = make(shards)
        fitted.fit(DATA, epochs=3, validation=DATA)
        for name, trainer in (("loop", looped), ("accumulation", accumulated), ("fit", fitted)):
            results |= {
                f"{name}, {kind}, {parameter}": value for parameter, value in moved(trainer).items()
            }
    results["own samples of the expert"] = np.array(
        int((looped.batch(X, LABELS).x.array[:, 0] > 0).sum())
    )
    np.savez(Path(sys.argv[1], f"rank{looped.comm.rank}.npz"), **results)


if __name__ == "__main__":
    main()
