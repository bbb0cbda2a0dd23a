"""Convolutions of images (N, H, W, C), volumes (N, D, H, W, C) and sequences (N, T, C), channels
last.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import boolean, one_of, require_input, sizes
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import contiguous, empty, flat
from layers.errors import message, renamed
from layers.init import Initializer, he_uniform, zeros
from layers.kernels import elementwise
from layers.types import Array

from .algorithm import ConvAlgorithm
from .algorithms import choose
from .base import Convolution, Size
from .frames import PADDING_MODES, framed, padding_limit
from .tables import Axis, ConvShape, Window

if TYPE_CHECKING:
    from layers.engine.call import Call

Padding = int | str | tuple[int | tuple[int, int], ...]


class _Conv(Convolution):
    """What convolutions of images and of volumes share."""

    @renamed(size="kernel_size", method="algorithm")
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        rng: np.random.Generator,
        stride: Size = 1,
        padding: Padding = 0,
        padding_mode: str = "zeros",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        algorithm: str = "default",
        weight_init: Initializer = he_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        self.padding = self._checked_padding(padding)
        fix = "Leave it out for zeros."
        padding_mode = one_of(type(self).__name__, "padding_mode", padding_mode, PADDING_MODES, fix)
        self.padding_mode = padding_mode
        self.in_channels = in_channels
        self.out_channels = out_channels
        super().__init__(
            (in_channels, out_channels),
            kernel_size,
            rng=rng,
            stride=stride,
            dilation=dilation,
            groups=groups,
            biases=out_channels if boolean(type(self).__name__, "bias", bias) else 0,
            algorithm=algorithm,
            weight_init=weight_init,
            bias_init=bias_init,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        ones = (1,) * len(self.axes)
        options = self._options(
            stride=ones,
            padding=(0,) * len(self.axes),
            padding_mode="zeros",
            dilation=ones,
            groups=1,
            algorithm="default",
        )
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels},"
            f" {self.kernel_size}{options}{'' if self.bias else ', bias=False'})"
        )

    def _checked_padding(self, padding: Padding) -> str | tuple[int | tuple[int, int], ...]:
        """Return "same", or for each axis a number, or the numbers (before, after) that differ."""
        if isinstance(padding, str) and padding in ("same", "valid"):
            return "same" if padding == "same" else (0,) * len(self.axes)
        name, count = type(self).__name__, len(self.axes)
        fix = 'Pass a number, for each axis a number or a pair (before, after), "same" or "valid".'
        if not isinstance(padding, tuple | list) or len(padding) != count:
            return sizes(name, "padding", padding, 0, count, fix)
        checked: list[int | tuple[int, int]] = []
        for each in padding:
            before, after = sizes(name, "padding", each, 0, 2, fix)
            checked.append(before if before == after else (before, after))
        return tuple(checked)

    def algorithm_for(self, x: Array) -> ConvAlgorithm:
        """Return the algorithm for this shape of images, made when it is first seen."""
        key = (x.shape[1:-1], x.dtype, self.algorithm, self.precision)
        algorithm = self._algorithms.get(key)
        if algorithm is None:
            algorithm = self._algorithms[key] = self._planned(x.shape[1:-1], x.dtype)
        return algorithm

    def _planned(self, image: tuple[int, ...], dtype: Any) -> ConvAlgorithm:
        axes = [
            Axis(size, stride, *ends, dilation)
            for size, stride, ends, dilation in zip(
                self.kernel_size, self.stride, self._ends(image), self.dilation, strict=True
            )
        ]
        padded = tuple(n + axis.before + axis.after for n, axis in zip(image, axes, strict=True))
        spans = tuple(axis.span for axis in axes)
        if any(span > n for span, n in zip(spans, padded, strict=True)):
            fix = (
                "Pad more, or take a smaller window; after several poolings little is left of an"
                " image."
            )
            must = f"the window {spans} must fit into the padded image"
            raise ValueError(message(self, must, padded, fix))
        channels = (self.in_channels, self.out_channels)
        mode = "zeros" if padded == image else self.padding_mode
        if mode == "zeros" and len(axes) == 2:
            window = Window(axes[0], axes[1], self.groups)
            shape = ConvShape(window, (image[0], image[1]), window.output(*image), channels)
            return choose(shape, dtype, self.algorithm, self.precision)
        for length, axis in zip(image, axes, strict=True):
            most = padding_limit(mode, length)
            if max(axis.before, axis.after) > most:
                must = f"padding_mode={mode!r} takes at most {most} from an axis of length {length}"
                fix = "Pad less, or with zeros."
                raise ValueError(message(self, must, (axis.before, axis.after), fix))
        outputs = tuple(axis.output(length) for length, axis in zip(image, axes, strict=True))
        return framed(
            axes,
            image,
            outputs,
            channels,
            self.groups,
            mode,
            dtype,
            self.algorithm,
            self.precision,
        )

    def _ends(self, image: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return the padding before and after each axis of an image."""
        if not isinstance(self.padding, str):
            return [each if isinstance(each, tuple) else (each, each) for each in self.padding]
        ends = []
        for length, size, stride, dilation in zip(
            image, self.kernel_size, self.stride, self.dilation, strict=True
        ):
            total = max(0, (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length)
            ends.append((total // 2, total - total // 2))
        return ends

    def convolve(
        self, call: ForwardCall, x: Array, rectified: bool
    ) -> tuple[Array, Array, ConvAlgorithm]:
        """Return the output, and what backward needs besides: the input in adjacent memory, and the
        algorithm.
        """
        x = self._images(x, self.in_channels)
        algorithm = self.algorithm_for(x)
        y = call.output_buffer("y", (len(x), *algorithm.outputs, self.out_channels), x.dtype)
        algorithm.apply(call, y, x, self.weight.value, self._bias(x), rectified)
        return y, x, algorithm

    def flops(self, y: Array, *inputs: Array) -> int:
        # Of the sums that define it, whatever the algorithm.
        return 2 * y.size * (self.weight.value.size // self.out_channels)

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        y, x, algorithm = self.convolve(call, x, rectified)
        kept = self.precision.keep(call, y) if rectified else None
        call.save(self.precision.keep(call, x, 0), kept, algorithm)
        return y

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        x, y, algorithm = call.saved
        dy = contiguous(dy)
        if rectified:
            dz = call.pooled("dz", dy.shape, dy.dtype)
            call.run(elementwise.relu_backward, flat(dz), flat(dy), flat(y))
            dy = dz
        return self.gradients(call, dy, x, algorithm)

    def gradients(
        self, call: "Call", dy: Array, x: Array, algorithm: ConvAlgorithm
    ) -> tuple[Array | None, ...]:
        """Add the parameters' gradients and return that of the input, given that of the
        convolution's output.
        """
        self._bias_gradient(call, dy)
        if call.trains(self.weight):
            dw, add = call.gradient_buffer(self.weight)
            images = self._saved_images(call, x, algorithm)
            algorithm.gradient(call, dw, dy, images, call.bounds(len(x)), add)
        if not call.wants(0):
            return (None,)
        dx = call.pooled("dx", x.shape, dy.dtype)
        algorithm.adjoint(call, dx, dy, call.feedback(self.weight), empty(dy, 1), False)
        return (dx,)


class Conv2d(_Conv):
    """Convolution (cross-correlation) of images: y[p, k] = b[k] + Σ_t Σ_c x[p stride + t dilation -
    padding, c] w[t, c, k].

    Backward: dx is the adjoint map of dy, dw[t, c, k] = Σ_p x[p stride + t dilation - padding, c]
    dy[p, k], db = Σ_p dy[p].

    Parameters
    ----------
    in_channels, out_channels
        C and K.
    kernel_size
        Of the window: a number, or (rows, columns).
    rng
        Draws the initial weights.
    stride, dilation
        A number, or (rows, columns).
    padding
        Rows and columns added on either side: a number, or for each axis a number or a pair
        (before, after); "valid" for none, or "same" for an output of size ⌈input / stride⌉ (of an
        odd total the larger half comes after).
    padding_mode
        What is added: "zeros"; the image "reflect"-ed at its border, that row or column itself left
        out, which takes less padding than the image has rows and columns; "replicate", the pixels
        at the border; or "circular", the opposite side of the image, which takes at most its size.
        Gradients go where the pixels came from. Other modes than zeros cost a copy of the image.
    groups
        Input and output channels fall into so many groups, that are convolved apart; C for a
        depthwise convolution.
    bias
        Whether there is a bias b, shape (K,).
    algorithm
        "default", "direct" (no transforms) or "fastest" (Winograd's F(4 x 4) throughout where it
        fits, with about twice the rounding error of direct convolution); see
        `layers.conv.algorithms.choose`.
    weight_init, bias_init
        See `layers.init`. The weight has shape (rows, columns, C / groups, K): PyTorch's is
        `weight.transpose(3, 2, 0, 1)`.

    Notes
    -----
    Inputs are (N, H, W, C), outputs (N, P, Q, K).

    Raises
    ------
    ValueError
        Options that are out of range, or do not go together; an input that is not (N, H, W, C), is
        smaller than the window, or too small for what `padding_mode` takes from it.
    TypeError
        An input of another type than the weight's.
    """


class Conv3d(_Conv):
    """Convolution (cross-correlation) of volumes, or of images in time: y[p, k] = b[k] + Σ_t Σ_c
    x[p stride + t dilation - padding, c] w[t, c, k], where p and t have depth, row and column.

    Backward: as of `Conv2d`.

    Parameters
    ----------
    kernel_size, stride, dilation
        A number, or (depth, rows, columns).
    padding
        As for `Conv2d`, of three axes.
    in_channels, out_channels, rng, padding_mode, groups, bias, algorithm
        As for `Conv2d`.
    weight_init, bias_init
        As for `Conv2d`. The weight has shape (depth, rows, columns, C / groups, K): PyTorch's is
        `weight.transpose(4, 3, 0, 1, 2)`.

    Notes
    -----
    Inputs are (N, D, H, W, C), outputs (N, O, P, Q, K). The slices that a window reaches are
    convolved as the channels of one image, see `layers.conv.frames`.

    Raises
    ------
    ValueError, TypeError
        As `Conv2d`.
    """

    axes = ("depth", "rows", "columns")
    letters = ("N", "D", "H", "W")


class Conv1d(Conv2d):
    """Convolution of sequences (N, T, C) to (N, U, K): `Conv2d` with windows of one row; its weight
    is (1, kernel_size, C / groups, K).

    Parameters are those of `Conv2d` (`options` are its further ones), with one number each for
    kernel_size, stride and dilation, and for padding a number, a pair (before, after), "same" or
    "valid": `padding=(kernel_size - 1, 0)` looks at no later step.
    """

    @renamed(size="kernel_size", method="algorithm")
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        rng: np.random.Generator,
        stride: int = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int = 1,
        **options: Any,
    ) -> None:
        along: Padding = padding if isinstance(padding, str) else (0, padding)
        super().__init__(
            in_channels,
            out_channels,
            (1, kernel_size),
            rng=rng,
            stride=(1, stride),
            padding=along,
            dilation=(1, dilation),
            **options,
        )

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        require_input(self, x, ("N", "T", self.in_channels), self.weight.dtype)
        y = super().forward(call, x[:, np.newaxis], rectified)
        return y[:, 0]

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        (dx,) = super().backward(call, dy[:, np.newaxis], rectified)
        return (None if dx is None else dx[:, 0],)
