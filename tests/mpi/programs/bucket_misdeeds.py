"""All ranks train, each a host of its own, with gradients that travel during backward; rank 1 does
not do as the others in step 3.

Usage: bucket_misdeeds.py FOLDER MISDEED; every rank writes its parameters. The misdeeds of all
ranks are also those of one process.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from launcher import await_watch

import ddbp
from ddbp.reduction.exchange import Exchange
from layers import Layer, Linear, Sequential, SoftmaxCrossEntropy, Tanh

GUILTY, STEP, STEPS = 1, 3, 6
SLEEP = 600.0
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 60)).astype(np.float32), RNG.integers(0, 3, 12)


class Trouble(Layer):
    """The identity, whose backward does something else first."""

    def __init__(self) -> None:
        self._deed = None

    def __repr__(self) -> str:
        return "Trouble()"

    def forward(self, call, x):
        return x

    def backward(self, call, dy):
        if self._deed is not None:
            self._deed()
        return (dy,)


def raise_error() -> None:
    """Raise."""
    raise RuntimeError("the misdeed")


def main() -> None:
    """Train; the trouble comes when the last layer's gradients are on their way, and the first
    layer's are still to be computed.
    """
    misdeed = sys.argv[2]
    comm = ddbp.communicator()
    guilty, rng = comm.rank == GUILTY, np.random.default_rng(1)
    trouble = Trouble()
    model = Sequential(
        Linear(60, 40, rng=rng),
        Tanh(),
        trouble,
        Linear(40, 60, rng=rng),
        Tanh(),
        Linear(60, 3, rng=rng),
    )
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(0.01),
        batch_size=12,
        shards=3,
        quiet=True,
    )
    in_backward = {
        "hang in backward": lambda: time.sleep(SLEEP),
        "be killed in backward": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "leave in backward": lambda: sys.exit(0),
        "raise and go on alone": raise_error,
    }
    if guilty and misdeed == "hang in the exchange":
        Exchange.run = lambda *arguments: time.sleep(SLEEP)
    await_watch()
    for step in range(STEPS):
        trouble._deed = None
        if step == STEP and (guilty and misdeed in in_backward):
            trouble._deed = in_backward[misdeed]
        if step == STEP and misdeed == "raise and go on":
            trouble._deed = raise_error
        if step == STEP and guilty and misdeed == "skip a step":
            trainer.batch(X, Y)
            continue
        rows = slice(7 if step == STEP and guilty and misdeed == "take another batch" else None)
        batch = trainer.batch(X[rows], Y[rows])
        try:
            trainer.step(trainer.loss(model(batch.x), batch.y))
        except RuntimeError as error:
            if "the misdeed" not in str(error):
                raise
            for parameter in model.parameters():
                parameter.zero_gradient()
            # The same batch again, on a new tape.
            trouble._deed = None
            trainer.train_step(X, Y)
    values = np.concatenate([parameter.value.reshape(-1) for parameter in model.parameters()])
    np.savez(
        Path(sys.argv[1]) / f"rank{comm.rank}.npz",
        parameters=values,
        buckets=len(trainer._update.reducer.ranges),
    )
    print(f"rank {comm.rank} has finished", flush=True)


if __name__ == "__main__":
    main()
