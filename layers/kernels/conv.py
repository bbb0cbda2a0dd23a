"""Direct convolution, channels-last: output pixels times output channels, summed over taps and
input channels.

Forward, the gradient of the input and transposed convolution are one kernel, `correlate`, with
different tables (`layers. conv_plan` makes them). An image is copied, a band of rows at a time,
into a scratch with its padding around it, so that the microkernel meets no border; without padding
it is read in place.

Letters: x (N, H, W, C), y (N, P, Q, K), weight (kernel rows, kernel columns, C / groups, K).
"""

import numpy as np

from .gemm import pack_panel
from .jit import inlined, kernel
from .llvm.simd_conv import row_product, tap_product
from .llvm.vmath import constant
from .machine import VECTOR_BYTES

# Output channels of a panel, in vectors: 6 x 2 accumulators, 2 loads of b and a broadcast are 15
# registers of 16.
PANEL = 2


def _best_sizes(vectors, sizes):
    """Return for each number of pixels left, up to 64, which of the sizes of tiles comes next so
    that all take least time.

    A step of the inner loop takes half a cycle per multiply-add or load, and four at least: a sum
    waits for its last term.
    """

    def cycles(rows):
        return max(4.0, rows * vectors / 2, (rows + vectors) / 2) + 0.5

    least, best = [0.0], [0]
    for left in range(1, 65):
        costs = {size: cycles(size) + least[left - size] for size in sizes if size <= left}
        best.append(min(costs, key=costs.__getitem__))
        least.append(costs[best[-1]])
    return np.array(best)


def _tiles_of(vectors, sizes):
    """Return the helper that computes a row of `n` pixels of a panel of `vectors` vectors, in tiles
    of these four sizes.
    """
    largest, large, small, one = sizes
    best = _best_sizes(vectors, sizes)

    @inlined
    def tiles(
        like, c, c_row, a, a_row, a_k, b, b_k, taps, count, k, n, lanes, accumulate, bias, rectify
    ):
        i = 0
        while i < n:
            size = best[min(n - i, best.size - 1)]
            if size == largest:
                tap_product(
                    like,
                    c + i * c_row,
                    c_row,
                    a + i * a_row,
                    a_row,
                    a_k,
                    b,
                    b_k,
                    taps,
                    count,
                    k,
                    lanes,
                    accumulate,
                    bias,
                    rectify,
                    largest,
                    vectors,
                )
            elif size == large:
                tap_product(
                    like,
                    c + i * c_row,
                    c_row,
                    a + i * a_row,
                    a_row,
                    a_k,
                    b,
                    b_k,
                    taps,
                    count,
                    k,
                    lanes,
                    accumulate,
                    bias,
                    rectify,
                    large,
                    vectors,
                )
            elif size == small:
                tap_product(
                    like,
                    c + i * c_row,
                    c_row,
                    a + i * a_row,
                    a_row,
                    a_k,
                    b,
                    b_k,
                    taps,
                    count,
                    k,
                    lanes,
                    accumulate,
                    bias,
                    rectify,
                    small,
                    vectors,
                )
            else:
                tap_product(
                    like,
                    c + i * c_row,
                    c_row,
                    a + i * a_row,
                    a_row,
                    a_k,
                    b,
                    b_k,
                    taps,
                    count,
                    k,
                    lanes,
                    accumulate,
                    bias,
                    rectify,
                    one,
                    vectors,
                )
            i += size

    return tiles


# More sums than these and the registers spill, with the row of b and what is being broadcast.
_tiles_1, _tiles_2 = _tiles_of(1, (12, 7, 4, 1)), _tiles_of(2, (6, 4, 2, 1))


@inlined
def tiles_of_row(
    like,
    c,
    c_row,
    a,
    a_row,
    a_k,
    b,
    b_k,
    taps,
    count,
    k,
    n,
    vectors,
    lanes,
    accumulate,
    bias,
    rectify,
):
    """Compute a row of `n` pixels of a panel: see `tap_product`."""
    if vectors == 2:
        _tiles_2(
            like,
            c,
            c_row,
            a,
            a_row,
            a_k,
            b,
            b_k,
            taps,
            count,
            k,
            n,
            lanes,
            accumulate,
            bias,
            rectify,
        )
    else:
        _tiles_1(
            like,
            c,
            c_row,
            a,
            a_row,
            a_k,
            b,
            b_k,
            taps,
            count,
            k,
            n,
            lanes,
            accumulate,
            bias,
            rectify,
        )


def _gradient_tiles_of(vectors, sizes):
    """Return the helper that adds to `n` rows of the weight's gradient, in tiles of these four
    sizes.
    """
    largest, large, small, smallest = sizes

    @inlined
    def tiles(like, c, c_row, a, a_rows, a_k, b, b_k, taps, count, k, n, lanes):
        i = 0
        while n - i >= largest:
            row_product(
                like,
                c + i * c_row,
                c_row,
                a,
                a_rows + 8 * i,
                a_k,
                b,
                b_k,
                taps,
                count,
                k,
                lanes,
                1,
                largest,
                vectors,
            )
            i += largest
        if n - i >= large:
            row_product(
                like,
                c + i * c_row,
                c_row,
                a,
                a_rows + 8 * i,
                a_k,
                b,
                b_k,
                taps,
                count,
                k,
                lanes,
                1,
                large,
                vectors,
            )
            i += large
        if n - i >= small:
            row_product(
                like,
                c + i * c_row,
                c_row,
                a,
                a_rows + 8 * i,
                a_k,
                b,
                b_k,
                taps,
                count,
                k,
                lanes,
                1,
                small,
                vectors,
            )
            i += small
        while n - i >= smallest:
            row_product(
                like,
                c + i * c_row,
                c_row,
                a,
                a_rows + 8 * i,
                a_k,
                b,
                b_k,
                taps,
                count,
                k,
                lanes,
                1,
                smallest,
                vectors,
            )
            i += smallest

    return tiles


_gradient_tiles_1, _gradient_tiles_2 = (
    _gradient_tiles_of(1, (8, 4, 2, 1)),
    _gradient_tiles_of(2, (6, 4, 3, 1)),
)


@inlined
def _gradient_tiles(like, c, c_row, a, a_rows, a_k, b, b_k, taps, count, k, n, vectors, lanes):
    if vectors == 2:
        _gradient_tiles_2(like, c, c_row, a, a_rows, a_k, b, b_k, taps, count, k, n, lanes)
    else:
        _gradient_tiles_1(like, c, c_row, a, a_rows, a_k, b, b_k, taps, count, k, n, lanes)


@inlined
def copy_band(band, image, first, rows, left, width):
    """Write rows first..first+rows of an image (H, W, C), from `left` pixels left of it on, `width`
    pixels wide; zeros outside.
    """
    height, inside, channels = image.shape
    flat = image.reshape(height, inside * channels)
    zero = constant(band, "zero")
    start, stop = max(0, -left), min(inside, width - left)
    stop = max(start, stop)
    before, after = (start + left) * channels, (stop + left) * channels
    for r in range(rows):
        row = band[r * width * channels : (r + 1) * width * channels]
        i = first + r
        if i < 0 or i >= height:
            row[:] = zero
        else:
            row[:before] = zero
            to, of = row[before:after], flat[i, start * channels : stop * channels]
            for j in range(to.size):
                to[j] = of[j]
            row[after:] = zero


@kernel
def pack(packed, weight, order, phases, groups, transposed):
    """Writes the panels of the weight that `correlate` reads, of the weight's transpose if so.

    For each phase, group and panel of output channels the taps in the order of `order`, and for
    each tap and input channel a row of the panel. weight (kernel rows, kernel columns, C / groups,
    K).
    """
    inner, outer = weight.shape[2], weight.shape[3] // groups
    taps = weight.reshape(-1, inner, weight.shape[3])
    lanes = VECTOR_BYTES // packed.itemsize
    n, k = (inner, outer) if transposed else (outer, inner)
    at = 0
    for phase in range(len(phases)):
        first, last = phases[phase, 4], phases[phase, 5]
        for g in range(groups):
            j = 0
            while j < n:
                vectors = min(PANEL, (n - j + lanes - 1) // lanes)
                columns = min(n - j, vectors * lanes)
                for t in range(first, last):
                    matrix = taps[order[t], :, g * outer : (g + 1) * outer]
                    pack_panel(
                        packed[at : at + k * vectors * lanes],
                        matrix,
                        transposed,
                        0,
                        k,
                        j,
                        columns,
                        vectors,
                    )
                    at += k * vectors * lanes
                j += columns


@kernel
def correlate(y, x, packed, bias, phases, taps, numbers, band, rectified):
    """Writes y[p, k] = sum over taps t and channels c of x[p step + e_t, c] weight[t, c, k] +
    bias[k], for each phase of pixels.

    Phase f writes the pixels (row + p out_step, column + q out_step). `phases`, `taps` and
    `numbers` are those of `conv_plan.Correlation`; `packed` comes from `pack`, `band` is scratch.
    Rectified: max(y, 0) in its place; NaN stays NaN.
    """
    size = y.itemsize
    lanes = VECTOR_BYTES // size
    row_step, step, row_out_step, out_step, groups, top, left, width, band_rows, span, copied = (
        numbers
    )
    samples, out_rows, out_columns, outputs = y.shape
    rows_in, columns_in, inputs = x.shape[1], x.shape[2], x.shape[3]
    inner, outer = inputs // groups, outputs // groups
    panels = (outer + lanes - 1) // lanes
    most_rows = 0
    blank = False
    for f in range(len(phases)):
        most_rows = max(most_rows, phases[f, 2])
        blank = blank or (phases[f, 4] == phases[f, 5] and bias.size == 0)
    for n in range(samples):
        if blank:
            # Pixels that no tap reaches.
            y[n].reshape(-1)[:] = constant(y, "zero")
        for first in range(0, most_rows, band_rows):
            rows = min(band_rows, most_rows - first)
            if copied:
                copy_band(
                    band, x[n], first * row_step - top, (rows - 1) * row_step + span, left, width
                )
                source = band.ctypes.data
            else:
                source = (
                    x.ctypes.data + (n * rows_in + first * row_step) * columns_in * inputs * size
                )
            weights = packed.ctypes.data
            for f in range(len(phases)):
                (
                    row0,
                    column0,
                    phase_rows,
                    phase_columns,
                    tap0,
                    tap1,
                    table0,
                    table1,
                    k,
                    tap_rows,
                    offset,
                    apart,
                ) = phases[f]
                table = taps.ctypes.data + table0 * 16
                depth = (tap1 - tap0) * inner * lanes * size
                if blank and tap0 == tap1:
                    continue
                for g in range(groups):
                    j = 0
                    while j < outer:
                        vectors = min(PANEL, (outer - j + lanes - 1) // lanes)
                        columns = min(outer - j, vectors * lanes)
                        channel = g * outer + j
                        for r in range(first, min(first + rows, phase_rows)):
                            # Rows of taps outside the image add nothing.
                            row = r * row_step + offset
                            low = min(tap_rows, max(0, -row + apart - 1) // apart)
                            high = max(low, min(tap_rows, (rows_in - 1 - row) // apart + 1))
                            in_row = (table1 - table0) // max(1, tap_rows)
                            pixel = (n * out_rows + row0 + r * row_out_step) * out_columns + column0
                            tiles_of_row(
                                y,
                                y.ctypes.data + (pixel * outputs + channel) * size,
                                out_step * outputs * size,
                                source
                                + ((r - first) * row_step * width * inputs + g * inner) * size,
                                step * inputs * size,
                                size,
                                weights + (g * panels + j // lanes) * depth,
                                vectors * lanes * size,
                                # First come the offsets into a panel of one vector.
                                table
                                + (low * in_row + (0 if vectors == 1 else table1 - table0)) * 16,
                                (high - low) * in_row,
                                k,
                                phase_columns,
                                vectors,
                                columns - (vectors - 1) * lanes,
                                0,
                                bias.ctypes.data + channel * size if bias.size else 0,
                                1 if rectified else 0,
                            )
                        j += columns
                weights += groups * panels * depth


@kernel
def weight_gradient(dw, dy, x, bounds, offsets, numbers, band, last, add_weight):
    """Writes (adds, if so said) for each shard dw[t, c, k] = sum over its pixels p of x[p step +
    e_t, c] dy[p, k].

    dw (S, kernel rows, kernel columns, C / groups, K). The sum of each band of rows starts from
    zero. Scratch: band for rows of x, and last for the rows of dy at its end: vectors that K does
    not fill are read whole, and would be read from beyond it.
    """
    size = dw.itemsize
    lanes = VECTOR_BYTES // size
    row_step, step, groups, top, left, width, band_rows, span, copied = numbers
    _, out_rows, out_columns, outputs = dy.shape
    rows_in, columns_in, inputs = x.shape[1], x.shape[2], x.shape[3]
    outer, row_size = outputs // groups, out_columns * outputs
    segment = np.empty((band_rows, 2), np.int64)
    for r in range(band_rows):
        segment[r, 0] = r * row_step * width * inputs * size
        segment[r, 1] = r * row_size * size
    for s in range(len(dw)):
        if not add_weight:
            dw[s] = constant(dw, "zero")
        for n in range(bounds[s], bounds[s + 1]):
            for first in range(0, out_rows, band_rows):
                rows = min(band_rows, out_rows - first)
                if copied:
                    copy_band(
                        band,
                        x[n],
                        first * row_step - top,
                        (rows - 1) * row_step + span,
                        left,
                        width,
                    )
                    source = band.ctypes.data
                else:
                    source = (
                        x.ctypes.data
                        + (n * rows_in + first * row_step) * columns_in * inputs * size
                    )
                pixels = dy.ctypes.data + (n * out_rows + first) * row_size * size
                if outer % lanes and (n * out_rows + first + rows) * row_size + lanes > dy.size:
                    for r in range(rows):
                        last[r * row_size : (r + 1) * row_size] = dy[n, first + r].reshape(-1)
                    pixels = last.ctypes.data
                for g in range(groups):
                    j = 0
                    while j < outer:
                        vectors = min(PANEL, (outer - j + lanes - 1) // lanes)
                        columns = min(outer - j, vectors * lanes)
                        channel = g * outer + j
                        _gradient_tiles(
                            dw,
                            dw[s].ctypes.data + channel * size,
                            outputs * size,
                            source + g * (inputs // groups) * size,
                            offsets.ctypes.data,
                            step * inputs * size,
                            pixels + channel * size,
                            outputs * size,
                            segment.ctypes.data,
                            rows,
                            out_columns,
                            offsets.size,
                            vectors,
                            columns - (vectors - 1) * lanes,
                        )
                        j += columns


@kernel
def bias_gradient(db, dy, bounds, sums, accumulate):
    """Writes (adds, if `accumulate`) for each shard db = sum of dy over samples and pixels.

    db (S, K); dy (N, P Q K); sums (P Q K,) is scratch: samples are added first, then pixels, so
    that the inner loop is long.
    """
    channels = db.shape[1]
    zero = constant(db, "zero")
    for s in range(len(db)):
        sums[:] = zero
        for n in range(bounds[s], bounds[s + 1]):
            row = dy[n]
            for i in range(row.size):
                sums[i] += row[i]
        total = db[s]
        if not accumulate:
            total[:] = zero
        for i in range(0, sums.size, channels):
            pixel = sums[i : i + channels]
            for k in range(channels):
                total[k] += pixel[k]
