"""Data sets in memory."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from layers.checks import non_negative_int, require_number
from layers.errors import message, wording
from layers.types import Array

from .order import permutation
from .samples import (
    Ragged,
    cast,
    described,
    leaves,
    of_leaves,
    require_equal_lengths,
    require_range,
    samples_of,
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


def array_digest(array: Array, limit: int = 1 << 26) -> str:
    """Return a checksum of an array: of all bytes, or of rows spread evenly over it if it has more
    than `limit` bytes.
    """
    if array.nbytes > limit and len(array) > 1:
        step = max(1, int(len(array) * limit // array.nbytes))
        array = array[np.linspace(0, len(array) - 1, min(step, len(array))).astype(np.int64)]
    return f"{array.shape} {array.dtype} {zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"
