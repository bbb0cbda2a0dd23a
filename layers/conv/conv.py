"""Convolutions of images (N, H, W, C) and sequences (N, T, C), channels last."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import pair, require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import contiguous, empty, flat
from layers.errors import message, renamed
from layers.init import Initializer, he_uniform, zeros
from layers.kernels import elementwise
from layers.types import Array

from .algorithms import ConvAlgorithm, choose
from .base import Convolution, Size
from .tables import ConvShape, Window

if TYPE_CHECKING:
    from layers.engine.call import Call

Padding = int | tuple[int, int] | str


class Conv2d(Convolution):
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
        Rows and columns of zeros on either side: a number, a pair, or "same" for an output of size
        ⌈input / stride⌉ (of an odd total the larger half comes after).
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
    """

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
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        algorithm: str = "default",
        weight_init: Initializer = he_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        fix = 'Pass one number, (rows, columns), or padding="same".'
        self.padding = (
            "same" if padding == "same" else pair(type(self).__name__, "padding", padding, 0, fix)
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        super().__init__(
            (in_channels, out_channels),
            kernel_size,
            rng=rng,
            stride=stride,
            dilation=dilation,
            groups=groups,
            biases=out_channels if bias else 0,
            algorithm=algorithm,
            weight_init=weight_init,
            bias_init=bias_init,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        options = self._options(
            stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, algorithm="default"
        )
        return (
            f"Conv2d({self.in_channels}, {self.out_channels},"
            f" {self.kernel_size}{options}{'' if self.bias else ', bias=False'})"
        )

    def algorithm_for(self, x: Array) -> ConvAlgorithm:
        """Return the algorithm for this shape of images, made when it is first seen."""
        key = (x.shape[1:3], x.dtype, self.algorithm)
        algorithm = self._algorithms.get(key)
        if algorithm is None:
            window = self._window(x.shape[1], x.shape[2])
            image = (x.shape[1], x.shape[2])
            outputs = window.output(*image)
            if min(outputs) < 1:
                spans, padded = (
                    (window.rows.span, window.columns.span),
                    tuple(
                        length + axis.before + axis.after
                        for length, axis in zip(
                            x.shape[1:3], (window.rows, window.columns), strict=True
                        )
                    ),
                )
                fix = (
                    "Pad more, or take a smaller window; after several poolings little is left of"
                    " an image."
                )
                raise ValueError(
                    message(self, f"the window {spans} must fit into the padded image", padded, fix)
                )
            channels = (self.in_channels, self.out_channels)
            algorithm = self._algorithms[key] = choose(
                ConvShape(window, image, outputs, channels), x.dtype, self.algorithm
            )
        return algorithm

    def _window(self, height: int, width: int) -> Window:
        if self.padding == "same":
            before, after = [], []
            for length, size, stride, dilation in zip(
                (height, width), self.kernel_size, self.stride, self.dilation, strict=True
            ):
                total = max(
                    0, (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length
                )
                before.append(total // 2)
                after.append(total - total // 2)
            return self._axes((before[0], before[1]), (after[0], after[1]))
        assert not isinstance(self.padding, str)
        return self._axes(self.padding, self.padding)

    def convolve(
        self, call: ForwardCall, x: Array, rectified: bool
    ) -> tuple[Array, Array, ConvAlgorithm]:
        """Return the output, and what backward needs besides: the input in adjacent memory, and the
        algorithm.
        """
        x = self._images(x, self.in_channels)
        algorithm = self.algorithm_for(x)
        y = call.buffer("y", (len(x), *algorithm.shape.outputs, self.out_channels), x.dtype)
        algorithm.apply(call, y, x, self.weight.value, self._bias(x), rectified)
        return y, x, algorithm

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        y, x, algorithm = self.convolve(call, x, rectified)
        call.save(x, y, algorithm)
        return y

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        x, y, algorithm = call.saved
        dy = contiguous(dy)
        if rectified:
            dz = call.pooled("dz", y.shape, y.dtype)
            elementwise.relu_backward(flat(dz), flat(dy), flat(y))
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
            algorithm.gradient(call, dw, dy, x, call.bounds(len(x)), add)
        if not call.wants(0):
            return (None,)
        dx = call.pooled("dx", x.shape, x.dtype)
        algorithm.adjoint(call, dx, dy, contiguous(call.feedback(self.weight)), empty(x, 1), False)
        return (dx,)


class Conv1d(Conv2d):
    """Convolution of sequences (N, T, C) to (N, U, K): `Conv2d` with windows of one row; its weight
    is (1, kernel_size, C / groups, K).

    Parameters are those of `Conv2d` (`options` are its further ones), with one number each for
    kernel_size, stride, padding (or "same") and dilation.
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
        padding: int | str = 0,
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

    def __repr__(self) -> str:
        return super().__repr__().replace("Conv2d", "Conv1d", 1)

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        require_input(self, x, ("N", "T", self.in_channels), self.weight.dtype)
        y = super().forward(call, x[:, np.newaxis], rectified)
        return y[:, 0]

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        (dx,) = super().backward(call, dy[:, np.newaxis], rectified)
        return (None if dx is None else dx[:, 0],)
