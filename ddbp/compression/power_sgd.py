"""PowerSGD: a product of two thin matrices for each matrix."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from layers import FlatParameters, Parameter
from layers.checks import positive_int
from layers.errors import message
from layers.kernels import compression as kernels
from layers.kernels import random
from layers.types import Array

from .compressor import Compressor, Fields

_NO_BIAS: Array = np.zeros(0, np.float32)


@dataclass(frozen=True)
class PowerSGD(Compressor):
    """Send each matrix of a shard's gradient as a product of two thin ones, and add the error to
    the next one.

    A parameter with several axes is a matrix of its first axis and all others. What a matrix is
    approximated by is one step of subspace iteration from the step before (its warm start), which
    finds the best approximation of that rank where gradients change slowly. Parameters with one
    axis, and matrices that are smaller than the two, are sent as they are. Source: Vogels,
    Karimireddy and Jaggi, "PowerSGD: practical low-rank gradient compression for distributed
    optimization", 2019, algorithms 1 and 2. There the thin matrices are averaged over workers, in
    two rounds; here each shard has its own, so that one message is enough, and their products are
    added up.

    Parameters
    ----------
    rank
        r, how many columns the thin matrices have. A matrix (M, N) takes 4 r (M + N) bytes.

    Raises
    ------
    ValueError
        It is larger than the smaller side of every matrix of the model.
    """

    rank: int = 2

    def __post_init__(self) -> None:
        rank = positive_int("PowerSGD", "rank", self.rank, "PowerSGD(2) is usual.")
        object.__setattr__(self, "rank", rank)

    def __str__(self) -> str:
        return f"power-sgd:{self.rank}"

    def codec(self, flat: FlatParameters) -> "_Codec":
        shapes = [(each.shape[0], each.size // each.shape[0]) for each in _matrices(flat)]
        most = max((min(shape) for shape in shapes), default=0)
        if self.rank > most:
            must = "rank must be at most the smaller side of the largest matrix of the model"
            fix = f"Use up to {most}." if most else "Compress by TopK or Sign."
            raise ValueError(message("PowerSGD", must, f"{self.rank} of {most}", fix))
        return _Codec(flat, self.rank)


def _matrices(flat: FlatParameters) -> list[Parameter]:
    return [each for each in flat.parameters if len(each.shape) > 1 and each.size]


def _draw(q: Array, number: int) -> None:
    """Write to the rows of q that are zero what a warm start begins with: any will do that no
    gradient is orthogonal to.
    """
    for row in np.flatnonzero(~q.any(axis=1)).tolist():
        random.standard_normal(q[row : row + 1], row, 0, number, 0)


class _Codec:
    """See `Codec`; a message is both factors of a matrix, one after the other, or what is sent as
    it is, of each parameter.
    """

    remembers = True

    def __init__(self, flat: FlatParameters, rank: int) -> None:
        # Begin and end of each parameter, its sides, and the number of its first field.
        self._parts: list[tuple[int, int, int, int, int]] = []
        fields: list[tuple[tuple[int, ...], type]] = []
        for _, parameter, start, stop in flat.segments():
            if start == stop:
                continue
            rows = parameter.shape[0] if len(parameter.shape) > 1 else 1
            columns = parameter.size // rows
            thin = rank * (rows + columns) < parameter.size
            self._parts.append((start, stop, rows if thin else 0, columns, len(fields)))
            shapes = [(rank, rows), (rank, columns)] if thin else [(parameter.size,)]
            fields += [(shape, np.float32) for shape in shapes]
        self._starts = [start for start, *_ in self._parts]
        self._fields = Fields(fields)
        self.nbytes = self._fields.nbytes

    def begin(self, sent: Array) -> None:
        sent[:] = 0
        fields = self._fields.of(sent)
        for _, _, rows, _, number in self._parts:
            if rows:
                _draw(fields[number + 1], number)

    def encode(self, sent: Array, x: Array, before: Array) -> None:
        fields, old = self._fields.of(sent), self._fields.of(before)
        for start, stop, rows, columns, number in self._parts:
            if not rows:
                fields[number][:] = x[start:stop]
                continue
            p, q = fields[number : number + 2]
            q[...] = old[number + 1]
            _draw(q, number)
            kernels.factor(p, q, x[start:stop].reshape(rows, columns), _NO_BIAS)

    def decode(self, y: Array, sent: Array, start: int) -> None:
        fields, end = self._fields.of(sent), start + y.size
        y[:] = 0
        for number in range(max(bisect_right(self._starts, start) - 1, 0), len(self._parts)):
            begin, stop, rows, _, field = self._parts[number]
            first, last = max(begin, start), min(stop, end)
            if begin >= end:
                break
            if first >= last:
                continue
            into = y[first - start : last - start]
            if rows:
                kernels.low_rank(into, fields[field], fields[field + 1], first - begin)
            else:
                into[:] = fields[field][first - begin : last - begin]
