"""The algorithms of computing a convolution, and the choice among them by shape, in this one place.

The measurements behind the choice are in docs/performance.md.
"""

from functools import cached_property
from typing import Any

import numpy as np

from layers.checks import Pair
from layers.engine.precision import BF16_DOT, FLOAT32, Precision
from layers.kernels import conv, conv_columns, depthwise, winograd
from layers.kernels.machine import WIDEST_VECTOR
from layers.types import Array, Integers

from . import tables
from .algorithm import ConvAlgorithm
from .tables import ConvShape
from .unrolled import Unrolled

ALGORITHMS = ("default", "fastest", "direct")
# Winograd's transforms pay from this many channels on, and while partial tiles at the border waste
# at most this factor.
WINOGRAD_CHANNELS = 16
WINOGRAD_WASTE = 1.5
# From so many inner indices and outputs on dot products take less time than `Direct`: rounding and
# unrolling costs the same for few outputs. Nowhere do they take less than Winograd's transforms.
DOT_INNER = 64
DOT_OUTPUTS = 16
# With fewer channels than this, the input's gradient leaves most of a vector empty.
FEW_CHANNELS = 8


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

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        plan = self._gradient
        scratch = call.scratch(self.dtype, plan.band_size, plan.last_size)
        call.run(
            conv.weight_gradient,
            dw,
            dy,
            x,
            bounds,
            plan.offsets,
            plan.runs,
            plan.plan,
            *scratch,
            add,
        )

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
        call.run(conv.pack, packed, weight, plan.order, plan.phases, groups, transposed)
        call.run(
            conv.correlate, y, x, packed, bias, plan.phases, plan.runs, plan.plan, band, rectified
        )


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
        scratch = call.scratch(self.dtype, plan.padded, plan.panels, plan.planes)
        call.run(conv_columns.input_gradient, dx, dy, weight, plan.plan, *scratch)


class Depthwise(ConvAlgorithm):
    """Every channel by itself, with one or more outputs each: sums over taps alone, vectors of
    channels.
    """

    @cached_property
    def _forward(self) -> tables.Depthwise:
        return tables.depthwise(self.shape, self.dtype.itemsize, backward=False)

    @cached_property
    def _backward(self) -> tables.Depthwise:
        return tables.depthwise(self.shape, self.dtype.itemsize, backward=True)

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        plan = self._forward
        band, part = call.scratch(self.dtype, plan.band_size, dw[0].size)
        call.run(
            depthwise.weight_gradient,
            dw.reshape(len(dw), -1, self.shape.channels[1]),
            dy,
            x,
            bounds,
            plan.plan,
            band,
            part,
            add,
        )

    def _correlate(
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
        call.run(
            depthwise.correlate,
            y,
            x,
            taps,
            bias,
            plan.plan,
            band,
            packed,
            line,
            transposed,
            rectified,
        )


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
        self._forward = tables.winograd_tables(before, shape.outputs, there, itemsize, sizes[0])
        self._backward = tables.winograd_tables(around, shape.image, back, itemsize, sizes[1])
        self._weight = tables.winograd_tables(before, shape.outputs, there, itemsize, sizes[2])

    def __repr__(self) -> str:
        return f"Winograd{self.sizes}"

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        plan = self._weight
        scratch = call.scratch(self.dtype, plan.patch, plan.v, plan.products, plan.packed)
        call.run(winograd.weight_gradient, dw, dy, x, bounds, plan.plan, *scratch, plan.m, add)

    def _correlate(
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
            call.run(np.copyto, zeros, 0)
            bias = zeros
        call.run(winograd.pack, packed, weight, turned, transposed, plan.m)
        call.run(
            winograd.correlate, y, x, packed, bias, plan.plan, patch, v, products, plan.m, rectified
        )


def choose(
    shape: ConvShape,
    dtype: Any,
    algorithm: str = "default",
    precision: Precision = FLOAT32,
    *,
    transposed: bool = False,
) -> ConvAlgorithm:
    """Return the algorithm for a convolution.

    The outputs may be fewer than the windows that fit: those of a transposed convolution with
    output padding are.

    In bfloat16 all are products of unrolled windows but those of single channels. Dot products are
    a way to be faster: where they are not, convolution stays in float32, as it does where operands
    would be split.

    "direct" never transforms. "default" takes Winograd's transforms where they pay and leave the
    gradients of whole networks no less accurate than PyTorch's: F(2 x 2) forward, F(4 x 4)
    backward. "fastest" takes F(4 x 4) both ways. Forward is the map, or its adjoint if
    `transposed`.
    """
    window, channels = shape.window, shape.channels
    if window.groups == channels[0] > 1:
        return Depthwise(shape, dtype)
    precision = precision.elsewhere
    if precision.words is None:
        return _in_float32(shape, dtype, algorithm, transposed)
    inner, outputs = shape.taps * channels[0] // window.groups, channels[1] // window.groups
    if precision is BF16_DOT:
        other = _in_float32(shape, dtype, algorithm, transposed)
        if type(other) is not Direct or inner < DOT_INNER or outputs < DOT_OUTPUTS:
            return other
    return Unrolled(shape, dtype, precision)


def _in_float32(shape: ConvShape, dtype: Any, algorithm: str, transposed: bool) -> ConvAlgorithm:
    window, channels = shape.window, shape.channels
    rows, columns = shape.axes
    plain = window.groups == rows.stride == columns.stride == rows.dilation == columns.dilation == 1
    lanes = WIDEST_VECTOR // np.dtype(dtype).itemsize
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
