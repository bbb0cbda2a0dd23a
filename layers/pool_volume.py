"""Pooling of volumes (N, D, H, W, C), each channel by itself: of every slice, then along the depth.

The window of a volume is a window of the depth times one of an image, and so is a maximum, or a
mean: the kernels of images do both.
"""

from typing import TYPE_CHECKING, Any

from .checks import boolean, require_input, sizes
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .errors import message
from .kernels import pool
from .types import Array
from .windows import Windows, sliding, windows

if TYPE_CHECKING:
    from .engine.call import Call

Sizes = int | tuple[int, int, int]
Gradients = tuple[Array | None, ...]


class _VolumePooling(Layer):
    """What pooling layers of volumes share: the windows of each size of volume."""

    count_padding = True
    replayable = True

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = self._sizes("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else self._sizes("stride", stride, 1)
        self.padding = self._sizes("padding", padding, 0)
        self.ceil_mode = boolean(type(self).__name__, "ceil_mode", ceil_mode)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            must = f"padding must be at most half the kernel size {self.kernel_size}"
            fix = "More would make windows of padding alone."
            raise ValueError(message(type(self).__name__, must, self.padding, fix))
        self._found: dict[tuple[int, ...], tuple[Windows, Windows]] = {}

    def __repr__(self) -> str:
        parts = [str(self.kernel_size)]
        parts += [f"stride={self.stride}"] * (self.stride != self.kernel_size)
        parts += [f"padding={self.padding}"] * (self.padding != (0, 0, 0))
        parts += ["ceil_mode=True"] * self.ceil_mode
        parts += ["count_padding=False"] * (not self.count_padding)
        return f"{type(self).__name__}({', '.join(parts)})"

    def _sizes(self, name: str, size: Any, least: int) -> tuple[int, ...]:
        fix = "Pass one number, or (depth, rows, columns)."
        return sizes(type(self).__name__, name, size, least, 3, fix)

    def windows(self, x: Array) -> tuple[Windows, Windows]:
        """Return the windows of each slice of volumes x, and those along the depth of what they
        give, after checking x.
        """
        fix = "Channels come last: x.transpose(0, 2, 3, 4, 1) turns (N, C, D, H, W) around."
        require_input(self, x, ("N", "D", "H", "W", "C"), None, fix)
        size = x.shape[1:4]
        known = self._found.get(size)
        if known is None:
            numbers = zip(size, self.kernel_size, self.stride, self.padding, strict=True)
            depth, rows, columns = (
                sliding(*each, self.ceil_mode, self.count_padding) for each in numbers
            )
            pixels = len(rows) * len(columns)
            if not len(depth) * pixels:
                must = f"the window {self.kernel_size} must fit into the padded volume"
                fix = "Pool less, or check that the axes are (N, D, H, W, C)."
                raise ValueError(message(self, must, x.shape, fix))
            alone = sliding(pixels, 1, 1, 0, False, True)
            known = windows(size[1], size[2], rows, columns), windows(size[0], pixels, depth, alone)
            self._found[size] = known
        return known


class MaxPool3d(_VolumePooling):
    """Maximum of each window of a volume (N, D, H, W, C): `MaxPool2d` with an axis more.

    Backward: dy goes to the element that is the maximum; among equals to the first, by depth, row
    and column, as in PyTorch.

    Parameters
    ----------
    kernel_size, stride, padding
        (depth, rows, columns), or one number for all. The stride is the kernel size unless given;
        the padding, at most half the kernel size, counts as -∞.
    ceil_mode
        As of `MaxPool2d`.

    Raises
    ------
    ValueError
        The input is not (N, D, H, W, C), or smaller than a window; sizes or strides below 1, or too
        much padding.
    TypeError
        The input is not of a floating type.
    """

    def forward(self, call: ForwardCall, x: Array) -> Array:
        of_slice, along = self.windows(x)
        x = contiguous(x)
        slices, flat, y, shape = _buffers(call, x, of_slice, along)
        call.run(pool.maximum, slices, _slices(x), of_slice.rows, of_slice.columns, False)
        call.run(pool.maximum, y, flat, along.rows, along.columns, False)
        call.save(x, slices, flat, y)
        return y.reshape(shape)

    def backward(self, call: "Call", dy: Array) -> Gradients:
        x, slices, flat, y = call.saved
        of_slice, along = self.windows(x)
        dslices = call.pooled("dslices", slices.shape, x.dtype)
        dx = call.pooled("dx", x.shape, x.dtype)
        given = contiguous(dy).reshape(y.shape)
        into, images = dslices.reshape(flat.shape), (_slices(dx), dslices, slices, _slices(x))
        call.run(pool.maximum_backward, into, given, y, flat, *along, False)
        call.run(pool.maximum_backward, *images, *of_slice, False)
        return (dx,)


class AvgPool3d(_VolumePooling):
    """Mean of each window of a volume (N, D, H, W, C): `AvgPool2d` with an axis more.

    Backward: every element under a window gets dy over what the mean divides by, summed over
    windows. The means of slices are rounded before that over the depth.

    Parameters
    ----------
    kernel_size, stride, padding
        (depth, rows, columns), or one number for all. The stride is the kernel size unless given;
        the padding, at most half the kernel size, counts as 0.
    count_padding, ceil_mode
        As of `AvgPool2d`.

    Raises
    ------
    ValueError
        The input is not (N, D, H, W, C), or smaller than a window; sizes or strides below 1, or too
        much padding.
    TypeError
        The input is not of a floating type.
    """

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        count_padding: bool = True,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.count_padding = boolean(type(self).__name__, "count_padding", count_padding)

    def forward(self, call: ForwardCall, x: Array) -> Array:
        of_slice, along = self.windows(x)
        x = contiguous(x)
        slices, flat, y, shape = _buffers(call, x, of_slice, along)
        call.run(pool.mean, slices, _slices(x), of_slice.rows, of_slice.columns)
        call.run(pool.mean, y, flat, along.rows, along.columns)
        call.save(x.shape, of_slice, along, slices.shape, flat.shape, y.shape)
        return y.reshape(shape)

    def backward(self, call: "Call", dy: Array) -> Gradients:
        shape, of_slice, along, of_slices, of_flat, of_y = call.saved
        dslices = call.pooled("dslices", of_slices, dy.dtype)
        dx = call.pooled("dx", shape, dy.dtype)
        given = contiguous(dy).reshape(of_y)
        call.run(pool.mean_backward, dslices.reshape(of_flat), given, *along)
        call.run(pool.mean_backward, _slices(dx), dslices, *of_slice)
        return (dx,)


def _slices(x: Array) -> Array:
    """Return the slices of volumes as images."""
    return x.reshape(-1, *x.shape[2:])


def _buffers(
    call: ForwardCall, x: Array, of_slice: Windows, along: Windows
) -> tuple[Array, Array, Array, tuple[int, ...]]:
    """Return buffers for the pooled slices (N D, Ho, Wo, C), the same memory as images (N, D, Ho
    Wo, C), and for the output (N, Do, Ho Wo, C), which has the shape that comes last.
    """
    count, depth, _, _, channels = x.shape
    size = len(of_slice.rows), len(of_slice.columns)
    slices = call.buffer("slices", (count * depth, *size, channels), x.dtype)
    pixels = size[0] * size[1]
    y = call.output_buffer("y", (count, len(along.rows), pixels, channels), x.dtype)
    shape = (count, len(along.rows), *size, channels)
    return slices, slices.reshape(count, depth, pixels, channels), y, shape
