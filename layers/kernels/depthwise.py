"""Depthwise convolution, channels-last: every channel is convolved by itself, with one or more
outputs each.

Letters: x (N, H, W, C), y (N, P, Q, K), weight (taps, K); output k reads channel k // (K / C).
Windows are clipped at the border of the image: pixels with all their taps in it are computed
together, the others one by one. With several outputs per channel a band of rows is copied into
scratch, each channel K / C times. The gradient of the input is the same convolution of dy, with the
taps in the opposite order, and dy spread out by the stride.
"""

import numpy as np

from .conv_bands import copy_band
from .jit import inlined, kernel
from .llvm.memory import address_of
from .llvm.simd_depthwise import gradient_of_taps, row_of_taps
from .llvm.vmath import constant
from .machine import VECTOR_BYTES
from .records import record

# Steps of rows and of pixels in a row; rows and columns of taps, and their distance (dilation);
# padding above and left; columns of a band, the output rows that it serves; how far the pixels that
# are read are spread out, by rows and in a row; how often a channel is repeated, how many outputs
# are summed; whether the band is a copy.
PLAN = record(
    "row_step",
    "step",
    "height",
    "width",
    "row_dilation",
    "dilation",
    "top",
    "left",
    "band_width",
    "band_rows",
    "row_spread",
    "spread",
    "repeat",
    "fold",
    "copied",
)


@inlined
def _fill_band(band, image, first, rows, plan):
    """Write rows first..first+rows of an image, spread out with zeros between and its channels
    repeated; zeros outside.
    """
    width, repeat = plan.band_width, plan.repeat
    if plan.row_spread == 1 and plan.spread == 1 and repeat == 1:
        copy_band(band, image, first, rows, plan.left, width)
        return
    height, inside, channels = image.shape
    outputs = channels * repeat
    band[: rows * width * outputs] = constant(band, "zero")
    for r in range(rows):
        i = first + r
        if i < 0 or i % plan.row_spread or i // plan.row_spread >= height:
            continue
        for j in range(inside):
            v = j * plan.spread + plan.left
            if 0 <= v < width:
                of = image[i // plan.row_spread, j]
                to = band[(r * width + v) * outputs : (r * width + v + 1) * outputs]
                if repeat == 1:
                    for c in range(channels):
                        to[c] = of[c]
                else:
                    for c in range(channels):
                        for q in range(repeat):
                            to[c * repeat + q] = of[c]


@inlined
def _rows_read(band, x, n, first, rows, plan):
    """Return the address of what output rows first..first+rows of image n are computed from, the
    image or a band; its rows and columns; and of the first output pixel's window the row, and the
    column with the sign turned.
    """
    if plan.copied:
        height = (rows - 1) * plan.row_step + (plan.height - 1) * plan.row_dilation + 1
        _fill_band(band, x[n], first * plan.row_step - plan.top, height, plan)
        return address_of(band), height, plan.band_width, np.int64(0), np.int64(0)
    top = first * plan.row_step - plan.top
    return address_of(x[n]), x.shape[1], x.shape[2], top, plan.left


@inlined
def _clipped(start, size, dilation, limit):
    """Return the first of the taps start, start + dilation, … that lies in 0..limit, and how many
    do.
    """
    first = max(0, dilation - 1 - start) // dilation
    stop = min(size, (limit - 1 - start) // dilation + 1)
    return first, max(0, stop - first)


@inlined
def _inner(columns, left, step, size, dilation, limit):
    """Return the first column with all taps inside, and the one after the last."""
    first = max(0, (left + step - 1) // step)
    stop = min(columns, (limit - 1 - (size - 1) * dilation + left) // step + 1)
    return (first, stop) if first < stop else (columns, columns)


@inlined
def _fold(y, line, bias, repeat, rectified):
    """Write to a row of pixels (Q, C) the sums of `repeat` neighbouring numbers of a line, plus the
    bias.
    """
    channels = y.shape[1]
    zero = constant(y, "zero")
    for j in range(len(y)):
        of = line[j * channels * repeat : (j + 1) * channels * repeat]
        for c in range(channels):
            total = bias[c] if bias.size else zero
            for q in range(repeat):
                total += of[c * repeat + q]
            y[j, c] = zero if rectified and total <= zero else total


@kernel
def correlate(y, x, weight, bias, plan, band, packed, line, transposed, rectified):
    """Writes y[p, k] = sum over taps t of x[p step + t dilation - padding, k // repeat] weight[t,
    k] + bias[k].

    Transposed: taps in the opposite order and, if K / C is not 1, y (N, P, Q, C) is the sum over
    the K / C outputs of a channel. `plan` is one record PLAN. Scratch: band, packed (taps K,), line
    (Q K,). Rectified: max(y, 0) instead.
    """
    size = y.itemsize
    lanes = VECTOR_BYTES // size
    shape = plan[0]
    row, column = shape.row_dilation, shape.dilation
    step, height, width, fold = shape.step, shape.height, shape.width, shape.fold
    taps, channels = weight.shape
    for t in range(taps):
        to, of = (
            packed[t * channels : (t + 1) * channels],
            weight[taps - 1 - t if transposed else t],
        )
        for k in range(channels):
            to[k] = of[k]
    _, out_rows, out_columns, _ = y.shape
    pixel = channels * size
    finish = fold == 1
    of_bias = np.int64(bias.ctypes.data if bias.size and finish else 0)
    rectify = np.int64(1 if rectified and finish else 0)
    for n in range(len(y)):
        for first in range(0, out_rows, shape.band_rows):
            rows = min(shape.band_rows, out_rows - first)
            source, seen_rows, seen_columns, origin, edge = _rows_read(
                band, x, n, first, rows, shape
            )
            inner, outer = _inner(out_columns, edge, step, width, column, seen_columns)
            for r in range(rows):
                above = origin + r * shape.row_step
                tap, tap_rows = _clipped(above, height, row, seen_rows)
                into = np.int64(line.ctypes.data if fold > 1 else y[n, first + r].ctypes.data)
                j = np.int64(0)
                while j < out_columns:
                    pixels = outer - inner if j == inner else np.int64(1)
                    before = j * step - edge
                    across, tap_columns = (
                        (np.int64(0), width)
                        if j == inner
                        else _clipped(before, width, column, seen_columns)
                    )
                    at = (
                        source
                        + ((above + tap * row) * seen_columns + before + across * column) * pixel
                    )
                    weights = (tap * width + across) * pixel
                    for k in range(0, channels, lanes):
                        row_of_taps(
                            y,
                            into + j * pixel + k * size,
                            pixel,
                            at + k * size,
                            step * pixel,
                            address_of(packed) + weights + k * size,
                            width * pixel,
                            pixel,
                            pixels,
                            row * seen_columns * pixel,
                            column * pixel,
                            tap_rows,
                            tap_columns,
                            min(lanes, channels - k),
                            of_bias + k * size if of_bias else np.int64(0),
                            rectify,
                        )
                    j += pixels
                if fold > 1:
                    _fold(y[n, first + r], line, bias, fold, rectified)


@kernel
def weight_gradient(dw, dy, x, bounds, plan, band, part, add_weight):
    """Writes (adds, if so said) for each shard dw[t, k] = sum over its pixels p of x[p step + e_t,
    k // repeat] dy[p, k].

    e_t = t dilation - padding; dw (S, taps, K). The sum of each image starts from zero, in the
    scratch part (taps K,). Other scratch as in `correlate`.
    """
    size = dw.itemsize
    lanes = VECTOR_BYTES // size
    shape = plan[0]
    row, column = shape.row_dilation, shape.dilation
    step, height, width = shape.step, shape.height, shape.width
    _, out_rows, out_columns, channels = dy.shape
    zero = constant(dw, "zero")
    pixel = channels * size
    for s in range(len(dw)):
        total = dw[s]
        if not add_weight:
            total[:] = zero
        for n in range(bounds[s], bounds[s + 1]):
            part[:] = zero
            for first in range(0, out_rows, shape.band_rows):
                rows = min(shape.band_rows, out_rows - first)
                source, seen_rows, seen_columns, origin, edge = _rows_read(
                    band, x, n, first, rows, shape
                )
                inner, outer = _inner(out_columns, edge, step, width, column, seen_columns)
                for r in range(rows):
                    above = origin + r * shape.row_step
                    tap, tap_rows = _clipped(above, height, row, seen_rows)
                    j = np.int64(0)
                    while j < out_columns:
                        pixels = outer - inner if j == inner else np.int64(1)
                        before = j * step - edge
                        across, tap_columns = (
                            (np.int64(0), width)
                            if j == inner
                            else _clipped(before, width, column, seen_columns)
                        )
                        at = (
                            source
                            + ((above + tap * row) * seen_columns + before + across * column)
                            * pixel
                        )
                        weights = (tap * width + across) * pixel
                        for k in range(0, channels, lanes):
                            gradient_of_taps(
                                dw,
                                address_of(part) + weights + k * size,
                                width * pixel,
                                pixel,
                                np.int64(dy[n, first + r, j].ctypes.data) + k * size,
                                pixel,
                                at + k * size,
                                step * pixel,
                                pixels,
                                row * seen_columns * pixel,
                                column * pixel,
                                tap_rows,
                                tap_columns,
                                min(lanes, channels - k),
                            )
                        j += pixels
            for t in range(len(total)):
                into = total[t]
                for k in range(into.size):
                    into[k] += part[t * into.size + k]
