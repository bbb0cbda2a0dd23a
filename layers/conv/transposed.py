"""Transposed convolutions of images (N, H, W, C), volumes (N, D, H, W, C) and sequences (N, T, C),
channels last.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import boolean, require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import contiguous, empty
from layers.errors import message, renamed
from layers.init import Initializer, he_uniform, zeros
from layers.types import Array

from .algorithm import ConvAlgorithm
from .algorithms import choose
from .base import Convolution, Size
from .frames import framed
from .tables import Axis, ConvShape, Window

if TYPE_CHECKING:
    from layers.engine.call import Call


class _ConvTranspose(Convolution):
    """What transposed convolutions of images and of volumes share."""

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
            biases=out_channels if boolean(type(self).__name__, "bias", bias) else 0,
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
        ones, none = (1,) * len(self.axes), (0,) * len(self.axes)
        options = self._options(
            stride=ones,
            padding=none,
            output_padding=none,
            dilation=ones,
            groups=1,
            algorithm="default",
        )
        sizes = f"{self.in_channels}, {self.out_channels}, {self.kernel_size}"
        return f"{type(self).__name__}({sizes}{options}{'' if self.bias else ', bias=False'})"

    def algorithm_for(self, x: Array) -> ConvAlgorithm:
        """Return the algorithm for this shape of images, made when it is first seen."""
        key = (x.shape[1:-1], x.dtype, self.algorithm, self.precision)
        algorithm = self._algorithms.get(key)
        if algorithm is None:
            algorithm = self._algorithms[key] = self._planned(x.shape[1:-1], x.dtype)
        return algorithm

    def _planned(self, inputs: tuple[int, ...], dtype: Any) -> ConvAlgorithm:
        axes = [
            Axis(size, stride, around, around, dilation)
            for size, stride, around, dilation in zip(
                self.kernel_size, self.stride, self.padding, self.dilation, strict=True
            )
        ]
        image = tuple(
            (count - 1) * axis.stride - 2 * axis.before + axis.span + more
            for count, axis, more in zip(inputs, axes, self.output_padding, strict=True)
        )
        if min(image) < 1:
            fix = "Pad less, or take a larger window."
            raise ValueError(message(self, "the output must have at least one pixel", image, fix))
        channels = (self.out_channels, self.in_channels)
        if len(axes) == 2:
            window = Window(axes[0], axes[1], self.groups)
            shape = ConvShape(window, (image[0], image[1]), (inputs[0], inputs[1]), channels)
            return choose(shape, dtype, self.algorithm, self.precision, transposed=True)
        return framed(
            axes,
            image,
            inputs,
            channels,
            self.groups,
            "zeros",
            dtype,
            self.algorithm,
            self.precision,
            transposed=True,
        )

    def flops(self, y: Array, *inputs: Array) -> int:
        return 2 * inputs[0].size * (self.weight.value.size // self.in_channels)

    def forward(self, call: ForwardCall, x: Array) -> Array:
        x = self._images(x, self.in_channels)
        algorithm = self.algorithm_for(x)
        y = call.output_buffer("y", (len(x), *algorithm.image, self.out_channels), x.dtype)
        algorithm.adjoint(call, y, x, self.weight.value, self._bias(x), False)
        call.save(self.precision.keep(call, x, 0), algorithm)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, algorithm = call.saved
        dy = contiguous(dy)
        self._bias_gradient(call, dy)
        if call.trains(self.weight):
            dw, add = call.gradient_buffer(self.weight)
            images = self._saved_images(call, x, algorithm)
            algorithm.gradient(call, dw, images, dy, call.bounds(len(x)), add)
        if not call.wants(0):
            return (None,)
        dx = call.pooled("dx", x.shape, dy.dtype)
        algorithm.apply(call, dx, dy, call.feedback(self.weight), empty(dy, 1), False)
        return (dx,)


class ConvTranspose2d(_ConvTranspose):
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


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution of volumes: the map that carries gradients back through a `Conv3d`,
    from (N, O, P, Q, C) to (N, D, H, W, K). Equations and backward: as of `ConvTranspose2d`.

    Parameters
    ----------
    kernel_size, stride, padding, output_padding, dilation
        A number, or (depth, rows, columns).
    in_channels, out_channels, rng, groups, bias, algorithm
        As for `Conv2d`.
    weight_init, bias_init
        As for `Conv2d`. The weight has shape (depth, rows, columns, K / groups, C): PyTorch's is
        `weight.transpose(4, 3, 0, 1, 2)`.
    """

    axes = ("depth", "rows", "columns")
    letters = ("N", "D", "H", "W")


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
