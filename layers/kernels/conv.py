"""Direct convolution, channels-last: output pixels times output channels, summed over taps and
input channels.

Forward, the gradient of the input and transposed convolution are one kernel, `correlate`, with
different tables (`layers.conv.tables` makes them). An image is copied, a band of rows at a time,
into a scratch with its padding around it, so that the microkernel meets no border; without padding
it is read in place.

Letters: x (N, H, W, C), y (N, P, Q, K), weight (kernel rows, kernel columns, C / groups, K).
"""

import numpy as np

from .conv_bands import rows_read
from .conv_tiles import PANEL, gradient_tiles, tiles_of_row
from .gemm import pack_panel
from .jit import kernel
from .llvm.memory import address_of
from .llvm.simd_conv import RUN
from .llvm.vmath import constant
from .machine import VECTOR_BYTES
from .records import record

# Steps of rows and of pixels in a row, of what is read and of what is written (out); groups; the
# band: padding above and left of it, its width, the output rows that it serves, the rows that one
# of them reads, and whether it is a copy.
PLAN = record(
    "row_step",
    "step",
    "row_out_step",
    "out_step",
    "groups",
    "top",
    "left",
    "width",
    "band_rows",
    "span",
    "copied",
)

# Output pixels that lie equally with respect to the stride: the first one's row and column, their
# numbers of rows and columns, how many taps they read; how many runs these are, in how many rows
# of taps, the first one's offset in rows of the input, and how far apart those rows are.
PHASE = record(
    "row", "column", "rows", "columns", "taps", "runs", "tap_rows", "tap_offset", "tap_distance"
)

RUN_BYTES = RUN.itemsize


@kernel
def pack(packed, weight, order, phases, groups, transposed):
    """Writes the panels of the weight that `correlate` reads, of the weight's transpose if so.

    For each of the `phases`, records PHASE, for each group and panel of output channels the taps in
    the order of `order`, and for each tap and input channel a row of the panel. weight (kernel
    rows, kernel columns, C / groups, K).
    """
    inner, outer = weight.shape[2], weight.shape[3] // groups
    taps = weight.reshape(-1, inner, weight.shape[3])
    lanes = VECTOR_BYTES // packed.itemsize
    n, k = (inner, outer) if transposed else (outer, inner)
    start = np.int64(0)
    at = np.int64(0)
    for f in range(len(phases)):
        taps_of_phase = order[start : start + phases[f].taps]
        start += phases[f].taps
        for g in range(groups):
            j = np.int64(0)
            while j < n:
                vectors = min(PANEL, (n - j + lanes - 1) // lanes)
                columns = min(n - j, vectors * lanes)
                size = k * vectors * lanes
                for t in taps_of_phase:
                    matrix = taps[t, :, g * outer : (g + 1) * outer]
                    panel = packed[at : at + size]
                    pack_panel(panel, matrix, transposed, np.int64(0), k, j, columns, vectors)
                    at += size
                j += columns


@kernel
def correlate(y, x, packed, bias, phases, runs, plan, band, rectified):
    """Writes y[p, k] = sum over taps t and channels c of x[p step + e_t, c] weight[t, c, k] +
    bias[k], for each phase of pixels.

    Phase f writes the pixels (row + p out_step, column + q out_step). `phases` are records PHASE,
    `runs` records `simd_conv.RUN`: of each phase those for panels of one vector, then of PANEL;
    `plan` is one record PLAN; `layers.conv.tables.correlation` makes them. `packed` comes from
    `pack`, `band` is scratch. Rectified: max(y, 0) in its place; NaN stays NaN.
    """
    size = y.itemsize
    lanes = VECTOR_BYTES // size
    shape = plan[0]
    samples, out_rows, out_columns, outputs = y.shape
    rows_in, inputs = x.shape[1], x.shape[3]
    inner, outer = inputs // shape.groups, outputs // shape.groups
    panels = (outer + lanes - 1) // lanes
    target, first_bias = address_of(y), address_of(bias)
    rectify = np.int64(rectified)
    most_rows = np.int64(0)
    blank = False
    for f in range(len(phases)):
        most_rows = max(most_rows, phases[f].rows)
        blank = blank or (phases[f].taps == 0 and bias.size == 0)
    for n in range(samples):
        if blank:
            # Pixels that no tap reaches.
            y[n].reshape(-1)[:] = constant(y, "zero")
        for first in range(0, most_rows, shape.band_rows):
            rows = min(shape.band_rows, most_rows - first)
            source = rows_read(band, x, n, first, rows, shape)
            weights = address_of(packed)
            one_vector = address_of(runs)
            for f in range(len(phases)):
                phase = phases[f]
                more_vectors = one_vector + phase.runs * RUN_BYTES
                depth = phase.taps * inner * lanes * size
                runs_in_row = phase.runs // max(1, phase.tap_rows)
                apart = phase.tap_distance
                for g in range(shape.groups if phase.taps or bias.size else 0):
                    j = np.int64(0)
                    while j < outer:
                        vectors = min(PANEL, (outer - j + lanes - 1) // lanes)
                        columns = min(outer - j, vectors * lanes)
                        channel = g * outer + j
                        table = one_vector if vectors == 1 else more_vectors
                        for r in range(first, min(first + rows, phase.rows)):
                            # Rows of taps outside the image add nothing.
                            row = r * shape.row_step + phase.tap_offset
                            low = min(phase.tap_rows, max(0, -row + apart - 1) // apart)
                            last = min(phase.tap_rows, (rows_in - 1 - row) // apart + 1)
                            high = max(low, last)
                            pixel = (
                                n * out_rows + phase.row + r * shape.row_out_step
                            ) * out_columns + phase.column
                            above = (r - first) * shape.row_step * shape.width
                            tiles_of_row(
                                y,
                                vectors,
                                phase.columns,
                                target + (pixel * outputs + channel) * size,
                                shape.out_step * outputs * size,
                                source + (above * inputs + g * inner) * size,
                                shape.step * inputs * size,
                                weights + (g * panels + j // lanes) * depth,
                                vectors * lanes * size,
                                table + low * runs_in_row * RUN_BYTES,
                                (high - low) * runs_in_row,
                                columns - (vectors - 1) * lanes,
                                first_bias + channel * size if bias.size else np.int64(0),
                                rectify,
                            )
                        j += columns
                weights += shape.groups * panels * depth
                one_vector += 2 * phase.runs * RUN_BYTES


@kernel
def weight_gradient(dw, dy, x, bounds, offsets, runs, plan, band, last, add_weight):
    """Writes (adds, if so said) for each shard dw[t, c, k] = sum over its pixels p of x[p step +
    e_t, c] dy[p, k].

    dw (S, kernel rows, kernel columns, C / groups, K). The sum of each band of rows starts from
    zero. `offsets` are those in bytes of the gradient's rows into a band, `runs` the rows of a band
    as records `simd_conv.RUN`, `plan` one record PLAN. Scratch: band for rows of x, and last for
    the rows of dy at its end: vectors that K does not fill are read whole, and would be read from
    beyond it.
    """
    size = dw.itemsize
    lanes = VECTOR_BYTES // size
    shape = plan[0]
    _, out_rows, out_columns, outputs = dy.shape
    inputs = x.shape[3]
    outer, row_size = outputs // shape.groups, out_columns * outputs
    inner = inputs // shape.groups
    for s in range(len(dw)):
        target = address_of(dw[s])
        if not add_weight:
            dw[s] = constant(dw, "zero")
        for n in range(bounds[s], bounds[s + 1]):
            for first in range(0, out_rows, shape.band_rows):
                rows = min(shape.band_rows, out_rows - first)
                source = rows_read(band, x, n, first, rows, shape)
                end = (n * out_rows + first + rows) * row_size
                pixels = address_of(dy) + (end - rows * row_size) * size
                if outer % lanes and end + lanes > dy.size:
                    for r in range(rows):
                        to, of = (
                            last[r * row_size : (r + 1) * row_size],
                            dy[n, first + r].reshape(row_size),
                        )
                        for i in range(row_size):
                            to[i] = of[i]
                    pixels = address_of(last)
                for g in range(shape.groups):
                    j = np.int64(0)
                    while j < outer:
                        vectors = min(PANEL, (outer - j + lanes - 1) // lanes)
                        columns = min(outer - j, vectors * lanes)
                        channel = g * outer + j
                        gradient_tiles(
                            dw,
                            vectors,
                            offsets.size,
                            target + channel * size,
                            outputs * size,
                            address_of(offsets),
                            source + g * inner * size,
                            shape.step * inputs * size,
                            pixels + channel * size,
                            outputs * size,
                            address_of(runs),
                            rows,
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
