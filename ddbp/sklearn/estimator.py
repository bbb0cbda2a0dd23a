"""What both estimators share: training, predictions, and their state as arrays and JSON."""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ddbp.comm.current import communicator
from ddbp.data.array_dataset import ArrayDataset
from ddbp.reduction.replicate import named_arrays
from ddbp.snapshot import Snapshot
from ddbp.training import arguments, evaluation
from ddbp.training.history import History
from ddbp.training.monitors import EarlyStopping
from ddbp.training.options import TrainerOptions
from ddbp.training.trainer import Trainer
from layers import Module
from layers.checks import (
    boolean,
    fraction,
    non_negative,
    one_of,
    positive,
    positive_int,
)
from layers.errors import message
from layers.types import Array

from . import network as networks
from .refused import unless_refused

_LARGEST_BATCH = 200
"""Samples of a batch, unless said."""
_PREDICTED = 1024
"""Samples that are predicted at once."""
_DTYPES = ("float32", "float64")
_MAY_CHANGE = (
    *("optimizer", "loss", "transforms", "callbacks"),
    *(field.name for field in fields(TrainerOptions)),
)
"""Facts of a trainer that may be others from one call of partial_fit to the next."""
_OPTIONS = frozenset(
    {
        *("accumulate", "augment", "callbacks", "clip_norm", "clip_value", "compression"),
        *("doctor", "drop_last", "exchange", "l1", "loss_scale", "memory", "metrics", "network"),
        *("on_nonfinite", "precision", "prefetch", "run_dir", "shards", "transforms"),
        "wire",
    }
)
"""Options of the trainer that users may set."""


class NetworkEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators; see `DDBPClassifier` for the parameters."""

    model_: Module
    history_: History
    n_iter_: int
    n_features_in_: int
    n_outputs_: int
    _made_of: dict[str, Any]
    _made_with: dict[str, Any]
    _trainer: Trainer | None
    _training: tuple[dict[str, Array], dict[str, Any]] | None

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
        model: networks.Factory | None = None,
        loss: Any = None,
        dtype: str = "float32",
        trainer_options: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.dropout = dropout
        self.model = model
        self.loss = loss
        self.dtype = dtype
        self.trainer_options = trainer_options
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    # What the classifier and the regressor do otherwise

    def _targets(self, y: Any, *, reset: bool) -> Array:
        """Return targets as the loss takes them, having learned what they are if `reset`."""
        raise NotImplementedError

    def _unlearn(self) -> None:
        """Forget what targets are."""

    def _usual_loss(self) -> Any:
        """Return the loss, unless one is given."""
        raise NotImplementedError

    def _strata(self, y: Array) -> Array | None:
        """Return by what samples are split evenly, if by anything."""
        return None

    def _sample_weights(self, y: Any, weights: Array | None) -> Array | None:
        """Return the weights of samples, given those that the user gives them."""
        return weights

    # Training

    @unless_refused
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new network; with `warm_start`, go on with the parameters that there are.

        Parameters
        ----------
        X
            Samples (N, features), dense.
        y
            Their targets.
        sample_weight
            How much each sample counts (N,); one of weight 0 is left out.

        Returns
        -------
        The estimator itself.
        """
        self._check()
        goes_on = self._warm and hasattr(self, "model_")
        if goes_on:
            self._require_same_network("fit with warm_start")
        else:
            self._unlearn()
        data, mean = self._read(X, y, sample_weight, reset=not goes_on)
        seed = self._seed()
        self._trainer = self._training = None
        if not goes_on:
            self._begin(seed, data.x)
        training, validation = self._split(data, seed)
        stopping = EarlyStopping(
            patience=self.n_iter_no_change,
            monitor="loss" if validation is None else "validation_loss",
            delta=self.tol,
            restore_best_weights=validation is not None,
        )
        size = self._size(len(training))
        # As of samples that come as often as they count.
        trainer = self._made_trainer(size, seed, self.alpha / (size * mean), stopping)
        self.history_ = trainer.fit(training, epochs=self.max_iter, validation=validation)
        self.n_iter_ = len(self.history_)
        if not trainer.stop and self.n_iter_no_change < self.max_iter:
            must = "training should stop before max_iter"
            got = f"{self.max_iter} epochs, in the last {self.n_iter_no_change} of which the loss"
            fix = "Raise max_iter, tol or learning_rate_init."
            text = message(self._name, must, f"{got} still fell", fix)
            warnings.warn(text, ConvergenceWarning, stacklevel=3)
        return self

    def _go_on(self, X: Any, y: Any, sample_weight: Any, begins: bool) -> Self:
        """Take one step for each batch of the samples, in their order."""
        self._check()
        if boolean(self._name, "early_stopping", self.early_stopping):
            must = "partial_fit needs early_stopping=False, as it sees no epochs"
            raise ValueError(message(self._name, must, True, "Call fit to stop early."))
        if augment := (self.trainer_options or {}).get("augment"):
            must = "partial_fit takes samples as they are, without augment"
            raise ValueError(message(self._name, must, augment, "Call fit, or leave it out."))
        if not begins:
            self._require_same_network("partial_fit")
        data, _ = self._read(X, y, sample_weight, reset=begins)
        if begins:
            self._trainer = self._training = None
            self.history_, self.n_iter_ = History(), 0
            self._begin(self._seed(), data.x)
        trainer = self._continued()
        size = trainer.options.batch_size
        total = 0.0
        for start in range(0, len(data), size):
            rows = slice(start, start + size)
            weights = None if data.weights is None else data.weights[rows]
            total += trainer.train_step(data.x[rows], data.y[rows], weights) * len(data.x[rows])
        self.n_iter_ += 1
        self.history_.append({"epoch": self.n_iter_, "loss": total / len(data)})
        return self

    def _continued(self) -> Trainer:
        """Return the trainer of the last call of partial_fit, or one that goes on from its state,
        where it is of a copied estimator, or was made with other parameters.
        """
        trainer: Trainer | None = getattr(self, "_trainer", None)
        now = self._parameters_of_trainer()
        if trainer is not None:
            then = self._made_with
            if now.keys() == then.keys() and all(now[name] is then[name] for name in now):
                return trainer
            snapshot = trainer.state()
            self._training, self._trainer = (snapshot.arrays, snapshot.values), None
        size = self._size(None)
        before = None if self._training is None else Snapshot(*self._training)
        seed = self._seed() if before is None else int(before.part("facts")["seed"])
        trainer = self._made_trainer(size, seed, self.alpha / size)
        if before is not None:
            try:
                trainer.load_state(before)
            except ValueError as error:
                must = "partial_fit must go on with parameters that fit the state of its training"
                got, fix = str(error).partition(". ")[0], "Set them back, or call fit."
                raise ValueError(message(self._name, must, got, fix)) from error
        self._trainer, self._made_with, self._training = trainer, now, None
        return trainer

    def _parameters_of_trainer(self) -> dict[str, Any]:
        """Return what the trainer of partial_fit is made with, by name."""
        names = "solver", "learning_rate_init", "alpha", "batch_size", "loss", "verbose"
        return {name: getattr(self, name) for name in names} | dict(self.trainer_options or {})

    def _parameters_of_network(self) -> dict[str, Any]:
        """Return what the network is made of, by name."""
        made = {"model": self.model, "dtype": self.dtype}
        if self.model is not None:
            return made
        sizes = networks.sizes(self._name, self.hidden_layer_sizes)
        dense = {"activation": self.activation, "dropout": self.dropout}
        return made | {"hidden_layer_sizes": sizes} | dense

    def _require_same_network(self, goes_on: str) -> None:
        """Refuse parameters of another network than the one that there is."""
        now, then = self._parameters_of_network(), self._made_of
        for name in now:
            if name not in then or now[name] != then[name]:
                must = f"{goes_on} must go on with the {name} of the network that there is"
                got = f"{now[name]!r}" + (f", after {then[name]!r}" if name in then else "")
                fix = "Set it back, or call fit without warm_start for a new network."
                raise ValueError(message(self._name, must, got, fix))

    def _made_trainer(self, size: int, seed: int, penalty: float, *callbacks: Any) -> Trainer:
        options = dict(self.trainer_options or {})
        loss = self._usual_loss() if self.loss is None else self.loss
        return Trainer(
            self.model_,
            loss=loss,
            optimizer=networks.optimizer(self._name, self.solver, self.learning_rate_init),
            batch_size=size,
            seed=seed,
            l2=penalty,
            callbacks=[*callbacks, *options.pop("callbacks", ())],
            quiet=not self.verbose,
            resume_options=_MAY_CHANGE,
            **options,
        )

    def _begin(self, seed: int, x: Array) -> None:
        """Make the network, and see that it takes samples as they are."""
        self._made_of = self._parameters_of_network()
        self.model_ = self._network(seed)
        self._predicted(x[:1])

    def _network(self, seed: int) -> Module:
        """Return a new network, whose weights are drawn by a seed."""
        rng, of = np.random.default_rng(seed), self._made_of
        ends = self.n_features_in_, self.n_outputs_
        if of["model"] is not None:
            return networks.made(self._name, of["model"], *ends, rng, of["dtype"])
        widths = ends[0], *of["hidden_layer_sizes"], ends[1]
        how = of["activation"], of["dropout"], rng, of["dtype"]
        return networks.dense(self._name, widths, *how)

    # Data

    def _read(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[ArrayDataset, float]:
        """Return the samples that count, and their mean weight, or refuse them."""
        x, y = validate_data(
            self,
            X,
            y,
            reset=reset,
            validate_separately=(
                {"dtype": self.dtype, "order": "C"},
                {"dtype": None, "ensure_2d": False, "accept_sparse": "csr"},
            ),
        )
        if hasattr(y, "toarray"):
            # Which labels a sample has.
            y = y.toarray()
        if len(x) != len(y):
            must, fix = "X and y must have equally many samples", "Pass a target for each sample."
            raise ValueError(message(self._name, must, f"{len(x)} and {len(y)}", fix))
        mean = 1.0
        weights = self._sample_weights(y, self._weights(sample_weight, len(x)))
        if weights is not None:
            if not weights.any():
                must = "the weights of samples must not all be zero"
                raise ValueError(message(self._name, must, "zeros", "0 leaves a sample out."))
            if not weights.all():
                kept = weights > 0
                x, y, weights = x[kept], y[kept], weights[kept]
            mean = float(weights.mean())
            if weights.min() == weights.max():
                weights = None
        return ArrayDataset.unchecked(x, self._targets(y, reset=reset), weights), mean

    def _weights(self, given: Any, samples: int) -> Array | None:
        """Return the weights that the user gives samples."""
        if given is None:
            return None
        weights: Array = check_array(
            given, ensure_2d=False, dtype=self.dtype, input_name="sample_weight"
        )
        if weights.shape != (samples,) or weights.min() < 0:
            must = f"sample_weight must be ({samples},), and nowhere negative"
            got = f"{weights.shape}, from {weights.min()} on"
            raise ValueError(message(self._name, must, got, "Give each sample one weight."))
        return weights

    def _split(self, data: ArrayDataset, seed: int) -> tuple[ArrayDataset, ArrayDataset | None]:
        """Return what is trained on, and what tells when to stop, if anything does."""
        if not self.early_stopping:
            return data, None
        strata, kept = self._strata(data.y), self.validation_fraction
        try:
            parts = train_test_split(
                np.arange(len(data)), test_size=kept, random_state=seed, stratify=strata
            )
        except ValueError as error:
            each, got = "", f"{len(data)} samples"
            if strata is not None:
                names, counts = np.unique(strata, return_counts=True)
                each, rarest = " of each class", names.tolist()[counts.argmin()]
                got += f", {counts.min()} of {rarest!r},"
            must = f"early_stopping must have samples{each} to keep back, and others to train on"
            fix = "Raise validation_fraction, add samples, or leave early_stopping out."
            got += f" and validation_fraction={kept}"
            raise ValueError(message(self._name, must, got, fix)) from error
        training, validation = (
            ArrayDataset.unchecked(
                data.x[rows], data.y[rows], None if data.weights is None else data.weights[rows]
            )
            for rows in parts
        )
        return training, validation

    def _size(self, samples: int | None) -> int:
        """Return the number of samples of a batch, of so many, if that is known."""
        size = _LARGEST_BATCH if isinstance(self.batch_size, str) else int(self.batch_size)
        return size if samples is None else min(size, samples)

    def _seed(self) -> int:
        """Return the seed of this training, the same on all ranks."""
        try:
            drawn = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        except ValueError as error:
            must, fix = "random_state must be a seed, a RandomState or None", "Write 0."
            raise ValueError(message(self._name, must, repr(self.random_state), fix)) from error
        seed = np.array([drawn], np.int64)
        communicator().broadcast(seed)
        return int(seed.item())

    # Predictions

    def _outputs(self, X: Any) -> Array:
        """Return what the network makes of samples, (N, outputs)."""
        check_is_fitted(self)
        dtype = self._made_of["dtype"]
        return self._predicted(validate_data(self, X, reset=False, dtype=dtype, order="C"))

    def _predicted(self, x: Array) -> Array:
        outputs: Any = evaluation.predict(self.model_, x, _PREDICTED)
        if not isinstance(outputs, np.ndarray) or outputs.shape != (len(x), self.n_outputs_):
            must = f"the model must return (N, {self.n_outputs_})"
            got = getattr(outputs, "shape", type(outputs).__name__)
            fix = "Its last layer is Linear(…, outputs, rng=rng)."
            raise ValueError(message(self._name, must, got, fix))
        return outputs

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss of each epoch, or of each call of partial_fit."""
        return [record["loss"] for record in self.history_]

    @property
    def loss_(self) -> float:
        """The last of `loss_curve_`."""
        return self.loss_curve_[-1]

    # State

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        trainer = state.pop("_trainer", None)
        state.pop("_made_with", None)
        network = state.pop("model_", None)
        if trainer is not None:
            snapshot = trainer.state()
            state["_training"] = snapshot.arrays, snapshot.values
        if network is not None:
            state["_architecture"] = networks.described(network)
            named = named_arrays(network).items()
            state["_arrays"] = {name: np.array(array.value) for name, array in named}
        if "history_" in state:
            state["history_"] = [*state["history_"]]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        arrays, description = state.pop("_arrays", None), state.pop("_architecture", {})
        super().__setstate__(state)
        if "history_" in state:
            self.history_ = History(state["history_"])
        if arrays is not None:
            self._trainer = None
            if "_made_of" not in state:
                # Of a version that did not keep it.
                self._made_of = self._parameters_of_network()
            self.model_ = networks.rebuilt(description, arrays, lambda: self._network(0))
            for name, array in named_arrays(self.model_).items():
                array.value = arrays[name]

    # Checks

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _warm(self) -> bool:
        return boolean(self._name, "warm_start", self.warm_start)

    def _check(self) -> None:
        """Refuse parameters that are wrong."""
        name = self._name
        networks.sizes(name, self.hidden_layer_sizes)
        fix = 'activation="relu" is usual.'
        one_of(name, "activation", self.activation, networks.ACTIVATIONS, fix)
        non_negative(name, "alpha", self.alpha, "1e-4 is usual.", finite=True)
        if not (isinstance(self.batch_size, str) and self.batch_size == "auto"):
            fix = 'batch_size="auto" is up to 200.'
            positive_int(name, "batch_size", self.batch_size, fix)
        rate = self.learning_rate_init
        positive(name, "learning_rate_init", rate, "1e-3 is usual.", finite=True)
        positive_int(name, "max_iter", self.max_iter, "200 is usual.")
        non_negative(name, "tol", self.tol, "1e-4 is usual.", finite=True)
        positive_int(name, "n_iter_no_change", self.n_iter_no_change, "10 is usual.")
        boolean(name, "early_stopping", self.early_stopping)
        boolean(name, "verbose", self.verbose)
        kept = fraction(name, "validation_fraction", self.validation_fraction, "0.1 is usual.")
        if not kept:
            must = "validation_fraction must be above 0"
            raise ValueError(message(name, must, kept, "Leave early_stopping out."))
        fraction(name, "dropout", self.dropout, "0.5 is usual.")
        one_of(name, "dtype", self.dtype, _DTYPES)
        factory: Any = self.model
        strange = isinstance(factory, type) and not issubclass(factory, Module)
        if factory is not None and (
            strange or isinstance(factory, Module) or not callable(factory)
        ):
            must = "model must be a function of (features, outputs, rng) that returns a layer"
            fix = "Write def model(features, outputs, rng): return Sequential(…)."
            raise TypeError(message(name, must, repr(factory), fix))
        if self.loss is not None:
            arguments.loss(self.loss)
        options: Any = self.trainer_options
        if options is not None and not isinstance(options, Mapping):
            must, fix = "trainer_options must be options by name", "Write {'clip_norm': 1.0}."
            raise TypeError(message(name, must, repr(options), fix))
        if unknown := sorted(map(str, set(options or ()) - _OPTIONS)):
            must = f"trainer_options must be among {', '.join(sorted(_OPTIONS))}"
            fix = "Use a Trainer for resume, rule and truncate; the others follow from parameters."
            raise ValueError(message(name, must, ", ".join(unknown), fix))
