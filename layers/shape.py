"""Layers that change shapes only."""

from typing import TYPE_CHECKING

import numpy as np

from .checks import integer
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .errors import message
from .kernels import shape as kernels
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class Reshape(Layer):
    """Give each sample another shape: (N, …) to (N, \\*shape); one size may be -1.

    >>> Reshape(8, 8, 1)   # (N, 64) to (N, 8, 8, 1)
    """

    analytic = True
    replayable = True

    def __init__(self, *shape: int) -> None:
        fix = "Sizes are those of one sample, without the batch axis."
        shape = tuple(integer("Reshape", "a size", size, fix) for size in shape)
        if sum(size == -1 for size in shape) > 1 or any(size < -1 or size == 0 for size in shape):
            raise ValueError(
                message(
                    "Reshape",
                    "sizes must be positive, one of them may be -1",
                    shape,
                    "Leave out the batch axis.",
                )
            )
        self.shape = shape

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.shape))})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.save(x.shape)
        features = int(np.prod(x.shape[1:]))
        wanted = -int(np.prod(self.shape))
        if x.ndim < 1 or (features % wanted if -1 in self.shape else features + wanted):
            fix = "Sizes are those of one sample, without the batch axis."
            raise ValueError(
                message(
                    self, f"each sample must have {int(np.prod(self.shape))} elements", x.shape, fix
                )
            )
        shape = tuple(features // wanted if size == -1 else size for size in self.shape)
        return x.reshape(len(x), *shape)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy.reshape(call.saved[0]),)


_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class _SwappedAxes(Layer):
    """Exchange the channels of images with their two other axes."""

    analytic = True
    axes: tuple[int, int, int, int]
    inverse: tuple[int, int, int, int]
    letters: str

    def forward(self, call: ForwardCall, x: Array) -> Array:
        if x.ndim != 4:
            fix = "Add the missing axes with reshape."
            raise ValueError(
                message(self, f"the input must have shape {self.letters}", x.shape, fix)
            )
        return _swapped(call, "y", x, self.axes)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (_swapped(call, "dx", dy, self.inverse),)


class ChannelsLast(_SwappedAxes):
    """Bring images of other libraries into the layout of this one: (N, C, H, W) to (N, H, W, C)."""

    axes, inverse, letters = _LAST, _FIRST, "(N, C, H, W)"


class ChannelsFirst(_SwappedAxes):
    """Bring images into the layout of other libraries: (N, H, W, C) to (N, C, H, W)."""

    axes, inverse, letters = _FIRST, _LAST, "(N, H, W, C)"


def _swapped(call: ForwardCall, name: str, x: Array, axes: tuple[int, int, int, int]) -> Array:
    """Return x with its axes in the order _LAST or _FIRST, in a buffer of this name."""
    view = x.transpose(axes)
    y = call.output_buffer(name, view.shape, x.dtype)
    if x.dtype.kind == "f" and x.flags.carray:
        n, a, b, c = x.shape
        # Height and width stay together: they are the last axes of x, or those in the middle.
        p, q = (a, b * c) if axes == _LAST else (a * b, c)
        kernels.swap_axes(y.reshape(n, q, p), x.reshape(n, p, q))
    else:
        np.copyto(y, view)
    return y


class Flatten(Reshape):
    """Make each sample a vector: (N, …) to (N, D)."""

    def __init__(self) -> None:
        super().__init__(-1)

    def __repr__(self) -> str:
        return "Flatten()"
