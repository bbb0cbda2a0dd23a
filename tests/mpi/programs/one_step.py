"""Take one step with rate 1 from initial parameters that differ from rank to rank; the parameters
then move by the gradient.

Usage: one_step.py FOLDER; every rank writes rank<r>.npz.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import Linear, Sequential, SoftmaxCrossEntropy, Tanh, Tape
from layers.types import Array

SAMPLES = 50
RNG = np.random.default_rng(3)
X, LABELS = RNG.standard_normal((SAMPLES, 12)), RNG.integers(0, 4, SAMPLES)


def network(seed: int, dtype: type) -> Sequential:
    """Return a network of 2.6 thousand parameters, which two blocks of flat memory do not hold."""
    rng = np.random.default_rng(seed)
    return Sequential(
        Linear(12, 150, rng=rng, dtype=dtype), Tanh(), Linear(150, 4, rng=rng, dtype=dtype)
    )


def flat(model: Sequential) -> Array:
    """Return a copy of all parameters one after the other."""
    return np.concatenate([parameter.value.reshape(-1) for parameter in model.parameters()])


def mean_gradient(model: Sequential, x: Array, labels: Array) -> Array:
    """Return the gradient of the mean loss of some samples, without a trainer."""
    SoftmaxCrossEntropy()(model(Tape().input(x, gradient=False)), labels).backward()
    return np.concatenate([parameter.gradient.reshape(-1) for parameter in model.parameters()])


def main() -> None:
    """Take the step in float32 and float64, with one shard per rank, with eight and with
    what there is unasked.
    """
    comm = ddbp.communicator()
    results = {}
    for dtype in (np.float32, np.float64):
        x = X.astype(dtype)
        kinds = {"one shard per rank": "ranks", "eight shards": 8, "unasked": None}
        for name, shards in kinds.items():
            model = network(seed=comm.rank, dtype=dtype)
            trainer = ddbp.Trainer(
                model,
                loss=SoftmaxCrossEntropy(),
                optimizer=ddbp.SGD(1.0),
                batch_size=SAMPLES,
                shards=shards,
                quiet=True,
            )
            before = flat(model)
            loss = trainer.train_step(x, LABELS)
            key = f"{name}, {np.dtype(dtype).name}"
            results |= {
                f"start, {key}": before,
                f"gradient, {key}": before - flat(model),
                f"loss, {key}": np.array(loss),
            }
    mine = slice(SAMPLES * comm.rank // comm.size, SAMPLES * (comm.rank + 1) // comm.size)
    results["gradient of own mean"] = mean_gradient(network(0, np.float64), X[mine], LABELS[mine])
    results["gradient of whole mean"] = mean_gradient(network(0, np.float64), X, LABELS)
    results["own samples"] = np.array(len(LABELS[mine]))
    np.savez(Path(sys.argv[1], f"rank{comm.rank}.npz"), **results)


if __name__ == "__main__":
    main()
