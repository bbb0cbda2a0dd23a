"""A regressor of scikit-learn's kind."""

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array

from layers import MeanSquaredError
from layers.errors import message
from layers.types import Array

from .estimator import NetworkEstimator
from .refused import unless_refused


class DDBPRegressor(RegressorMixin, NetworkEstimator):  # type: ignore[misc]
    """A neural network that predicts numbers, as an estimator of scikit-learn.

    Targets are numbers (N,), or several for each sample (N, outputs).

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate_init, max_iter, tol
        As of `DDBPClassifier`.
    n_iter_no_change, early_stopping, validation_fraction, dropout, dtype, trainer_options
        As there.
    warm_start, random_state, verbose
        As there.
    model
        As there; the network returns predictions (N, outputs).
    loss
        A `layers.Loss`, or its name; the mean squared error unless given.

    Notes
    -----
    It has the attributes of `DDBPClassifier`, but for classes.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @unless_refused
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Take one step for each batch of the samples, in their order; X, y and sample_weight are
        those of `fit`.

        Returns
        -------
        The estimator itself.
        """
        return self._go_on(X, y, sample_weight, not hasattr(self, "model_"))

    def predict(self, X: Any) -> Array:
        """Return the prediction for each sample, in the shape of the targets, in float64."""
        outputs = self._outputs(X).astype(np.float64)
        return outputs[:, 0] if self._flat else outputs

    def _usual_loss(self) -> Any:
        return MeanSquaredError()

    def _targets(self, y: Any, *, reset: bool) -> Array:
        y = check_array(y, ensure_2d=False, dtype=self.dtype, input_name="y")
        flat, columns = y.ndim == 1, np.ascontiguousarray(y.reshape(len(y), -1))
        if reset:
            self._flat = flat
            self.n_outputs_ = columns.shape[1]
        elif columns.shape[1] != self.n_outputs_:
            must = f"y must have {self.n_outputs_} outputs, as in the first call"
            fix = "Fit a new estimator for others."
            raise ValueError(message(self._name, must, columns.shape[1], fix))
        return columns
