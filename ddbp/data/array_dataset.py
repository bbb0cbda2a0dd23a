"""Data sets in memory."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from layers.checks import non_negative_int, require_number
from layers.errors import message, wording
from layers.types import Array, Integers

from . import weights as weighing
from .order import parts, permutation, scattered, spread_evenly
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

    classes: tuple[str, ...] = ()
    """The names of labels 0, 1, …, where they are known: a report of a run has them."""

    def __init__(self, x: Any, y: Any, *, weights: Any = None) -> None:
        self._set("ArrayDataset", x, y, weights)

    def _set(self, owner: str, x: Any, y: Any, weights: Any) -> None:
        self.x = samples_of(owner, "x", x)
        self.y = samples_of(owner, "y", y)
        named = {"x": self.x, "y": self.y}
        if weights is not None:
            weights = weighing.checked(owner, samples_of(owner, "weights", weights))
            named["weights"] = weights
        self._samples = require_equal_lengths(owner, named)
        self.weights = weighing.of_positions(owner, self.y, weights)

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
        result = self.unchecked(x, y, weights)
        result.classes = self.classes
        return result

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
        first, second = parts(len(self), (1 - fraction, fraction), seed)
        return self.subset(first), self.subset(second)

    def subset(self, numbers: Any) -> "ArrayDataset":
        """Return some samples by their numbers, in this order."""
        return self._map(lambda leaf: leaf[numbers])

    def targets(self, numbers: Integers) -> Any:
        """Return the targets of some samples."""
        return of_leaves(lambda leaf: leaf[numbers], self.y)

    # What trainers and instruments use of data sets of either kind, in memory or a `Source`.

    @property
    def has_weights(self) -> bool:
        """Whether a loss gets weights."""
        return self.weights is not None

    def order(self, seed: int, epoch: int) -> Integers:
        """Return the numbers of the samples in the order of an epoch, the same on every rank."""
        return permutation(len(self), seed, epoch)

    def in_memory(self, numbers: Integers) -> "ArrayDataset":
        """Return some samples."""
        return self.subset(numbers)

    def excerpt(self, most: int) -> "ArrayDataset":
        """Return so many samples at most, spread over all of it."""
        return self.subset(scattered(len(self), most))

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
        owner = "Trainer.fit"
        kinds, counts = np.unique(weighing.labels_of(owner, self.y), return_counts=True)
        of_labels = weighing.LabelWeights(owner, class_weight, kinds, counts, ignore)
        weights = of_labels.times(owner, self.y, self.weights)
        result = self.unchecked(self.x, self.y, weights)
        result.classes = self.classes
        return result


def array_digest(array: Array, limit: int = 1 << 26) -> str:
    """Return a checksum of an array: of all bytes, or of rows spread evenly over it if it has more
    than `limit` bytes.
    """
    if array.nbytes > limit and len(array) > 1:
        step = max(1, int(len(array) * limit // array.nbytes))
        array = array[spread_evenly(len(array), step)]
    return f"{array.shape} {array.dtype} {zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"
