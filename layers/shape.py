"""Layers that change shapes only."""

from typing import TYPE_CHECKING

import numpy as np

from .errors import message
from .layer import Layer
from .types import Array

if TYPE_CHECKING:
    from .tape import Call


class Reshape(Layer):
    """Give each sample another shape: (N, …) to (N, \\*shape); one size may be -1.

    >>> Reshape(8, 8, 1)   # (N, 64) to (N, 8, 8, 1)
    """

    analytic = True

    def __init__(self, *shape: int) -> None:
        if sum(size == -1 for size in shape) > 1 or any(size < -1 or size == 0 for size in shape):
            raise ValueError(
                message("Reshape", "sizes must be positive, one of them may be -1", shape, "Leave out the batch axis.")
            )
        self.shape = shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.shape))})"

    def forward(self, call: "Call", x: Array) -> Array:
        call.save(x.shape)
        features = int(np.prod(x.shape[1:]))
        wanted = -int(np.prod(self.shape))
        if x.ndim < 1 or (features % wanted if -1 in self.shape else features + wanted):
            fix = "Sizes are those of one sample, without the batch axis."
            raise ValueError(message(self, f"each sample must have {int(np.prod(self.shape))} elements", x.shape, fix))
        shape = tuple(features // wanted if size == -1 else size for size in self.shape)
        return x.reshape(len(x), *shape)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy.reshape(call.saved[0]),)


class Flatten(Reshape):
    """Make each sample a vector: (N, …) to (N, D)."""

    def __init__(self) -> None:
        super().__init__(-1)

    def __repr__(self) -> str:
        return "Flatten()"
