"""How much samples count: weights of samples, of positions and of labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array, Integers

from .samples import Ragged, described


def checked(owner: str, weights: Any) -> Any:
    """Return the weights of all samples as floating numbers, or refuse those that cannot be."""
    weights = floating(owner, weights)
    values = weights.values if isinstance(weights, Ragged) else weights
    if values.min(initial=0) < 0 or not values.any():
        must, fix = "weights must be at least 0, and not all 0", "0 leaves a sample out."
        raise ValueError(message(owner, must, f"{values.min()} to {values.max()}", fix))
    return weights


def floating(owner: str, weights: Any) -> Any:
    """Return weights as floating numbers."""
    if type(weights) in (tuple, dict):
        must, fix = "weights must be an array", "Several targets share those of their samples."
        raise ValueError(message(owner, must, described(weights), fix))
    return weights if weights.dtype.kind == "f" else weights.astype(np.float64)


def of_positions(owner: str, y: Any, weights: Any) -> Any:
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


def labels_of(owner: str, y: Any) -> Array:
    """Return targets that are labels, one after the other, or refuse others."""
    labels = y.values if isinstance(y, Ragged) else y
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        must = "class_weight needs targets that are integer labels (N, …)"
        fix = "Pass ArrayDataset(…, weights=…) for targets of another kind."
        raise ValueError(message(owner, must, described(y), fix))
    return labels


class LabelWeights:
    """The weight of each label.

    Parameters
    ----------
    owner
        Who was given the weights; errors name it.
    given
        As `ArrayDataset.weighted` takes them.
    kinds, counts
        The labels that occur, in rising order, and how often.
    ignore
        A label of any weight.
    """

    def __init__(
        self, owner: str, given: Any, kinds: Array, counts: Integers, ignore: int | None
    ) -> None:
        self.kinds = kinds
        self.table = _table(owner, given, kinds, counts, ignore)
        if not self.table[kinds != ignore].any():
            must, fix = "class_weight must not be 0 for all labels", "0 leaves a label out."
            raise ValueError(message(owner, must, given, fix))

    def times(self, owner: str, y: Any, weights: Any) -> Any:
        """Return the weights of targets, times those that there are."""
        labels = labels_of(owner, y)
        places = np.searchsorted(self.kinds, labels)
        found = self.table[places]
        if isinstance(y, Ragged):
            return y.with_values(found * weights.values, 0)
        if weights is not None:
            axes = max(0, labels.ndim - weights.ndim)
            found = found * weights.reshape(*weights.shape, *[1] * axes)
        return found


def _table(owner: str, given: Any, kinds: Array, counts: Integers, ignore: int | None) -> Array:
    """Return the weights of the labels that occur."""
    if isinstance(given, str) and given == "balanced":
        counts = np.where(kinds == ignore, 0, counts)
        some = np.maximum(counts, 1) * max(1, np.count_nonzero(counts))
        return np.asarray(counts.sum() / some)
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
    return np.array(table)
