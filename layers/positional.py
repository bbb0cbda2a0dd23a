"""What tells positions of a sequence (N, T, C) apart: vectors that are added to those of the
tokens.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import positive_int, require_input, require_room
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous, flat
from .engine.parameter import Parameter
from .errors import message
from .init import Initializer, normal
from .initial import drawn
from .kernels import elementary, index
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call

_SMALL = normal(0.02)


def sinusoids(length: int, features: int) -> Array:
    """Return p (T, C): p[t, 2i] = sin(t / 10000^(2i/C)) and p[t, 2i + 1] = cos(t / 10000^(2i/C)),
    in float64.
    """
    require_room("SinusoidalPositions", (length, features))
    i = np.arange(features)
    scales, table = np.empty(features), np.empty((length, features))
    elementary.power(scales, np.full(features, 10000.0), (i - i % 2) / features)
    angles = np.arange(length)[:, np.newaxis] / scales
    for first, wave in enumerate((elementary.sin, elementary.cos)):
        of = flat(angles[:, first::2])
        wave(of, of)
        table[:, first::2] = of.reshape(length, -1)
    return table


class _Positions(Layer):
    """y[n, t] = x[n, t] + p[t]. Backward: dx = dy."""

    replayable = True
    length: int
    features: int

    def _check(self, x: Array, dtype: Any = None) -> None:
        require_input(self, x, ("N", "T", self.features), dtype)
        if x.shape[1] > self.length:
            fix = "Make the layer for the longest sequence, or cut the sequence."
            must = f"the input must have shape (N, T, {self.features}) with T up to {self.length}"
            raise ValueError(message(self, must, x.shape, fix))

    def _sum(self, call: ForwardCall, x: Array, positions: Array) -> Array:
        if x.dtype.kind == "c":
            return np.asarray(x + positions[: x.shape[1]])
        y = call.output_buffer("y", x.shape, x.dtype)
        call.run(index.add_positions, y, contiguous(x), positions)
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.length}, {self.features})"


class SinusoidalPositions(_Positions):
    """Add p[t, 2i] = sin(t / 10000^(2i/C)) and p[t, 2i + 1] = cos(t / 10000^(2i/C)) (Vaswani et al.
    2017, section 3.5).

    Parameters
    ----------
    length, features
        Greatest length of a sequence, and C.

    Notes
    -----
    y[n, t] = x[n, t] + p[t]. Backward: dx = dy.
    """

    analytic = True

    def __init__(self, length: int, features: int) -> None:
        name = type(self).__name__
        self.length = positive_int(name, "length", length)
        self.features = positive_int(name, "features", features)
        self._table = sinusoids(self.length, self.features)
        self._cast: dict[Any, Array] = {}

    def forward(self, call: ForwardCall, x: Array) -> Array:
        self._check(x)
        positions = self._cast.get(x.dtype)
        if positions is None:
            positions = self._cast[x.dtype] = self._table.astype(x.dtype)
        return self._sum(call, x, positions)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy,)


class LearnedPositions(_Positions):
    """Add a learned vector to each position: y[n, t] = x[n, t] + w[t]. Backward: dx = dy, dw[t] =
    sum of dy[n, t] over samples.

    Parameters
    ----------
    length, features
        Greatest length of a sequence, and C. The weight has shape (length, C).
    rng, weight_init
        Draw the initial weight.
    """

    analytic = True

    def __init__(
        self,
        length: int,
        features: int,
        *,
        rng: np.random.Generator,
        weight_init: Initializer = _SMALL,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        self.length = positive_int(name, "length", length)
        self.features = positive_int(name, "features", features)
        self.weight = Parameter(
            drawn("LearnedPositions", weight_init, rng, (self.length, self.features), dtype)
        )

    def forward(self, call: ForwardCall, x: Array) -> Array:
        self._check(x, self.weight.dtype)
        return self._sum(call, x, self.weight.value)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        if call.trains(self.weight):
            dw, accumulate = call.gradient_buffer(self.weight)
            bounds = call.bounds(len(dy))
            call.run(index.positions_backward, dw, contiguous(dy), bounds, accumulate)
        return (dy,)
