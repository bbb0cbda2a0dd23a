"""Parts of data for training, validation and testing."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from layers.checks import is_number, non_negative_int
from layers.errors import message, wording
from layers.types import Array

from .array_dataset import ArrayDataset
from .order import parts
from .source import Source

_OWNER = "ddbp.data.split"
_FIX = "Write (0.8, 0.1, 0.1), for example."

Data = TypeVar("Data", ArrayDataset, Source)


@wording(_OWNER)
def split(
    data: Data, fractions: Iterable[float], *, seed: int = 0, stratified: Any = False
) -> tuple[Data, ...]:
    """Return random parts of data, such as for training, validation and testing.

    They are a function of the seed, the number of samples and of the labels if `stratified`: the
    same on every rank and machine, and for a data set as for a source of as many samples. Nothing
    is read of a source but its targets where they are needed.

    Parameters
    ----------
    data
        An `ArrayDataset`, which is copied, or a `Source`, of which parts are read as the whole was.
    fractions
        That of each part, which add up to 1. Each gets one sample or more.
    seed
        Other seeds, other parts.
    stratified
        Have each label make up the same fraction of every part, as far as whole samples go: True
        for the targets of the data, or labels (N,) of another kind.

    Raises
    ------
    ValueError
        Fractions do not add up to 1, or there are more parts than samples, or a part would be
        empty; or the targets are no labels.

    Examples
    --------
    >>> training, validation, test = ddbp.data.split(data, (0.8, 0.1, 0.1), stratified=True)
    """
    given: Any = data
    if not isinstance(given, ArrayDataset | Source):
        must, fix = "data must be an ArrayDataset or a Source", "Make one of it first."
        raise TypeError(message(_OWNER, must, f"a {type(given).__name__}", fix))
    shares = [*fractions]
    if not all(is_number(share) and 0 < share < 1 for share in shares):
        must = "fractions must be numbers in (0, 1)"
        raise ValueError(message(_OWNER, must, shares, _FIX))
    if len(shares) < 2 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        must = "fractions must be two or more that add up to 1"
        raise ValueError(message(_OWNER, must, f"{shares}, {sum(shares):g} in all", _FIX))
    if len(data) < len(shares):
        must, fix = "there must be a sample for each part", "Ask for fewer parts."
        raise ValueError(message(_OWNER, must, f"{len(data)} of {len(shares)}", fix))
    seed = non_negative_int(_OWNER, "seed", seed, "Leave it out for 0.")
    labels = None if stratified is False else _labels(data, stratified)
    found: list[Any] = parts(len(data), [float(share) for share in shares], seed, labels)
    if not all(map(len, found)):
        must, fix = "each part must get a sample", "Use larger fractions, or leave out stratified."
        raise ValueError(message(_OWNER, must, f"parts of {[*map(len, found)]}", fix))
    return tuple(data.subset(numbers) for numbers in found)


def _labels(data: Any, stratified: Any) -> Array:
    """Return the number of the label of each sample, of those that there are in order."""
    given = data.targets(np.arange(len(data))) if stratified is True else stratified
    labels = np.asarray(given) if not hasattr(given, "lengths") else np.empty(0)
    if labels.shape != (len(data),) or labels.dtype.kind not in "iubUS":
        must = "stratified needs one label for each sample, whole numbers or texts"
        got = f"{labels.shape} {labels.dtype} for {len(data)} samples"
        fix = "Pass stratified=labels, an array (N,)."
        raise ValueError(message(_OWNER, must, got, fix))
    return np.unique(labels, return_inverse=True)[1]
