"""The gradient of a convolution's input where it has few channels, so few that they would fill a
small part of a vector.

For each tap one matrix product gives what the output pixels of an image contribute through it,
pixels side by side in vectors, and is added at its place. This is the adjoint of unrolling an image
into columns: Chellapilla, Puri and Simard, "High performance convolutional neural networks for
document processing", 2006.
"""

import numpy as np

from .gemm import pack_panel
from .jit import kernel
from .llvm.memory import address_of
from .llvm.planes import rows_of_1, rows_of_2
from .llvm.vmath import constant
from .machine import VECTOR_BYTES
from .records import record

# Dilations; padding above and left; pixels from a row of a plane to the next.
PLAN = record("row_dilation", "column_dilation", "top", "left", "pitch")


@kernel
def input_gradient(dx, dy, weight, plan, padded, panels, planes):
    """Writes dx[p + e_t, c] = sum over taps t, pixels p and channels k of dy[p, k] weight[t, c, k],
    at stride 1.

    dx (N, H, W, C); dy (N, P, Q, K); weight (kernel rows, kernel columns, C, K); `plan` is one
    record PLAN. Scratch: padded (pixels, K), the rows of dy lengthened by zeros to those of the
    planes, then zeros up to whole vectors; panels (pixels K,), its transpose, two vectors of pixels
    at a time; planes (C, pixels and more), an image with its padding around it, so that what a tap
    contributes is one run of elements.
    """
    shape = plan[0]
    pitch = shape.pitch
    kernel_columns, channels, outputs = weight.shape[1], weight.shape[2], weight.shape[3]
    rows, width = dy.shape[1], dy.shape[2]
    height_in, width_in = dx.shape[1], dx.shape[2]
    size = dx.itemsize
    lanes = VECTOR_BYTES // size
    zero = constant(dx, "zero")
    pixels, add = len(padded), np.int64(1)
    padded[:] = zero
    flat = padded.reshape(padded.size)
    for n in range(len(dx)):
        for p in range(rows):
            to, of = flat[p * pitch * outputs :], dy[n, p].reshape(width * outputs)
            for q in range(width * outputs):
                to[q] = of[q]
        for j in range(0, pixels, 2 * lanes):
            vectors = np.int64(min(2, (pixels - j) // lanes))
            panel = panels[j * outputs :]
            pack_panel(panel, padded, True, np.int64(0), outputs, j, vectors * lanes, vectors)
        planes.reshape(planes.size)[:] = zero
        for t in range(weight.shape[0] * kernel_columns):
            start = (
                t // kernel_columns * shape.row_dilation * pitch
                + t % kernel_columns * shape.column_dilation
            )
            of_weight = address_of(weight) + t * channels * outputs * size
            for j in range(0, pixels, 2 * lanes):
                c = address_of(planes) + (start + j) * size
                b = address_of(panels) + j * outputs * size
                c_row, a_row = planes.strides[0], outputs * size
                if pixels - j > lanes:
                    b_k = np.int64(2 * VECTOR_BYTES)
                    rows_of_2(dx, channels, c, c_row, of_weight, a_row, size, b, b_k, outputs, add)
                else:
                    b_k = np.int64(VECTOR_BYTES)
                    rows_of_1(dx, channels, c, c_row, of_weight, a_row, size, b, b_k, outputs, add)
        for i in range(height_in):
            for c in range(channels):
                start = (shape.top + i) * pitch + shape.left
                to, of = dx[n, i, :, c], planes[c, start : start + width_in]
                for j in range(width_in):
                    to[j] = of[j]
