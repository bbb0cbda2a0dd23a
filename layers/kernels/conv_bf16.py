"""Convolution in bfloat16, channels-last, as the product of unrolled windows with the weight.

A row of the left operand are the numbers that an output pixel reads: of each of its taps, in order,
each channel; so is a column of the weight. They are rounded as a band of an image's rows, with its
padding around it, is copied, and unrolled some pixels at a time into words that stay in the cache.
The inner index of a product is that of the numbers; in the gradient of the weight it is that of
pixels. See `gemm_bf16` for the order of its sums.

Letters and tables are those of `conv`; runs are records `numbers_bf16.RUN`. Scratch are words.
"""

import numpy as np

from .gemm_bf16 import turn
from .jit import inlined, kernel
from .llvm.memory import address_of
from .llvm.numbers_bf16 import RUN, copy_windows, write_numbers
from .llvm.vmath import constant
from .machine import WIDEST_VECTOR
from .products import pack_panels, packed_product, product

BLOCK = 32 * 1024
"""Numbers of unrolled windows at a time: they stay in the caches while the weight passes."""
LEAST_WINDOWS = 16
SLACK = 64
"""Bytes that may be written after a row of numbers."""
PIXELS = 256
"""Pixels whose sum is one product of the weight's gradient, from zero: of several images, or so
many whole rows of one. Part of the contract.
"""
WIDEST = WIDEST_VECTOR // 4
RUN_BYTES = RUN.itemsize


@inlined
def _rounded_band(band, image, first, rows, left, width):
    """Write rows first..first+rows of an image (H, W, C) as numbers, from `left` pixels left of it
    on, `width` pixels wide; zeros outside.
    """
    height, inside, channels = image.shape
    start, stop = max(0, -left), min(inside, width - left)
    stop = max(start, stop)
    before, after = (start + left) * channels, (stop + left) * channels
    size = width * channels
    for r in range(rows):
        row = band[r * size : (r + 1) * size]
        i = first + r
        there = 0 <= i < height
        for j in range(before if there else size):
            row[j] = 0
        if there:
            of = address_of(image) + (i * inside + start) * channels * image.itemsize
            write_numbers(image, address_of(row) + 2 * before, of, after - before)
            for j in range(after, size):
                row[j] = 0


@inlined
def _rectify(c):
    """Write max(c, 0) in place of c; NaN stays NaN."""
    zero = constant(c, "zero")
    for i in range(len(c)):
        row = c[i]
        for j in range(row.size):
            row[j] = zero + (zero if row[j] < zero else row[j])


@inlined
def _words_of(inner, n, multiple):
    """Return what `gemm_bf16.packed_size` returns."""
    filled = max(1, (inner + multiple - 1) // multiple) * multiple
    return filled // 2 * ((n + WIDEST - 1) // WIDEST * WIDEST)


@kernel
def pack(packed, weight, scratch, order, phases, groups, transposed, multiple):
    """Writes the panels of the weight, of its transpose if so, that `correlate` reads: for each
    phase and group those of a matrix of taps, in the order of `order`, times channels.

    weight (kernel rows, kernel columns, C / groups, K); scratch is for such a matrix of one group,
    if it is transposed; inner lengths are filled up to a `multiple`.
    """
    inner, outputs = weight.shape[2], weight.shape[3]
    outer = outputs // groups
    matrix = weight.reshape(-1, outputs)
    flat = weight.reshape(weight.size)
    turned = scratch.view(np.float32)
    start = at = np.int64(0)
    for f in range(len(phases)):
        taps = phases[f].taps
        for g in range(groups):
            if transposed:
                size = _words_of(taps * outer, inner, multiple)
                for i in range(taps):
                    of = flat[order[start + i] * inner * outputs + g * outer :]
                    turn(turned[i * outer * inner :], of, outputs, inner, outer)
                b = turned[: taps * outer * inner].reshape((taps * outer, inner))
                pack_panels(packed[at : at + size], b, False)
            else:
                size = _words_of(taps * inner, outer, multiple)
                b = matrix[:, g * outer : (g + 1) * outer]
                pack_panels(packed[at : at + size], b, False)
            at += size
        start += taps


@kernel
def correlate(y, x, packed, bias, phases, runs, plan, band, words, multiple, rectified):
    """Writes what `conv.correlate` writes, in bfloat16: `packed` comes from `pack`."""
    shape = plan[0]
    samples, out_rows, out_columns, outputs = y.shape
    inputs = x.shape[3]
    inner, outer = inputs // shape.groups, outputs // shape.groups
    numbers = band.view(np.uint16)
    rows_of_taps = words.view(np.uint16)
    source, to = address_of(band), address_of(words)
    most_rows = np.int64(0)
    for f in range(len(phases)):
        most_rows = max(most_rows, phases[f].rows)
    for n in range(samples):
        pixels = y[n].reshape((out_rows * out_columns, outputs))
        for first in range(0, most_rows, shape.band_rows):
            rows = min(shape.band_rows, most_rows - first)
            top = first * shape.row_step - shape.top
            height = (rows - 1) * shape.row_step + shape.span
            _rounded_band(numbers, x[n], top, height, shape.left, shape.width)
            at = np.int64(0)
            table = address_of(runs)
            for f in range(len(phases)):
                phase = phases[f]
                length = phase.taps * inner
                size = _words_of(length, outer, multiple)
                most = max(BLOCK // max(length, 1), LEAST_WINDOWS)
                # Rows of pixels that follow each other are multiplied together.
                whole = shape.row_out_step == shape.out_step == 1 and phase.columns == out_columns
                together = max(1, most // phase.columns) if whole else 1
                columns = min(phase.columns, most)
                stop = min(first + rows, phase.rows)
                for g in range(shape.groups):
                    panels = packed[at : at + size]
                    at += size
                    low, high = g * outer, (g + 1) * outer
                    add = bias[low:high] if bias.size else bias
                    for r in range(first, stop, together):
                        count = min(together, stop - r)
                        for q in range(0, phase.columns, columns):
                            width = min(columns, phase.columns - q)
                            for i in range(count):
                                above = (r - first + i) * shape.row_step * shape.width
                                pixel = above + q * shape.step
                                copy_windows(
                                    to + i * width * length * 2,
                                    length * 2,
                                    source + (pixel * inputs + g * inner) * 2,
                                    shape.step * inputs * 2,
                                    width,
                                    table,
                                    phase.runs,
                                )
                            begin = (
                                (phase.row + r * shape.row_out_step) * out_columns
                                + phase.column
                                + q * shape.out_step
                            )
                            end = begin + (count * width - 1) * shape.out_step + 1
                            c = pixels[begin : end : shape.out_step, low:high]
                            a = rows_of_taps[: count * width * length]
                            packed_product(
                                c, a.reshape((count * width, length)), panels, add, False
                            )
                            if rectified:
                                _rectify(c)
                table += phase.runs * RUN_BYTES


@kernel
def weight_gradient(
    dw, dy, x, bounds, runs, plan, like, band, numbers, gradients, total, add_weight
):
    """Writes (adds, if so said) for each shard the sums of `conv.weight_gradient`, in bfloat16.

    dy and x may be words of bfloat16. The inner index goes over the pixels of as many images as
    have PIXELS, or over those of so many whole rows of an image; such sums are added in order.
    `plan` says how many rows. Scratch: a band, the unrolled windows of those pixels, dy there, and
    the sums twice.
    """
    shape = plan[0]
    _, out_rows, out_columns, outputs = dy.shape
    inputs = x.shape[3]
    inner, outer = inputs // shape.groups, outputs // shape.groups
    length = dw.shape[1] * dw.shape[2] * inner
    size = outer * length
    together = max(1, PIXELS // max(out_rows * out_columns, 1))
    in_band, windows = band.view(np.uint16), numbers.view(np.uint16)
    of_dy, sums = gradients.view(np.uint16), total.view(np.float32)
    turned = sums[outputs * length :]
    zero = constant(dw, "zero")
    for s in range(len(dw)):
        for i in range(outputs * length):
            sums[i] = zero
        for n in range(bounds[s], bounds[s + 1], together):
            images = min(together, bounds[s + 1] - n)
            for first in range(0, out_rows, shape.band_rows):
                rows = min(shape.band_rows, out_rows - first)
                top = first * shape.row_step - shape.top
                height = (rows - 1) * shape.row_step + shape.span
                begin = (n * out_rows + first) * out_columns
                many = images * rows * out_columns
                of_image = height * shape.width * inputs
                for i in range(images):
                    to, image = in_band[i * of_image :], x[n + i]
                    _rounded_band(to, image, top, height, shape.left, shape.width)
                of = address_of(dy) + begin * outputs * dy.itemsize
                write_numbers(dy, address_of(of_dy), of, many * outputs)
                left = of_dy[: many * outputs].reshape((many, outputs))
                right = windows[: many * length].reshape((many, length))
                for g in range(shape.groups):
                    at = address_of(windows)
                    for i in range(images):
                        for r in range(rows):
                            above = r * shape.row_step * shape.width
                            number = i * of_image + above * inputs + g * inner
                            copy_windows(
                                at,
                                length * 2,
                                address_of(band) + number * 2,
                                shape.step * inputs * 2,
                                out_columns,
                                address_of(runs),
                                len(runs),
                            )
                            at += out_columns * length * 2
                    c = sums[g * size : (g + 1) * size].reshape((outer, length))
                    low, high = g * outer, (g + 1) * outer
                    product(like, c, left[:, low:high], True, right, False, True)
        for g in range(shape.groups):
            turn(turned, sums[g * size :], length, outer, length)
            for i in range(length):
                # Shards may lie apart: their arrays cannot be taken for matrices.
                tap, channel = i // inner, i % inner
                row, column = tap // dw.shape[2], tap % dw.shape[2]
                into = dw[s, row, column, channel, g * outer : (g + 1) * outer]
                of_row = turned[i * outer : (i + 1) * outer]
                for k in range(outer):
                    into[k] = into[k] + of_row[k] if add_weight else of_row[k]
