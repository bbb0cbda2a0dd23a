"""Errors of regressions and the baseline that a network must beat, for scripts."""

from collections.abc import Mapping

import numpy as np

from ddbp.data.array_dataset import ArrayDataset
from layers.errors import wording
from layers.types import Array


@wording("script.root_mean_square")
def root_mean_square(error: Array) -> float:
    """Return the root of the mean square of all elements of `error`."""
    return float(np.sqrt(np.mean(error**2)))


@wording("script.root_mean_square_errors")
def root_mean_square_errors(
    predictions: Mapping[str, Array], target: Array, scale: Array | float = 1.0
) -> dict[str, float]:
    """Return the root of the mean square of (prediction - target) scale for each of several
    predictions, by its name.

    Parameters
    ----------
    predictions
        Arrays of the target's shape, or of one that spreads to it.
    target
        What they should be (N, …).
    scale
        What a difference of 1 is in the units of the errors, such as the deviation of a target that
        was standardised.
    """
    return {
        name: root_mean_square((prediction - target) * scale)
        for name, prediction in predictions.items()
    }


@wording("script.linear_fit")
def linear_fit(training: ArrayDataset, test: ArrayDataset) -> Array:
    """Return what the linear function, with a constant, that fits the training data best in the
    least squares of its errors predicts for the test data (N, …): a baseline for regressions.

    Parameters
    ----------
    training, test
        Data of arrays: of numbers of a sample, in whatever axes, targets (N,) or (N, D) are
        predicted.
    """
    known, asked = (
        np.c_[data.x.reshape(len(data), -1), np.ones(len(data))] for data in (training, test)
    )
    coefficients, *_ = np.linalg.lstsq(known, training.y)
    predicted: Array = asked @ coefficients
    return predicted
