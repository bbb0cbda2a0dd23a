"""Pooling of images (N, H, W, C) and sequences (N, T, C), channels-last, each channel by itself."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import (
    Pair,
    boolean,
    non_negative_int,
    pair,
    positive_int,
    require_images,
    require_input,
)
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .errors import Renamed, message, renamed
from .kernels import pool
from .types import Array, Integers
from .windows import Windows, adaptive, sliding, windows

if TYPE_CHECKING:
    from .engine.call import Call

Gradients = tuple[Array | None, ...]


class _Pooling(Layer):
    """What pooling layers share: the windows of each size of image."""

    replayable = True

    _found: dict[Pair, Windows]

    def tables(self, height: int, width: int) -> tuple[Integers, Integers]:
        """Return the tables of the windows along both axes of an image: see `Windows`."""
        raise NotImplementedError

    def windows(self, x: Array) -> Windows:
        """Return the windows for images x, after checking them."""
        require_images(self, x)
        size = x.shape[1], x.shape[2]
        known = self._found.get(size)
        if known is None:
            rows, columns = self.tables(*size)
            if not (len(rows) and len(columns)):
                self._refuse_size(x)
            known = self._found[size] = windows(*size, rows, columns)
        return known

    def output(self, call: ForwardCall, x: Array, found: Windows, name: str = "y") -> Array:
        """Return a buffer for the output of images x."""
        return call.output_buffer(name, (len(x), len(found[0]), len(found[1]), x.shape[3]), x.dtype)

    def _refuse_size(self, x: Array) -> None:
        raise NotImplementedError


class _Sliding(_Pooling):
    """Pooling by windows of one size that slide over the image."""

    size = Renamed("kernel_size")
    count_padding = True

    @renamed(size="kernel_size")
    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, *, ceil_mode: bool = False
    ) -> None:
        name = type(self).__name__
        self.kernel_size = pair(name, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair(name, "stride", stride, 1)
        self.padding = pair(name, "padding", padding, 0)
        self.ceil_mode = boolean(type(self).__name__, "ceil_mode", ceil_mode)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            fix = "More would make windows of padding alone."
            must = f"padding must be at most half the kernel size {self.kernel_size}"
            raise ValueError(message(name, must, self.padding, fix))
        self._found = {}

    def __repr__(self) -> str:
        parts = [self._shown(self.kernel_size)]
        if self.stride != self.kernel_size:
            parts.append(f"stride={self._shown(self.stride)}")
        if self.padding != (0, 0):
            parts.append(f"padding={self._shown(self.padding)}")
        parts += ["ceil_mode=True"] * self.ceil_mode
        parts += ["count_padding=False"] * (not self.count_padding)
        return f"{type(self).__name__}({', '.join(parts)})"

    def _shown(self, sizes: Pair) -> str:
        return str(sizes[0] if sizes[0] == sizes[1] else sizes)

    def tables(self, height: int, width: int) -> tuple[Integers, Integers]:
        rows, columns = (
            sliding(*numbers, self.ceil_mode, self.count_padding)
            for numbers in zip(
                (height, width), self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        return rows, columns

    def _refuse_size(self, x: Array) -> None:
        must = f"the window {self.kernel_size} must fit into the padded image"
        fix = "Pool less, or check that the axes are (N, H, W, C)."
        raise ValueError(message(self, must, x.shape, fix))


class _Adaptive(_Pooling):
    """Pooling to one size of output, whatever the image's."""

    def __init__(self, output_size: Any) -> None:
        self.output_size = pair(type(self).__name__, "output_size", output_size, 1)
        self._found = {}

    def __repr__(self) -> str:
        height, width = self.output_size
        return f"{type(self).__name__}({height if height == width else self.output_size})"

    def tables(self, height: int, width: int) -> tuple[Integers, Integers]:
        if not (height and width):
            return adaptive(0, 1)[:0], adaptive(0, 1)[:0]
        rows, columns = self.output_size
        return adaptive(height, rows), adaptive(width, columns)

    def _refuse_size(self, x: Array) -> None:
        fix = "Check that the axes are (N, H, W, C)."
        raise ValueError(message(self, "an image must have at least one element", x.shape, fix))


class _Maximum(_Pooling):
    """The maximum of each window."""

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        found = self.windows(x)
        if x.dtype.kind == "c":
            must = "the input must be real, as complex numbers have no order"
            raise TypeError(message(self, must, x.dtype, "Pass x.real."))
        x = contiguous(x)
        y = self.output(call, x, found)
        call.run(pool.maximum, y, x, found.rows, found.columns, rectified)
        call.save(self.precision.keep(call, x, 0), self.precision.keep(call, y))
        return y

    def backward(self, call: "Call", dy: Array, rectified: bool = False) -> Gradients:
        x, y = (call.kept(name, kept) for name, kept in zip("xy", call.saved, strict=True))
        dx = call.pooled("dx", x.shape, x.dtype)
        call.run(pool.maximum_backward, dx, contiguous(dy), y, x, *self.windows(x), rectified)
        return (dx,)


class _Average(_Pooling):
    """The mean of each window."""

    analytic = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        found = self.windows(x)
        call.save(x.shape, found)
        y = self.output(call, x, found)
        if x.dtype.kind == "c":
            # The complex step of the gradient check; a mean is linear.
            for name in ("real", "imag"):
                part = np.empty(y.shape, y.real.dtype)
                pool.mean(part, np.array(getattr(x, name), order="C"), found.rows, found.columns)
                setattr(y, name, part)
        else:
            call.run(pool.mean, y, contiguous(x), found.rows, found.columns)
        return y

    def backward(self, call: "Call", dy: Array) -> Gradients:
        shape, found = call.saved
        dx = call.pooled("dx", shape, dy.dtype)
        call.run(pool.mean_backward, dx, contiguous(dy), *found)
        return (dx,)


class _OneAxis(_Pooling):
    """Pooling of sequences (N, T, C): images of one row."""

    def forward(self, call: ForwardCall, x: Array, *options: Any) -> Array:
        require_input(self, x, ("N", "T", "C"))
        y: Array = super().forward(call, x[:, np.newaxis], *options)
        return y[:, 0]

    def backward(self, call: "Call", dy: Array, *options: Any) -> Gradients:
        (dx,) = super().backward(call, dy[:, np.newaxis], *options)
        return (None if dx is None else dx[:, 0],)

    def _shown(self, sizes: Pair) -> str:
        return str(sizes[1])


class _Sliding1d(_OneAxis, _Sliding):
    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        *,
        ceil_mode: bool = False,
    ) -> None:
        name = type(self).__name__
        size = positive_int(name, "kernel_size", kernel_size, "Count time steps.")
        step = size if stride is None else positive_int(name, "stride", stride, "Count time steps.")
        fix = "Leave it out for none."
        around = non_negative_int(name, "padding", padding, fix)
        super().__init__((1, size), (1, step), (0, around), ceil_mode=ceil_mode)


class _Adaptive1d(_OneAxis, _Adaptive):
    def __init__(self, output_size: int) -> None:
        fix = "Count time steps."
        super().__init__((1, positive_int(type(self).__name__, "output_size", output_size, fix)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.output_size[1]})"


class MaxPool2d(_Sliding, _Maximum):
    """Maximum of each window of an image (N, H, W, C).

    y[n, i, j, c] = max of x[n, i sh - ph + a, j sw - pw + b, c] over 0 ≤ a < kh, 0 ≤ b < kw

    Backward: dy goes to the element that is the maximum; among equals to the first in row order, as
    in PyTorch. Elements under several windows get the sum. NaN counts as greater than every number.

    Parameters
    ----------
    kernel_size, stride, padding
        (kh, kw), (sh, sw) and (ph, pw), or one integer for both axes. The stride is the kernel
        size unless given; the padding, at most half the kernel size, counts as -∞.
    ceil_mode
        Whether what is left over at the end of an axis gets a smaller window of its own, as in
        PyTorch.

    Notes
    -----
    The output is (N, Ho, Wo, C), Ho = ⌊(H + 2 ph - kh) / sh⌋ + 1 and Wo likewise; with
    `ceil_mode` ⌈…⌉ takes the place of ⌊…⌋, less one where the last window would begin in the
    padding behind the image. In a Sequential, a ReLU before it is done in the same pass, with the
    same bits.

    Raises
    ------
    ValueError
        The input is not (N, H, W, C), or smaller than a window; sizes or strides below 1, or too
        much padding.
    TypeError
        The input is not of a real floating type.
    """


class MaxPool1d(_Sliding1d, _Maximum):
    """Maximum of each window of a sequence (N, T, C): `MaxPool2d` with windows of one row.

    Parameters
    ----------
    kernel_size, stride, padding
        Numbers of time steps, one each.
    ceil_mode
        As of `MaxPool2d`.
    """


class AdaptiveMaxPool2d(_Adaptive, _Maximum):
    """Maximum of each of Ho x Wo windows that share an image (N, H, W, C) as evenly as can be: see
    `AdaptiveAvgPool2d`. Backward: as of `MaxPool2d`.

    Parameters
    ----------
    output_size
        (Ho, Wo), or one integer for both.
    """


class AdaptiveMaxPool1d(_Adaptive1d, _Maximum):
    """Maximum of each of so many windows that share a sequence (N, T, C) as evenly as can be.

    Parameters
    ----------
    output_size
        The number of windows.
    """


class AvgPool2d(_Sliding, _Average):
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
    ceil_mode
        As of `MaxPool2d`. What lies beyond the padding is not counted.

    Notes
    -----
    The output is (N, Ho, Wo, C), Ho = ⌊(H + 2 ph - kh) / sh⌋ + 1 and Wo likewise; see `MaxPool2d`
    for `ceil_mode`.

    Raises
    ------
    ValueError
        The input is not (N, H, W, C), or smaller than a window; sizes or strides below 1, or too
        much padding.
    TypeError
        The input is not of a floating type.
    """

    @renamed(size="kernel_size")
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        count_padding: bool = True,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.count_padding = boolean(type(self).__name__, "count_padding", count_padding)


class AvgPool1d(_Sliding1d, _Average):
    """Mean of each window of a sequence (N, T, C): `AvgPool2d` with windows of one row.

    Parameters
    ----------
    kernel_size, stride, padding
        Numbers of time steps, one each.
    count_padding, ceil_mode
        As of `AvgPool2d`.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        count_padding: bool = True,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.count_padding = boolean(type(self).__name__, "count_padding", count_padding)


class AdaptiveAvgPool2d(_Adaptive, _Average):
    """Mean of each of Ho x Wo windows that share an image (N, H, W, C) as evenly as can be.

    Window (i, j) has the rows from ⌊i H / Ho⌋ to below ⌈(i + 1) H / Ho⌉, and the columns likewise:
    windows may overlap by a row, and are of equal size where Ho divides H. Backward: every element
    under a window gets dy over the size of the window, summed over windows.

    Parameters
    ----------
    output_size
        (Ho, Wo), or one integer for both.
    """


class AdaptiveAvgPool1d(_Adaptive1d, _Average):
    """Mean of each of so many windows that share a sequence (N, T, C) as evenly as can be: see
    `AdaptiveAvgPool2d`.

    Parameters
    ----------
    output_size
        The number of windows.
    """


class GlobalAveragePool(_Adaptive, _Average):
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

    def __init__(self) -> None:
        super().__init__(1)

    def __repr__(self) -> str:
        return "GlobalAveragePool()"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        return super().forward(call, x)[:, 0, 0]

    def backward(self, call: "Call", dy: Array) -> Gradients:
        return super().backward(call, dy[:, np.newaxis, np.newaxis])
