"""The tables and scratch sizes that the kernels of convolution take, made from the convolution's
window and the images' sizes.

A convolution is given by its `Window`. Its forward pass reads, for output pixel p, the input pixels
p stride + e_t, one for each tap t. Its gradient with respect to the input is the same thing with
the roles exchanged: input pixels that lie equally with respect to the stride ("a phase") read the
same taps of dy, at stride 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from layers.checks import Pair
from layers.kernels import conv, conv_columns, winograd
from layers.kernels import depthwise as depthwise_kernels
from layers.kernels.conv_tiles import PANEL
from layers.kernels.llvm.simd_conv import RUN
from layers.kernels.machine import (
    BAND_BYTES,
    DEPTHWISE_BAND_BYTES,
    GRADIENT_BAND_BYTES,
    VECTOR_BYTES,
    WINOGRAD_BYTES,
)
from layers.kernels.records import table
from layers.types import Array, Integers

# The most multiply-adds that follow one another in a sum: a longer one is made of chains, whose
# sums are added. The error of a sum grows with the root of its length; one chain is enough for the
# 3 x 3 windows of 16 channels.
CHAIN = 144


@dataclass(frozen=True)
class Axis:
    """One axis of a window: kernel size, stride, padding before and after, dilation."""

    size: int
    stride: int
    before: int
    after: int
    dilation: int

    @property
    def span(self) -> int:
        """Pixels from the first to the last tap."""
        return (self.size - 1) * self.dilation + 1

    def output(self, length: int) -> int:
        """Return the number of output pixels."""
        return (length + self.before + self.after - self.span) // self.stride + 1

    def forward(self) -> list[list[Pair]]:
        """Return the one phase: (tap, offset of the input pixel)."""
        return [[(k, k * self.dilation - self.before) for k in range(self.size)]]

    def backward(self) -> list[list[Pair]]:
        """Return for each phase of the input pixels (tap, offset of the output pixel), by ascending
        offset.
        """
        phases = []
        for a in range(self.stride):
            taps = [(k, a + self.before - k * self.dilation) for k in range(self.size)]
            phases.append(
                sorted(
                    ((k, e // self.stride) for k, e in taps if e % self.stride == 0),
                    key=lambda tap: tap[1],
                )
            )
        return phases


@dataclass(frozen=True)
class Window:
    """What a convolution looks at."""

    rows: Axis
    columns: Axis
    groups: int = 1

    def output(self, height: int, width: int) -> Pair:
        """Return rows and columns of the output."""
        return self.rows.output(height), self.columns.output(width)


@dataclass(frozen=True)
class ConvShape:
    """What a convolution maps: images (rows, columns) of channels[0] to outputs (rows, columns) of
    channels[1].
    """

    window: Window
    image: Pair
    outputs: Pair
    channels: Pair

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The window's axes."""
        return self.window.rows, self.window.columns

    @property
    def taps(self) -> int:
        """The number of taps."""
        return self.window.rows.size * self.window.columns.size

    @property
    def steps(self) -> Pair:
        """The strides."""
        return self.window.rows.stride, self.window.columns.stride


@dataclass(frozen=True)
class Band:
    """Where the padded band begins and how large it is."""

    top: int
    left: int
    width: int
    span: int
    copied: bool

    @staticmethod
    def around(
        rows: list[list[Pair]], columns: list[list[Pair]], steps: Pair, image: Pair, outputs: Pair
    ) -> "Band":
        """Return the band that holds every pixel which any phase reads; outputs are those of the
        largest phase.
        """
        offsets = [[e for phase in phases for _, e in phase] or [0] for phases in (rows, columns)]
        (top, bottom), (left, right) = ((-min(e), max(e)) for e in offsets)
        span, width = bottom + top + 1, (outputs[1] - 1) * steps[1] + right + left + 1
        whole = (
            top == 0
            and left == 0
            and (outputs[0] - 1) * steps[0] + bottom < image[0]
            and width <= image[1]
        )
        return Band(top, left, image[1] if whole else width, span, not whole)

    def rows(self, bytes_: int, row_bytes: int, steps: int, outputs: int) -> int:
        """Return how many output rows a band of about so many bytes serves."""
        return max(1, min(outputs, (bytes_ // max(1, row_bytes) - self.span) // steps + 1))

    def plan(self, rows: int, groups: int, step: Pair, out_step: Pair = (1, 1)) -> Array:
        """Return the `kernels.conv.PLAN` of a band that serves so many output rows."""
        return table(
            conv.PLAN,
            [
                {
                    "row_step": step[0],
                    "step": step[1],
                    "row_out_step": out_step[0],
                    "out_step": out_step[1],
                    "groups": groups,
                    "top": self.top,
                    "left": self.left,
                    "width": self.width,
                    "band_rows": rows,
                    "span": self.span,
                    "copied": self.copied,
                }
            ],
        )

    def size(self, rows: int, step: int, channels: int) -> int:
        """Return the elements of the copy that serves so many output rows."""
        return ((rows - 1) * step + self.span) * self.width * channels if self.copied else 0


@dataclass(frozen=True)
class Correlation:
    """The tables of `kernels.conv.correlate`: its phases, runs and plan.

    `order` are the taps of all phases as numbers in the weight; then come the elements of the
    scratch and of the packed weights.
    """

    phases: Array
    runs: Array
    order: Integers
    plan: Array
    band_size: int
    packed_size: int


class Geometry:
    """What a map, or its adjoint, reads and writes: sizes, the band, and the phases of pixels."""

    def __init__(self, shape: ConvShape, *, backward: bool) -> None:
        window = shape.window
        if backward:
            image, outputs, channels = shape.outputs, shape.image, shape.channels[::-1]
            rows, columns = window.rows.backward(), window.columns.backward()
            step, out_step = (1, 1), shape.steps
        else:
            image, outputs, channels = shape.image, shape.outputs, shape.channels
            rows, columns = window.rows.forward(), window.columns.forward()
            step, out_step = shape.steps, (1, 1)
        self.window = window
        self.outputs = outputs
        self.channels = channels
        self.rows = rows
        self.columns = columns
        self.step = step
        self.out_step = out_step
        self.largest = (-(-outputs[0] // out_step[0]), -(-outputs[1] // out_step[1]))
        self.band = Band.around(rows, columns, step, image, self.largest)

    def phases(self) -> Iterator["Phase"]:
        """Yield the phases that have pixels."""
        for a, in_rows in enumerate(self.rows):
            for b, in_columns in enumerate(self.columns):
                count = (
                    -(-(self.outputs[0] - a) // self.out_step[0]),
                    -(-(self.outputs[1] - b) // self.out_step[1]),
                )
                if min(count) > 0:
                    yield self._phase((a, b), count, in_rows, in_columns)

    def _phase(self, at: Pair, count: Pair, in_rows: list[Pair], in_columns: list[Pair]) -> "Phase":
        band, offsets = self.band, [e for _, e in in_columns]
        # Taps at neighbouring pixels are one run of adjacent elements.
        joined = self.window.groups == 1 and all(f - e == 1 for e, f in pairwise(offsets))
        taps_of_run = len(offsets) if joined and offsets else 1
        starts = [
            ((e + band.top) * band.width + offsets[i] + band.left) * self.channels[0]
            for _, e in in_rows
            for i in range(0, len(offsets), taps_of_run)
        ]
        taps = [k * self.window.columns.size + q for k, _ in in_rows for q, _ in in_columns]
        reached = [e for _, e in in_rows]
        fields = {
            "row": at[0],
            "column": at[1],
            "rows": count[0],
            "columns": count[1],
            "taps": len(taps),
            "tap_rows": len(reached),
            "tap_offset": reached[0] if reached else 0,
            "tap_distance": reached[1] - reached[0] if len(reached) > 1 else 1,
        }
        return Phase(fields, taps, starts, taps_of_run)


@dataclass(frozen=True)
class Phase:
    """Pixels that lie equally with respect to the stride.

    Attributes
    ----------
    fields
        Those of `kernels.conv.PHASE` but `runs`.
    taps
        The taps that they read, as numbers in the weight.
    starts
        The element of the band where each run of taps begins.
    taps_of_run
        The taps of a run.
    """

    fields: dict[str, int]
    taps: list[int]
    starts: list[int]
    taps_of_run: int


def correlation(shape: ConvShape, itemsize: int, *, backward: bool) -> Correlation:
    """Return the tables of the map, or of its adjoint."""
    of, groups = Geometry(shape, backward=backward), shape.window.groups
    lanes = VECTOR_BYTES // itemsize
    channels, step, largest, band = of.channels, of.step, of.largest, of.band
    read, written = channels[0] // groups, channels[1] // groups
    phases: list[dict[str, int]] = []
    runs: list[dict[str, int]] = []
    order: list[int] = []
    for phase in of.phases():
        spans = _runs(phase.starts, phase.taps_of_run * read)
        runs += [
            {
                "a": start * itemsize,
                "b": row * vectors * lanes * itemsize,
                "length": length,
                "ends": ends,
            }
            for vectors in (1, PANEL)
            for start, row, length, ends in spans
        ]
        phases.append({**phase.fields, "runs": len(spans)})
        order += phase.taps
    band_rows = band.rows(BAND_BYTES, band.width * channels[0] * itemsize, step[0], largest[0])
    return Correlation(
        table(conv.PHASE, phases),
        table(RUN, runs),
        np.array(order, np.int64),
        band.plan(band_rows, groups, step, of.out_step),
        band.size(band_rows, step[0], channels[0]),
        groups * len(order) * read * -(-written // lanes) * lanes,
    )


def _runs(starts: list[int], length: int) -> list[tuple[int, int, int, bool]]:
    """Return runs of at most CHAIN elements, those from `starts` on cut in equal parts: the first
    element, the row of the panel, the length, and whether a chain ends with it.

    As many runs as fit CHAIN are one chain; the last run needs no end.
    """
    parts = -(-length // CHAIN)
    cuts = [length * i // parts for i in range(parts + 1)]
    runs = [
        (start + first, t * length + first, stop - first)
        for t, start in enumerate(starts)
        for first, stop in pairwise(cuts)
    ]
    if not runs:
        return []
    chains = -(-len(runs) // (CHAIN // max(n for *_, n in runs)))
    of_chain = -(-len(runs) // chains)
    last = len(runs) - 1
    return [(*run, (i + 1) % of_chain == 0 and i < last) for i, run in enumerate(runs)]


@dataclass(frozen=True)
class WeightGradient:
    """The tables of `kernels.conv.weight_gradient`, and the elements of its scratch."""

    offsets: Integers
    runs: Array
    plan: Array
    band_size: int
    last_size: int


def weight_gradient(shape: ConvShape, itemsize: int) -> WeightGradient:
    """Return the tables of the weight's gradient."""
    (rows,), (columns,) = shape.window.rows.forward(), shape.window.columns.forward()
    step, (inputs, outputs) = shape.steps, shape.channels
    band = Band.around([rows], [columns], step, shape.image, shape.outputs)
    pixels = [(e + band.top) * band.width + f + band.left for _, e in rows for _, f in columns]
    within = np.arange(inputs // shape.window.groups)
    offsets = np.add.outer(np.array(pixels, np.int64) * inputs, within).reshape(-1) * itemsize
    read, given = step[0] * band.width * inputs * itemsize, shape.outputs[1] * outputs * itemsize
    band_rows = max(1, min(shape.outputs[0], GRADIENT_BAND_BYTES // (read + given)))
    runs = [
        {"a": r * read, "b": r * given, "length": shape.outputs[1], "ends": 0}
        for r in range(band_rows)
    ]
    return WeightGradient(
        offsets,
        table(RUN, runs),
        band.plan(band_rows, shape.window.groups, step),
        band.size(band_rows, step[0], inputs),
        band_rows * shape.outputs[1] * outputs + VECTOR_BYTES // itemsize,
    )


@dataclass(frozen=True)
class Columns:
    """The table and scratch shapes of `kernels.conv_columns.input_gradient`."""

    plan: Array
    padded: Pair
    panels: int
    planes: Pair


def columns(shape: ConvShape, itemsize: int) -> Columns:
    """Return them for the gradient of the images."""
    (inputs, outputs), (rows_axis, columns_axis) = shape.channels, shape.axes
    rows, pitch = (
        max(count - 1 + axis.span, size + axis.before)
        for count, size, axis in zip(shape.outputs, shape.image, shape.axes, strict=True)
    )
    lanes = VECTOR_BYTES // itemsize
    pixels = -(-shape.outputs[0] * pitch // lanes) * lanes
    # The last tap's run, whose end may lie beyond the image.
    last = sum(
        (axis.size - 1) * axis.dilation * step
        for axis, step in zip(shape.axes, (pitch, 1), strict=True)
    )
    length = max(rows * pitch, last + pixels)
    plan = {
        "row_dilation": rows_axis.dilation,
        "column_dilation": columns_axis.dilation,
        "top": rows_axis.before,
        "left": columns_axis.before,
        "pitch": pitch,
    }
    return Columns(
        table(conv_columns.PLAN, [plan]),
        (pixels, outputs),
        pixels * outputs,
        (inputs, length),
    )


@dataclass(frozen=True)
class Winograd:
    """The table and scratch sizes, in elements, of `kernels.winograd`."""

    m: int
    plan: Array
    patch: int
    v: int
    products: int
    packed: int


def winograd_tables(
    padding: Pair, outputs: Pair, channels: Pair, itemsize: int, m: int
) -> Winograd:
    """Return them for reading channels[0] with this padding (above, left) and writing outputs
    (rows, columns) of channels[1].
    """
    grid = [-(-size // m) for size in outputs]
    frequencies = (m + 2) ** 2
    row_bytes = frequencies * grid[1] * sum(channels) * itemsize
    block = max(1, WINOGRAD_BYTES // row_bytes)
    skew = winograd.SKEW // itemsize
    v, products = (frequencies * (block * grid[1] * count + skew) for count in channels)
    return Winograd(
        m,
        table(winograd.PLAN, [{"top": padding[0], "left": padding[1], "block": block}]),
        (m + 2) ** 2 * max(channels),
        v,
        products,
        frequencies * channels[0] * channels[1],
    )


@dataclass(frozen=True)
class Depthwise:
    """The table of `kernels.depthwise`, and the elements of a band."""

    plan: Array
    band_size: int


def depthwise(shape: ConvShape, itemsize: int, *, backward: bool) -> Depthwise:
    """Return them for the map, or for its adjoint."""
    rows, columns = shape.axes
    channels = shape.channels[1]
    repeat = channels // shape.channels[0]
    if backward:
        written, steps, spread = shape.image, (1, 1), shape.steps
        top, left = (axis.span - 1 - axis.before for axis in shape.axes)
    else:
        written, steps, spread = shape.outputs, shape.steps, (1, 1)
        top, left = (axis.before for axis in shape.axes)
    width = (written[1] - 1) * steps[1] + columns.span
    copied = spread != (1, 1) or (repeat > 1 and not backward)
    fitting = DEPTHWISE_BAND_BYTES // (width * channels * itemsize)
    band_rows = max(1, min(written[0], (fitting - rows.span) // steps[0] + 1))
    plan = {
        "row_step": steps[0],
        "step": steps[1],
        "height": rows.size,
        "width": columns.size,
        "row_dilation": rows.dilation,
        "dilation": columns.dilation,
        "top": top,
        "left": left,
        "band_width": width,
        "band_rows": band_rows,
        "row_spread": spread[0],
        "spread": spread[1],
        "repeat": 1 if backward else repeat,
        "fold": repeat if backward else 1,
        "copied": copied,
    }
    size = ((band_rows - 1) * steps[0] + rows.span) * width * channels if copied else 0
    return Depthwise(table(depthwise_kernels.PLAN, [plan]), size)
