"""The mistakes in convolutions."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from layers.conv.conv import Conv1d, Conv2d
from layers.conv.transposed import ConvTranspose1d, ConvTranspose2d
from layers.engine.layer import Layer
from layers.engine.module import Module
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.init import normal
from layers.types import Array

from .mutant import Gradients, Mutant, having


class Convolution(Layer):
    """A convolution written with NumPy alone, right: the mutants override one method each.

    The weight is (rows, columns, C / groups, K); y is the sum over taps of the input pixels that a
    tap meets times its matrix.
    """

    def __init__(
        self,
        rng: Generator,
        channels: int = 2,
        size: tuple[int, int] = (3, 2),
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.weight = Parameter(rng.standard_normal((*size, channels // groups, channels)))
        self.bias = Parameter(rng.standard_normal(channels))

    def padded(self, x: Array) -> Array:
        p = self.padding
        return np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))

    def taps(self, pixels: tuple[int, ...]) -> Iterator[tuple[int, int, Any, Any]]:
        """Yield for each tap and group: row, column, where the tap and the group lie in the padded
        input, and in the output.
        """
        inner, outer = self.weight.shape[2], self.weight.shape[3] // self.groups
        for a, b, g in np.ndindex(*self.weight.shape[:2], self.groups):
            rows, columns = self.met(a, pixels[0]), self.met(b, pixels[1])
            of = slice(g * inner, (g + 1) * inner)
            yield a, b, (slice(None), rows, columns, of), (..., slice(g * outer, (g + 1) * outer))

    def met(self, tap: int, pixels: int) -> slice:
        """Return the rows (or columns) of the padded input that a tap meets."""
        start = tap * self.dilation
        return slice(start, start + (pixels - 1) * self.stride + 1, self.stride)

    def forward(self, call: Any, x: Array) -> Array:
        padded = self.padded(x)
        span = [(size - 1) * self.dilation for size in self.weight.shape[:2]]
        pixels = [
            (length - more - 1) // self.stride + 1
            for length, more in zip(padded.shape[1:3], span, strict=True)
        ]
        y = np.zeros((len(x), *pixels, self.weight.shape[3])) + self.bias.value
        for a, b, of, to in Convolution.taps(self, y.shape[1:3]):
            y[to] += padded[of] @ self.weight.value[a, b, :, to[1]]
        call.save(x)
        return y

    def backward(self, call: Any, dy: Array) -> Gradients:
        (x,) = call.saved
        self.add_bias(call, dy)
        self.add_weight(call, dy, x)
        return (self.cut(self.dx(dy, np.zeros_like(self.padded(x)))),)

    def dx(self, dy: Array, padded: Array) -> Array:
        """Return the gradient of the padded input."""
        for a, b, to, of in self.taps(dy.shape[1:3]):
            padded[to] += dy[of] @ self.matrix(a, b)[:, of[1]].T
        return padded

    def matrix(self, a: int, b: int) -> Array:
        """Return what the gradient passes through, for the tap in row a and column b."""
        return np.asarray(self.weight.value[a, b])

    def cut(self, padded: Array) -> Array:
        p = self.padding
        return padded[:, p : padded.shape[1] - p, p : padded.shape[2] - p]

    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        for gradient, rows in call.shards(self.weight, dy):
            gradient += self.dw(dy[rows], self.padded(x[rows]))

    def dw(self, dy: Array, padded: Array) -> Array:
        dw = np.zeros(self.weight.shape)
        for a, b, of, to in self.taps(dy.shape[1:3]):
            dw[a, b, :, to[1]] = np.einsum("npqc,npqk->ck", padded[of], dy[to])
        return dw

    def add_bias(self, call: Any, dy: Array) -> None:
        for gradient, rows in call.shards(self.bias, dy):
            gradient += self.db(dy[rows])

    def db(self, dy: Array) -> Array:
        return np.asarray(dy.sum(axis=(0, 1, 2)))


# ---- the input's gradient


class _KernelNotFlipped(Convolution):
    """Correlates dy with the kernel where it has to be convolved."""

    def matrix(self, a: int, b: int) -> Array:
        rows, columns = self.weight.shape[:2]
        return super().matrix(rows - 1 - a, columns - 1 - b)


class _RowsForColumns(Convolution):
    def matrix(self, a: int, b: int) -> Array:
        return super().matrix(b, a)


class _ChannelsNotExchanged(Convolution):
    def matrix(self, a: int, b: int) -> Array:
        return super().matrix(a, b).T


class _PaddingOffByOne(Convolution):
    def cut(self, padded: Array) -> Array:
        return super().cut(np.roll(padded, 1, axis=2))


class _BorderWrapsAround(Convolution):
    """Adds what lies in the padding to the opposite border."""

    def cut(self, padded: Array) -> Array:
        p = self.padding
        dx = super().cut(padded).copy()
        dx[:, -p:] += padded[:, :p, p:-p]
        return dx


class _BorderRepeated(Convolution):
    """Adds what lies in the padding to the pixels beside it, as for an input whose border is
    repeated.
    """

    def cut(self, padded: Array) -> Array:
        p = self.padding
        dx = super().cut(padded).copy()
        dx[:, :, 0] += padded[:, p:-p, p - 1]
        return dx


class _PhaseForgotten(Convolution):
    """Leaves out the pixels that no window begins at."""

    def dx(self, dy: Array, padded: Array) -> Array:
        dx = super().dx(dy, padded)
        dx[:, 1 :: self.stride] = 0
        return dx


class _PhasesExchanged(Convolution):
    def dx(self, dy: Array, padded: Array) -> Array:
        dx = super().dx(dy, padded)
        even, odd = dx[:, 0:-1:2].copy(), dx[:, 1::2].copy()
        dx[:, 0:-1:2], dx[:, 1::2] = odd, even[:, : odd.shape[1]]
        return dx


class _OverlapOverwrites(Convolution):
    def dx(self, dy: Array, padded: Array) -> Array:
        for a, b, to, of in self.taps(dy.shape[1:3]):
            padded[to] = dy[of] @ self.matrix(a, b)[:, of[1]].T
        return padded


class _BandsNotJoined(Convolution):
    """Computes the upper and the lower half of the image, and forgets what the upper half of dy
    gives to the lower.
    """

    def dx(self, dy: Array, padded: Array) -> Array:
        half = dy.shape[1] // 2
        upper, lower = dy.copy(), dy.copy()
        upper[:, half:], lower[:, :half] = 0, 0
        dx = super().dx(upper, padded)
        dx[:, half:] = 0
        return dx + super().dx(lower, np.zeros_like(padded))


class _GroupsMixed(Convolution):
    def dx(self, dy: Array, padded: Array) -> Array:
        dx = super().dx(dy, padded)
        return np.roll(dx, self.weight.shape[2], axis=3)


class _OneGroupForAll(Convolution):
    def taps(self, pixels: tuple[int, ...]) -> Iterator[tuple[int, int, Any, Any]]:
        yield from (tap for tap in super().taps(pixels) if tap[3][1].start == 0)


class _InputDilationForgotten(Convolution):
    def dx(self, dy: Array, padded: Array) -> Array:
        return np.asarray(
            having(self, "dilation", 1, lambda: super(_InputDilationForgotten, self).dx(dy, padded))
        )


class _InputStrideForgotten(Convolution):
    def dx(self, dy: Array, padded: Array) -> Array:
        return np.asarray(
            having(self, "stride", 1, lambda: super(_InputStrideForgotten, self).dx(dy, padded))
        )


# ---- the gradients of weight and bias


class _DilationForgotten(Convolution):
    def dw(self, dy: Array, padded: Array) -> Array:
        return np.asarray(
            having(self, "dilation", 1, lambda: super(_DilationForgotten, self).dw(dy, padded))
        )


class _StrideForgotten(Convolution):
    def dw(self, dy: Array, padded: Array) -> Array:
        return np.asarray(
            having(self, "stride", 1, lambda: super(_StrideForgotten, self).dw(dy, padded))
        )


class _TapsTransposed(Convolution):
    """Numbers the taps column by column."""

    def dw(self, dy: Array, padded: Array) -> Array:
        dw = super().dw(dy, padded)
        return dw.transpose(1, 0, 2, 3).reshape(dw.shape)


class _TapsReversed(Convolution):
    def dw(self, dy: Array, padded: Array) -> Array:
        return super().dw(dy, padded)[::-1, ::-1]


class _PaddingForgotten(Convolution):
    """Leaves out the windows that reach into the padding, whose other pixels count."""

    def dw(self, dy: Array, padded: Array) -> Array:
        inside = dy.copy()
        inside[:, : self.padding] = 0
        return super().dw(inside, padded)


class _WeightPaddingOffByOne(Convolution):
    def dw(self, dy: Array, padded: Array) -> Array:
        return super().dw(dy, np.roll(padded, 1, axis=1))


class _LastRowOfPixelsForgotten(Convolution):
    def dw(self, dy: Array, padded: Array) -> Array:
        return super().dw(dy[:, :-1], padded)


class _LastOddColumnForgotten(Convolution):
    """Goes through the pixels of a row two at a time."""

    def dw(self, dy: Array, padded: Array) -> Array:
        return super().dw(dy[:, :, : dy.shape[2] // 2 * 2], padded)


class _LastPixelForgotten(Convolution):
    """The last pixel of the last sample is forgotten."""

    def dw(self, dy: Array, padded: Array) -> Array:
        dz = dy.copy()
        dz[-1:, -1, -1] = 0
        return super().dw(dz, padded)


class _WrongShard(Convolution):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        gradients, bounds = call.gradient(self.weight), call.bounds(len(dy))
        for s, (start, stop) in enumerate(pairwise(bounds)):
            gradients[(s + 1) % len(gradients)] += self.dw(
                dy[start:stop], self.padded(x[start:stop])
            )


class _SumOfShardsBefore(Convolution):
    """Goes on with the sum of the shard before, as if its accumulators were not cleared."""

    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        for gradient, rows in call.shards(self.weight, dy):
            gradient += self.dw(dy[: rows.stop], self.padded(x[: rows.stop]))


class _Overwriting(Convolution):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        for gradient, rows in call.shards(self.weight, dy):
            gradient[...] = self.dw(dy[rows], self.padded(x[rows]))


class _BiasOfOnePixel(Convolution):
    def db(self, dy: Array) -> Array:
        return np.asarray(dy[:, 0, 0].sum(axis=0))


class _BiasMean(Convolution):
    def db(self, dy: Array) -> Array:
        return np.asarray(dy.mean(axis=(1, 2)).sum(axis=0))


# ---- mistakes around the kernels


class _MaskForgotten(Conv2d):
    """A convolution and a ReLU as one, whose backward is that of the convolution."""

    def forward(self, call: Any, x: Array, rectified: bool = True) -> Array:
        return super().forward(call, x, rectified)


class _LastTilesForgotten(Conv2d):
    """Forgets the partial tiles of the last, odd row, in one channel."""

    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        dz = dy.copy()
        dz[:, -1, :, -1] = 0
        return super().backward(call, dz, rectified)


class _SidesExchanged(Conv2d):
    """Takes the padding before for that after."""

    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        x, y, _ = call.saved
        ends = [each[::-1] if isinstance(each, tuple) else each for each in self.padding]
        having(
            self,
            "padding",
            tuple(ends),
            lambda: call.save(x, y, self._planned(x.shape[1:3], x.dtype)),
        )
        return super().backward(call, dy, rectified)


class _SequenceReversed(Conv1d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        (dx,) = super().backward(call, dy, rectified)
        return (None if dx is None else dx[:, ::-1],)


class _OutputPaddingForgotten(ConvTranspose2d):
    """Takes the rows at the end, that no window reaches but the bias does, for none."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        dz = dy.copy()
        dz[:, dy.shape[1] - self.output_padding[0] :] = 0
        return super().backward(call, dz)


class _StepsExchanged(ConvTranspose1d):
    """Gives the gradient of the last step to the first."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else np.roll(dx, 1, axis=1),)


class _DirectionsExchanged(ConvTranspose2d):
    """Carries the gradient back in the direction of the outputs, as a convolution would."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        algorithm = call.saved[1]
        super().backward(call, dy)
        dx = np.empty(dy.shape)
        algorithm.adjoint(call, dx, np.ascontiguousarray(dy), self.weight.value, np.empty(0), False)
        return (dx,)


def plain(mutant: Callable[..., Module], **options: Any) -> Callable[[Generator], Module]:
    """Return the constructor of a mutant of `Convolution`."""
    return lambda rng: mutant(rng, **options)


def with_bias(
    mutant: Callable[..., Module], *sizes: Any, **options: Any
) -> Callable[[Generator], Module]:
    """Return the constructor of a mutant of a layer, whose biases are not 0."""
    return lambda rng: mutant(*sizes, rng=rng, bias_init=normal(1), **options)


_IMAGE, _WIDE = real((BATCH, 5, 4, 2)), real((BATCH, 4, 3, 4))

MUTANTS = (
    Mutant("kernel not flipped in the input's gradient", plain(_KernelNotFlipped), _IMAGE),
    Mutant("rows for columns of the kernel", plain(_RowsForColumns, size=(2, 2)), _IMAGE),
    Mutant("channels not exchanged", plain(_ChannelsNotExchanged), _IMAGE),
    Mutant("padding off by one", plain(_PaddingOffByOne), _IMAGE),
    Mutant("border wraps around", plain(_BorderWrapsAround), _IMAGE),
    Mutant("border repeated", plain(_BorderRepeated), _IMAGE),
    Mutant("phase of a stride forgotten", plain(_PhaseForgotten, stride=2), _IMAGE),
    Mutant("phases of a stride exchanged", plain(_PhasesExchanged, stride=2), _IMAGE),
    Mutant(
        "stride forgotten in the input's gradient", plain(_InputStrideForgotten, stride=2), _IMAGE
    ),
    Mutant("overlapping windows overwritten", plain(_OverlapOverwrites), _IMAGE),
    Mutant("bands of rows not joined", plain(_BandsNotJoined), _IMAGE),
    Mutant("groups mixed", plain(_GroupsMixed, channels=4, groups=2), _WIDE),
    Mutant(
        "gradient of the first group alone", plain(_OneGroupForAll, channels=4, groups=2), _WIDE
    ),
    Mutant(
        "dilation forgotten in the input's gradient",
        plain(_InputDilationForgotten, size=(2, 2), dilation=2),
        _IMAGE,
    ),
    Mutant(
        "dilation forgotten in the weight's gradient",
        plain(_DilationForgotten, size=(2, 2), dilation=2),
        _IMAGE,
    ),
    Mutant("stride forgotten in the weight's gradient", plain(_StrideForgotten, stride=2), _IMAGE),
    Mutant("taps transposed", plain(_TapsTransposed), _IMAGE),
    Mutant("taps reversed", plain(_TapsReversed), _IMAGE),
    Mutant("padding forgotten in the weight's gradient", plain(_PaddingForgotten), _IMAGE),
    Mutant("padding off by one in the weight's gradient", plain(_WeightPaddingOffByOne), _IMAGE),
    Mutant("last row of pixels forgotten", plain(_LastRowOfPixelsForgotten), _IMAGE),
    Mutant("last odd column of pixels forgotten", plain(_LastOddColumnForgotten), _IMAGE),
    Mutant("last pixel of the last sample forgotten", plain(_LastPixelForgotten), _IMAGE),
    Mutant("weight's gradient in the wrong shard", plain(_WrongShard), _IMAGE),
    Mutant("sums of the shard before not cleared", plain(_SumOfShardsBefore), _IMAGE),
    Mutant("weight's gradient overwritten instead of added", plain(_Overwriting), _IMAGE),
    Mutant("bias's gradient of one pixel", plain(_BiasOfOnePixel), _IMAGE),
    Mutant("bias's gradient a mean over pixels", plain(_BiasMean), _IMAGE),
    Mutant("mask of a fused ReLU forgotten", with_bias(_MaskForgotten, 2, 3, 3), _IMAGE),
    Mutant(
        "one channel of the last row of tiles forgotten",
        with_bias(_LastTilesForgotten, 16, 16, 3, padding=1),
        real((2, 5, 5, 16)),
    ),
    Mutant(
        "padding before and after exchanged",
        with_bias(_SidesExchanged, 2, 3, 2, padding=((1, 0), 0)),
        _IMAGE,
    ),
    Mutant("sequence reversed", with_bias(_SequenceReversed, 2, 3, 2), real((BATCH, 5, 2))),
    Mutant(
        "output padding forgotten",
        with_bias(_OutputPaddingForgotten, 2, 3, 1, stride=2, output_padding=1),
        real((BATCH, 3, 2, 2)),
    ),
    Mutant(
        "steps of a transposed convolution exchanged",
        with_bias(_StepsExchanged, 2, 3, 2),
        real((BATCH, 4, 2)),
    ),
    Mutant(
        "directions of a transposed convolution exchanged",
        with_bias(_DirectionsExchanged, 2, 2, 3, padding=1),
        _IMAGE,
    ),
)
