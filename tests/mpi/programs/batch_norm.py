"""Train networks with batch normalisation on few samples, so that parts are uneven; every rank
writes what it got.

Usage: batch_norm.py FOLDER. Every rank begins with parameters and states of its own, which those of
rank 0 must overwrite.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import (
    BatchNorm,
    BatchNorm2d,
    Composite,
    Flatten,
    Linear,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
)
from layers.types import Array

SAMPLES = 23
RNG = np.random.default_rng(3)
X, LABELS = RNG.standard_normal((SAMPLES, 4, 4, 3)), RNG.integers(0, 4, SAMPLES)


class Network(Composite):
    """A hidden layer whose gradient can be looked at, and what follows it."""

    def __init__(self, seed: int, dtype: type, **options: bool) -> None:
        rng = np.random.default_rng(seed)

        def norm(make: type[BatchNorm], features: int) -> BatchNorm:
            layer = make(features, dtype=dtype, **options)
            layer.running_mean.value = rng.standard_normal(features)
            return layer

        self.first = Linear(3, 8, rng=rng, dtype=dtype)
        self.rest = Sequential(
            norm(BatchNorm2d, 8),
            ReLU(),
            Residual(
                Sequential(Linear(8, 8, rng=rng, dtype=dtype), norm(BatchNorm2d, 8)),
                norm(BatchNorm2d, 8),
            ),
            ReLU(),
            Flatten(),
            Linear(128, 16, rng=rng, dtype=dtype),
            norm(BatchNorm, 16),
            Tanh(),
            Linear(16, 4, rng=rng, dtype=dtype),
        )

    def __call__(self, x):
        return self.rest(self.first(x))

    def __repr__(self) -> str:
        return f"Network({self.rest!r})"


def everything(model: Network) -> Array:
    """Return all parameters and states one after the other."""
    named = [*model.named_parameters(), *model.named_states()]
    return np.concatenate([array.value.reshape(-1) for _, array in named])


def whole(model: Network, x: Array, labels: Array) -> dict[str, Array]:
    """Return output and gradient of the hidden layer of the whole batch, on a tape without
    shards.
    """
    model = model.astype(np.float64)
    hidden = model.first(
        Tape(training=True).input(x.astype(np.float64), gradient=False)
    ).keep_grad()
    y = model.rest(hidden)
    SoftmaxCrossEntropy()(y, labels).backward()
    return {"output": y.array, "gradient": hidden.grad}


def run(
    name: str, results: dict[str, Array], model: Network, samples: int, shards: int | str
) -> None:
    """Take a step (the first one also compiles kernels), look at the parts of the second, and take
    two more.
    """
    x, labels = X[:samples].astype(model.first.weight.dtype), LABELS[:samples]
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.5),
        batch_size=samples,
        shards=shards,
        quiet=True,
    )
    results[f"start, {name}"] = everything(model)
    trainer.train_step(x, labels)
    results |= {f"whole {part}, {name}": array for part, array in whole(model, x, labels).items()}
    batch = trainer.batch(x, labels)
    hidden = model.first(batch.x).keep_grad()
    y = model.rest(hidden)
    total = trainer.loss(y, batch.y)
    total.backward()
    results[f"rows of output, {name}"], results[f"rows of gradient, {name}"] = (
        y.array.copy(),
        hidden.grad.copy(),
    )
    trainer.update(total)
    for _ in range(2):
        trainer.train_step(x, labels)
    results[f"end, {name}"] = everything(model)
    results[f"digest, {name}"] = np.array(trainer.parameters_sha256())
    results[f"evaluation, {name}"] = np.array(
        trainer.evaluate(ddbp.ArrayDataset(X, LABELS))["loss"]
    )


def main() -> None:
    """Run all and write rank<r>.npz."""
    rank = ddbp.communicator().rank
    results: dict[str, Array] = {}
    for dtype in (np.float32, np.float64):
        kind = np.dtype(dtype).name
        run(f"5 shards, {kind}", results, Network(rank, dtype), SAMPLES, 5)
        run(
            f"synchronized, 5 shards, {kind}",
            results,
            Network(rank, dtype, synchronized=True),
            SAMPLES,
            5,
        )
    # Most shards are empty, with three ranks all of those of rank 0.
    run(
        "synchronized, 8 shards of 3 samples",
        results,
        Network(rank, np.float64, synchronized=True),
        3,
        8,
    )
    run(
        "synchronized, one shard per rank",
        results,
        Network(rank, np.float64, synchronized=True),
        SAMPLES,
        "ranks",
    )
    np.savez(Path(sys.argv[1], f"rank{rank}.npz"), **results)


if __name__ == "__main__":
    main()
