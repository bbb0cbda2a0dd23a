"""Train a step, the second, with gradients in a format of their own between hosts; every rank
writes the parameters after it.

Usage: wire.py FOLDER FORMAT, which is a name, "none", or "largest" for one that sends the largest
half of each array.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import Linear, Sequential, SoftmaxCrossEntropy


class Largest:
    """Sends the elements that are larger than the median, and their places."""

    def buffer(self, shape, dtype):
        return np.empty((2, np.prod(shape, dtype=int) // 2), dtype)

    def encode(self, sent, gradients):
        flat = gradients.reshape(-1)
        sent[1] = np.sort(np.argsort(np.abs(flat), kind="stable")[flat.size - sent.shape[1] :])
        sent[0] = flat[sent[1].astype(np.int64)]

    def decode(self, gradients, sent):
        gradients[...] = 0
        gradients.reshape(-1)[sent[1].astype(np.int64)] = sent[0]


def main() -> None:
    """Take one step of gradient descent with rate 1, so that parameters tell the gradient."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 500)).astype(np.float32), rng.integers(0, 10, 16)
    model = Sequential(Linear(500, 10, rng=rng), Linear(10, 300, rng=rng), Linear(300, 10, rng=rng))
    wire = {"none": None, "largest": Largest()}.get(sys.argv[2], sys.argv[2])
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(1.0),
        batch_size=16,
        shards=4,
        wire=wire,
        quiet=True,
    )
    before = trainer._flat.values.copy()
    # From the second step on gradients travel during backward.
    trainer.train_step(x, y)
    trainer.comm.all_gather(np.zeros(1))
    trainer._flat.values[...] = before
    trainer.comm.all_gather(np.zeros(1))
    trainer.train_step(x, y)
    path = Path(sys.argv[1]) / f"rank{trainer.comm.rank}.npz"
    np.savez(
        path,
        gradient=before - trainer._flat.values,
        values=trainer._flat.values,
        hosts=len(trainer.comm.hosts) - 1,
    )


if __name__ == "__main__":
    main()
