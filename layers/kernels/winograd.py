"""Convolution of 3 x 3 at stride 1 by Winograd's minimal filtering: outputs are computed m x m at a
time, m being 2 or 4.

Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016: tiles of a = m + 2 pixels
a side are transformed, and the convolution becomes a a matrix products of tiles times channels,
which take 2.25 (m = 2) or 4 (m = 4) times fewer multiplications. F(2 x 2) rounds better than direct
convolution, F(4 x 4) about twice as badly, with the points chosen here.

Tiles are those of all images in order, `block` rows of tiles at a time. Channels must be multiples
of the vector's lanes. Letters: x (N, H, W, C), y (N, P, Q, K), weight (3, 3, C, K).
"""

from .conv import PANEL
from .gemm import transpose_plane
from .jit import inlined, kernel
from .llvm.planes import rows_by_4_1, rows_by_4_2, rows_of_1, rows_of_2
from .llvm.simd_winograd import copy_between_zeros, grid_transform
from .llvm.vmath import constant
from .machine import VECTOR_BYTES

# Bytes between the planes of transformed tiles, lest they lie a power of two apart: those would
# share few places in the cache.
SKEW = 320


def _transform_of(name):
    """Return the helper that applies one of the transforms to all channels of a tile."""

    @inlined
    def transform(
        like,
        out,
        out_row,
        out_column,
        source,
        source_row,
        source_column,
        channels,
        bias,
        rectify,
        accumulate,
    ):
        size = like.itemsize
        for c in range(0, channels * size, VECTOR_BYTES):
            grid_transform(
                like,
                out + c,
                out_row,
                out_column,
                source + c,
                source_row,
                source_column,
                bias + c,
                rectify,
                accumulate,
                name,
            )

    return transform


_input_2, _input_4 = _transform_of("input 2"), _transform_of("input 4")
_output_2, _output_4 = _transform_of("output 2"), _transform_of("output 4")
_filter_2, _filter_4 = _transform_of("filter 2"), _transform_of("filter 4")
_output_gradient_2, _output_gradient_4 = (
    _transform_of("output gradient 2"),
    _transform_of("output gradient 4"),
)
_filter_gradient_2, _filter_gradient_4 = (
    _transform_of("filter gradient 2"),
    _transform_of("filter gradient 4"),
)


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
        to = patch.ctypes.data + a * side * pixel
        if top + a < 0 or top + a >= height:
            copy_between_zeros(patch, to, to, side * vectors, 0, 0)
        else:
            of = image.ctypes.data + ((top + a) * width + start) * pixel
            copy_between_zeros(
                patch,
                to,
                of,
                (start - left) * vectors,
                (stop - start) * vectors,
                (left + side - stop) * vectors,
            )


@inlined
def _tiles_in(v, plane, x, first, rows, grid, m, side, top, left, patch, gradient):
    """Transform `rows` rows of tiles of the images x from row `first` on: inputs, or output
    gradients of m x m pixels.
    """
    size = x.itemsize
    _, height, width, channels = x.shape
    grid_rows, grid_columns = grid
    for r in range(rows):
        n, i = (first + r) // grid_rows, (first + r) % grid_rows
        for j in range(grid_columns):
            row, column = i * m - top, j * m - left
            if row >= 0 and column >= 0 and row + side <= height and column + side <= width:
                source = x.ctypes.data + ((n * height + row) * width + column) * channels * size
                source_row = width * channels * size
            else:
                _copy_patch(patch, x[n], row, column, side)
                source, source_row = patch.ctypes.data, side * channels * size
            to = v + (r * grid_columns + j) * channels * size
            step = channels * size
            if gradient:
                if m == 2:
                    _output_gradient_2(
                        x, to, 4 * plane, plane, source, source_row, step, channels, 0, 0, 0
                    )
                else:
                    _output_gradient_4(
                        x, to, 6 * plane, plane, source, source_row, step, channels, 0, 0, 0
                    )
            elif m == 2:
                _input_2(x, to, 4 * plane, plane, source, source_row, step, channels, 0, 0, 0)
            else:
                _input_4(x, to, 6 * plane, plane, source, source_row, step, channels, 0, 0, 0)


@inlined
def _tiles_out(y, products, plane, first, rows, grid, m, patch, bias, rectified):
    """Transform rows of tiles back and write their pixels to y; those of a last, partial tile by
    way of the patch.
    """
    size = y.itemsize
    _, height, width, channels = y.shape
    grid_rows, grid_columns = grid
    step = channels * size
    rectify = 1 if rectified else 0
    add = bias.ctypes.data
    for r in range(rows):
        n, i = (first + r) // grid_rows, (first + r) % grid_rows
        for j in range(grid_columns):
            whole = (i + 1) * m <= height and (j + 1) * m <= width
            to, to_row = y.ctypes.data + ((n * height + i * m) * width + j * m) * step, width * step
            if not whole:
                to, to_row = patch.ctypes.data, m * step
            of = products + (r * grid_columns + j) * step
            if m == 2:
                _output_2(y, to, to_row, step, of, 4 * plane, plane, channels, add, rectify, 0)
            else:
                _output_4(y, to, to_row, step, of, 6 * plane, plane, channels, add, rectify, 0)
            if not whole:
                for a in range(min(m, height - i * m)):
                    for b in range(min(m, width - j * m)):
                        y[n, i * m + a, j * m + b] = patch[
                            (a * m + b) * channels : (a * m + b + 1) * channels
                        ]


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
    source, tap = weight.ctypes.data, channels * outputs * size
    if transposed:
        for t in range(9):
            transpose_plane(turned[8 - t], weight[t // 3, t % 3])
        channels, outputs = outputs, channels
        source = turned.ctypes.data
    for j in range(0, outputs, PANEL * lanes):
        columns = min(PANEL * lanes, outputs - j)
        for c in range(channels):
            to = packed.ctypes.data + (channels * j + c * columns) * size
            of = source + (c * outputs + j) * size
            if m == 2:
                _filter_2(packed, to, 4 * tap, tap, of, 3 * tap, tap, columns, 0, 0, 0)
            else:
                _filter_4(packed, to, 6 * tap, tap, of, 3 * tap, tap, columns, 0, 0, 0)


@kernel
def correlate(y, x, packed, bias, numbers, patch, v, products, m, rectified):
    """Writes y = x correlated with the packed weight, plus bias (K,), and max(y, 0) in its place if
    `rectified`.

    `numbers` are those of `conv_plan.Winograd`: padding above and left, rows of tiles in a block.
    patch, v and products are scratch: a tile of pixels, the transformed tiles of a block, and their
    products with the weight.
    """
    size = y.itemsize
    lanes = VECTOR_BYTES // size
    top, left, block = numbers
    side = m + 2
    channels, outputs = x.shape[3], y.shape[3]
    grid = ((y.shape[1] + m - 1) // m, (y.shape[2] + m - 1) // m)
    v_plane, products_plane = (
        block * grid[1] * channels * size + SKEW,
        block * grid[1] * outputs * size + SKEW,
    )
    total = len(x) * grid[0]
    for first in range(0, total, block):
        rows = min(block, total - first)
        _tiles_in(v.ctypes.data, v_plane, x, first, rows, grid, m, side, top, left, patch, False)
        for q in range(side * side):
            weights = packed.ctypes.data + q * channels * outputs * size
            for j in range(0, outputs, PANEL * lanes):
                columns = min(PANEL * lanes, outputs - j)
                c, a, b = (
                    products.ctypes.data + q * products_plane + j * size,
                    v.ctypes.data + q * v_plane,
                    weights + channels * j * size,
                )
                if columns > lanes:
                    rows_by_4_2(
                        y,
                        c,
                        outputs * size,
                        a,
                        channels * size,
                        size,
                        b,
                        columns * size,
                        channels,
                        rows * grid[1],
                        0,
                    )
                else:
                    rows_by_4_1(
                        y,
                        c,
                        outputs * size,
                        a,
                        channels * size,
                        size,
                        b,
                        columns * size,
                        channels,
                        rows * grid[1],
                        0,
                    )
        _tiles_out(
            y, products.ctypes.data, products_plane, first, rows, grid, m, patch, bias, rectified
        )


@kernel
def weight_gradient(dw, dy, x, bounds, numbers, patch, v, z, u, m, add_weight):
    """Writes (adds, if so said) for each shard dw = G^T [sum over tiles of (B^T x B) (A dy A^T)] G.

    dw (S, 3, 3, C, K). Scratch: as in `correlate`, z for the transformed dy, and u (a a C K,) for
    the sum.
    """
    size = dw.itemsize
    lanes = VECTOR_BYTES // size
    top, left, block = numbers
    side = m + 2
    channels, outputs = x.shape[3], dy.shape[3]
    grid = ((dy.shape[1] + m - 1) // m, (dy.shape[2] + m - 1) // m)
    v_plane, z_plane = (
        block * grid[1] * channels * size + SKEW,
        block * grid[1] * outputs * size + SKEW,
    )
    plane = channels * outputs * size
    for s in range(len(dw)):
        begin, last = bounds[s] * grid[0], bounds[s + 1] * grid[0]
        if begin == last:
            u[:] = constant(u, "zero")
        for first in range(begin, last, block):
            further = 1 if first > begin else 0
            rows = min(block, last - first)
            _tiles_in(
                v.ctypes.data, v_plane, x, first, rows, grid, m, side, top, left, patch, False
            )
            _tiles_in(z.ctypes.data, z_plane, dy, first, rows, grid, m, m, 0, 0, patch, True)
            for q in range(side * side):
                for j in range(0, outputs, PANEL * lanes):
                    columns = min(PANEL * lanes, outputs - j)
                    c, a, b = (
                        u.ctypes.data + q * plane + j * size,
                        v.ctypes.data + q * v_plane,
                        z.ctypes.data + q * z_plane + j * size,
                    )
                    if columns > lanes:
                        rows_of_2(
                            dw,
                            c,
                            outputs * size,
                            a,
                            size,
                            channels * size,
                            b,
                            outputs * size,
                            rows * grid[1],
                            channels,
                            further,
                        )
                    else:
                        rows_of_1(
                            dw,
                            c,
                            outputs * size,
                            a,
                            size,
                            channels * size,
                            b,
                            outputs * size,
                            rows * grid[1],
                            channels,
                            further,
                        )
        accumulate = 1 if add_weight else 0
        for c in range(channels):
            to, of = dw[s].ctypes.data + c * outputs * size, u.ctypes.data + c * outputs * size
            if m == 2:
                _filter_gradient_2(
                    dw, to, 3 * plane, plane, of, 4 * plane, plane, outputs, 0, 0, accumulate
                )
            else:
                _filter_gradient_4(
                    dw, to, 3 * plane, plane, of, 6 * plane, plane, outputs, 0, 0, accumulate
                )
