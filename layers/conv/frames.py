"""Convolutions of volumes, and those whose border is made from the image itself: by way of frames.

A window of several slices of a volume is a window of one image whose channels are those slices side
by side. So frames, such images, are written into memory that stays in the cache, a few at a time,
and another algorithm convolves them; what it gives back as their gradient is added to the slices
that they came from. The same copy fills borders. What it costs is a pass over the input, of which
each element takes part in as many multiply-adds as the window has pixels times the outputs have
channels; and Winograd's transforms and all else that is known of images hold for volumes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from layers.checks import Pair
from layers.engine.precision import Precision
from layers.kernels import conv_frames, elementwise
from layers.kernels.machine import FRAME_BYTES
from layers.types import Array, Integers

from .algorithm import ConvAlgorithm
from .algorithms import choose
from .tables import Axis, ConvShape, Window

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def places(mode: str, length: int, before: int, after: int) -> Integers:
    """Return which element of an axis of so many stands at each place of the padded axis; -1 for a
    zero.
    """
    at = np.arange(-before, length + after)
    if mode == "reflect":
        last = length - 1
        return np.asarray(last - np.abs(last - np.abs(at)))
    if mode == "replicate":
        return np.clip(at, 0, length - 1)
    if mode == "circular":
        return at % length
    return np.where((at < 0) | (at >= length), -1, at)


def padding_limit(mode: str, length: int) -> float:
    """Return the largest padding that an axis of so many elements gives."""
    return {"reflect": length - 1, "circular": length}.get(mode, math.inf if length else 0)


@dataclass(frozen=True)
class Frames:
    """Where the frames of a volume come from: the arguments of `kernels.conv_frames` after
    `first`.
    """

    slices: Integers
    rows: Integers
    columns: Integers
    left: int
    groups: int

    @property
    def kernel_arguments(self) -> tuple[Any, ...]:
        """The arguments in their order."""
        return self.slices, self.rows, self.columns, self.left, self.groups

    @property
    def taps(self) -> int:
        """The number of slices in a frame."""
        return int(self.slices.shape[1])

    def are_slices(self, volume: tuple[int, ...]) -> bool:
        """Return whether the frames are the slices of such volumes as they are."""
        whole = tuple(map(len, (self.slices, self.rows, self.columns))) == volume
        return whole and self.taps == 1 and bool((self.slices[:, 0] == np.arange(volume[0])).all())

    @property
    def contributions(self) -> int:
        """The largest number of pixels of frames that come from one pixel."""
        counts = [
            int(np.bincount(of[of >= 0].reshape(-1)).max(initial=1))
            for of in (self.slices, self.rows, self.columns)
        ]
        return counts[0] * counts[1] * counts[2]


class Framed(ConvAlgorithm):
    """Another algorithm, `inner`, over the frames of images (N, H, W, C) or volumes (N, D, H, W,
    C).
    """

    def __init__(self, inner: ConvAlgorithm, frames: Frames, image: tuple[int, ...]) -> None:
        super().__init__(inner.shape, inner.dtype)
        self.inner = inner
        self.frames = frames
        self._image = image
        self._depth = image[0] if len(image) == 3 else 1
        self._in_place = len(image) == 3 and frames.are_slices(image)
        of_frame = math.prod(inner.shape.image) * inner.shape.channels[0] * inner.dtype.itemsize
        self.together = max(1, FRAME_BYTES // of_frame)
        """How many frames are in memory at a time."""
        depth = (len(frames.slices),) if len(image) == 3 else ()
        self._outputs = (*depth, *inner.shape.outputs)

    def __repr__(self) -> str:
        return f"Framed({self.inner!r})"

    @property
    def image(self) -> tuple[int, ...]:
        return self._image

    @property
    def outputs(self) -> tuple[int, ...]:
        return self._outputs

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        images, weight = _images(y), self._weight(call, weight)
        for part, frames in self._gathered(call, x, 0, len(images)):
            self.inner.apply(call, images[part], frames, weight, bias, rectified)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        images, weight = _images(dy), self._weight(call, weight)
        if self._in_place:
            self.inner.adjoint(call, _images(dx), images, weight, bias, rectified)
            return
        volumes = self._volumes(dx)
        for first in range(0, len(images), self.together):
            part = images[first : first + self.together]
            frames = self._buffer(call)[: len(part)]
            self.inner.adjoint(call, frames, part, weight, bias[:0], False)
            call.run(conv_frames.scatter, volumes, frames, first, *self.frames.kernel_arguments)
        if bias.size:
            call.run(np.add, dx, bias, dx)
        if rectified:
            call.run(elementwise.relu, dx.reshape(-1), dx.reshape(-1))

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        # The taps of slices stand side by side in the weight of the frames.
        apart, images, of_sample = self.frames.taps > 1, _images(dy), len(self.frames.slices)
        inner_dw = (
            call.buffer("dw", (len(dw), *self._weight_shape), self.dtype)
            if apart
            else dw.reshape(len(dw), *self._weight_shape)
        )
        for s in range(len(dw)):
            start, stop = int(bounds[s]) * of_sample, int(bounds[s + 1]) * of_sample
            more = add and not apart
            if start == stop and not more:
                call.run(np.copyto, inner_dw[s], 0)
            for part, frames in self._gathered(call, x, start, stop):
                whole = _whole(len(frames))
                self.inner.gradient(call, inner_dw[s : s + 1], images[part], frames, whole, more)
                more = True
        if apart:
            found, slices = _taps_first(inner_dw, self.frames.taps), self.shape.taps
            target = dw.reshape(len(dw), self.frames.taps, slices, found.shape[-1])
            if add:
                call.run(np.add, target, found, target)
            else:
                call.run(np.copyto, target, found)

    def _gathered(
        self, call: Any, x: Array, start: int, stop: int
    ) -> Iterator[tuple[slice, Array]]:
        """Yield the frames from `start` to `stop`, some at a time, and which they are."""
        if self._in_place:
            yield slice(start, stop), _images(x)[start:stop]
            return
        volumes = self._volumes(x)
        for first in range(start, stop, self.together):
            frames = self._buffer(call)[: stop - first]
            call.run(conv_frames.gather, frames, volumes, first, *self.frames.kernel_arguments)
            yield slice(first, first + len(frames)), frames

    def _buffer(self, call: Any) -> Array:
        shape = (self.together, *self.shape.image, self.shape.channels[0])
        buffer: Array = call.buffer("frames", shape, self.dtype)
        return buffer

    def _volumes(self, x: Array) -> Array:
        return x.reshape(len(x), self._depth, *x.shape[-3:])

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        window, (inputs, outputs) = self.shape.window, self.shape.channels
        return window.rows.size, window.columns.size, inputs // window.groups, outputs

    def _weight(self, call: Any, weight: Array) -> Array:
        """Return the weight of the frames: that of all slices side by side."""
        taps = self.frames.taps
        if taps == 1:
            return weight.reshape(self._weight_shape)
        packed: Array = call.buffer("weight", self._weight_shape, self.dtype)
        by_taps = _taps_first(packed[np.newaxis], taps)
        call.run(np.copyto, by_taps, weight.reshape(by_taps.shape))
        return packed


class SlicesApart(ConvAlgorithm):
    """The sum of algorithms for the single slices of a window, one after the other: for depthwise
    windows, whose slices as channels would leave a vector empty.
    """

    def __init__(self, of_slices: list[Framed]) -> None:
        super().__init__(of_slices[0].shape, of_slices[0].dtype)
        self.of_slices = of_slices

    def __repr__(self) -> str:
        return f"SlicesApart({self.of_slices[0].inner!r})"

    @property
    def image(self) -> tuple[int, ...]:
        return self.of_slices[0].image

    @property
    def outputs(self) -> tuple[int, ...]:
        return self.of_slices[0].outputs

    def apply(
        self, call: Any, y: Array, x: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        maps = [of_slice.apply for of_slice in self.of_slices]
        self._add_up(call, maps, y, x, weight, bias, rectified)

    def adjoint(
        self, call: Any, dx: Array, dy: Array, weight: Array, bias: Array, rectified: bool
    ) -> None:
        maps = [of_slice.adjoint for of_slice in self.of_slices]
        self._add_up(call, maps, dx, dy, weight, bias, rectified)

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        for a, of_slice in enumerate(self.of_slices):
            of_slice.gradient(call, dw[:, a], dy, x, bounds, add)

    def _add_up(
        self,
        call: Any,
        maps: Sequence[Callable[..., None]],
        y: Array,
        x: Array,
        weight: Array,
        bias: Array,
        rectified: bool,
    ) -> None:
        maps[0](call, y, x, weight[0], bias, False)
        part = call.buffer("part", y.shape, self.dtype)
        for of_slice, taps in zip(maps[1:], weight[1:], strict=True):
            of_slice(call, part, x, taps, bias[:0], False)
            call.run(np.add, y, part, y)
        if rectified:
            call.run(elementwise.relu, y.reshape(-1), y.reshape(-1))


@lru_cache
def _whole(count: int) -> Integers:
    """Return the bounds of so many frames as one shard."""
    return np.array((0, count), np.int64)


def _images(x: Array) -> Array:
    return x.reshape(-1, *x.shape[-3:])


def _taps_first(weight: Array, taps: int) -> Array:
    """Return the view (S, taps, rows columns, …) of a weight (S, rows, columns, taps …, K)."""
    shards, rows, columns, inputs, outputs = weight.shape
    apart = weight.reshape(shards, rows * columns, taps, inputs // taps * outputs)
    return apart.swapaxes(1, 2)


def framed(
    axes: Sequence[Axis],
    image: tuple[int, ...],
    outputs: tuple[int, ...],
    channels: Pair,
    groups: int,
    mode: str,
    dtype: Any,
    algorithm: str,
    precision: Precision,
    *,
    transposed: bool = False,
) -> ConvAlgorithm:
    """Return the algorithm for a window over images (rows, columns) or volumes (depth, rows,
    columns), whose padding is made as `mode` says; see `choose`.
    """
    *depth, rows, columns = axes
    slices = np.zeros((1, 1), np.int64)
    for axis in depth:
        slices = np.add.outer(
            np.arange(outputs[0]) * axis.stride, np.arange(axis.size) * axis.dilation
        )
        slices = places(mode, image[0], axis.before, axis.after)[slices]
    left = 0
    if mode == "zeros":
        # The inner algorithm pads.
        of_rows, of_columns = (np.arange(length) for length in image[-2:])
    else:
        of_rows, of_columns = (
            places(mode, length, axis.before, axis.after)
            for length, axis in zip(image[-2:], (rows, columns), strict=True)
        )
        left = columns.before
        rows, columns = (replace(axis, before=0, after=0) for axis in (rows, columns))
    window, size = Window(rows, columns, groups), (len(of_rows), len(of_columns))

    def of(slices: Integers) -> Framed:
        taps = slices.shape[1]
        # Channels of one slice stay in their order.
        frames = Frames(slices, of_rows, of_columns, left, groups if taps > 1 else 1)
        shape = ConvShape(
            window, size, (outputs[-2], outputs[-1]), (taps * channels[0], channels[1])
        )
        inner = choose(shape, dtype, algorithm, precision, transposed=transposed)
        return Framed(inner, frames, image)

    if groups == channels[0] > 1 < slices.shape[1]:
        return SlicesApart(
            [of(np.ascontiguousarray(slices[:, [a]])) for a in range(slices.shape[1])]
        )
    return of(slices)
