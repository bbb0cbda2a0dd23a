"""Convolutions of images (N, H, W, C) and sequences (N, T, C), channels last."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.activation import ReLU
from layers.checks import pair
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty, flat
from layers.engine.parameter import Parameter
from layers.errors import message
from layers.init import Initializer, he_uniform, zeros
from layers.kernels import elementwise, pool
from layers.pool import MaxPool2d, rectified_backward
from layers.types import Array

from .algorithms import Direct, choose
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
    size
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
    method
        "default", "direct" (no transforms) or "fastest" (Winograd's F(4 x 4) throughout where it
        fits, with about twice the rounding error of direct convolution); see
        `layers.conv.algorithms.choose`.
    weight_init, bias_init
        See `layers.init`. The weight has shape (rows, columns, C / groups, K): PyTorch's is
        `weight.transpose(3, 2, 0, 1)`.

    Inputs are (N, H, W, C), outputs (N, P, Q, K).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Size,
        *,
        rng: np.random.Generator,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        method: str = "default",
        weight_init: Initializer = he_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        fix = 'Pass one number, (rows, columns), or padding="same".'
        self.padding = (
            "same" if padding == "same" else pair(type(self).__name__, "padding", padding, 0, fix)
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        super().__init__(
            (in_channels, out_channels),
            size,
            rng=rng,
            stride=stride,
            dilation=dilation,
            groups=groups,
            biases=out_channels if bias else 0,
            method=method,
            weight_init=weight_init,
            bias_init=bias_init,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        options = self._options(
            stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, method="default"
        )
        return (
            f"Conv2d({self.in_channels}, {self.out_channels},"
            f" {self.size}{options}{'' if self.bias else ', bias=False'})"
        )

    def fused_with(self, following: Layer) -> Layer | None:
        return (
            _RectifiedConv2d(self)
            if type(self) in (Conv2d, Conv1d) and type(following) is ReLU
            else None
        )

    def method_for(self, x: Array) -> Direct:
        """Return the method for this shape of images, made when it is first seen."""
        key = (x.shape[1:3], x.dtype, self.method)
        method = self._methods.get(key)
        if method is None:
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
            method = self._methods[key] = choose(
                ConvShape(window, image, outputs, channels), x.dtype, self.method
            )
        return method

    def _window(self, height: int, width: int) -> Window:
        if self.padding == "same":
            before, after = [], []
            for length, size, stride, dilation in zip(
                (height, width), self.size, self.stride, self.dilation, strict=True
            ):
                total = max(
                    0, (-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length
                )
                before.append(total // 2)
                after.append(total - total // 2)
            return self._axes((before[0], before[1]), (after[0], after[1]))
        assert not isinstance(self.padding, str)
        return self._axes(self.padding, self.padding)

    def convolve(self, call: "Call", x: Array, rectified: bool) -> tuple[Array, Array, Direct]:
        """Return the output, and what backward needs besides: the input in adjacent memory, and the
        method.
        """
        x = self._images(x, self.in_channels)
        method = self.method_for(x)
        y = call.buffer("y", (len(x), *method.shape.outputs, self.out_channels), x.dtype)
        method.apply(call, y, x, self.weight.value, self._bias(x), rectified)
        return y, x, method

    def forward(self, call: "Call", x: Array, rectified: bool = False) -> Array:
        y, x, method = self.convolve(call, x, rectified)
        call.save(x, y, method)
        return y

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        x, y, method = call.saved
        dy = contiguous(dy)
        if rectified:
            dz = call.pooled("dz", y.shape, y.dtype)
            elementwise.relu_backward(flat(dz), flat(dy), flat(y))
            dy = dz
        return self.gradients(call, dy, x, method)

    def gradients(
        self, call: "Call", dy: Array, x: Array, method: Direct
    ) -> tuple[Array | None, ...]:
        """Add the parameters' gradients and return that of the input, given that of the
        convolution's output.
        """
        self._bias_gradient(call, dy)
        dw, add = call.gradient_buffer(self.weight)
        method.gradient(call, dw, dy, x, call.bounds(len(x)), add)
        if not call.wants(0):
            return (None,)
        dx = call.pooled("dx", x.shape, x.dtype)
        method.adjoint(call, dx, dy, contiguous(call.feedback(self.weight)), empty(x, 1), False)
        return (dx,)


class _RectifiedConv2d(Layer):
    """A Conv2d and the ReLU after it in one call, y = max(z, 0). Backward: as Conv2d, with dy only
    where y > 0.
    """

    def __init__(self, convolution: Conv2d) -> None:
        self.convolution = convolution

    def __repr__(self) -> str:
        return f"{self.convolution!r} + ReLU()"

    def fused_with(self, following: Layer) -> Layer | None:
        return _PooledConv2d(self.convolution, following) if type(following) is MaxPool2d else None

    def own_parameters(self) -> list[Parameter]:
        return self.convolution.own_parameters()

    def forward(self, call: "Call", x: Array) -> Array:
        return self.convolution.forward(call, x, rectified=True)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return self.convolution.backward(call, dy, rectified=True)


class _PooledConv2d(Layer):
    """A Conv2d, the ReLU and the MaxPool2d after it in one call; backward has one pass from the
    pooled gradient to that of z.
    """

    def __init__(self, convolution: Conv2d, pooling: MaxPool2d) -> None:
        self.convolution, self.pooling = convolution, pooling

    def __repr__(self) -> str:
        return f"{self.convolution!r} + ReLU() + {self.pooling!r}"

    def own_parameters(self) -> list[Parameter]:
        return self.convolution.own_parameters()

    def forward(self, call: "Call", x: Array) -> Array:
        z, x, method = self.convolution.convolve(call, x, rectified=True)
        y = call.buffer("pooled", self.pooling.output_shape(z), z.dtype)
        pool.maximum(y, z, self.pooling.window, False)
        call.save(x, z, method, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, z, method, y = call.saved
        dz = call.pooled("dz", z.shape, z.dtype)
        rectified_backward(dz, contiguous(dy), z, y, self.pooling.window)
        return self.convolution.gradients(call, dz, x, method)


class Conv1d(Conv2d):
    """Convolution of sequences (N, T, C) to (N, U, K): `Conv2d` with windows of one row; its weight
    is (1, size, C / groups, K).

    Parameters are those of `Conv2d`, with one number each for size, stride, padding (or "same") and
    dilation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
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
            (1, size),
            rng=rng,
            stride=(1, stride),
            padding=along,
            dilation=(1, dilation),
            **options,
        )

    def __repr__(self) -> str:
        return super().__repr__().replace("Conv2d", "Conv1d", 1)

    def forward(self, call: "Call", x: Array, rectified: bool = False) -> Array:
        if x.ndim != 3 or x.shape[2] != self.in_channels:
            fix = "If the axes are N C T, convert with x.transpose(0, 2, 1)."
            raise ValueError(
                message(self, f"the input must have shape (N, T, {self.in_channels})", x.shape, fix)
            )
        y = super().forward(call, x[:, np.newaxis], rectified)
        return y[:, 0]

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        (dx,) = super().backward(call, dy[:, np.newaxis], rectified)
        return (None if dx is None else dx[:, 0],)
