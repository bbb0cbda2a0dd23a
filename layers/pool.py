"""Pooling of images (N, H, W, C), channels-last, each channel on its own."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import pair, require_images
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .errors import Renamed, message, renamed
from .kernels import pool
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call

Window = tuple[int, int, int, int, int, int]
"""Height, width, strides (rows, columns) and padding (rows, columns) of a pooling window."""


class _Pool2d(Layer):
    """What pooling layers share: the window, and the shape of the output."""

    size = Renamed("kernel_size")

    @renamed(size="kernel_size")
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        name = type(self).__name__
        self.kernel_size = pair(name, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair(name, "stride", stride, 1)
        self.padding = pair(name, "padding", padding, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            fix = "More would make windows of padding alone."
            raise ValueError(
                message(
                    name,
                    f"padding must be at most half the kernel size {self.kernel_size}",
                    self.padding,
                    fix,
                )
            )
        self.window: Window = (*self.kernel_size, *self.stride, *self.padding)

    def __repr__(self) -> str:
        def shown(pair: tuple[int, int]) -> str:
            return str(pair[0] if pair[0] == pair[1] else pair)

        stride = "" if self.stride == self.kernel_size else f", stride={shown(self.stride)}"
        padding = "" if self.padding == (0, 0) else f", padding={shown(self.padding)}"
        return f"{type(self).__name__}({shown(self.kernel_size)}{stride}{padding})"

    def output_shape(self, x: Array) -> tuple[int, int, int, int]:
        """Return the shape of the output for images x, after checking them."""
        require_images(self, x)
        sizes = zip(x.shape[1:3], self.kernel_size, self.stride, self.padding, strict=True)
        height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        if height < 1 or width < 1:
            must = f"the window {self.kernel_size} must fit into the padded image"
            raise ValueError(
                message(self, must, x.shape, "Pool less, or check that the axes are (N, H, W, C).")
            )
        return len(x), height, width, x.shape[3]


class MaxPool2d(_Pool2d):
    """Maximum of each window of an image (N, H, W, C).

    y[n, i, j, c] = max of x[n, i sh - ph + a, j sw - pw + b, c] over 0 ≤ a < kh, 0 ≤ b < kw

    Backward: dy goes to the element that is the maximum; among equals to the first in row order, as
    in PyTorch. Elements under several windows get the sum. NaN counts as greater than every number.

    Parameters
    ----------
    kernel_size, stride, padding
        (kh, kw), (sh, sw) and (ph, pw), or one integer for both axes. The stride is the kernel
        size unless given; the padding, at most half the kernel size, counts as -∞.

    Notes
    -----
    The output is (N, Ho, Wo, C), Ho = ⌊(H + 2 ph - kh) / sh⌋ + 1 and Wo likewise. In a Sequential,
    a ReLU before it is done in the same pass, with the same bits.

    Raises
    ------
    ValueError
        The input is not (N, H, W, C), or smaller than a window; sizes or strides below 1, or too
        much padding.
    TypeError
        The input is not of a real floating type.
    """

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        shape = self.output_shape(x)
        if x.dtype.kind == "c":
            raise TypeError(
                message(
                    self,
                    "the input must be real, as complex numbers have no order",
                    x.dtype,
                    "Pass x.real.",
                )
            )
        x = contiguous(x)
        y = call.buffer("y", shape, x.dtype)
        pool.maximum(y, x, self.window, rectified)
        call.save(x, y)
        return y

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        x, y = call.saved
        dx = call.pooled("dx", x.shape, x.dtype)
        pool.maximum_backward(dx, contiguous(dy), y, x, self.window, rectified)
        return (dx,)


class AvgPool2d(_Pool2d):
    """Mean of each window of an image (N, H, W, C).

    y[n, i, j, c] = sum of x[n, i sh - ph + a, j sw - pw + b, c] over 0 ≤ a < kh, 0 ≤ b < kw,
    divided by kh kw

    Backward: every element under a window gets dy / (kh kw), summed over windows.

    Parameters
    ----------
    kernel_size, stride, padding
        (kh, kw), (sh, sw) and (ph, pw), or one integer for both axes. The stride is the kernel
        size unless given; the padding, at most half the kernel size, counts as 0.
    count_padding
        Whether to divide by kh kw (as `count_include_pad` in PyTorch), or by the number of elements
        inside the image.

    Notes
    -----
    The output is (N, Ho, Wo, C), Ho = ⌊(H + 2 ph - kh) / sh⌋ + 1 and Wo likewise.

    Raises
    ------
    ValueError
        The input is not (N, H, W, C), or smaller than a window; sizes or strides below 1, or too
        much padding.
    TypeError
        The input is not of a floating type.
    """

    analytic = True

    @renamed(size="kernel_size")
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, count_padding: bool = True
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_padding = bool(count_padding)

    def __repr__(self) -> str:
        return (
            super().__repr__()
            if self.count_padding
            else f"{super().__repr__()[:-1]}, count_padding=False)"
        )

    def forward(self, call: ForwardCall, x: Array) -> Array:
        return _mean(call, x, self.output_shape(x), self.window, self.count_padding)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (shape,) = call.saved
        dx = call.pooled("dx", shape, dy.dtype)
        pool.mean_backward(dx, contiguous(dy), self.window, self.count_padding)
        return (dx,)


class GlobalAveragePool(Layer):
    """Mean of each channel of an image, (N, H, W, C) to (N, C): y[n, c] = sum of x[n, i, j, c] over
    i, j, divided by H W.

    Backward: every element gets dy / (H W). The sum is taken along the rows, then over their sums.

    Raises
    ------
    ValueError
        The input is not (N, H, W, C), or its images have no elements.
    TypeError
        The input is not of a floating type.
    """

    analytic = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_images(self, x)
        n, height, width, channels = x.shape
        if height * width == 0:
            fix = "Check that the axes are (N, H, W, C)."
            raise ValueError(message(self, "an image must have at least one element", x.shape, fix))
        y = _mean(call, x, (n, 1, 1, channels), (height, width, height, width, 0, 0), True)
        return y.reshape(n, channels)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (shape,) = call.saved
        n, height, width, channels = shape
        dx = call.pooled("dx", shape, dy.dtype)
        window = (height, width, height, width, 0, 0)
        pool.mean_backward(dx, contiguous(dy).reshape(n, 1, 1, channels), window, True)
        return (dx,)


def _mean(
    call: ForwardCall, x: Array, shape: tuple[int, ...], window: Window, count_padding: bool
) -> Array:
    """Return the means of windows, and save the shape of the input."""
    call.save(x.shape)
    y = call.buffer("y", shape, x.dtype)
    if x.dtype.kind == "c":
        # The complex step of the gradient check; a mean is linear.
        for name in ("real", "imag"):
            part = np.empty(shape, y.real.dtype)
            pool.mean(part, np.array(getattr(x, name), order="C"), window, count_padding)
            setattr(y, name, part)
    else:
        pool.mean(y, contiguous(x), window, count_padding)
    return y
