"""Batch normalisation: y = g (x - mean) / sqrt(variance + epsilon) + b per channel (Ioffe and
Szegedy 2015, arXiv 1502.03167).

Arrays x, y, dy, dx, dz are flat (R C,): R rows (pixels) of C channels. `bounds` (S + 1,) cuts the
rows into shards. `moments` has a row [n, mean (C), sum of squared deviations from the mean (C)] for
every shard, or one row that holds for all of them; so have the `sums` [sum of dz (C), sum of dz (x
- mean) (C)] of the backward pass. Both are float64. `gain` and `bias` may be empty: 1 and 0.

Several rows are treated as one slice: see `layers.kernels.slices`. Sums run in the arrays' own type
over a few such slices at a time, and in float64 over these; they begin anew with every shard, whose
result is thereby the same wherever it stands. Backward also takes words of x and y: see `halves`.
"""

import numpy as np

from .jit import inlined, kernel
from .llvm.halves import wide
from .llvm.vmath import constant, fma
from .slices import LANES, fold, repeat, slice_width


@kernel
def statistics(moments, x, bounds):
    """Writes the moments of each shard; of one without rows they are 0.

    Values are shifted by the shard's first row. The squared deviations of eight values are taken
    from their own mean, then corrected for its distance from the shift in float64: neither a mean
    that is large next to the deviation nor an outlier in the first row costs accuracy (Chan, Golub
    and LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1).
    """
    channels = moments.shape[1] // 2
    most = slice_width(channels, max(LANES, channels))
    shifts, parts, squares = (
        np.empty(most, x.dtype),
        np.empty(most, x.dtype),
        np.empty(most, x.dtype),
    )
    totals, totals_of_squares = np.empty(most, np.float64), np.empty(most, np.float64)
    total, total_of_squares = np.empty(channels, np.float64), np.empty(channels, np.float64)
    half = constant(x, "half")
    eighth = half * half * half
    for s in range(len(moments)):
        piece = x[bounds[s] * channels : bounds[s + 1] * channels]
        count = bounds[s + 1] - bounds[s]
        moments[s] = 0
        if count == 0:
            continue
        width = slice_width(channels, piece.size)
        shift, part, square = shifts[:width], parts[:width], squares[:width]
        for c in range(channels):
            shift[c] = piece[c]
        repeat(shift, channels)
        sums, sums_of_squares = totals[:width], totals_of_squares[:width]
        sums[:] = 0
        sums_of_squares[:] = 0
        done = 0
        while done + 8 * width <= piece.size:
            x0, x1 = piece[done : done + width], piece[done + width : done + 2 * width]
            x2, x3 = (
                piece[done + 2 * width : done + 3 * width],
                piece[done + 3 * width : done + 4 * width],
            )
            x4, x5 = (
                piece[done + 4 * width : done + 5 * width],
                piece[done + 5 * width : done + 6 * width],
            )
            x6, x7 = (
                piece[done + 6 * width : done + 7 * width],
                piece[done + 7 * width : done + 8 * width],
            )
            for i in range(width):
                m = shift[i]
                d0, d1, d2, d3 = x0[i] - m, x1[i] - m, x2[i] - m, x3[i] - m
                d4, d5, d6, d7 = x4[i] - m, x5[i] - m, x6[i] - m, x7[i] - m
                t = ((d0 + d1) + (d2 + d3)) + ((d4 + d5) + (d6 + d7))
                part[i] = t
                m = t * eighth
                d0, d1, d2, d3, d4, d5, d6, d7 = (
                    d0 - m,
                    d1 - m,
                    d2 - m,
                    d3 - m,
                    d4 - m,
                    d5 - m,
                    d6 - m,
                    d7 - m,
                )
                low = fma(d0, d0, d1 * d1) + fma(d2, d2, d3 * d3)
                square[i] = low + (fma(d4, d4, d5 * d5) + fma(d6, d6, d7 * d7))
            for i in range(width):
                t = np.float64(part[i])
                sums[i] += t
                sums_of_squares[i] += fma(t, t * 0.125, np.float64(square[i]))
            done += 8 * width
        while done < piece.size:
            row = piece[done : done + width]
            for i in range(row.size):
                d = np.float64(row[i]) - np.float64(shift[i])
                sums[i] += d
                sums_of_squares[i] = fma(d, d, sums_of_squares[i])
            done += width
        fold(total, sums)
        fold(total_of_squares, sums_of_squares)
        moments[s, 0] = count
        for c in range(channels):
            moments[s, 1 + c] = np.float64(shift[c]) + total[c] / count
            deviations = total_of_squares[c] - total[c] * total[c] / count
            moments[s, 1 + channels + c] = 0.0 if deviations < 0 else deviations


@inlined
def _inverse_deviation(moments, c, epsilon):
    """Return 1 / sqrt(variance + epsilon) of a channel; moments is one row. Without values the
    variance is 0.
    """
    return 1 / np.sqrt(moments[1 + moments.size // 2 + c] / max(moments[0], 1.0) + epsilon)


@inlined
def _affine(centre, slope, offset, moments, gain, bias, epsilon):
    """Write what makes y = slope (x - centre) + offset; the offset mends that the centre is the
    mean rounded to its type.
    """
    channels = moments.size // 2
    for c in range(channels):
        mean, factor = moments[1 + c], _inverse_deviation(moments, c, epsilon)
        if gain.size:
            factor *= gain[c]
        centre[c] = mean
        slope[c] = factor
        offset[c] = (np.float64(centre[c]) - mean) * factor + (
            np.float64(bias[c]) if bias.size else 0.0
        )
    repeat(centre, channels)
    repeat(slope, channels)
    repeat(offset, channels)


@kernel
def normalize(y, x, shortcut, moments, gain, bias, bounds, epsilon, rectified):
    """Writes y = g (x - mean) / sqrt(variance + epsilon) + b; + shortcut, if that is not empty;
    max(y, 0) if rectified.

    NaN stays NaN.
    """
    channels = moments.shape[1] // 2
    most = slice_width(channels, max(LANES, channels))
    centres, slopes, offsets = (
        np.empty(most, x.dtype),
        np.empty(most, x.dtype),
        np.empty(most, x.dtype),
    )
    zero = constant(y, "zero")
    for s in range(len(bounds) - 1):
        begin, end = bounds[s] * channels, bounds[s + 1] * channels
        width = slice_width(channels, end - begin)
        centre, slope, offset = centres[:width], slopes[:width], offsets[:width]
        _affine(centre, slope, offset, moments[min(s, len(moments) - 1)], gain, bias, epsilon)
        for start in range(begin, end, width):
            to, of = y[start : min(start + width, end)], x[start : min(start + width, end)]
            if shortcut.size:
                more = shortcut[start : min(start + width, end)]
                for i in range(to.size):
                    value = fma(of[i] - centre[i], slope[i], offset[i]) + more[i]
                    to[i] = zero if value <= zero else value
            elif rectified:
                for i in range(to.size):
                    value = fma(of[i] - centre[i], slope[i], offset[i])
                    to[i] = zero if value <= zero else value
            else:
                for i in range(to.size):
                    to[i] = fma(of[i] - centre[i], slope[i], offset[i])


@inlined
def _gate(dz, dy, y):
    """Write dz = dy where y > 0 or NaN, else 0."""
    zero = constant(dz, "zero")
    for i in range(dz.size):
        dz[i] = zero if wide(y[i]) <= zero else dy[i]


@inlined
def _sums(part, product, dz, x, centre):
    """Write the sums of dz and of dz (x - centre) over 4 slices."""
    n = part.size
    x0, x1, x2, x3 = x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :]
    g0, g1, g2, g3 = dz[:n], dz[n : 2 * n], dz[2 * n : 3 * n], dz[3 * n :]
    for i in range(n):
        m = centre[i]
        d0, d1, d2, d3 = wide(x0[i]) - m, wide(x1[i]) - m, wide(x2[i]) - m, wide(x3[i]) - m
        part[i] = (g0[i] + g1[i]) + (g2[i] + g3[i])
        product[i] = fma(g0[i], d0, g1[i] * d1) + fma(g2[i], d2, g3[i] * d3)


@inlined
def _rectified_sums(part, product, dy, x, centre, slope, offset):
    """Write them for dz = dy where slope (x - centre) + offset > 0, else 0."""
    n = part.size
    zero = constant(dy, "zero")
    x0, x1, x2, x3 = x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :]
    g0, g1, g2, g3 = dy[:n], dy[n : 2 * n], dy[2 * n : 3 * n], dy[3 * n :]
    for i in range(n):
        m, k, b = centre[i], slope[i], offset[i]
        d0, d1, d2, d3 = wide(x0[i]) - m, wide(x1[i]) - m, wide(x2[i]) - m, wide(x3[i]) - m
        t0 = zero if fma(d0, k, b) <= zero else g0[i]
        t1 = zero if fma(d1, k, b) <= zero else g1[i]
        t2 = zero if fma(d2, k, b) <= zero else g2[i]
        t3 = zero if fma(d3, k, b) <= zero else g3[i]
        part[i] = (t0 + t1) + (t2 + t3)
        product[i] = fma(t0, d0, t1 * d1) + fma(t2, d2, t3 * d3)


@inlined
def _gated_sums(part, product, dz, dy, y, x, centre):
    """Write them, and dz, for dz = dy where y > 0, else 0."""
    n = part.size
    zero = constant(dy, "zero")
    x0, x1, x2, x3 = x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :]
    g0, g1, g2, g3 = dy[:n], dy[n : 2 * n], dy[2 * n : 3 * n], dy[3 * n :]
    y0, y1, y2, y3 = y[:n], y[n : 2 * n], y[2 * n : 3 * n], y[3 * n :]
    z0, z1, z2, z3 = dz[:n], dz[n : 2 * n], dz[2 * n : 3 * n], dz[3 * n :]
    for i in range(n):
        m = centre[i]
        d0, d1, d2, d3 = wide(x0[i]) - m, wide(x1[i]) - m, wide(x2[i]) - m, wide(x3[i]) - m
        t0 = zero if wide(y0[i]) <= zero else g0[i]
        t1 = zero if wide(y1[i]) <= zero else g1[i]
        t2 = zero if wide(y2[i]) <= zero else g2[i]
        t3 = zero if wide(y3[i]) <= zero else g3[i]
        z0[i], z1[i], z2[i], z3[i] = t0, t1, t2, t3
        part[i] = (t0 + t1) + (t2 + t3)
        product[i] = fma(t0, d0, t1 * d1) + fma(t2, d2, t3 * d3)


@kernel
def backward_sums(
    sums,
    dw,
    db,
    dz,
    dy,
    y,
    x,
    moments,
    gain,
    bias,
    bounds,
    epsilon,
    rectified,
    add_weight,
    add_bias,
):
    """Writes sums, and writes (adds, if so said) for each shard dw and db.

    dw = sum of dz (x - mean) / sqrt(variance + epsilon), db = sum of dz. dz is dy; if rectified, it
    is dy where y > 0, else 0, and what y was is computed again. If y is not empty, dz is written:
    dy where y is positive, else 0. sums (S, 2 C); dw (S, C) and db (S, C), or empty.
    """
    channels = sums.shape[1] // 2
    most = slice_width(channels, max(LANES, channels))
    centres, slopes, offsets = (
        np.empty(most, dy.dtype),
        np.empty(most, dy.dtype),
        np.empty(most, dy.dtype),
    )
    parts, products = np.empty(most, dy.dtype), np.empty(most, dy.dtype)
    totals, totals_of_products = np.empty(most, np.float64), np.empty(most, np.float64)
    gates = np.empty(most if rectified else 0, dy.dtype)
    zero = constant(dy, "zero")
    source = dz if y.size else dy
    for s in range(len(sums)):
        begin, end = bounds[s] * channels, bounds[s + 1] * channels
        width = slice_width(channels, end - begin)
        centre, slope, offset = centres[:width], slopes[:width], offsets[:width]
        row = moments[min(s, len(moments) - 1)]
        _affine(centre, slope, offset, row, gain, bias, epsilon)
        part, product = parts[:width], products[:width]
        total, total_of_products = totals[:width], totals_of_products[:width]
        total[:] = 0
        total_of_products[:] = 0
        done = begin
        while done + 4 * width <= end:
            stop = done + 4 * width
            if y.size:
                _gated_sums(
                    part, product, dz[done:stop], dy[done:stop], y[done:stop], x[done:stop], centre
                )
            elif rectified:
                _rectified_sums(part, product, dy[done:stop], x[done:stop], centre, slope, offset)
            else:
                _sums(part, product, dy[done:stop], x[done:stop], centre)
            for i in range(width):
                total[i] += np.float64(part[i])
                total_of_products[i] += np.float64(product[i])
            done += 4 * width
        while done < end:
            stop = min(done + width, end)
            if y.size:
                _gate(dz[done:stop], dy[done:stop], y[done:stop])
            xs, gs = x[done:stop], source[done:stop]
            if rectified:
                gate = gates[: gs.size]
                for i in range(gs.size):
                    gate[i] = (
                        zero if fma(wide(xs[i]) - centre[i], slope[i], offset[i]) <= zero else gs[i]
                    )
                gs = gate
            for i in range(gs.size):
                d = np.float64(wide(xs[i])) - np.float64(centre[i])
                total[i] += np.float64(gs[i])
                total_of_products[i] = fma(np.float64(gs[i]), d, total_of_products[i])
            done += width
        fold(sums[s, :channels], total)
        fold(sums[s, channels:], total_of_products)
        for c in range(channels):
            sums[s, channels + c] += (np.float64(centre[c]) - row[1 + c]) * sums[s, c]
        if db.size:
            for c in range(channels):
                t, p = sums[s, c], sums[s, channels + c] * _inverse_deviation(row, c, epsilon)
                db[s, c] = db[s, c] + t if add_bias else t
                dw[s, c] = dw[s, c] + p if add_weight else p


@kernel
def backward(dx, dy, x, moments, sums, gain, bias, feedback, carried, bounds, epsilon, rectified):
    """Writes dx = g / sqrt(variance + epsilon) (dz - sum of dz / n - (x - mean) / (variance +
    epsilon) sum of dz (x - mean) / n).

    dz is dy; if rectified, dy where y > 0, else 0. `feedback` (C,) stands for g of dz here, and
    `carried` for g of the sums, which may contain it already; empty: 1.
    """
    channels = moments.shape[1] // 2
    most = slice_width(channels, max(LANES, channels))
    centres, slopes, offsets = (
        np.empty(most, dy.dtype),
        np.empty(most, dy.dtype),
        np.empty(most, dy.dtype),
    )
    of_dz, of_x, rest = np.empty(most, dy.dtype), np.empty(most, dy.dtype), np.empty(most, dy.dtype)
    zero = constant(dy, "zero")
    for s in range(len(bounds) - 1):
        begin, end = bounds[s] * channels, bounds[s + 1] * channels
        width = slice_width(channels, end - begin)
        centre, slope, offset = centres[:width], slopes[:width], offsets[:width]
        by_dz, by_x, free = of_dz[:width], of_x[:width], rest[:width]
        row, total = moments[min(s, len(moments) - 1)], sums[min(s, len(sums) - 1)]
        _affine(centre, slope, offset, row, gain, bias, epsilon)
        for c in range(channels):
            inverse = _inverse_deviation(row, c, epsilon)
            factor = inverse * feedback[c] if feedback.size else inverse
            of_sums = inverse * carried[c] if carried.size else inverse
            of_deviation = -of_sums * inverse * inverse * total[channels + c] / row[0]
            by_dz[c] = factor
            by_x[c] = of_deviation
            free[c] = (
                of_deviation * (np.float64(centre[c]) - row[1 + c]) - of_sums * total[c] / row[0]
            )
        repeat(by_dz, channels)
        repeat(by_x, channels)
        repeat(free, channels)
        for start in range(begin, end, width):
            stop = min(start + width, end)
            to, gs, xs = dx[start:stop], dy[start:stop], x[start:stop]
            if rectified:
                for i in range(to.size):
                    d = wide(xs[i]) - centre[i]
                    t = zero if fma(d, slope[i], offset[i]) <= zero else gs[i]
                    to[i] = fma(by_dz[i], t, fma(by_x[i], d, free[i]))
            else:
                for i in range(to.size):
                    to[i] = fma(by_dz[i], gs[i], fma(by_x[i], wide(xs[i]) - centre[i], free[i]))
