"""Larger images by repetition or interpolation."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .checks import Pair, boolean, one_of, pair, require_images
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .errors import message
from .kernels import pool, upsample
from .types import Array, Integers
from .windows import Windows, windows

if TYPE_CHECKING:
    from .engine.call import Call

_FIX = "Upsample(2) doubles both axes."


class Between(NamedTuple):
    """Of each pixel along an axis of the output the two that it lies between (n, 2), and the share
    of the second (n,).
    """

    pixels: Integers
    shares: Array


class Upsample(Layer):
    """Images (N, H, W, C) in another size.

    With "nearest", y[n, i, j, c] = x[n, ⌊i H / Ho⌋, ⌊j W / Wo⌋, c]. With "bilinear", y[n, i, j, c]
    is interpolated linearly between the two rows and columns around (i', j'): as in PyTorch,
    corners of the outer pixels lie upon each other, i' = max((i + 1/2) H / Ho - 1/2, 0); or, if
    `align_corners`, their centres do, i' = i (H - 1) / (Ho - 1). Backward: every pixel gets the sum
    of dy times its share.

    Parameters
    ----------
    scale
        How many times larger the output is: an integer, or one for rows and one for columns.
    size
        The output's (Ho, Wo) instead, or one integer for both.
    mode
        "nearest" or "bilinear".
    align_corners
        Only with "bilinear".

    Notes
    -----
    Where a size is no multiple of the input's, PyTorch rounds ⌊i H / Ho⌋ in float32, and may take
    the pixel before.
    """

    analytic = True
    replayable = True

    def __init__(
        self,
        scale: Any = None,
        *,
        size: Any = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        if (scale is None) == (size is None):
            must = "either scale or size must be given"
            raise ValueError(message("Upsample", must, f"{scale!r} and {size!r}", _FIX))
        fix = "Leave it out for the nearest."
        one_of("Upsample", "mode", mode, ("nearest", "bilinear"), fix)
        self.align_corners = boolean("Upsample", "align_corners", align_corners)
        if align_corners and mode == "nearest":
            must, fix = 'align_corners needs mode="bilinear"', "Leave it out."
            raise ValueError(message("Upsample", must, f"mode={mode!r}", fix))
        self.scale = None if scale is None else pair("Upsample", "scale", scale, 1)
        self.size = None if size is None else pair("Upsample", "size", size, 1)
        self.mode = mode
        self._windows: dict[Pair, Windows] = {}
        self._between: dict[Any, tuple[Between, Between]] = {}

    def __repr__(self) -> str:
        given = self.scale or self.size
        shown = given[0] if given and given[0] == given[1] else given
        parts = [str(shown) if self.scale else f"size={shown}"]
        parts += ['mode="bilinear"'] * (self.mode == "bilinear")
        parts += ["align_corners=True"] * self.align_corners
        return f"Upsample({', '.join(parts)})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_images(self, x)
        height, width = size = x.shape[1], x.shape[2]
        if not (height and width):
            fix = "Check that the axes are (N, H, W, C)."
            raise ValueError(message(self, "an image must have at least one element", x.shape, fix))
        if self.scale is None:
            assert self.size is not None
            rows, columns = self.size
        else:
            rows, columns = height * self.scale[0], width * self.scale[1]
        y = call.output_buffer("y", (len(x), rows, columns, x.shape[3]), x.dtype)
        call.save(x.shape)
        if x.dtype.kind == "c":
            # The complex step of the gradient check; all of it is linear.
            for name in ("real", "imag"):
                part = np.empty(y.shape, y.real.dtype)
                self._write(call, part, contiguous(getattr(x, name)), size)
                setattr(y, name, part)
        else:
            self._write(call, y, contiguous(x), size)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (shape,) = call.saved
        size, outputs = (shape[1], shape[2]), (dy.shape[1], dy.shape[2])
        dx, dy = call.pooled("dx", shape, dy.dtype), contiguous(dy)
        if self.mode == "nearest":
            found = self._found(size, outputs)
            call.run(pool.mean, dx, dy, found.rows, found.columns)
        else:
            rows, columns = self._places(size, outputs, dy.dtype)
            (work,) = call.scratch(dy.dtype, shape[2] * shape[3])
            call.run(upsample.bilinear_backward, dx, work, dy, *rows, *columns)
        return (dx,)

    def _write(self, call: ForwardCall, y: Array, x: Array, size: Pair) -> None:
        outputs = y.shape[1], y.shape[2]
        if self.mode == "nearest":
            # Each pixel of x is the one number that a window of y is made of.
            call.run(pool.mean_backward, y, x, *self._found(size, outputs))
        else:
            rows, columns = self._places(size, outputs, x.dtype)
            (work,) = call.scratch(x.dtype, x.shape[2] * x.shape[3])
            call.run(upsample.bilinear, y, work, x, *rows, *columns)

    def _found(self, size: Pair, outputs: Pair) -> Windows:
        """Return the windows of the output that have one nearest pixel."""
        known = self._windows.get(size)
        if known is None:
            rows, columns = (_taken(n, m) for n, m in zip(size, outputs, strict=True))
            known = self._windows[size] = windows(*outputs, rows, columns)
        return known

    def _places(self, size: Pair, outputs: Pair, dtype: Any) -> tuple[Between, Between]:
        known = self._between.get((size, dtype))
        if known is None:
            rows, columns = (
                between(n, m, self.align_corners, dtype) for n, m in zip(size, outputs, strict=True)
            )
            known = self._between[size, dtype] = rows, columns
        return known


def _taken(length: int, outputs: int) -> Integers:
    """Return for each pixel i along an axis the outputs k with ⌊k length / outputs⌋ = i: the first,
    how many, and 1.
    """
    bounds = -(-np.arange(length + 1) * outputs // length)
    return np.stack([bounds[:-1], np.diff(bounds), np.ones(length, np.int64)], axis=1)


def between(length: int, outputs: int, align_corners: bool, dtype: Any) -> Between:
    """Return between which pixels of an axis each of the outputs lies."""
    numbers = np.arange(outputs)
    if align_corners:
        places = numbers * ((length - 1) / (outputs - 1) if outputs > 1 else 0.0)
    else:
        places = np.maximum((numbers + 0.5) * (length / outputs) - 0.5, 0)
    first = np.minimum(places.astype(np.int64), length - 1)
    second = np.minimum(first + 1, length - 1)
    return Between(np.stack([first, second], axis=1), (places - first).astype(dtype))
