"""Steps to be replayed."""

import numpy as np

from layers import (
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tape,
    Workspace,
)

CLASSES = 3


class Steps:
    """Takes steps of plain gradient descent on batches that differ, and keeps what comes out.

    Parameters
    ----------
    forward
        Called with the model, the inputs as a value, the labels and the number of the step; returns
        the loss. The model, the loss and no more unless given.
    shards
        Bounds of the shards.
    """

    def __init__(self, model=None, forward=None, shards=None):
        rng = np.random.default_rng(7)
        self.model = network() if model is None else model
        self.criterion = SoftmaxCrossEntropy()
        self.forward = forward or (lambda model, x, y, step: self.criterion(model(x), y))
        self.x = rng.standard_normal((40, 8, 6)).astype(np.float32)
        self.y = rng.integers(0, CLASSES, (40, 8))
        self.shards = None if shards is None else np.array(shards)
        self.copy = True
        self.workspace = Workspace()
        self.taken = 0
        self.found = []

    def begin(self, rows=8, **options):
        """Return a new tape, the inputs on it, and the labels."""
        for parameter in self.model.parameters():
            parameter.zero_gradient()
        tape = Tape(training=True, workspace=self.workspace, shards=self.shards, **options)
        batch = self.taken % len(self.x)
        x = tape.input(self.x[batch, :rows], gradient=False, copy=self.copy)
        return tape, x, self.y[batch, :rows]

    def end(self, loss, **backward):
        """Propagate backwards, and change the parameters; keep their bits, and those of the
        loss.
        """
        loss.backward(**backward)
        bits = [loss.array.tobytes()]
        for parameter in self.model.parameters():
            parameter.value -= np.float32(0.1) * parameter.gradient
            bits.append(parameter.value.tobytes())
        loss.tape.release()
        self.found.append(bits)
        self.taken += 1

    def take(self, steps=1, rows=8, **options):
        """Take steps; return self."""
        for _ in range(steps):
            _, x, y = self.begin(rows, **options)
            self.end(self.forward(self.model, x, y, self.taken))
        return self

    @property
    def replayed(self):
        """How many steps were replayed."""
        return self.workspace.replay.steps if self.workspace.replay else 0


def network():
    rng = np.random.default_rng(3)
    return Sequential(Linear(6, 5, rng=rng), ReLU(), Linear(5, CLASSES, rng=rng))
