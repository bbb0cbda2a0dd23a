"""Bands of an image's rows with its padding around them, so that microkernels meet no border."""

from .jit import inlined
from .llvm.memory import address_of
from .llvm.vmath import constant


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


@inlined
def rows_read(band, x, n, first, rows, plan):
    """Return the address of what output rows first..first+rows of image n read: in place, or copied
    to the band if the plan, a `conv.PLAN`, says so.
    """
    if plan.copied:
        top = first * plan.row_step - plan.top
        height = (rows - 1) * plan.row_step + plan.span
        copy_band(band, x[n], top, height, plan.left, plan.width)
        return address_of(band)
    return address_of(x[n]) + first * plan.row_step * x.strides[1]
