"""Frames: the images that a convolution reads where its border is made from the image itself, or
where the images are slices of a volume.

Frame p of a volume x (D, H, W, C) has `taps` slices side by side as channels: frame[i, j, (g, a,
c)] = x[slices[p, a], rows[i], columns[j], (g, c)] for tap a and group g, or 0 where `slices` is -1.
An image is a volume of one slice, which has one frame of one tap.

Letters: x (N, D, H, W, C), frames (M, H', W', taps C), slices (frames of a sample, taps). The M
frames are those from number `first` on, counted through all samples. `columns` counts 0..W-1 from
`left` on; what stands before and after that says where the border comes from. With one tap,
`groups` is 1.
"""

import numpy as np

from .jit import kernel
from .llvm.memory import add_rows, address_of, copy_rows
from .llvm.vmath import constant


@kernel
def gather(frames, x, first, slices, rows, columns, left, groups):
    """Writes the frames of x."""
    _, depth, height, width, channels = x.shape
    taps, size, inner = slices.shape[1], x.itemsize, channels // groups
    pixel = channels * size
    to_pixel = taps * pixel
    zero = constant(frames, "zero")
    # A row of one slice is one run of elements.
    pixels, run = (width, inner) if taps > 1 else (np.int64(1), width * channels)
    border = len(columns) - width
    for m in range(len(frames)):
        n, p = (first + m) // len(slices), (first + m) % len(slices)
        for i in range(len(rows)):
            to_row = address_of(frames) + (m * len(rows) + i) * len(columns) * to_pixel
            for a in range(taps):
                row = ((n * depth + slices[p, a]) * height + rows[i]) * width
                for g in range(groups):
                    k = (g * taps + a) * inner
                    if slices[p, a] < 0:
                        for j in range(len(columns)):
                            for c in range(inner):
                                frames[m, i, j, k + c] = zero
                        continue
                    to, of = to_row + k * size, address_of(x) + row * pixel + g * inner * size
                    copy_rows(x, to + left * to_pixel, to_pixel, of, pixel, pixels, run, 0)
                    for b in range(border):
                        j = b if b < left else b + width
                        at = of + columns[j] * pixel
                        copy_rows(x, to + j * to_pixel, to_pixel, at, pixel, 1, inner, 0)


@kernel
def scatter(dx, frames, first, slices, rows, columns, left, groups):
    """Adds to dx the gradients of the frames of x: each element gets its contributions in the order
    of the frames, taps and rows, and of a row the pixel's own before those of the border.

    dx of a sample is set to 0 before its first frame.
    """
    _, depth, height, width, channels = dx.shape
    taps, size, inner = slices.shape[1], dx.itemsize, channels // groups
    pixel = channels * size
    of_pixel = taps * pixel
    zero = constant(dx, "zero")
    pixels, run = (width, inner) if taps > 1 else (np.int64(1), width * channels)
    border = len(columns) - width
    for m in range(len(frames)):
        n, p = (first + m) // len(slices), (first + m) % len(slices)
        if p == 0:
            dx[n].reshape(-1)[:] = zero
        for a in range(taps):
            if slices[p, a] < 0:
                continue
            for i in range(len(rows)):
                row = ((n * depth + slices[p, a]) * height + rows[i]) * width
                of_row = address_of(frames) + (m * len(rows) + i) * len(columns) * of_pixel
                for g in range(groups):
                    to = address_of(dx) + row * pixel + g * inner * size
                    of = of_row + (g * taps + a) * inner * size
                    add_rows(dx, to, pixel, of + left * of_pixel, of_pixel, pixels, run)
                    for b in range(border):
                        j = b if b < left else b + width
                        at = to + columns[j] * pixel
                        add_rows(dx, at, pixel, of + j * of_pixel, of_pixel, 1, inner)
