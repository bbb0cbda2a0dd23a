"""Batches: this rank's rows of a global batch, and what takes them from a data set."""

from collections.abc import Callable, Iterator
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ddbp.data.samples import Padded, Ragged, leaves, of_leaves, spread
from ddbp.data.source import Dataset, Source
from ddbp.reduction.shards import ShardPlan
from layers import Tape
from layers.types import Array, Integers


class LocalBatch(NamedTuple):
    """This rank's rows of a global batch, or of a window of its time steps.

    Attributes
    ----------
    x, y
        The rows; ragged ones of x are `Padded`.
    first
        The number of the first of them in the global batch.
    bounds
        Bounds (local S + 1,) of this rank's shards in them.
    samples
        The size of the global batch.
    weights
        Those of the samples or of their positions, if there are any.
    share
        The part of the batch that a window is.
    ends_group
        Whether batches that accumulate end with it, however many came before.
    numbers
        The numbers of the rows in the data set (R,), where they are not neighbours.
    """

    x: Any
    y: Any
    first: int
    bounds: Integers
    samples: int
    weights: Array | None = None
    share: float = 1.0
    ends_group: bool = False
    numbers: Integers | None = None


class Batch(NamedTuple):
    """This rank's part of a global batch.

    Attributes
    ----------
    x
        Inputs, `Value`s on the batch's tape: one, or a tuple or dict for `model(*x)` or
        `model(**x)`. Of several inputs masks (booleans) are arrays, and so are the lengths that
        follow a `Ragged`.
    y
        Targets: an array, or a tuple or dict of them.
    samples
        The size of the global batch, over all ranks.
    weights
        Those of the samples (N,) or of their positions (N, …), an array, if the data have any.
    tape
        The batch's tape.
    """

    x: Any
    y: Any
    samples: int
    weights: Array | None = None
    tape: Tape | None = None


_WORKER = ShardPlan(1, 1, 0)
"""The rows of a worker are one shard."""

Take = Callable[[str, Any, Any, Any], Any]
"""What takes this rank's rows of a global batch: given a name, samples, the batch's rows and those
of this rank.
"""


def local_batch(
    data: Dataset,
    plan: ShardPlan,
    rows: Any,
    take: Take,
    slot: int = 0,
    ends_group: bool = False,
) -> LocalBatch:
    """Return this rank's rows of the global batch that has the given rows of the data; of a source
    these are read, and `take` is not needed.
    """
    first, stop, bounds = plan.rows(len(rows))
    mine = rows[first:stop]
    if isinstance(data, Source):
        x, y, weights = _read(data, rows, mine)
    else:
        x = take(f"x{slot}", data.x, rows, mine)
        y = take(f"y{slot}", data.y, rows, mine)
        weights = data.weights
        if weights is not None:
            weights = take(f"weights{slot}", weights, rows, mine)
    if y.__class__ is not ndarray:
        y = y.values if y.__class__ is Padded else spread(np.asarray, y)
    weights = weights.values if weights.__class__ is Padded else weights
    numbers = mine if mine.__class__ is ndarray else None
    return LocalBatch(x, y, first, bounds, len(rows), weights, 1.0, ends_group, numbers)


def _read(source: Source, rows: Any, mine: Any) -> tuple[Any, Any, Any]:
    """Return samples `mine` of a batch of `rows` of a source; sequences are padded to the longest
    of the batch.
    """
    # A rank that has none reads one, to know what there would be.
    numbers = np.asarray(mine if len(mine) else rows[:1])
    own = slice(0, len(mine))
    parts = dict(zip(("x", "y", "weights"), source.take(numbers), strict=True))
    for key, part in parts.items():
        if part is None:
            continue
        names = iter([name for name, _ in leaves(key, part)])

        def leaf(samples: Any, names: Iterator[str] = names) -> Any:
            name = next(names)
            if type(samples) is not Ragged:
                return samples[own]
            lengths = source.lengths["y" if name == "weights" else name]
            return samples.padded(own, own, int(lengths[np.asarray(rows)].max(initial=1)))

        parts[key] = of_leaves(leaf, part)
    return parts["x"], parts["y"], parts["weights"]


def of_workers(rows: LocalBatch) -> Iterator[LocalBatch]:
    """Yield the rows of each of this rank's workers, of all that this rank has of a batch."""
    for start, stop in pairwise(rows.bounds.tolist()):
        place = slice(start, stop)

        def part(leaf: Any, place: slice = place) -> Any:
            if isinstance(leaf, Padded):
                return Padded(leaf.values[place], leaf.lengths[place])
            return leaf[place]

        yield rows._replace(
            x=of_leaves(part, rows.x),
            y=of_leaves(part, rows.y),
            first=rows.first + start,
            bounds=_WORKER.rows(stop - start)[2],
            samples=stop - start,
            weights=None if rows.weights is None else rows.weights[place],
            numbers=None if rows.numbers is None else rows.numbers[place],
        )


def sliced(name: str, samples: Any, rows: range, mine: range) -> Any:
    """Return views of neighbouring samples."""
    if samples.__class__ is ndarray:
        return samples[mine.start : mine.stop]
    whole, part = (slice(one.start, one.stop) for one in (rows, mine))

    def leaf(samples: Any) -> Any:
        return samples.padded(whole, part) if type(samples) is Ragged else samples[part]

    return of_leaves(leaf, samples)


class RowBuffers:
    """Takes rows of arrays into buffers that are reused from step to step."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def take(self, name: str, samples: Any, rows: Integers, mine: Integers) -> Any:
        """Return samples `mine` of a batch of `rows`, in the buffers of this name."""
        if samples.__class__ is ndarray:
            buffer = self._buffers.get(name)
            if (
                buffer is None
                or buffer.shape[1:] != samples.shape[1:]
                or buffer.dtype != samples.dtype
                or len(buffer) < len(mine)
            ):
                buffer = np.empty((len(mine), *samples.shape[1:]), samples.dtype)
                self._buffers[name] = buffer
            return np.take(samples, mine, axis=0, out=buffer[: len(mine)], mode="clip")
        numbers = count()

        def leaf(samples: Any) -> Any:
            if type(samples) is Ragged:
                return samples.padded(rows, mine)
            return self.take(f"{name}.{next(numbers)}", samples, rows, mine)

        return of_leaves(leaf, samples)
