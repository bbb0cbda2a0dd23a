"""The ways back of recurrent layers where only some of the gradients of the gates are kept: at each
step, before its products, which are whole ones with zeros.

`columns` (k + 1,) and `sizes` (H,) are room, and say how many are kept of the H of each gate: those
of largest magnitude, of equal ones the lower columns; NaN counts as infinity. With `bounds` (S +
1,) the samples of a shard that have the step keep the same columns, those of the largest sums of
magnitudes; (0,) for none. All else is as in `recurrent`.
"""

import numpy as np

from .jit import inlined, kernel
from .llvm.halves import wide
from .llvm.vmath import number
from .products import packed_product
from .recurrent import gru_step_back, lstm_step_back, rnn_step_back, to_previous
from .sparse import choose_columns


@inlined
def _clear_others(row, columns):
    """Write zeros to what is in none of the columns; the last place of these is no column."""
    start = 0
    for q in range(columns.size):
        stop = columns[q] if q < columns.size - 1 else row.size
        for j in range(start, stop):
            row[j] = 0
        start = stop + 1


@inlined
def _keep_largest(dgates, dinner, columns, sizes, bounds):
    """Write zeros to what is not kept of the gates' gradients (N, G H) of a step, and to the same
    columns of dinner, unless that has no rows. Those of samples without the step are 0.
    """
    size, infinity, apart = sizes.size, number(sizes, np.inf), bounds.size == 0
    for s in range(len(dgates) if apart else bounds.size - 1):
        first, last = (s, s + 1) if apart else (bounds[s], bounds[s + 1])
        for start in range(0, dgates.shape[1], size):
            for j in range(size):
                sizes[j] = 0
            for n in range(first, last):
                row = dgates[n, start : start + size]
                for j in range(size):
                    sizes[j] += abs(wide(row[j]))
            for j in range(size):
                sizes[j] = sizes[j] if sizes[j] < infinity else infinity
            choose_columns(columns, sizes, columns.size - 1)
            for n in range(first, last):
                _clear_others(dgates[n, start : start + size], columns)
                if len(dinner):
                    _clear_others(dinner[n, start : start + size], columns)


@kernel
def lstm_backward(
    gates,
    dh,
    dc,
    columns,
    sizes,
    bounds,
    dy,
    c,
    squashed,
    line,
    packed,
    nothing,
    lengths,
    reverse,
):
    """Writes what `recurrent.lstm_backward` does, of the gradients that are kept."""
    for t in range(len(gates) - 1, -1, -1):
        lstm_step_back(gates, dh, dc, dy, c, squashed, line, lengths, reverse, t)
        _keep_largest(gates[t], gates[t, :0], columns, sizes, bounds)
        to_previous(dh, gates[t], packed, nothing, lengths, t)


@kernel
def gru_backward(
    gates, inner, dh, columns, sizes, bounds, dy, h, packed, nothing, lengths, reverse
):
    """Writes what `recurrent.gru_backward` does, of the gradients that are kept: those of the last
    state's contribution in the columns of those of the gates.
    """
    for t in range(len(gates) - 1, -1, -1):
        gru_step_back(gates, inner, dh, dy, h, lengths, reverse, t)
        _keep_largest(gates[t], inner[t], columns, sizes, bounds)
        packed_product(dh, inner[t], packed, nothing, True)


@kernel
def rnn_backward(
    dgates, dh, columns, sizes, bounds, dy, h, packed, nothing, lengths, reverse, rectified
):
    """Writes what `recurrent.rnn_backward` does, of the gradients that are kept."""
    for t in range(len(dgates) - 1, -1, -1):
        rnn_step_back(dgates, dh, dy, h, lengths, reverse, rectified, t)
        _keep_largest(dgates[t], dgates[t, :0], columns, sizes, bounds)
        to_previous(dh, dgates[t], packed, nothing, lengths, t)
