"""Data sets in memory, and their order: a pure function of (seed, epoch)."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ddbp.reduction.shards import ShardPlan
from layers import Tape
from layers.checks import non_negative_int, require_number
from layers.errors import message, wording
from layers.types import Array, Integers

from .samples import (
    Padded,
    Ragged,
    cast,
    described,
    leaves,
    of_leaves,
    require_equal_lengths,
    require_range,
    samples_of,
    spread,
)


class ArrayDataset:
    """Samples in memory, the same on every rank.

    Floating arrays are converted once to the type of the model when training begins; integers
    (labels, tokens) and booleans (masks) stay as they are.

    Parameters
    ----------
    x, y
        Samples and their targets: real numbers, all finite. Each is an array (N, …), or several in
        a tuple or dict (of which each may again be one): a model is called `model(x)`, `model(*x)`
        or `model(**x)`, the loss `loss(prediction, y)`. Sequences of different lengths are a list
        of arrays, or a `Ragged`.
    weights
        How much each sample counts (N,), or each of its positions (N, …), at least 0: the loss gets
        them as third argument. Those of targets that are ragged are 0 in the padding.

    Raises
    ------
    ValueError
        The arrays are empty or of different lengths, or hold NaN or infinite values (the first
        place is named), or weights are negative or all 0.
    TypeError
        An array is not numeric.
    """

    def __init__(self, x: Any, y: Any, *, weights: Any = None) -> None:
        self._set("ArrayDataset", x, y, weights)

    def _set(self, owner: str, x: Any, y: Any, weights: Any) -> None:
        self.x = samples_of(owner, "x", x)
        self.y = samples_of(owner, "y", y)
        named = {"x": self.x, "y": self.y}
        if weights is not None:
            named["weights"] = weights = _weights(owner, samples_of(owner, "weights", weights))
        self._samples = require_equal_lengths(owner, named)
        self.weights = _of_positions(owner, self.y, weights)

    @classmethod
    def of(cls, owner: str, x: Any, y: Any, weights: Any) -> "ArrayDataset":
        """Return a data set that `owner` was given, whose errors name it."""
        result = object.__new__(cls)
        result._set(owner, x, y, weights)
        return result

    def __len__(self) -> int:
        return self._samples

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f", weights={described(self.weights)}"
        return f"ArrayDataset(x={described(self.x)}, y={described(self.y)}{weights})"

    def _map(self, function: Callable[[Any], Any]) -> "ArrayDataset":
        """Return the data with a function of each array; itself, if nothing changes."""
        old = (self.x, self.y, self.weights)
        x, y, weights = (part if part is None else of_leaves(function, part) for part in old)
        mine, theirs = ([*leaves("", parts)] for parts in (old, (x, y, weights)))
        if all(one is other for (_, one), (_, other) in zip(mine, theirs, strict=True)):
            return self
        return self.unchecked(x, y, weights)

    @staticmethod
    def unchecked(x: Any, y: Any, weights: Any) -> "ArrayDataset":
        """Return a data set of what is known to be right."""
        result = object.__new__(ArrayDataset)
        result.x = x
        result.y = y
        result.weights = weights
        while type(x) in (tuple, dict):
            x = next(iter(x.values() if type(x) is dict else x))
        result._samples = len(x)
        return result

    @wording("ArrayDataset.astype")
    def astype(self, dtype: Any, owner: str = "ArrayDataset") -> "ArrayDataset":
        """Return the data with floating arrays in another type; itself, if nothing changes.

        Raises
        ------
        ValueError
            A number is too large for the type; `owner` refuses it.
        """
        for name, part in (("x", self.x), ("y", self.y), ("weights", self.weights)):
            if part is not None:
                require_range(owner, name, part, dtype)
        return self._map(lambda leaf: cast(leaf, dtype))

    def digest(self) -> str:
        """Return a text that is the same for the same data."""
        return " ".join(self.digests().values())

    def digests(self, most: int = 1 << 26) -> dict[str, str]:
        """Return such texts of all arrays by their names; of an array of more than `most` bytes
        that of rows spread evenly over it.
        """
        parts = {"x": self.x, "y": self.y}
        if self.weights is not None:
            parts["weights"] = self.weights
        texts = {}
        for key, part in parts.items():
            for name, leaf in leaves(key, part):
                where = "" if name in ("x", "y") else f"{name} "
                if isinstance(leaf, Ragged):
                    where += f"{array_digest(leaf.lengths, most)} {leaf.padding} "
                    leaf = leaf.values
                texts[name] = f"{where}{array_digest(leaf, most)}"
        return texts

    def split(self, fraction: float, *, seed: int = 0) -> tuple["ArrayDataset", "ArrayDataset"]:
        """Return two random parts, a function of `seed`, the second with the given fraction of the
        samples (at least one each).
        """
        fix = "0.2 keeps a fifth for validation."
        require_number("ArrayDataset.split", "the fraction", fraction, fix)
        seed = non_negative_int("ArrayDataset.split", "seed", seed, "Leave it out for 0.")
        if not 0 < fraction < 1 or len(self) < 2:
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
        first, second = order[:cut], order[cut:]
        return self._map(lambda leaf: leaf[first]), self._map(lambda leaf: leaf[second])

    def weighted(self, class_weight: Any, ignore: int | None = None) -> "ArrayDataset":
        """Return the data with each label's weight, times the weights that there are.

        Parameters
        ----------
        class_weight
            Label to weight, 1 for those that are not named; or the weights of labels 0, 1, …; or
            "balanced": n / (k n_c) for a label that n_c of all n have, of which k are different.
        ignore
            A label of any weight, as the loss leaves it out.

        Raises
        ------
        ValueError
            The targets are no labels, or one of them has no weight, or a label that is named does
            not occur, or a weight is negative, or all are 0.
        """
        labels = self.y.values if isinstance(self.y, Ragged) else self.y
        owner, fix = "Trainer.fit", "Pass ArrayDataset(…, weights=…) for targets of another kind."
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
            must = "class_weight needs targets that are integer labels (N, …)"
            raise ValueError(message(owner, must, described(self.y), fix))
        weights = _of_labels(owner, class_weight, labels, ignore)
        counted = weights if ignore is None else weights[labels != ignore]
        if not counted.any():
            must, fix = "class_weight must not be 0 for all labels", "0 leaves a label out."
            raise ValueError(message(owner, must, class_weight, fix))
        if isinstance(self.y, Ragged):
            weights *= self.weights.values
            return self.unchecked(self.x, self.y, self.y.with_values(weights, 0))
        if self.weights is not None:
            axes = max(0, labels.ndim - self.weights.ndim)
            weights = weights * self.weights.reshape(*self.weights.shape, *[1] * axes)
        return self.unchecked(self.x, self.y, weights)


def _weights(owner: str, weights: Any) -> Any:
    """Return weights as floating numbers, or refuse those that cannot be."""
    if type(weights) in (tuple, dict):
        must, fix = "weights must be an array", "Several targets share those of their samples."
        raise ValueError(message(owner, must, described(weights), fix))
    values = weights.values if isinstance(weights, Ragged) else weights
    if values.min(initial=0) < 0 or not values.any():
        must, fix = "weights must be at least 0, and not all 0", "0 leaves a sample out."
        raise ValueError(message(owner, must, f"{values.min()} to {values.max()}", fix))
    return weights if weights.dtype.kind == "f" else weights.astype(np.float64)


def _of_positions(owner: str, y: Any, weights: Any) -> Any:
    """Return the weights of ragged targets by position; others as they are."""
    if not isinstance(y, Ragged):
        if isinstance(weights, Ragged):
            must, fix = "weights must be an array (N, …)", "Pass one weight per sample."
            raise ValueError(message(owner, must, "a Ragged", fix))
        return weights
    if weights is None:
        values = np.ones(len(y.values))
    elif isinstance(weights, Ragged) and weights.values.shape == (len(y.values),):
        if not np.array_equal(weights.lengths, y.lengths):
            must = "weights must have the lengths of y"
            raise ValueError(message(owner, must, weights, "Give each time step one weight."))
        values = weights.values
    elif not isinstance(weights, Ragged) and weights.ndim == 1:
        values = np.repeat(weights, y.lengths)
    else:
        must, fix = "weights of ragged targets must be (N,), or ragged (N, T)", "Leave axes out."
        raise ValueError(message(owner, must, described(weights), fix))
    return y.with_values(values, 0)


def _of_labels(owner: str, given: Any, labels: Array, ignore: int | None) -> Array:
    """Return the weight of each label."""
    kinds, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if isinstance(given, str) and given == "balanced":
        counts = np.where(kinds == ignore, 0, counts)
        some = np.maximum(counts, 1) * max(1, np.count_nonzero(counts))
        return np.asarray((counts.sum() / some)[which.reshape(labels.shape)])
    write = 'Write {0: 1.0, 1: 5.0}, or "balanced".'
    keys = [*given] if isinstance(given, Mapping) else None
    try:
        values = np.array([*given.values()] if keys is not None else given, np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        must = "class_weight must be numbers"
        raise ValueError(message(owner, must, repr(given), write)) from error
    if keys is not None:
        if not all(isinstance(key, int | np.integer) for key in keys):
            raise ValueError(message(owner, "class_weight must have labels as keys", given, write))
        unknown = [key for key in keys if key not in kinds and key != ignore]
        if unknown:
            must, fix = "class_weight must be of labels that occur", "Leave out those that do not."
            got = f"{unknown[0]}, where labels are in {kinds[0]}..{kinds[-1]}"
            raise ValueError(message(owner, must, got, fix))
    else:
        keys = [*range(values.size)]
    if values.ndim != 1 or not np.all(values >= 0) or np.isinf(values).any():
        must = "class_weight must be numbers of at least 0"
        raise ValueError(message(owner, must, given, write))
    known = dict(zip(map(int, keys), values.tolist(), strict=True))
    table = []
    for label in kinds.tolist():
        if label not in known and not isinstance(given, Mapping) and label != ignore:
            must, fix = f"class_weight must have a weight for label {label}", "Add it."
            raise ValueError(message(owner, must, f"{values.size} weights", fix))
        table.append(known.get(label, 1.0))
    return np.array(table)[which.reshape(labels.shape)]


def permutation(samples: int, seed: int, epoch: int) -> Integers:
    """Return the order of the samples in an epoch: a function of (seed, epoch) alone, the same on
    every rank.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    return generator.permutation(samples)


def batches(samples: int, batch_size: int, order: Any = None) -> Iterator[Any]:
    """Yield the sample numbers of each global batch, of an order or `range`s; the last one may be
    smaller. No sample is left out or repeated.
    """
    order = range(samples) if order is None else order
    for start in range(0, samples, batch_size):
        yield order[start : min(start + batch_size, samples)]


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
    data: ArrayDataset,
    plan: ShardPlan,
    rows: Any,
    take: Take,
    slot: int = 0,
    ends_group: bool = False,
) -> LocalBatch:
    """Return this rank's rows of the global batch that has the given rows of the data."""
    first, stop, bounds = plan.rows(len(rows))
    mine = rows[first:stop]
    x = take(f"x{slot}", data.x, rows, mine)
    y = take(f"y{slot}", data.y, rows, mine)
    if y.__class__ is not ndarray:
        y = y.values if y.__class__ is Padded else spread(np.asarray, y)
    weights = data.weights
    if weights is not None:
        weights = take(f"weights{slot}", weights, rows, mine)
        weights = weights.values if weights.__class__ is Padded else weights
    numbers = mine if mine.__class__ is ndarray else None
    return LocalBatch(x, y, first, bounds, len(rows), weights, 1.0, ends_group, numbers)


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


class Rows:
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
