"""The check that needs no gradient: what changes when a part of the input is hidden."""

from collections.abc import Iterator
from itertools import product
from math import ceil
from typing import Any

import numpy as np

from layers import Module
from layers.checks import positive_int
from layers.errors import message, wording
from layers.types import Array

from .explained import BATCH, Explained, Found, Part
from .result import Attribution
from .target import Target

Window = tuple[slice, ...]


@wording("occlusion")
def occlusion(
    model: Module,
    x: Any,
    target: Target = None,
    *,
    window: int | tuple[int, ...] = 1,
    stride: int = 1,
    baseline: Any = None,
    batch_size: int = BATCH,
) -> Attribution:
    """Return how much the explained output falls when a window of the input is replaced by the
    baseline, as the mean over the windows that a number lies in (Zeiler and Fergus 2013, arXiv
    1311.2901).

    Parameters
    ----------
    model, x, target, batch_size
        See `saliency`. The model runs once for every window.
    window
        Its sizes along the axes after that of the samples, whole along those that are not named;
        one number is that of both axes of images, and of the first one of everything else.
    stride
        Steps from one window to the next along each of these axes; no longer than the window.
    baseline
        See `integrated_gradients`.

    Raises
    ------
    ValueError
        The window has more axes than a sample, or numbers between windows would never be hidden.
    """
    owner = "occlusion"
    fix = "Pass a size, or one for each axis, such as (3, 3)."
    each = window if isinstance(window, tuple) else (window,)
    sizes = tuple(positive_int(owner, "window", size, fix) for size in each)
    stride = positive_int(owner, "stride", stride, "1 is usual.")
    explained = Explained(owner, model, x, target, batch_size, baseline)

    def one(part: Part) -> Found:
        done = part.run()
        numbers, points = part.numbers(done), [point.copy() for point in done.points]
        others = part.baseline(points)
        found: list[Array] = [np.zeros(part.arrays[n].shape) for n in explained.origins]
        for origin in dict.fromkeys(explained.origins):
            places = [n for n, each in enumerate(explained.origins) if each == origin]
            # Of the sums and of how many windows they are; tokens that are looked up several times
            # are hidden in all tables at once.
            total = found[places[0]]
            count = np.zeros(total.shape[1:])
            for hole in _windows(owner, total.shape[1:], sizes, stride):
                hidden = list(points)
                for place in places:
                    hidden[place] = points[place].copy()
                    hidden[place][:, *hole] = others[place][:, *hole]
                fall = numbers - part.numbers(part.run(hidden))
                total[:, *hole] += fall.reshape(-1, *(1,) * (total.ndim - 1))
                count[hole] += 1
            total /= np.maximum(count, 1)
        dtype = points[0].dtype
        return [each.astype(dtype) for each in found], numbers, None

    return explained.attributions(one)


def _windows(
    owner: str, shape: tuple[int, ...], sizes: tuple[int, ...], stride: int
) -> Iterator[Window]:
    """Yield the windows over a sample of this shape; the last ones end with it."""
    if len(sizes) == 1 and len(shape) == 3:
        sizes *= 2
    if len(sizes) > len(shape):
        must = f"window must have at most the {len(shape)} axes of a sample {shape}"
        fix = "Leave the axis of the batch out."
        raise ValueError(message(owner, must, sizes, fix))
    axes = []
    for size, length in zip(sizes, shape, strict=False):
        if size < min(stride, length):
            must = f"stride must be at most the window's {size}, or numbers are never hidden"
            fix = "Pass a larger window or a smaller stride."
            raise ValueError(message(owner, must, stride, fix))
        number = max(1, ceil((length - size) / stride) + 1)
        starts = range(0, number * stride, stride)
        axes.append([slice(start, min(start + size, length)) for start in starts])
    yield from product(*axes)
