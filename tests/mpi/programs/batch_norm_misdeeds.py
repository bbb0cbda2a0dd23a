"""All ranks train a network with batch normalisation, and in step 2 rank 1 does not do as the
others in the middle of it.

Usage: batch_norm_misdeeds.py MISDEED
"""

import sys
import time

import numpy as np

import ddbp
from layers import BatchNorm, Composite, Linear, SoftmaxCrossEntropy

GUILTY, STEP = 1, 2
RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)


class Network(Composite):
    """Two normalised layers; what lies between them may be replaced."""

    def __init__(self, synchronized: bool) -> None:
        rng = np.random.default_rng(0)
        self.first = Linear(5, 4, rng=rng)
        self.norms = [
            BatchNorm(4, synchronized=synchronized),
            BatchNorm(4, synchronized=synchronized),
        ]
        self.last = Linear(4, 3, rng=rng)
        self.misdeed = ""

    def __call__(self, x):
        h = self.norms[0](self.first(x))
        if self.misdeed == "raise in the layer":
            raise RuntimeError("the misdeed")
        if self.misdeed == "end in the layer":
            sys.exit(0)
        if self.misdeed == "hang in the layer":
            time.sleep(600)
        if not self.misdeed.startswith("leave out"):
            h = self.norms[1](h)
        return self.last(h)

    def __repr__(self) -> str:
        return "Network()"


def main() -> None:
    """Train."""
    misdeed = sys.argv[1]
    rank = ddbp.communicator().rank
    model = Network(synchronized=misdeed != "leave out a layer")
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.1),
        batch_size=12,
        shards="ranks",
        quiet=True,
    )
    for step in range(4):
        if step == STEP and rank == GUILTY and misdeed != "nothing":
            model.misdeed = misdeed
        trainer.train_step(X, LABELS)
    print(f"rank {rank} has finished", flush=True)


if __name__ == "__main__":
    main()
