"""Transposed convolutions of images (N, H, W, C) and sequences (N, T, C), channels last."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import contiguous, empty
from layers.errors import message, renamed
from layers.init import Initializer, he_uniform, zeros
from layers.types import Array

from .algorithms import ConvAlgorithm, choose
from .base import Convolution, Size
from .tables import Axis, ConvShape, Window

if TYPE_CHECKING:
    from layers.engine.call import Call


class ConvTranspose2d(Convolution):
    """Transposed convolution: the map that carries gradients back through a `Conv2d`, from (N, P,
    Q, C) to (N, H, W, K).

    y[p stride + t dilation - padding, k] = b[k] + Σ_t Σ_c x[p, c] w[t, k, c]; H = (P - 1) stride -
    2 padding + dilation (kernel_size - 1) + 1 + output_padding. Backward: dx is the convolution of
    dy, dw[t, k, c] = Σ_p dy[p stride + …, k] x[p, c].

    Parameters
    ----------
    output_padding
        Further rows and columns at the end, fewer than the stride (or dilation): several sizes have
        a convolution of one size.
    in_channels, out_channels, kernel_size, rng, stride, padding, dilation, groups, bias, algorithm
        As for `Conv2d`.
    weight_init, bias_init
        As for `Conv2d`. The weight has shape (rows, columns, K / groups, C): PyTorch's is
        `weight.transpose(3, 2, 0, 1)`.
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
        padding: Size = 0,
        output_padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        algorithm: str = "default",
        weight_init: Initializer = he_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        self.padding = self._sizes("padding", padding, 0)
        self.output_padding = self._sizes("output_padding", output_padding, 0)
        self.in_channels = in_channels
        self.out_channels = out_channels
        super().__init__(
            (out_channels, in_channels),
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
        if any(
            more >= max(s, d)
            for more, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True)
        ):
            fix = "Raise the stride, or choose another padding."
            raise ValueError(
                message(
                    self,
                    "output_padding must be smaller than the stride or dilation",
                    self.output_padding,
                    fix,
                )
            )

    def __repr__(self) -> str:
        options = self._options(
            stride=(1, 1),
            padding=(0, 0),
            output_padding=(0, 0),
            dilation=(1, 1),
            groups=1,
            algorithm="default",
        )
        sizes = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}"
        return f"{type(self).__name__}({sizes}{options}{'' if self.bias else ', bias=False'})"

    def algorithm_for(self, x: Array) -> ConvAlgorithm:
        """Return the algorithm for this shape of images, made when it is first seen."""
        key = (x.shape[1:3], x.dtype, self.algorithm)
        algorithm = self._algorithms.get(key)
        if algorithm is None:
            rows, columns = axes = [
                Axis(size, stride, around, around, dilation)
                for size, stride, around, dilation in zip(
                    self.kernel_size, self.stride, self.padding, self.dilation, strict=True
                )
            ]
            height, width = (
                (count - 1) * axis.stride - 2 * axis.before + axis.span + more
                for count, axis, more in zip(x.shape[1:3], axes, self.output_padding, strict=True)
            )
            if min(height, width) < 1:
                fix = "Pad less, or take a larger window."
                raise ValueError(
                    message(self, "the output must have at least one pixel", (height, width), fix)
                )
            channels = (self.out_channels, self.in_channels)
            algorithm = self._algorithms[key] = choose(
                ConvShape(
                    Window(rows, columns, self.groups),
                    (height, width),
                    (x.shape[1], x.shape[2]),
                    channels,
                ),
                x.dtype,
                self.algorithm,
                transposed=True,
            )
        return algorithm

    def forward(self, call: ForwardCall, x: Array) -> Array:
        x = self._images(x, self.in_channels)
        algorithm = self.algorithm_for(x)
        y = call.buffer("y", (len(x), *algorithm.shape.image, self.out_channels), x.dtype)
        algorithm.adjoint(call, y, x, self.weight.value, self._bias(x), False)
        call.save(x, algorithm)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, algorithm = call.saved
        dy = contiguous(dy)
        self._bias_gradient(call, dy)
        dw, add = call.gradient_buffer(self.weight)
        algorithm.gradient(call, dw, x, dy, call.bounds(len(x)), add)
        if not call.wants(0):
            return (None,)
        dx = call.pooled("dx", x.shape, x.dtype)
        algorithm.apply(call, dx, dy, call.feedback(self.weight), empty(x, 1), False)
        return (dx,)


class ConvTranspose1d(ConvTranspose2d):
    """Transposed convolution of sequences (N, U, C) to (N, T, K): `ConvTranspose2d` with windows of
    one row; its weight is (1, kernel_size, K / groups, C).

    T = (U - 1) stride - 2 padding + dilation (kernel_size - 1) + 1 + output_padding. Parameters are
    those of `ConvTranspose2d` (`options` are its further ones), with one number each for
    kernel_size, stride, padding, output_padding and dilation.
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
        padding: int = 0,
        output_padding: int = 0,
        dilation: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            (1, kernel_size),
            rng=rng,
            stride=(1, stride),
            padding=(0, padding),
            output_padding=(0, output_padding),
            dilation=(1, dilation),
            **options,
        )

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_input(self, x, ("N", "T", self.in_channels), self.weight.dtype)
        return super().forward(call, x[:, np.newaxis])[:, 0]

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (dx,) = super().backward(call, dy[:, np.newaxis])
        return (None if dx is None else dx[:, 0],)
