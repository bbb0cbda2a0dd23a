"""The tables and scratch sizes that the kernels of convolution take, made from the convolution's
window and the images' sizes.

A convolution is given by its `Window`. Its forward pass reads, for output pixel p, the input pixels
p stride + e_t, one for each tap t. Its gradient with respect to the input is the same thing with
the roles exchanged: input pixels that lie equally with respect to the stride ("a phase") read the
same taps of dy, at stride 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from layers.checks import Pair
from layers.kernels.conv import PANEL
from layers.kernels.machine import VECTOR_BYTES
from layers.kernels.winograd import SKEW
from layers.types import Integers

# Bytes of a padded band of rows: it shall stay in the second-level cache together with the output.
BAND_BYTES = 128 * 1024
# Of the weight's gradient, which reads a band once for each tap: it shall stay in the first level,
# with the band of dy.
GRADIENT_BAND_BYTES = 48 * 1024


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


@dataclass(frozen=True)
class Correlation:
    """The tables of `kernels.conv.correlate`.

    Attributes
    ----------
    phases
        Of each phase: first output row and column, number of rows and columns, first and last tap
        in `order`, first and last entry in half of its part of `taps`, the number of adjacent
        elements at an entry, and of the rows of taps their number, the first one's offset and their
        distance.
    taps
        Of each phase the offsets in bytes into a band and into a panel of weights: first for panels
        of one vector, then of PANEL.
    order
        The taps of all phases as numbers in the weight.
    numbers
        Scalars of the kernel.
    band_size, packed_size
        Elements of the scratch and of the packed weights.
    """

    phases: Integers
    taps: Integers
    order: Integers
    numbers: Integers
    band_size: int
    packed_size: int


def correlation(
    window: Window, image: Pair, outputs: Pair, channels: Pair, itemsize: int, *, backward: bool
) -> Correlation:
    """Return the tables for reading an image (rows, columns) of channels[0] and writing outputs
    (rows, columns) of channels[1].
    """
    kernel_columns = window.columns.size
    read, written = channels[0] // window.groups, channels[1] // window.groups
    lanes = VECTOR_BYTES // itemsize
    if backward:
        rows, columns, step, out_step = (
            window.rows.backward(),
            window.columns.backward(),
            (1, 1),
            _steps(window),
        )
    else:
        rows, columns, step, out_step = (
            window.rows.forward(),
            window.columns.forward(),
            _steps(window),
            (1, 1),
        )
    largest = (-(-outputs[0] // out_step[0]), -(-outputs[1] // out_step[1]))
    band = Band.around(rows, columns, step, image, largest)
    phases: list[Any] = []
    taps: list[Pair] = []
    order: list[int] = []
    packed = 0
    for a, in_rows in enumerate(rows):
        for b, in_columns in enumerate(columns):
            count = (-(-(outputs[0] - a) // out_step[0]), -(-(outputs[1] - b) // out_step[1]))
            if min(count) < 1:
                continue
            offsets = [e for _, e in in_columns]
            # Taps at neighbouring pixels are one run of adjacent elements.
            joined = (
                window.groups == 1 and offsets == list(range(offsets[0], offsets[0] + len(offsets)))
                if offsets
                else False
            )
            run = len(offsets) if joined else 1
            starts = [
                ((e + band.top) * band.width + in_columns[i][1] + band.left)
                * channels[0]
                * itemsize
                for _, e in in_rows
                for i in range(0, len(in_columns), run)
            ]
            first = len(taps)
            for vectors in (1, PANEL):
                taps += [
                    (start, t * run * read * vectors * lanes * itemsize)
                    for t, start in enumerate(starts)
                ]
            numbers = [k * kernel_columns + q for k, _ in in_rows for q, _ in in_columns]
            reached = [e for _, e in in_rows]
            apart = reached[1] - reached[0] if len(reached) > 1 else 1
            tap_rows = (len(reached), reached[0] if reached else 0, apart)
            ends = (len(order), len(order) + len(numbers), first, first + len(starts))
            phases.append((a, b, *count, *ends, run * read, *tap_rows))
            order += numbers
            packed += window.groups * len(numbers) * read * -(-written // lanes) * lanes
    band_rows = band.rows(BAND_BYTES, band.width * channels[0] * itemsize, step[0], largest[0])
    scalars = (
        *step,
        *out_step,
        window.groups,
        band.top,
        band.left,
        band.width,
        band_rows,
        band.span,
        band.copied,
    )
    size = ((band_rows - 1) * step[0] + band.span) * band.width * channels[0] if band.copied else 0
    return Correlation(
        _table(phases, 12),
        _table(taps, 2),
        np.array(order, np.int64),
        np.array(scalars, np.int64),
        size,
        packed,
    )


@dataclass(frozen=True)
class WeightGradient:
    """The tables of `kernels.conv.weight_gradient`: for each row of the gradient its offset in
    bytes into a band; scalars.

    Then the elements of its scratch.
    """

    offsets: Integers
    numbers: Integers
    band_size: int
    last_size: int


def weight_gradient(
    window: Window, image: Pair, outputs: Pair, channels: Pair, itemsize: int
) -> WeightGradient:
    """Return the tables for images (rows, columns) of channels[0] and gradients (rows, columns) of
    channels[1].
    """
    (rows,), (columns,) = window.rows.forward(), window.columns.forward()
    step = _steps(window)
    band = Band.around([rows], [columns], step, image, outputs)
    pixels = [(e + band.top) * band.width + f + band.left for _, e in rows for _, f in columns]
    offsets = (
        np.add.outer(
            np.array(pixels, np.int64) * channels[0], np.arange(channels[0] // window.groups)
        )
        * itemsize
    )
    row_bytes = (step[0] * band.width * channels[0] + outputs[1] * channels[1]) * itemsize
    band_rows = max(1, min(outputs[0], GRADIENT_BAND_BYTES // row_bytes))
    scalars = (
        *step,
        window.groups,
        band.top,
        band.left,
        band.width,
        band_rows,
        band.span,
        band.copied,
    )
    size = ((band_rows - 1) * step[0] + band.span) * band.width * channels[0] if band.copied else 0
    last = band_rows * outputs[1] * channels[1] + VECTOR_BYTES // itemsize
    return WeightGradient(offsets.reshape(-1), np.array(scalars, np.int64), size, last)


def _steps(window: Window) -> Pair:
    return window.rows.stride, window.columns.stride


def _table(rows: list[Any], columns: int) -> Integers:
    return np.array(rows, np.int64).reshape(-1, columns)


@dataclass(frozen=True)
class Columns:
    """Scalars and scratch shapes of `kernels.conv_columns.input_gradient`."""

    numbers: Integers
    padded: Pair
    panel: int
    columns: Pair
    planes: Pair


def columns(window: Window, image: Pair, outputs: Pair, channels: Pair, itemsize: int) -> Columns:
    """Return them for the gradient of an image (rows, columns) of channels[0], given outputs (rows,
    columns) of channels[1].
    """
    axes = (window.rows, window.columns)
    rows, pitch = (
        max(count - 1 + axis.span, size + axis.before)
        for count, size, axis in zip(outputs, image, axes, strict=True)
    )
    numbers = (*(axis.dilation for axis in axes), *(axis.before for axis in axes), pitch)
    panel = 2 * VECTOR_BYTES // itemsize
    pixels = -(-outputs[0] * pitch // panel) * panel
    size = (axes[0].size * axes[1].size * channels[0], pixels)
    scalars = np.array(numbers, np.int64)
    return Columns(
        scalars, (pixels, channels[1]), panel * channels[1], size, (channels[0], rows * pitch)
    )


# Bytes of the transformed tiles of a block and of their products.
WINOGRAD_BYTES = 192 * 1024


@dataclass(frozen=True)
class Winograd:
    """Scalars and scratch sizes, in elements, of `kernels.winograd`."""

    m: int
    numbers: Integers
    patch: int
    v: int
    products: int
    packed: int


def winograd(padding: Pair, outputs: Pair, channels: Pair, itemsize: int, m: int) -> Winograd:
    """Return them for reading channels[0] with this padding (above, left) and writing outputs
    (rows, columns) of channels[1].
    """
    grid = [-(-size // m) for size in outputs]
    frequencies = (m + 2) ** 2
    row_bytes = frequencies * grid[1] * sum(channels) * itemsize
    block = max(1, WINOGRAD_BYTES // row_bytes)
    v, products = (frequencies * (block * grid[1] * count + SKEW // itemsize) for count in channels)
    numbers = np.array((*padding, block), np.int64)
    return Winograd(
        m,
        numbers,
        (m + 2) ** 2 * max(channels),
        v,
        products,
        frequencies * channels[0] * channels[1],
    )


# Of depthwise convolution, which reads each element of a band once per tap and little else.
DEPTHWISE_BAND_BYTES = 64 * 1024


@dataclass(frozen=True)
class Depthwise:
    """Scalars of `kernels.depthwise`, and the elements of a band.

    The scalars: steps of rows and columns; rows and columns of taps, and their distance (dilation);
    padding above and left; columns of a band, its output rows; how far the pixels that are read are
    spread out, by rows and columns; how often a channel is repeated, how many outputs are summed;
    whether the band is a copy.
    """

    numbers: Integers
    band_size: int


def depthwise(
    window: Window, image: Pair, outputs: Pair, channels: Pair, itemsize: int, *, backward: bool
) -> Depthwise:
    """Return them for the map from images (rows, columns) of channels[0] to outputs of channels[1],
    or for its adjoint.
    """
    axes = (window.rows, window.columns)
    repeat = channels[1] // channels[0]
    if backward:
        written, steps = image, (1, 1)
        before, spread = (
            [axis.span - 1 - axis.before for axis in axes],
            [axis.stride for axis in axes],
        )
    else:
        written, steps = outputs, _steps(window)
        before, spread = [axis.before for axis in axes], [1, 1]
    pitch = (written[1] - 1) * steps[1] + window.columns.span
    copied = spread != [1, 1] or (repeat > 1 and not backward)
    row_bytes = pitch * channels[1] * itemsize
    band_rows = max(
        1, min(written[0], (DEPTHWISE_BAND_BYTES // row_bytes - window.rows.span) // steps[0] + 1)
    )
    of_taps = (*(axis.size for axis in axes), *(axis.dilation for axis in axes))
    repeats = (1, repeat) if backward else (repeat, 1)
    numbers = (*steps, *of_taps, *before, pitch, band_rows, *spread, *repeats, copied)
    size = ((band_rows - 1) * steps[0] + window.rows.span) * pitch * channels[1] if copied else 0
    return Depthwise(np.array(numbers, np.int64), size)
