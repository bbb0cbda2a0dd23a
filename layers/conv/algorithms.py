"""The algorithms of computing a convolution, and the choice among them by shape, in this one place.

An algorithm does three things: `apply`, the convolution itself; `adjoint`, which carries a gradient
of its output back to its input (and is the forward pass of a transposed convolution); and
`gradient`, of its weight. The measurements behind the choice are in docs/performance.md.
"""

from functools import cached_property
from typing import Any

import numpy as np

from layers.checks import Pair
from layers.kernels import conv, conv_columns, depthwise, winograd
from layers.kernels.machine import VECTOR_BYTES
from layers.types import Array, Integers

from . import tables
from .tables import ConvShape

ALGORITHMS = ("default", "fastest", "direct")
# Winograd's transforms pay from this many channels on, and while partial tiles at the border waste
# at most this factor.
WINOGRAD_CHANNELS = 16
WINOGRAD_WASTE = 1.5
# With fewer channels than this, the input's gradient leaves most of a vector empty.
FEW_CHANNELS = 8


class ConvAlgorithm:
    """What computes a convolution of one shape."""

    def __init__(self, shape: ConvShape, dtype: Any) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def image(self) -> tuple[int, ...]:
        """The sizes of the input: rows and columns, and the depth before them of a volume."""
        return self.shape.image

    @property
    def outputs(self) -> tuple[int, ...]:
        """The sizes of the output: rows and columns, and the depth before them of a volume."""
        return self.shape.outputs

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        """Write the convolution of x (N, H, W, C) to y (N, P, Q, K); bias (K,), or empty for
        none.
        """
        raise NotImplementedError

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        """Write the adjoint of the convolution, applied to dy (N, P, Q, K), to dx (N, H, W, C);
        bias (C,), or empty.
        """
        raise NotImplementedError

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        """Write (or add) the weight's gradient of each shard to dw (S, kernel rows, kernel columns,
        C / groups, K).
        """
        raise NotImplementedError


class Direct(ConvAlgorithm):
    """Sums over taps and channels; works for every window."""

    @cached_property
    def _forward(self) -> tables.Correlation:
        return tables.correlation(self.shape, self.dtype.itemsize, backward=False)

    @cached_property
    def _backward(self) -> tables.Correlation:
        return tables.correlation(self.shape, self.dtype.itemsize, backward=True)

    @cached_property
    def _gradient(self) -> tables.WeightGradient:
        return tables.weight_gradient(self.shape, self.dtype.itemsize)

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._correlate(call, self._forward, y, x, weight, bias, rectified, transposed=False)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._correlate(call, self._backward, dx, dy, weight, bias, rectified, transposed=True)

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        plan = self._gradient
        scratch = call.scratch(self.dtype, plan.band_size, plan.last_size)
        conv.weight_gradient(dw, dy, x, bounds, plan.offsets, plan.runs, plan.plan, *scratch, add)

    def _correlate(
        self,
        call: Any,
        plan: tables.Correlation,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array,
        rectified: bool,
        *,
        transposed: bool,
    ) -> None:
        band, packed = call.scratch(self.dtype, plan.band_size, plan.packed_size)
        groups = self.shape.window.groups
        conv.pack(packed, weight, plan.order, plan.phases, groups, transposed)
        conv.correlate(y, x, packed, bias, plan.phases, plan.runs, plan.plan, band, rectified)


class FewChannels(Direct):
    """Direct, but the adjoint goes by columns: for stride 1 and few input channels."""

    @cached_property
    def _columns(self) -> tables.Columns:
        return tables.columns(self.shape, self.dtype.itemsize)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        if bias.size or rectified:
            super().adjoint(call, dx, dy, weight, bias, rectified)
            return
        plan = self._columns
        scratch = call.scratch(self.dtype, plan.padded, plan.panel, plan.columns, plan.planes)
        conv_columns.input_gradient(dx, dy, weight, plan.plan, *scratch)


class Depthwise(ConvAlgorithm):
    """Every channel by itself, with one or more outputs each: sums over taps alone, vectors of
    channels.
    """

    @cached_property
    def _there(self) -> tables.Depthwise:
        return tables.depthwise(self.shape, self.dtype.itemsize, backward=False)

    @cached_property
    def _back(self) -> tables.Depthwise:
        return tables.depthwise(self.shape, self.dtype.itemsize, backward=True)

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._convolve(call, self._there, y, x, weight, bias, rectified, transposed=False)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._convolve(call, self._back, dx, dy, weight, bias, rectified, transposed=True)

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        plan = self._there
        band, part = call.scratch(self.dtype, plan.band_size, dw[0].size)
        depthwise.weight_gradient(
            dw.reshape(len(dw), -1, self.shape.channels[1]),
            dy,
            x,
            bounds,
            plan.plan,
            band,
            part,
            add,
        )

    def _convolve(
        self,
        call: Any,
        plan: tables.Depthwise,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array,
        rectified: bool,
        *,
        transposed: bool,
    ) -> None:
        taps = weight.reshape(-1, self.shape.channels[1])
        band, packed, line = call.scratch(
            self.dtype, plan.band_size, taps.size, y.shape[2] * self.shape.channels[1]
        )
        depthwise.correlate(y, x, taps, bias, plan.plan, band, packed, line, transposed, rectified)


class Winograd(ConvAlgorithm):
    """Tiles of m x m outputs, for windows of 3 x 3 at stride 1.

    `sizes` are the m of the map, of its adjoint and of the weight's gradient.
    """

    def __init__(self, shape: ConvShape, dtype: Any, sizes: tuple[int, int, int]) -> None:
        super().__init__(shape, dtype)
        self.sizes = sizes
        before, itemsize = (shape.axes[0].before, shape.axes[1].before), self.dtype.itemsize
        around = (2 - before[0], 2 - before[1])
        there, back = shape.channels, shape.channels[::-1]
        self._apply = tables.winograd_tables(before, shape.outputs, there, itemsize, sizes[0])
        self._adjoint = tables.winograd_tables(around, shape.image, back, itemsize, sizes[1])
        self._weight = tables.winograd_tables(before, shape.outputs, there, itemsize, sizes[2])

    def __repr__(self) -> str:
        return f"Winograd{self.sizes}"

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._transform(call, self._apply, y, x, weight, bias, rectified, transposed=False)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        self._transform(call, self._adjoint, dx, dy, weight, bias, rectified, transposed=True)

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        plan = self._weight
        scratch = call.scratch(self.dtype, plan.patch, plan.v, plan.products, plan.packed)
        winograd.weight_gradient(dw, dy, x, bounds, plan.plan, *scratch, plan.m, add)

    def _transform(
        self,
        call: Any,
        plan: tables.Winograd,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array,
        rectified: bool,
        *,
        transposed: bool,
    ) -> None:
        outputs = y.shape[3]
        patch, v, products, packed, turned, zeros = call.scratch(
            self.dtype,
            plan.patch,
            plan.v,
            plan.products,
            plan.packed,
            (9, weight.shape[3], weight.shape[2]),
            outputs,
        )
        if not bias.size:
            zeros[:] = 0
            bias = zeros
        winograd.pack(packed, weight, turned, transposed, plan.m)
        winograd.correlate(y, x, packed, bias, plan.plan, patch, v, products, plan.m, rectified)


def choose(
    shape: ConvShape,
    dtype: Any,
    algorithm: str = "default",
    *,
    transposed: bool = False,
) -> ConvAlgorithm:
    """Return the algorithm for a convolution.

    The outputs may be fewer than the windows that fit: those of a transposed convolution with
    output padding are.

    "direct" never transforms. "default" takes Winograd's transforms where they pay and leave the
    gradients of whole networks no less accurate than PyTorch's: F(2 x 2) forward, F(4 x 4)
    backward. "fastest" takes F(4 x 4) both ways. Forward is the map, or its adjoint if
    `transposed`.
    """
    window, channels = shape.window, shape.channels
    rows, columns = shape.axes
    plain = window.groups == rows.stride == columns.stride == rows.dilation == columns.dilation == 1
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    if (
        algorithm != "direct"
        and plain
        and rows.size == columns.size == 3
        and max(rows.before, columns.before) <= 2
    ):
        forward, backward = 4 if algorithm == "fastest" else 2, 4
        wanted = (backward, forward, backward) if transposed else (forward, backward, backward)
        sizes = (
            _size(shape.outputs, wanted[0]),
            _size(shape.image, wanted[1]),
            _size(shape.outputs, wanted[2]),
        )
        if (
            all(count % lanes == 0 and count >= WINOGRAD_CHANNELS for count in channels)
            and min(sizes) > 0
        ):
            return Winograd(shape, dtype, sizes)
    if window.groups == channels[0] > 1:
        return Depthwise(shape, dtype)
    if window.groups == rows.stride == columns.stride == 1 and channels[0] < FEW_CHANNELS:
        return FewChannels(shape, dtype)
    return Direct(shape, dtype)


def _size(outputs: Pair, most: int) -> int:
    """Return the largest size of tiles, at most `most`, that wastes little at the border; 0 if none
    does.
    """
    for m in (4, 2):
        tiles = -(-outputs[0] // m) * -(-outputs[1] // m)
        if m <= most and tiles * m * m <= WINOGRAD_WASTE * outputs[0] * outputs[1]:
            return m
    return 0
