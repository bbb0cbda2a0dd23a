"""Functions that move elements and compute nothing. Backward moves dy back."""

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import positive_int
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer, Recorded
from layers.engine.merge import Concatenate
from layers.engine.sums import axes_of, unbroadcast
from layers.errors import message, wording
from layers.kernels.machine import POOLED_BYTES
from layers.types import Array, Integers

from .constants import alike, array_of
from .made import made

if TYPE_CHECKING:
    from layers.engine.call import Call


_MOST_AXES = 31
"""What `np.add.at` takes indices for; with more of them it ends the process."""


class Index(Layer):
    """Indexing, y = x[key]. Backward: dy is added at the places it came from.

    Arrays in the key are copied: what becomes of them later changes no gradient.
    """

    analytic = True

    def __init__(self, key: Any) -> None:
        parts = key if isinstance(key, tuple) else (key,)
        self.once = all(
            part is None or part is Ellipsis or isinstance(part, int | np.integer | slice)
            for part in parts
        )
        """Whether no element is taken twice: the key has no arrays of numbers."""
        self.key = key if self.once else tuple(map(_own, parts))
        self.replayable = self.once
        first = parts[0] if parts else Ellipsis
        self._leads = self.once and isinstance(first, slice)

    def __repr__(self) -> str:
        return f"Index({self.key!r})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        samples = call.samples_axis()
        if samples == 0 and not self._leads:
            call.moves_samples()
        if samples == 0 and call.rows_per_sample(len(x)) == 1 and not self._keeps_rows(len(x)):
            call.require_samples_apart()
        if x.ndim > _MOST_AXES:
            must, fix = f"x must have at most {_MOST_AXES} axes", "Reshape it."
            raise ValueError(message("Index", must, x.ndim, fix))
        call.save(x.shape)
        y = np.asarray(x[self.key])
        if not self.once or y.nbytes >= POOLED_BYTES or not call.recorded:
            return y
        # A part of an array from outside lies elsewhere in every step.
        copy = call.output_buffer("y", y.shape, y.dtype)
        call.run(self._take, copy, x)
        return copy

    def _take(self, y: Array, x: Array) -> None:
        y[...] = x[self.key]

    def _keeps_rows(self, rows: int) -> bool:
        """Return whether all rows stay in their order, each once or equally often, as in
        x[:, 0] and x[numpy.arange(len(x)), labels].
        """
        key = self.key if isinstance(self.key, tuple) else (self.key,)
        first = next((part for part in key if part is not None), Ellipsis)
        if first is Ellipsis:
            return True
        if isinstance(first, slice):
            return first.indices(rows) == (0, rows, 1)
        if not isinstance(first, np.ndarray) or not first.ndim or not rows:
            return False
        numbers = first.nonzero()[0] if first.dtype == bool else first
        arrays = [part for part in key if isinstance(part, np.ndarray) and part.dtype != bool]
        times, rest = divmod(len(numbers), rows)
        if rest or not times or any(part.ndim > numbers.ndim for part in arrays):
            return False
        wanted = np.arange(len(numbers)) // times
        return bool((wanted == numbers.T).all())

    def samples_after(self, shape: tuple[int, ...], axis: int, rows: int) -> int | None:
        """Return on which axis of x[key] samples lie, `rows` of them on an axis of x; None if some
        are left out, or come in another order.
        """
        size = shape[axis]
        key: list[Any] = [*self.key] if isinstance(self.key, tuple) else [self.key]
        widths = [0 if part is None or part is Ellipsis else _axes_taken(part) for part in key]
        parts: list[Any] = []
        for part, width in zip(key, widths, strict=True):
            whole = part is Ellipsis
            parts += [slice(None) if whole else part] * (
                len(shape) - sum(widths) if whole else width
            )
        part = parts[axis] if axis < len(parts) else slice(None)
        if isinstance(part, slice) and part.indices(size) == (0, size, 1):
            # Of any number of samples: several, to tell the axis from those of size 1.
            size = rows = 2
        numbers = np.arange(size) // max(1, size // max(1, rows))
        numbers = numbers.reshape(-1, *[1] * (len(shape) - 1 - axis))
        taken = np.broadcast_to(numbers, (*shape[:axis], size, *shape[axis + 1 :]))[self.key]
        return next((i for i in range(taken.ndim) if _counts(taken, i, rows)), None)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        dx = call.buffer("dx", call.saved[0], dy.dtype)
        call.run(self._put, dx, dy)
        return (dx,)

    def _put(self, dx: Array, dy: Array) -> None:
        dx[...] = 0
        if self.once:
            dx[self.key] = dy
        else:
            np.add.at(dx, self.key, dy)


def _axes_taken(part: Any) -> int:
    """Return how many axes a part of a key other than None and ... is for."""
    mask = isinstance(part, bool) or (isinstance(part, np.ndarray) and part.dtype == bool)
    return np.ndim(part) if mask else 1


def _counts(numbers: Array, axis: int, rows: int) -> bool:
    """Return whether numbers count so many rows along an axis, each once or equally often."""
    size = numbers.shape[axis]
    if not size or not rows or size % rows:
        return bool(size == rows)
    wanted = np.arange(size) // (size // rows)
    return bool((np.moveaxis(numbers, axis, -1) == wanted).all())


def indexing(key: Any) -> Layer:
    """Return the layer of x[key]: see `made`."""
    parts = key if key.__class__ is tuple else (key,)
    if not {part.__class__ for part in parts} <= {int, slice, type(None), type(Ellipsis)}:
        return Index(key)
    # Slices are not hashable before Python 3.12.
    words = (
        (part.start, part.stop, part.step) if part.__class__ is slice else part for part in parts
    )
    return made(_of_words, *words)


def _of_words(*words: Any) -> Index:
    return Index(tuple(slice(*part) if part.__class__ is tuple else part for part in words))


def _own(part: Any) -> Any:
    part = array_of(part)
    return np.array(part) if isinstance(part, np.ndarray | list) else part


class Transpose(Layer):
    """Transposition; the axes in reverse order unless said."""

    analytic = True

    def __init__(self, axes: tuple[int, ...] | None) -> None:
        self.axes = axes

    def forward(self, call: ForwardCall, x: Array) -> Array:
        if x.ndim and self.source(0, x.ndim):
            call.moves_samples()
        return np.ascontiguousarray(np.transpose(x, self.axes))

    def source(self, axis: int, ndim: int) -> int:
        """Return which axis of the input becomes this one."""
        return ndim - 1 - axis if self.axes is None else self.axes[axis] % ndim

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        back = None if self.axes is None else np.argsort([axis % dy.ndim for axis in self.axes])
        return (np.ascontiguousarray(np.transpose(dy, back)),)


class ReshapeOp(Layer):
    """The same elements in another shape.

    Parameters
    ----------
    kept
        Where only axes of size 1 come and go: of each axis, which of the input it is, or -1.
    """

    analytic = True
    replayable = True

    def __init__(self, shape: Any, kept: tuple[int, ...] | None = None) -> None:
        self.shape = shape
        self.kept = kept

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.save(x.shape)
        y = np.asarray(np.reshape(x, _without_rows(self.shape, x) or self.shape))
        if y.shape[:1] != x.shape[:1] or (self.kept and self.kept[0]):
            call.moves_samples()
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy.reshape(call.saved[0]),)


def _without_rows(shape: Any, x: Array) -> tuple[int, ...] | None:
    """Return the shape that is meant by (0, …) with a -1 for samples x (0, …), of which there are
    none; None if it is another one.
    """
    if x.size or not isinstance(shape, tuple) or shape[:1] != (0,) or -1 not in shape:
        return None
    return 0, *np.empty((1, *x.shape[1:])).reshape(1, *shape[1:]).shape[1:]


class BroadcastTo(Layer):
    """The same elements, repeated along new axes and those of size 1. Backward: dy is summed over
    them.
    """

    analytic = True

    def __init__(self, shape: Any) -> None:
        self.shape = shape

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.save(x.shape)
        y = np.array(np.broadcast_to(x, self.shape))
        call.moves_samples(y.ndim)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (unbroadcast(dy, call.saved[0]),)


class Pad(Layer):
    """A margin of one number around the elements. Backward: that of dy is cut off."""

    analytic = True

    def __init__(self, widths: Any, number: Any) -> None:
        self.widths = widths
        self.number = number

    def forward(self, call: ForwardCall, x: Array) -> Array:
        for axis, width in enumerate(self.widths):
            if any(width):
                call.require_samples_apart(axis)
        call.save(
            tuple(
                slice(before, before + size)
                for (before, _), size in zip(self.widths, x.shape, strict=True)
            )
        )
        return np.pad(x, self.widths, constant_values=self.number)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy[call.saved[0]],)


class Cast(Layer):
    """The same numbers in another floating type. Backward: dy in that of the input."""

    elementwise = True
    analytic = True

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.save(x.dtype)
        return x.astype(self.dtype)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy.astype(call.saved[0]),)


def _given(x: Any) -> Any:
    """Return a value as it is, and anything else as an array."""
    return x if isinstance(x, Recorded) else np.asarray(x)


@wording("reshape")
def reshape(x: Any, shape: Any) -> Any:
    """Return the same elements in another `shape`, in which one size may be -1."""
    return made(ReshapeOp, shape)(_given(x))


@wording("transpose")
def transpose(x: Any, axes: Any = None) -> Any:
    """Return x with its axes in this order; in the reverse one if none are given."""
    return Transpose(None if axes is None else tuple(axes))(_given(x))


@wording("swapaxes")
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Return x with `axis1` and `axis2` exchanged."""
    return transpose(x, np.swapaxes(_numbered(x), axis1, axis2).shape)


@wording("moveaxis")
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """Return x with axes moved from `source` (one or several) to `destination`; the others keep
    their order.
    """
    return transpose(x, np.moveaxis(_numbered(x), source, destination).shape)


def _numbered(x: Any) -> Array:
    """Return an array of no elements whose axes have their numbers as sizes."""
    return np.empty(range(np.ndim(array_of(x))))


@wording("squeeze")
def squeeze(x: Any, axis: Any = None) -> Any:
    """Return x without axes of size 1: `axis` (one or several), or all of them."""
    shape = np.shape(array_of(x))
    axes = [i for i in range(len(shape)) if shape[i] == 1] if axis is None else axis
    gone = axes_of(axes, len(shape))
    kept = tuple(i for i in range(len(shape)) if i not in gone)
    return made(ReshapeOp, np.squeeze(array_of(x), axis).shape, kept)(_given(x))


@wording("expand_dims")
def expand_dims(x: Any, axis: Any) -> Any:
    """Return x with new axes of size 1, which `axis` (one or several) then numbers."""
    shape = np.expand_dims(array_of(x), axis).shape
    new = axes_of(axis, len(shape))
    old = iter(range(len(shape)))
    kept = tuple(-1 if i in new else next(old) for i in range(len(shape)))
    return made(ReshapeOp, shape, kept)(_given(x))


@wording("broadcast_to")
def broadcast_to(x: Any, shape: Any) -> Any:
    """Return x repeated along new axes in front and along those of size 1, to this `shape`."""
    return BroadcastTo(shape)(_given(x))


@wording("flip")
def flip(x: Any, axis: Any = None) -> Any:
    """Return x in the reverse order along `axis` (an axis, several, or None for all)."""
    axes = axes_of(axis, np.ndim(array_of(x)))
    return _index(x, tuple(slice(None, None, -1 if i in axes else 1) for i in range(max(axes) + 1)))


def _index(x: Any, key: Any) -> Any:
    return indexing(key)(_given(x))


@wording("take")
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Return the elements at `indices` along `axis`, of all in one row if that is None."""
    if axis is None:
        return _index(reshape(x, (-1,)), np.asarray(array_of(indices)))
    (axis,) = axes_of(axis, np.ndim(array_of(x)))
    return _index(x, (*[slice(None)] * axis, np.asarray(array_of(indices))))


@wording("take_along_axis")
def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Any:
    """Return of each row along `axis` the elements at that row's own `indices`: the numbers that
    `argsort` and `argmax` give.
    """
    indices = np.asarray(array_of(indices))
    (axis,) = axes_of(axis, np.ndim(array_of(x)))
    key: list[Any] = list(np.ogrid[tuple(map(slice, np.shape(array_of(x))))])
    key[axis] = indices
    return _index(x, tuple(key))


def _taken(x: Any, axis: int | None, order: Callable[[Integers], Any]) -> Any:
    """Return the elements along an axis in the order that a function of their numbers gives."""
    size = np.size(array_of(x)) if axis is None else np.shape(array_of(x))[axis]
    return take(x, order(np.arange(size)), axis)


@wording("repeat")
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Return each element along `axis` (of all in one row if that is None) `repeats` times; a
    number for all, or one for each.
    """
    return _taken(x, axis, lambda numbers: np.repeat(numbers, repeats))


@wording("tile")
def tile(x: Any, reps: Any) -> Any:
    """Return x put side by side with itself, so often along each axis as `reps` says (a number is
    that of the last axis).
    """
    reps = np.atleast_1d(reps)
    x = reshape(x, (*[1] * (len(reps) - np.ndim(array_of(x))), *np.shape(array_of(x))))
    for axis, count in zip(range(-len(reps), 0), reps, strict=True):
        x = _taken(x, axis, functools.partial(np.tile, reps=count)) if count != 1 else x
    return x


@wording("roll")
def roll(x: Any, shift: int, axis: int | None = None) -> Any:
    """Return x with its elements moved by `shift` along `axis` (all in one row if that is None),
    those that leave at the end entering at the beginning.
    """
    if not np.ndim(shift) == 0 == np.ndim(0 if axis is None else axis):
        must, fix = "shift and axis must be a number each", "Roll one axis after the other."
        raise TypeError(message("roll", must, f"shift {shift!r}, axis {axis!r}", fix))
    y = _taken(x, axis, lambda numbers: np.roll(numbers, shift))
    return y if axis is not None else reshape(y, np.shape(array_of(x)))


@wording("pad")
def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Any:
    """Return x with a margin, as `numpy.pad`.

    Parameters
    ----------
    pad_width
        (before, after) for each axis; one pair, or one number, for all.
    mode
        "constant", or what repeats elements: "edge", "reflect", "symmetric", "wrap".
    constant_values
        The number that a constant margin has.
    """
    widths = np.broadcast_to(pad_width, (np.ndim(array_of(x)), 2)).tolist()
    if mode == "constant":
        return Pad(widths, constant_values)(_given(x))
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        must, fix = "mode must name a margin of elements or constants", 'Take "edge" or "reflect".'
        raise ValueError(message("pad", must, repr(mode), fix))
    for axis, width in enumerate(widths):
        if any(width):
            x = _taken(x, axis, functools.partial(np.pad, pad_width=width, mode=mode))
    return x


@wording("concatenate")
def concatenate(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Return `arrays` side by side along `axis`."""
    return made(Concatenate, axis)(*alike("concatenate", *map(_given, arrays)))


@wording("stack")
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Return `arrays` of one shape side by side along a new `axis`."""
    return concatenate([expand_dims(x, axis) for x in arrays], axis)


@wording("split")
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> tuple[Any, ...]:
    """Return the parts of x along `axis`: so many of one size, or those between indices.

    Parameters
    ----------
    indices_or_sections
        The number of parts, which must divide the axis; or where each part but the first begins.
    """
    size = np.shape(array_of(x))[axis]
    if np.ndim(indices_or_sections):
        cuts = [0, *map(int, indices_or_sections), None]
    elif size % indices_or_sections:
        must, fix = f"the parts must divide the axis of {size}", "Pass where parts begin: [2, 5]."
        raise ValueError(message("split", must, indices_or_sections, fix))
    else:
        cuts = [*range(0, size + 1, size // indices_or_sections)]
    before: list[Any] = [slice(None)] * (axis % np.ndim(array_of(x)))
    return tuple(_index(x, (*before, slice(*part))) for part in pairwise(cuts))


@wording("sort")
def sort(x: Any, axis: int = -1) -> Any:
    """Return x in ascending order along `axis`; the gradient goes where each element came from."""
    return take_along_axis(x, np.argsort(array_of(x), axis, kind="stable"), axis)


@wording("top_k")
def top_k(x: Any, k: int, axis: int = -1) -> tuple[Any, Integers]:
    """Return the `k` greatest along `axis`, in descending order, and their indices, which have no
    gradient; of equals the first, and NaN before all.
    """
    k = positive_int("top_k", "k", k, "Pass how many to keep.")
    size = np.shape(array_of(x))[axis]
    if k > size:
        must, fix = f"k must be at most the size of the axis, {size}", "Pass a smaller k."
        raise ValueError(message("top_k", must, k, fix))
    # Ascending from the last element on is, read backwards, descending with the first of equals.
    ascending = np.argsort(np.flip(array_of(x), axis), axis, kind="stable")
    indices = (size - 1 - np.flip(ascending, axis)).take(range(k), axis)
    return take_along_axis(x, indices, axis), indices
