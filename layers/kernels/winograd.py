"""Convolution of 3 x 3 at stride 1 by Winograd's minimal filtering: outputs are computed m x m at a
time, m being 2 or 4.

Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016: tiles of a = m + 2 pixels
a side are transformed, and the convolution becomes a a matrix products of tiles times channels,
which take 2.25 (m = 2) or 4 (m = 4) times fewer multiplications. How badly they round:
`layers.conv.rounding`.

Tiles are those of all images in order, `block` rows of tiles at a time. Channels must be multiples
of the vector's lanes. Letters: x (N, H, W, C), y (N, P, Q, K), weight (3, 3, C, K).
"""

import numpy as np

from .conv_tiles import PANEL
from .gemm import transpose_plane
from .jit import inlined, kernel
from .llvm.memory import address_of, fetch_lines
from .llvm.planes import rows_by_4_1, rows_by_4_2, rows_of_1, rows_of_2
from .llvm.simd_winograd import copy_between_zeros, grid_transform
from .llvm.vmath import constant
from .machine import CACHE_LINE, VECTOR_BYTES
from .records import record

# Padding above and left; rows of tiles in a block.
PLAN = record("top", "left", "block")
# Bytes between the planes of transformed tiles, lest they lie a power of two apart: those would
# share few places in the cache.
SKEW = 320


def _transform_of(name):
    """Return the helper that applies one of the transforms to all channels of a tile."""
    of_vectors = grid_transform(name)

    @inlined
    def transform(like, channels, out, source, bias, *rest):
        for c in range(0, channels * like.itemsize, VECTOR_BYTES):
            of_vectors(like, out + c, source + c, bias + c, *rest)

    return transform


_input_2, _input_4 = _transform_of("input 2"), _transform_of("input 4")
_output_2, _output_4 = _transform_of("output 2"), _transform_of("output 4")
_filter_2, _filter_4 = _transform_of("filter 2"), _transform_of("filter 4")
_output_gradient_2 = _transform_of("output gradient 2")
_output_gradient_4 = _transform_of("output gradient 4")
_filter_gradient_2 = _transform_of("filter gradient 2")
_filter_gradient_4 = _transform_of("filter gradient 4")


@inlined
def _copy_patch(patch, image, top, left, side):
    """Write the patch (side, side, C) of an image (H, W, C) whose corner is at (top, left); zeros
    outside.
    """
    height, width, channels = image.shape
    pixel = channels * image.itemsize
    vectors = pixel // VECTOR_BYTES
    start, stop = max(0, left), min(width, left + side)
    for a in range(side):
        to = address_of(patch) + a * side * pixel
        if top + a < 0 or top + a >= height:
            copy_between_zeros(patch, to, to, side * vectors, 0, 0)
        else:
            of = address_of(image) + ((top + a) * width + start) * pixel
            copy_between_zeros(
                patch,
                to,
                of,
                (start - left) * vectors,
                (stop - start) * vectors,
                (left + side - stop) * vectors,
            )


@inlined
def _fetch(images, first, rows, total, grid_rows, m, part, parts):
    """Ask for one of so many parts of the pixels of rows of tiles from row `first` on.

    Tiles read several rows of pixels at once, a little of each, which the processor does not
    foresee. Their pixels come from afar while the tiles before are multiplied.
    """
    _, height, width, channels = images.shape
    last = min(first + rows, total)
    begin = first // grid_rows * height + first % grid_rows * m
    end = last // grid_rows * height + last % grid_rows * m
    row = width * channels * images.itemsize
    lines = (max(0, end - begin) * row // CACHE_LINE + parts - 1) // parts
    start = address_of(images) + begin * row + part * lines * CACHE_LINE
    fetch_lines(images, start, np.int64(CACHE_LINE), lines)


def _tiles_in_of(by_2, by_4):
    """Return the helper that transforms tiles with these transforms, for m = 2 and for m = 4."""

    @inlined
    def tiles_in(v, plane, x, first, rows, grid_rows, grid_columns, m, side, top, left, patch):
        """Transform `rows` rows of tiles of `side` pixels of the images x from row `first` on."""
        _, height, width, channels = x.shape
        none = np.int64(0)
        step = channels * x.itemsize
        across = (m + 2) * plane
        for r in range(rows):
            n, i = (first + r) // grid_rows, (first + r) % grid_rows
            for j in range(grid_columns):
                row, column = i * m - top, j * m - left
                if row >= 0 and column >= 0 and row + side <= height and column + side <= width:
                    source = address_of(x) + ((n * height + row) * width + column) * step
                    source_row = width * step
                else:
                    _copy_patch(patch, x[n], row, column, side)
                    source, source_row = address_of(patch), side * step
                to = v + (r * grid_columns + j) * step
                if m == 2:
                    by_2(x, channels, to, source, none, across, plane, source_row, step, none, none)
                else:
                    by_4(x, channels, to, source, none, across, plane, source_row, step, none, none)

    return tiles_in


_inputs_in = _tiles_in_of(_input_2, _input_4)
_gradients_in = _tiles_in_of(_output_gradient_2, _output_gradient_4)


@inlined
def _tiles_out(y, products, plane, first, rows, grid_rows, grid_columns, m, patch, bias, rectified):
    """Transform rows of tiles back and write their pixels to y; those of a last, partial tile by
    way of the patch.
    """
    _, height, width, channels = y.shape
    step = channels * y.itemsize
    across = (m + 2) * plane
    none, rectify = np.int64(0), np.int64(rectified)
    add = address_of(bias)
    for r in range(rows):
        n, i = (first + r) // grid_rows, (first + r) % grid_rows
        for j in range(grid_columns):
            whole = (i + 1) * m <= height and (j + 1) * m <= width
            if whole:
                to = address_of(y) + ((n * height + i * m) * width + j * m) * step
                to_row = width * step
            else:
                to, to_row = address_of(patch), m * step
            of = products + (r * grid_columns + j) * step
            if m == 2:
                _output_2(y, channels, to, of, add, to_row, step, across, plane, rectify, none)
            else:
                _output_4(y, channels, to, of, add, to_row, step, across, plane, rectify, none)
            if not whole:
                for a in range(min(m, height - i * m)):
                    for b in range(min(m, width - j * m)):
                        pixel = y[n, i * m + a, j * m + b]
                        inside = (a * m + b) * channels
                        for c in range(channels):
                            pixel[c] = patch[inside + c]


@kernel
def pack(packed, weight, turned, transposed, m):
    """Writes the transformed weight as panels for each of the a a products: that of `correlate`, or
    of its adjoint if `transposed`.

    weight (3, 3, C, K); turned (9, K, C) is scratch of the adjoint, whose taps are in reverse
    order.
    """
    size = packed.itemsize
    lanes = VECTOR_BYTES // size
    channels, outputs = weight.shape[2], weight.shape[3]
    source, tap = address_of(weight), channels * outputs * size
    none = np.int64(0)
    if transposed:
        for t in range(9):
            transpose_plane(turned[8 - t], weight[t // 3, t % 3])
        channels, outputs = outputs, channels
        source = address_of(turned)
    for j in range(0, outputs, PANEL * lanes):
        columns = min(PANEL * lanes, outputs - j)
        for c in range(channels):
            to = address_of(packed) + (channels * j + c * columns) * size
            of = source + (c * outputs + j) * size
            across = (m + 2) * tap
            if m == 2:
                _filter_2(packed, columns, to, of, none, across, tap, 3 * tap, tap, none, none)
            else:
                _filter_4(packed, columns, to, of, none, across, tap, 3 * tap, tap, none, none)


@kernel
def correlate(y, x, packed, bias, plan, patch, v, products, m, rectified):
    """Writes y = x correlated with the packed weight, plus bias (K,), and max(y, 0) in its place if
    `rectified`.

    `plan` is one record PLAN. patch, v and products are scratch: a tile of pixels, the transformed
    tiles of a block, and their products with the weight.
    """
    size = y.itemsize
    lanes = VECTOR_BYTES // size
    shape = plan[0]
    block = shape.block
    side = m + 2
    channels, outputs = x.shape[3], y.shape[3]
    grid_rows, grid_columns = (y.shape[1] + m - 1) // m, (y.shape[2] + m - 1) // m
    v_plane = block * grid_columns * channels * size + SKEW
    products_plane = block * grid_columns * outputs * size + SKEW
    of_v, of_products = address_of(v), address_of(products)
    none = np.int64(0)
    total = len(x) * grid_rows
    for first in range(0, total, block):
        rows = min(block, total - first)
        tiles = rows * grid_columns
        _inputs_in(
            of_v,
            v_plane,
            x,
            first,
            rows,
            grid_rows,
            grid_columns,
            m,
            side,
            shape.top,
            shape.left,
            patch,
        )
        for q in range(side * side):
            _fetch(x, first + rows, rows, total, grid_rows, m, q, side * side)
            weights = address_of(packed) + q * channels * outputs * size
            a, a_row = of_v + q * v_plane, channels * size
            for j in range(0, outputs, PANEL * lanes):
                columns = min(PANEL * lanes, outputs - j)
                c, c_row = of_products + q * products_plane + j * size, outputs * size
                b, b_k = weights + channels * j * size, columns * size
                if columns > lanes:
                    rows_by_4_2(v, tiles, c, c_row, a, a_row, size, b, b_k, channels, none)
                else:
                    rows_by_4_1(v, tiles, c, c_row, a, a_row, size, b, b_k, channels, none)
        _tiles_out(
            y,
            of_products,
            products_plane,
            first,
            rows,
            grid_rows,
            grid_columns,
            m,
            patch,
            bias,
            rectified,
        )


@kernel
def weight_gradient(dw, dy, x, bounds, plan, patch, v, z, u, m, add_weight):
    """Writes (adds, if so said) for each shard dw = G^T [sum over tiles of (B^T x B) (A dy A^T)] G.

    dw (S, 3, 3, C, K). Scratch: as in `correlate`, z for the transformed dy, and u (a a C K,) for
    the sum.
    """
    size = dw.itemsize
    lanes = VECTOR_BYTES // size
    shape = plan[0]
    block = shape.block
    side = m + 2
    channels, outputs = x.shape[3], dy.shape[3]
    grid_rows, grid_columns = (dy.shape[1] + m - 1) // m, (dy.shape[2] + m - 1) // m
    v_plane = block * grid_columns * channels * size + SKEW
    z_plane = block * grid_columns * outputs * size + SKEW
    of_v, of_z, of_u = address_of(v), address_of(z), address_of(u)
    plane, none = channels * outputs * size, np.int64(0)
    accumulate = np.int64(add_weight)
    for s in range(len(dw)):
        begin, last = bounds[s] * grid_rows, bounds[s + 1] * grid_rows
        if begin == last:
            u[:] = constant(u, "zero")
        for first in range(begin, last, block):
            further = np.int64(first > begin)
            rows = min(block, last - first)
            tiles = rows * grid_columns
            _inputs_in(
                of_v,
                v_plane,
                x,
                first,
                rows,
                grid_rows,
                grid_columns,
                m,
                side,
                shape.top,
                shape.left,
                patch,
            )
            _gradients_in(
                of_z, z_plane, dy, first, rows, grid_rows, grid_columns, m, m, none, none, patch
            )
            for q in range(side * side):
                _fetch(x, first + rows, rows, last, grid_rows, m, q, side * side)
                _fetch(dy, first + rows, rows, last, grid_rows, m, q, side * side)
                a, a_k = of_v + q * v_plane, channels * size
                for j in range(0, outputs, PANEL * lanes):
                    columns = min(PANEL * lanes, outputs - j)
                    c, c_row = of_u + q * plane + j * size, outputs * size
                    b, b_k = of_z + q * z_plane + j * size, outputs * size
                    if columns > lanes:
                        rows_of_2(u, channels, c, c_row, a, size, a_k, b, b_k, tiles, further)
                    else:
                        rows_of_1(u, channels, c, c_row, a, size, a_k, b, b_k, tiles, further)
        target = address_of(dw[s])
        across = (m + 2) * plane
        for c in range(channels):
            to, of = target + c * outputs * size, of_u + c * outputs * size
            if m == 2:
                _filter_gradient_2(
                    dw, outputs, to, of, none, 3 * plane, plane, across, plane, none, accumulate
                )
            else:
                _filter_gradient_4(
                    dw, outputs, to, of, none, 3 * plane, plane, across, plane, none, accumulate
                )
