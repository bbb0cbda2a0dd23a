"""Depthwise convolution, channels-last: every channel is convolved by itself, with one or more
outputs each.

Letters: x (N, H, W, C), y (N, P, Q, K), weight (taps, K); output k reads channel k // (K / C).
Windows are clipped at the border of the image: pixels with all their taps in it are computed
together, the others one by one. With several outputs per channel a band of rows is copied into
scratch, each channel K / C times. The gradient of the input is the same convolution of dy, with the
taps in the opposite order, and dy spread out by the stride.
"""

from .conv import copy_band
from .jit import inlined, kernel
from .llvm.simd_depthwise import gradient_of_taps, row_of_taps
from .llvm.vmath import constant
from .machine import VECTOR_BYTES


@inlined
def _fill_band(band, image, first, rows, left, width, row_spread, column_spread, repeat):
    """Write rows first..first+rows of an image, spread out with zeros between and its channels
    repeated; zeros outside.
    """
    if row_spread == 1 and column_spread == 1 and repeat == 1:
        copy_band(band, image, first, rows, left, width)
        return
    height, inside, channels = image.shape
    outputs = channels * repeat
    band[: rows * width * outputs] = constant(band, "zero")
    for r in range(rows):
        i = first + r
        if i < 0 or i % row_spread or i // row_spread >= height:
            continue
        for j in range(inside):
            v = j * column_spread + left
            if 0 <= v < width:
                of = image[i // row_spread, j]
                to = band[(r * width + v) * outputs : (r * width + v + 1) * outputs]
                if repeat == 1:
                    for c in range(channels):
                        to[c] = of[c]
                else:
                    for c in range(channels):
                        for q in range(repeat):
                            to[c * repeat + q] = of[c]


@inlined
def _clipped(start, size, dilation, limit):
    """Return the first of the taps start, start + dilation, … that lies in 0..limit, and how many
    do.
    """
    first = 0 if start >= 0 else (dilation - 1 - start) // dilation
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
def correlate(y, x, weight, bias, numbers, band, packed, line, transposed, rectified):
    """Writes y[p, k] = sum over taps t of x[p step + t dilation - padding, k // repeat] weight[t,
    k] + bias[k].

    Transposed: taps in the opposite order and, if K / C is not 1, y (N, P, Q, C) is the sum over
    the K / C outputs of a channel. `numbers` are those of `conv_plan.Depthwise`. Scratch: band,
    packed (taps K,), line (Q K,). Rectified: max(y, 0) instead.
    """
    size = y.itemsize
    lanes = VECTOR_BYTES // size
    (
        step_rows,
        step,
        height,
        width,
        row,
        column,
        top,
        left,
        pitch,
        band_rows,
        row_spread,
        column_spread,
        repeat,
        fold,
        copied,
    ) = numbers
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
    for n in range(len(y)):
        for first in range(0, out_rows, band_rows):
            rows = min(band_rows, out_rows - first)
            if copied:
                seen_rows, seen_columns = (rows - 1) * step_rows + (height - 1) * row + 1, pitch
                _fill_band(
                    band,
                    x[n],
                    first * step_rows - top,
                    seen_rows,
                    left,
                    pitch,
                    row_spread,
                    column_spread,
                    repeat,
                )
                source, origin, edge = band.ctypes.data, 0, 0
            else:
                seen_rows, seen_columns = x.shape[1], x.shape[2]
                source, origin, edge = x[n].ctypes.data, first * step_rows - top, left
            inner, outer = _inner(out_columns, edge, step, width, column, seen_columns)
            for r in range(rows):
                above = origin + r * step_rows
                tap, tap_rows = _clipped(above, height, row, seen_rows)
                into = line.ctypes.data if fold > 1 else y[n, first + r].ctypes.data
                j = 0
                while j < out_columns:
                    pixels = outer - inner if j == inner else 1
                    before = j * step - edge
                    across, tap_columns = (
                        (0, width) if j == inner else _clipped(before, width, column, seen_columns)
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
                            packed.ctypes.data + weights + k * size,
                            width * pixel,
                            pixel,
                            pixels,
                            row * seen_columns * pixel,
                            column * pixel,
                            tap_rows,
                            tap_columns,
                            min(lanes, channels - k),
                            bias.ctypes.data + k * size if bias.size and fold == 1 else 0,
                            1 if rectified and fold == 1 else 0,
                        )
                    j += pixels
                if fold > 1:
                    _fold(y[n, first + r], line, bias, fold, rectified)


@kernel
def weight_gradient(dw, dy, x, bounds, numbers, band, part, add_weight):
    """Writes (adds, if so said) for each shard dw[t, k] = sum over its pixels p of x[p step + e_t,
    k // repeat] dy[p, k].

    e_t = t dilation - padding; dw (S, taps, K). The sum of each image starts from zero, in the
    scratch part (taps K,). Other scratch as in `correlate`.
    """
    size = dw.itemsize
    lanes = VECTOR_BYTES // size
    (
        step_rows,
        step,
        height,
        width,
        row,
        column,
        top,
        left,
        pitch,
        band_rows,
        row_spread,
        column_spread,
        repeat,
        _,
        copied,
    ) = numbers
    _, out_rows, out_columns, channels = dy.shape
    zero = constant(dw, "zero")
    pixel = channels * size
    for s in range(len(dw)):
        total = dw[s].reshape(part.size)
        if not add_weight:
            total[:] = zero
        for n in range(bounds[s], bounds[s + 1]):
            part[:] = zero
            for first in range(0, out_rows, band_rows):
                rows = min(band_rows, out_rows - first)
                if copied:
                    seen_rows, seen_columns = (rows - 1) * step_rows + (height - 1) * row + 1, pitch
                    _fill_band(
                        band,
                        x[n],
                        first * step_rows - top,
                        seen_rows,
                        left,
                        pitch,
                        row_spread,
                        column_spread,
                        repeat,
                    )
                    source, origin, edge = band.ctypes.data, 0, 0
                else:
                    seen_rows, seen_columns = x.shape[1], x.shape[2]
                    source, origin, edge = x[n].ctypes.data, first * step_rows - top, left
                inner, outer = _inner(out_columns, edge, step, width, column, seen_columns)
                for r in range(rows):
                    above = origin + r * step_rows
                    tap, tap_rows = _clipped(above, height, row, seen_rows)
                    j = 0
                    while j < out_columns:
                        pixels = outer - inner if j == inner else 1
                        before = j * step - edge
                        across, tap_columns = (
                            (0, width)
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
                                part.ctypes.data + weights + k * size,
                                width * pixel,
                                pixel,
                                dy[n, first + r, j].ctypes.data + k * size,
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
            for i in range(part.size):
                total[i] += part[i]
