"""What instruments measure of targets: whether batches are alike."""

import numpy as np

from layers import Call, Loss, Tape, TapeHook
from layers.kernels import reduce
from layers.types import Array

WIDTH = 3
"""How many numbers there are of a shard: how many targets, their sum, that of their squares."""


class TargetGauge(TapeHook):
    """Sums up the targets of each shard of this rank's, where a sample has one: a label or a
    number.

    Of batches that accumulate it is the last one, of several losses the first.

    Attributes
    ----------
    sums
        What was found (shards, WIDTH); None where there is none.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self.sums: Array | None = None
        self._tape: Tape | None = None

    def on_forward_begin(self, call: Call) -> None:
        tape = call.tape
        if not isinstance(call.layer, Loss) or tape is self._tape or len(call.inputs) < 2:
            return
        self._tape, self.sums = tape, None
        y = getattr(call.inputs[1], "array", call.inputs[1])
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "iuf" or y.size != len(y):
            return
        terms = np.empty((len(y), WIDTH))
        terms[:, 0] = 1
        terms[:, 1] = y.reshape(-1)
        np.square(terms[:, 1], out=terms[:, 2])
        self.sums = np.empty((tape.shards, WIDTH))
        reduce.column_sums(self.sums, terms, call.bounds(len(y)), False)
