"""Train a step, the second, with gradients in half precision between hosts; every rank writes the parameters after it.

Usage: wire.py FOLDER FORMAT
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import Linear, Sequential, SoftmaxCrossEntropy


def main() -> None:
    """Take one step of gradient descent with rate 1, so that parameters tell the gradient."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 500)).astype(np.float32), rng.integers(0, 10, 16)
    model = Sequential(Linear(500, 10, rng=rng), Linear(10, 300, rng=rng), Linear(300, 10, rng=rng))
    wire = None if sys.argv[2] == "none" else sys.argv[2]
    trainer = ddbp.Trainer(
        model, loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(1.0), batch_size=16, shards=4, wire=wire, quiet=True
    )
    before = trainer._flat.values.copy()
    # From the second step on gradients travel during backward.
    trainer.train_step(x, y)
    trainer.comm.all_gather(np.zeros(1))
    trainer._flat.values[...] = before
    trainer.comm.all_gather(np.zeros(1))
    trainer.train_step(x, y)
    path = Path(sys.argv[1]) / f"rank{trainer.comm.rank}.npz"
    np.savez(path, gradient=before - trainer._flat.values, values=trainer._flat.values, hosts=len(trainer.comm.hosts) - 1)


if __name__ == "__main__":
    main()
