"""Train a small network whose script clips the weights after each step, slowly, while other ranks
are late in what they compute.

Usage: modify_parameters.py FOLDER [--alone]; every rank writes its parameters and losses. With
--alone one rank of each host changes them without the others' knowledge.
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import ddbp
from layers import Layer, Linear, Sequential, SoftmaxCrossEntropy, Tanh

STEPS = 25


class Sleepy(Layer):
    """Passes on what it gets, late on all ranks but the first."""

    def forward(self, call, x):
        time.sleep(3e-3 * ddbp.communicator().rank)
        return x

    def backward(self, call, dy):
        return (dy,)


def main() -> None:
    """Train."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    model = Sequential(Sleepy(), Linear(5, 16, rng=rng), Tanh(), Linear(16, 3, rng=rng))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.5),
        batch_size=12,
        shards=4,
        quiet=True,
    )
    comm, losses = trainer.comm, []
    for step in range(STEPS):
        losses += [trainer.train_step(x, y), trainer.predict(x).sum()]
        with (
            nullcontext(comm.rank == comm.topology.first)
            if "--alone" in sys.argv
            else ddbp.modify_parameters(trainer) as mine
        ):
            if mine:
                time.sleep(20e-3 * (step % 2))
                for parameter in model.parameters():
                    parameter.value = np.clip(parameter.value, -0.3, 0.3) * (0.5 + step / STEPS)
    comm.all_gather(np.zeros(1))
    values = np.concatenate([parameter.value.reshape(-1) for parameter in model.parameters()])
    np.savez(Path(sys.argv[1]) / f"rank{comm.rank}.npz", losses=np.array(losses), parameters=values)


if __name__ == "__main__":
    main()
