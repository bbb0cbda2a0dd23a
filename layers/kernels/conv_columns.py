"""The gradient of a convolution's input where it has few channels, so few that they would fill a
small part of a vector.

One matrix product of an image gives what every output pixel contributes through every tap, pixels
side by side in vectors; adding them up at their places is cheap. This is the adjoint of unrolling
an image into columns: Chellapilla, Puri and Simard, "High performance convolutional neural networks
for document processing", 2006.
"""

from .gemm import pack_panel
from .jit import kernel
from .llvm.planes import rows_of_2
from .llvm.vmath import constant
from .machine import VECTOR_BYTES


@kernel
def input_gradient(dx, dy, weight, numbers, padded, panel, columns, planes):
    """Writes dx[p + e_t, c] = sum over taps t, pixels p and channels k of dy[p, k] weight[t, c, k],
    at stride 1.

    dx (N, H, W, C); dy (N, P, Q, K); weight (kernel rows, kernel columns, C, K). `numbers` are
    those of `conv_plan.Columns`. Scratch: padded (pixels, K), the rows of dy lengthened by zeros to
    those of the planes, then zeros up to whole panels; panel, two vectors of pixels; columns (taps
    times C, pixels); planes (C, rows R), an image with its padding around it, so that what a tap
    contributes is one run of elements.
    """
    row_dilation, column_dilation, top, left, pitch = numbers
    kernel_columns, channels, outputs = weight.shape[1], weight.shape[2], weight.shape[3]
    rows, width = dy.shape[1], dy.shape[2]
    height_in, width_in = dx.shape[1], dx.shape[2]
    size = dx.itemsize
    lanes = VECTOR_BYTES // size
    zero = constant(dx, "zero")
    run = (rows - 1) * pitch + width
    padded[:] = zero
    for n in range(len(dx)):
        for p in range(rows):
            padded[p * pitch : p * pitch + width] = dy[n, p]
        for j in range(0, len(padded), 2 * lanes):
            pack_panel(panel, padded, True, 0, outputs, j, 2 * lanes, 2)
            rows_of_2(
                dx,
                columns.ctypes.data + j * size,
                len(padded) * size,
                weight.ctypes.data,
                outputs * size,
                size,
                panel.ctypes.data,
                2 * VECTOR_BYTES,
                outputs,
                len(columns),
                0,
            )
        planes[:] = zero
        for t in range(len(columns)):
            c, tap = t % channels, t // channels
            start = (
                tap // kernel_columns * row_dilation * pitch
                + tap % kernel_columns * column_dilation
            )
            to, of = planes[c, start : start + run], columns[t, :run]
            for q in range(run):
                to[q] += of[q]
        for i in range(height_in):
            for c in range(channels):
                start = (top + i) * pitch + left
                to, of = dx[n, i, :, c], planes[c, start : start + width_in]
                for j in range(width_in):
                    to[j] = of[j]
