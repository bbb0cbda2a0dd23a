"""The gradient of a convolution's input where it has few channels, so few that they would fill a
small part of a vector.

One matrix product of an image gives what every output pixel contributes through every tap, pixels
side by side in vectors; adding them up at their places is cheap. This is the adjoint of unrolling
an image into columns: Chellapilla, Puri and Simard, "High performance convolutional neural networks
for document processing", 2006.
"""

import numpy as np

from .gemm import pack_panel
from .jit import kernel
from .llvm.memory import address_of
from .llvm.planes import rows_of_2
from .llvm.vmath import constant
from .machine import VECTOR_BYTES
from .records import record

# Dilations; padding above and left; pixels from a row of a plane to the next.
PLAN = record("row_dilation", "column_dilation", "top", "left", "pitch")


@kernel
def input_gradient(dx, dy, weight, plan, padded, panel, columns, planes):
    """Writes dx[p + e_t, c] = sum over taps t, pixels p and channels k of dy[p, k] weight[t, c, k],
    at stride 1.

    dx (N, H, W, C); dy (N, P, Q, K); weight (kernel rows, kernel columns, C, K); `plan` is one
    record PLAN. Scratch: padded (pixels, K), the rows of dy lengthened by zeros to those of the
    planes, then zeros up to whole panels; panel, two vectors of pixels; columns (taps times C,
    pixels); planes (C, rows R), an image with its padding around it, so that what a tap contributes
    is one run of elements.
    """
    shape = plan[0]
    pitch = shape.pitch
    kernel_columns, channels, outputs = weight.shape[1], weight.shape[2], weight.shape[3]
    rows, width = dy.shape[1], dy.shape[2]
    height_in, width_in = dx.shape[1], dx.shape[2]
    size = dx.itemsize
    lanes = VECTOR_BYTES // size
    zero = constant(dx, "zero")
    run = (rows - 1) * pitch + width
    padded[:] = zero
    flat = padded.reshape(padded.size)
    for n in range(len(dx)):
        for p in range(rows):
            to, of = flat[p * pitch * outputs :], dy[n, p].reshape(width * outputs)
            for q in range(width * outputs):
                to[q] = of[q]
        for j in range(0, len(padded), 2 * lanes):
            pack_panel(
                panel, padded, True, np.int64(0), outputs, j, np.int64(2 * lanes), np.int64(2)
            )
            rows_of_2(
                panel,
                len(columns),
                address_of(columns) + j * size,
                len(padded) * size,
                address_of(weight),
                outputs * size,
                size,
                address_of(panel),
                2 * VECTOR_BYTES,
                outputs,
                np.int64(0),
            )
        planes[:] = zero
        for t in range(len(columns)):
            c, tap = t % channels, t // channels
            start = (
                tap // kernel_columns * shape.row_dilation * pitch
                + tap % kernel_columns * shape.column_dilation
            )
            to, of = planes[c, start : start + run], columns[t, :run]
            for q in range(run):
                to[q] += of[q]
        for i in range(height_in):
            for c in range(channels):
                start = (shape.top + i) * pitch + shape.left
                to, of = dx[n, i, :, c], planes[c, start : start + width_in]
                for j in range(width_in):
                    to[j] = of[j]
