"""Numbers that are trained, and are the weights of no layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import numbers, require_array, require_model_type
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .engine.parameter import Parameter
from .errors import message
from .kernels import index
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class Coefficients(Layer):
    """Trained numbers as a value: those of an equation, a field, a curve. Every sample gets them:
    y[n] = w. Backward: dw = sum of dy[n] over samples.

    Parameters
    ----------
    values
        The initial ones, of any shape (*,).

    Notes
    -----
    Called with an array or value (N, …), of which only N counts, it returns (N, *). What is
    computed of it in ordinary Python is differentiable, sample by sample:

    >>> spring = Coefficients([2.0, 0.1])
    >>> constants = spring(x)
    >>> force = -constants[:, 0] * x - constants[:, 1] * velocity
    """

    analytic = True
    replayable = True
    keeps_constants = False

    def __init__(self, values: Any, *, dtype: Any = np.float32) -> None:
        dtype = require_model_type("Coefficients", dtype)
        self.values = Parameter(numbers("Coefficients", "values", values, dtype))

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_array(self, x)
        if not x.ndim:
            fix = "Pass the batch, or any array with a row for each sample."
            raise ValueError(message(self, "the input must have an axis of samples", x.shape, fix))
        w = self.values.value
        y = call.output_buffer("y", (len(x), *w.shape), w.dtype)
        if w.dtype.kind == "c":
            y[:] = w
        else:
            call.run(index.repeat, y.reshape(len(x), w.size), w.reshape(w.size))
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        if call.trains(self.values):
            dw, accumulate = call.gradient_buffer(self.values)
            rows = contiguous(dy).reshape(len(dy), 1, self.values.size)
            positions = dw.reshape(len(dw), 1, self.values.size)
            call.run(index.positions_backward, positions, rows, call.bounds(len(dy)), accumulate)
        return (None,)

    def __repr__(self) -> str:
        return f"Coefficients({self.values.shape})"
