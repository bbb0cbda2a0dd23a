"""Data sets in memory, and their order: a pure function of (seed, epoch)."""

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from layers import Value
from layers.errors import message
from layers.types import Array, Integers


class ArrayDataset:
    """Samples in memory, the same on every rank.

    Floating arrays are converted once to the type of the model when training begins; integers
    (labels, tokens) stay as they are.

    Parameters
    ----------
    x, y
        Samples (N, …) and their targets (N, …): real numbers, all finite.

    Raises
    ------
    ValueError
        The arrays are empty or of different lengths, or hold NaN or infinite values (the first
        place is named).
    TypeError
        An array is not numeric.
    """

    def __init__(self, x: Any, y: Any) -> None:
        self.x = _checked("x", x)
        self.y = _checked("y", y)
        if len(self.x) != len(self.y):
            fix = "Every sample needs one target."
            raise ValueError(
                message(
                    "ArrayDataset",
                    "x and y must have the same length",
                    (len(self.x), len(self.y)),
                    fix,
                )
            )

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"ArrayDataset(x={self.x.shape} {self.x.dtype}, y={self.y.shape} {self.y.dtype})"

    def astype(self, dtype: Any) -> "ArrayDataset":
        """Return the data with floating arrays in another type; itself, if nothing changes."""
        x, y = (a.astype(dtype, copy=False) if a.dtype.kind == "f" else a for a in (self.x, self.y))
        if x is self.x and y is self.y:
            return self
        result = object.__new__(ArrayDataset)
        result.x, result.y = x, y
        return result

    def digest(self) -> str:
        """Return a text that is the same for the same data."""
        return f"{array_digest(self.x)} {array_digest(self.y)}"

    def split(self, fraction: float, *, seed: int = 0) -> tuple["ArrayDataset", "ArrayDataset"]:
        """Return two random parts, a function of `seed`, the second with the given fraction of the
        samples (at least one each).
        """
        if not 0 < fraction < 1 or len(self) < 2:
            fix = "0.2 keeps a fifth for validation."
            raise ValueError(
                message(
                    "ArrayDataset.split",
                    "the fraction must be in (0, 1), of two samples or more",
                    fraction,
                    fix,
                )
            )
        order = permutation(len(self), seed, 0)
        cut = min(len(self) - 1, max(1, len(self) - round(len(self) * fraction)))
        first, second = (
            ArrayDataset(self.x[rows], self.y[rows]) for rows in (order[:cut], order[cut:])
        )
        return first, second


def _checked(name: str, values: Any) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        fix = "Encode it as numbers; labels as integers from 0."
        raise TypeError(message("ArrayDataset", f"{name} must be numeric", array.dtype, fix))
    if array.ndim < 1 or len(array) == 0:
        raise ValueError(
            message(
                "ArrayDataset",
                f"{name} must hold one sample or more",
                f"shape {array.shape}",
                "Check the path or filter.",
            )
        )
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            first = tuple(int(i) for i in np.argwhere(~finite)[0])
            place = f"{name}[{', '.join(map(str, first))}]"
            got = f"{array[first]} at {place}, {int(array.size - finite.sum())} such values in all"
            raise ValueError(
                message(
                    "ArrayDataset", f"{name} must be finite", got, "Drop or impute those samples."
                )
            )
    return array


def permutation(samples: int, seed: int, epoch: int) -> Integers:
    """Return the order of the samples in an epoch: a function of (seed, epoch) alone, the same on
    every rank.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    return generator.permutation(samples)


def batches(samples: int, batch_size: int, order: Integers | None = None) -> Iterator[Integers]:
    """Yield the sample numbers of each global batch; the last one may be smaller. No sample is left
    out or repeated.
    """
    for start in range(0, samples, batch_size):
        stop = min(start + batch_size, samples)
        yield np.arange(start, stop) if order is None else order[start:stop]


def array_digest(array: Array, limit: int = 1 << 26) -> str:
    """Return a checksum of an array: of all bytes, or of rows spread evenly over it if it has more
    than `limit` bytes.
    """
    if array.nbytes > limit and len(array) > 1:
        step = max(1, int(len(array) * limit // array.nbytes))
        array = array[np.linspace(0, len(array) - 1, min(step, len(array))).astype(np.int64)]
    return f"{array.shape} {array.dtype} {zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"


class LocalBatch(NamedTuple):
    """This rank's rows of a global batch, or of a window of its time steps.

    Attributes
    ----------
    x, y
        The rows.
    first
        The number of the first of them in the global batch.
    bounds
        Bounds (local S + 1,) of this rank's shards in them.
    samples
        The size of the global batch.
    weight
        The part of the batch that a window is.
    ends_group
        Whether batches that accumulate end with it, however many came before.
    """

    x: Array
    y: Array
    first: int
    bounds: Integers
    samples: int
    weight: float = 1.0
    ends_group: bool = False


class Batch(NamedTuple):
    """This rank's part of a global batch.

    Attributes
    ----------
    x
        Inputs, a `Value` on the batch's tape.
    y
        Targets, an array.
    samples
        The size of the global batch, over all ranks.
    """

    x: Value
    y: Array
    samples: int


class Rows:
    """Takes rows of arrays into buffers that are reused from step to step."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def take(self, name: str, source: Array, rows: Integers) -> Array:
        """Return the given rows, in the buffer of this name."""
        buffer = self._buffers.get(name)
        if (
            buffer is None
            or buffer.shape[1:] != source.shape[1:]
            or buffer.dtype != source.dtype
            or len(buffer) < len(rows)
        ):
            buffer = self._buffers[name] = np.empty((len(rows), *source.shape[1:]), source.dtype)
        return np.take(source, rows, axis=0, out=buffer[: len(rows)], mode="clip")
