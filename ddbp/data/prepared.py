"""Samples in memory that know what has made them of raw data."""

from typing import Any

from layers.errors import message

from .array_dataset import ArrayDataset
from .preprocess import Preprocessing
from .skipped import shown


class PreparedDataset(ArrayDataset):
    """An `ArrayDataset` with its preprocessing.

    Parameters
    ----------
    x, y, weights
        As `ArrayDataset` takes them.
    preprocessing
        What has made them, and makes those to predict for.
    """

    def __init__(
        self, x: Any, y: Any, preprocessing: Preprocessing, *, weights: Any = None
    ) -> None:
        given: Any = preprocessing
        if not isinstance(given, Preprocessing):
            must, fix = "preprocessing must be a Preprocessing", "Pass a TableEncoder, for example."
            raise TypeError(message("PreparedDataset", must, shown(repr(given)), fix))
        super().__init__(x, y, weights=weights)
        self.preprocessing = preprocessing
        self.classes = preprocessing.classes
