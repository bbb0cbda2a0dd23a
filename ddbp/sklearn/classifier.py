"""A classifier of scikit-learn's kind."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from layers import BinaryCrossEntropy, LogSoftmax, Sigmoid, Softmax, SoftmaxCrossEntropy, Softplus
from layers.errors import message
from layers.types import Array

from .estimator import NetworkEstimator
from .network import Factory
from .refused import unless_refused


class DDBPClassifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
    """A neural network that classifies, as an estimator of scikit-learn.

    Targets are labels of any type (N,), or 0 and 1 for each of several labels (N, labels): then
    every output is a probability of its own.

    Parameters
    ----------
    hidden_layer_sizes
        Widths of the hidden layers.
    activation
        What follows each of them: "identity", "logistic", "tanh", "relu", "leaky_relu", "elu",
        "gelu" or "silu".
    solver
        An optimizer, by its name or made, as `ddbp.AdamW(1e-3)`, of which each fit takes a copy;
        "sgd" has Nesterov's momentum of 0.9.
    alpha
        The penalty of weights, alpha |w|²/2 over the samples of a batch, as in scikit-learn.
    batch_size
        Samples of a batch; "auto" is all of them, up to 200.
    learning_rate_init
        The learning rate of an optimizer that is given by its name.
    max_iter
        The most epochs of `fit`.
    tol, n_iter_no_change
        Training stops when the loss has not fallen by more than `tol` for so many epochs, and warns
        where it does not; with as many as `max_iter` it is for all of these.
    early_stopping, validation_fraction
        Keep back a share of the samples, stop by their loss, and return to the best epoch.
    dropout
        The probability that dropout gives 0, after each hidden layer.
    model
        A network of your own: a function of (features, outputs, rng) that returns a layer, which
        takes samples (N, features) and returns logits (N, outputs). Of a module, for estimators to
        be copied to other processes.
    loss
        Another `layers.Loss` of logits, or its name.
    dtype
        What is computed in: "float32" or "float64".
    class_weight
        Class to weight, or "balanced"; with several labels for each sample none.
    trainer_options
        More options of `ddbp.Trainer` by name, such as {"clip_norm": 1.0, "run_dir": "runs/a"}.
    warm_start
        Have `fit` go on with the parameters of the last one.
    random_state
        A seed, for the same bits everywhere; None, or a `RandomState` of NumPy.
    verbose
        Show progress.

    Attributes
    ----------
    classes_
        The classes (C,), in order; with several labels for each sample their numbers.
    model_
        The network, a layer.
    n_iter_, history_
        The number of epochs, and their records.
    n_features_in_, n_outputs_, feature_names_in_
        Sizes of input and output, and the names of columns, if there are any.

    Notes
    -----
    Probabilities are of `dtype`. Under `mpirun` the ranks train together, with the same bits as one
    alone. Pickled, it is arrays and numbers, with the function that is `model`.
    """

    classes_: Array

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 1e-4,
        batch_size: Any = "auto",
        learning_rate_init: float = 1e-3,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        dropout: float = 0.0,
        model: Factory | None = None,
        loss: Any = None,
        dtype: str = "float32",
        class_weight: Mapping[Any, float] | str | None = None,
        trainer_options: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            dropout=dropout,
            model=model,
            loss=loss,
            dtype=dtype,
            trainer_options=trainer_options,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @unless_refused
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Take one step for each batch of the samples, in their order.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.
        classes
            All classes that will ever come, in the first call; for several labels their numbers.

        Returns
        -------
        The estimator itself.
        """
        begins = not hasattr(self, "model_")
        if isinstance(self.class_weight, str):
            must = "partial_fit cannot know how often classes come"
            fix = "Give class_weight numbers, or call fit."
            raise ValueError(message(self._name, must, repr(self.class_weight), fix))
        if classes is not None:
            known = unique_labels(classes)
            if begins:
                self.classes_ = known
            elif not np.array_equal(known, self.classes_):
                must, fix = "classes must stay what they were", "Pass them in the first call alone."
                got = f"{known}, after {self.classes_}"
                raise ValueError(message(self._name, must, got, fix))
        elif begins:
            must, fix = (
                "the first call of partial_fit needs classes",
                "Write classes=np.unique(y_all).",
            )
            raise ValueError(message(self._name, must, None, fix))
        return self._go_on(X, y, sample_weight, begins)

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each sample (N,), or for each of several labels whether
        it is probable (N, labels).
        """
        probabilities = self.predict_proba(X)
        if self._multilabel:
            return (probabilities > 0.5).astype(np.int64)
        chosen: Array = self.classes_[probabilities.argmax(axis=1)]
        return chosen

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, or of each label, (N, outputs)."""
        logits = self._outputs(X)
        probabilities: Array = (Sigmoid() if self._multilabel else Softmax())(logits)
        return probabilities

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probability of each class, or of each label."""
        logits = self._outputs(X)
        logarithms: Array = -Softplus()(-logits) if self._multilabel else LogSoftmax()(logits)
        return logarithms

    def _unlearn(self) -> None:
        if hasattr(self, "classes_"):
            del self.classes_

    def _usual_loss(self) -> Any:
        return BinaryCrossEntropy() if self._multilabel else SoftmaxCrossEntropy()

    def _strata(self, y: Array) -> Array | None:
        return None if self._multilabel else self.classes_[y]

    def _sample_weights(self, y: Any, weights: Array | None) -> Array | None:
        if self.class_weight is None:
            return weights
        try:
            of_classes: Array = compute_sample_weight(self.class_weight, y).astype(self.dtype)
        except (KeyError, TypeError, ValueError) as error:
            must = "class_weight must be weights of the classes by name"
            fix = 'Write {"rare": 5.0}, or "balanced".'
            raise ValueError(message(self._name, must, error, fix)) from error
        if not np.all(of_classes >= 0) or np.isinf(of_classes).any():
            must, fix = "class_weight must be finite and nowhere negative", "0 leaves a class out."
            raise ValueError(message(self._name, must, self.class_weight, fix))
        return of_classes if weights is None else of_classes * weights

    def _targets(self, y: Any, *, reset: bool) -> Array:
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        multilabel = kind == "multilabel-indicator"
        if kind == "multiclass-multioutput":
            must = "y must be one class for each sample, or 0 and 1 for each label"
            fix = "Fit a classifier for each column: sklearn.multioutput.MultiOutputClassifier."
            raise ValueError(message(self._name, must, kind, fix))
        if not multilabel:
            y = column_or_1d(y, warn=True)
        if reset:
            self._multilabel = multilabel
            if not hasattr(self, "classes_"):
                self.classes_ = np.arange(y.shape[1]) if multilabel else np.unique(y)
            self.n_outputs_ = len(self.classes_)
            if self.n_outputs_ < 2 and not multilabel:
                must, fix = "samples must be of two classes or more", "Leave out what is constant."
                raise ValueError(message(self._name, must, f"{self.n_outputs_} class", fix))
        if multilabel != self._multilabel or (multilabel and y.shape[1] != self.n_outputs_):
            must = f"y must be {'labels' if self._multilabel else 'classes'} as in the first call"
            raise ValueError(message(self._name, must, kind, "Fit a new estimator for others."))
        if multilabel:
            return np.asarray(y, self.dtype)
        numbers: Array = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[numbers], y):
            strange = np.setdiff1d(y, self.classes_)
            must = f"y must be among the classes {self.classes_.tolist()}"
            fix = "Name all of them in the first call of partial_fit, or leave warm_start out."
            raise ValueError(message(self._name, must, strange.tolist(), fix))
        return numbers.astype(np.int64)
