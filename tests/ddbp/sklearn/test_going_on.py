"""Copies of estimators, and estimators whose parameters are changed: what they predict by, and how
training goes on.
"""

import copy
import pickle

import numpy as np
import pytest

import ddbp

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'ddbp[sklearn]'")

from ddbp.sklearn import DDBPClassifier, DDBPRegressor
from layers import Linear, Module, Sequential, SoftmaxCrossEntropy

from .test_estimators import LABELS, NUMBERS, SHORT, X_NUMBERS, X, network, parameters

COPIES = [copy.deepcopy, lambda estimator: pickle.loads(pickle.dumps(estimator))]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_goes_on_with_the_same_bits(copied, dtype):
    regressor = DDBPRegressor(dtype=dtype, random_state=0, model=network)
    regressor.partial_fit(X_NUMBERS, NUMBERS)
    other = copied(regressor)
    for each in (regressor, other):
        each.partial_fit(X_NUMBERS, NUMBERS).partial_fit(X_NUMBERS, NUMBERS)
    assert np.array_equal(parameters(regressor), parameters(other))
    assert np.array_equal(regressor.predict(X_NUMBERS), other.predict(X_NUMBERS))
    assert regressor.loss_curve_ == other.loss_curve_


class Doubled(Module):
    """A layer that files have no name for."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __call__(self, x):
        return self.inner(x) * 2


def unnamed(features, outputs, rng):
    """Return a network with a layer that files have no name for."""
    return Sequential(Doubled(Linear(features, 5, rng=rng)), Linear(5, outputs, rng=rng))


OTHERS = [
    {"activation": "tanh"},
    {"hidden_layer_sizes": (8,)},
    {"dropout": 0.5},
    {"dtype": "float64"},
    {"model": network},
    {"solver": "sgd"},
    {"loss": "mse"},
    {"trainer_options": None},
    {"alpha": 9.0, "batch_size": 7, "random_state": None, "class_weight": "balanced"},
]


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("fitted", [{}, {"model": network}, {"model": unnamed}])
def test_a_copy_after_set_params_is_the_network_that_was_fitted(copied, fitted):
    classifier = DDBPClassifier((6,), trainer_options={"precision": "bf16"}, **fitted, **SHORT)
    classifier.fit(X, LABELS)
    predicted = classifier.predict_proba(X)
    for other in (*OTHERS, {"model": None}):
        changed = copied(classifier).set_params(**other)
        assert np.array_equal(changed.predict_proba(X), predicted), other
        again = copied(changed)
        assert np.array_equal(again.predict_proba(X), predicted), other
        assert again.predict_proba(X).dtype == predicted.dtype
        assert repr(again.get_params()) == repr(changed.get_params())


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_has_the_parameters_frozen_that_are(copied):
    classifier = DDBPClassifier((6,), random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2])
    classifier.model_.layers[0].weight.trainable = False
    frozen = [parameter.trainable for parameter in copied(classifier).model_.parameters()]
    assert frozen == [False, True, True, True]


def test_a_state_that_does_not_say_what_was_fitted_is_loaded_by_the_parameters():
    classifier = DDBPClassifier((6,), random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2])
    state = classifier.__getstate__()
    del state["_architecture"], state["_made_of"]
    before = DDBPClassifier.__new__(DDBPClassifier)
    before.__setstate__(state)
    assert np.array_equal(before.predict_proba(X), classifier.predict_proba(X))
    for each in (before, classifier):
        each.set_params(learning_rate_init=0.1).partial_fit(X, LABELS)
    assert np.array_equal(parameters(before), parameters(classifier))


@pytest.mark.parametrize(
    "other",
    [
        {"activation": "tanh"},
        {"hidden_layer_sizes": (8,)},
        {"dropout": 0.5},
        {"dtype": "float64"},
        {"model": network},
    ],
)
def test_training_does_not_go_on_with_another_network(other):
    classifier = DDBPClassifier((6,), random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2])
    (name,) = other
    for each in (classifier, *(copied(classifier) for copied in COPIES)):
        before = parameters(each)
        each.set_params(**other)
        with pytest.raises(ValueError, match=f"DDBPClassifier: partial_fit must .* the {name} of"):
            each.partial_fit(X, LABELS)
        with pytest.raises(ValueError, match=f"fit with warm_start must .* the {name} of"):
            each.set_params(warm_start=True).fit(X, LABELS)
        assert np.array_equal(parameters(each), before)
        each.set_params(warm_start=False, **SHORT).fit(X, LABELS)
        assert each.predict_proba(X).dtype == each.dtype
        each.partial_fit(X, LABELS)


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate_init": 0.1},
        {"alpha": 90.0},
        {"batch_size": 10},
        {"loss": SoftmaxCrossEntropy(label_smoothing=0.3)},
        {"trainer_options": {"clip_norm": 1e-3, "callbacks": [ddbp.Callback()]}},
        {"trainer_options": {"shards": 2}},
    ],
)
@pytest.mark.parametrize("seed", [0, None])
def test_partial_fit_goes_on_with_other_parameters(other, seed):
    # Whose masks are of the seed.
    options = {"dropout": 0.2, "random_state": seed}
    classifier = DDBPClassifier((6,), solver=ddbp.SGD(0.1, momentum=0.9), **options)
    if "learning_rate_init" in other:
        classifier.set_params(solver="adam")
    classifier.partial_fit(X, LABELS, classes=[0, 1, 2])
    same, *copies = (copied(classifier) for copied in (copy.deepcopy, *COPIES))
    same.partial_fit(X, LABELS)
    for each in (classifier, *copies):
        each.set_params(**other).partial_fit(X, LABELS).partial_fit(X, LABELS)
        assert np.array_equal(parameters(each), parameters(classifier))
    assert not np.array_equal(parameters(same.partial_fit(X, LABELS)), parameters(classifier))


def test_a_rate_that_is_nearly_nothing_moves_nothing():
    regressor = DDBPRegressor((6,), random_state=0).partial_fit(X_NUMBERS, NUMBERS)
    before = parameters(regressor)
    regressor.set_params(learning_rate_init=1e-12).partial_fit(X_NUMBERS, NUMBERS)
    np.testing.assert_allclose(parameters(regressor), before, rtol=0, atol=1e-8)


def test_partial_fit_does_not_go_on_with_another_kind_of_optimizer():
    classifier = DDBPClassifier((6,), random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2])
    copied = copy.deepcopy(classifier)
    parameters_of_next = parameters(copy.deepcopy(classifier).partial_fit(X, LABELS))
    for each in (classifier, copied):
        with pytest.raises(ValueError, match=r"partial_fit must go on .* Set them back"):
            each.set_params(solver="sgd").partial_fit(X, LABELS)
        each.set_params(solver="adam").partial_fit(X, LABELS)
        assert np.array_equal(parameters(each), parameters_of_next)


def test_what_is_refused_leaves_an_estimator_as_it_was():
    missing = np.where(np.arange(X.shape[1]) == 1, np.nan, X)

    def failing(features, outputs, rng):
        raise ValueError("no network")

    classifier = DDBPClassifier((4,), max_iter=2, random_state=0)
    classifier.fit(X, LABELS)
    before, history = classifier.predict_proba(X), [*classifier.history_]
    for changes, x, y, must in (
        ({}, missing, LABELS, "NaN"),
        ({}, X[:, :2], LABELS[:3], "equally many samples"),
        ({}, X, np.zeros(len(X)), "two classes"),
        ({"model": failing}, X, LABELS, "no network"),
        ({"trainer_options": {"clip_norm": -1}}, X, LABELS, "clip_norm must"),
    ):
        with pytest.raises(ValueError, match=must):
            classifier.set_params(**changes).fit(x, y)
        classifier.set_params(**dict.fromkeys(changes))
        assert np.array_equal(classifier.predict_proba(X), before)
        assert [*classifier.history_] == history
        assert classifier.predict(X).dtype == LABELS.dtype
    new = DDBPClassifier((4,), random_state=0)
    with pytest.raises(ValueError, match="NaN"):
        new.partial_fit(missing, LABELS, classes=np.unique(LABELS))
    assert not [name for name in vars(new) if name.endswith("_")]
    regressor = DDBPRegressor((4,), max_iter=2, random_state=0).fit(X_NUMBERS, NUMBERS)
    numbers = regressor.predict(X_NUMBERS)
    with pytest.raises(ValueError, match="NaN"):
        regressor.fit(X_NUMBERS, np.full((len(NUMBERS), 3), np.nan))
    assert np.array_equal(regressor.predict(X_NUMBERS), numbers)


def test_training_goes_on_after_what_is_refused():
    one, other = (DDBPRegressor((4,), random_state=0) for _ in range(2))
    for each in (one, other):
        each.partial_fit(X_NUMBERS, NUMBERS)
    for method in (one.partial_fit, one.set_params(warm_start=True).fit):
        with pytest.raises(ValueError, match="NaN"):
            method(np.full_like(X_NUMBERS, np.nan), NUMBERS)
    for each in (one, other):
        each.partial_fit(X_NUMBERS, NUMBERS)
    assert np.array_equal(parameters(one), parameters(other))
    with pytest.raises(ValueError, match="clip_norm must"):
        one.set_params(trainer_options={"clip_norm": -1}).fit(X_NUMBERS, NUMBERS)
    assert np.array_equal(parameters(one), parameters(other))
    one.set_params(trainer_options=None).partial_fit(X_NUMBERS, NUMBERS)
