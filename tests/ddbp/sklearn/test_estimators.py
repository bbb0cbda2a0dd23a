"""Estimators: targets of every kind, the tools of scikit-learn, states, and the same bits."""

import gc
import json
import sys
import warnings
import weakref

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'ddbp[sklearn]'")

import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ddbp
from ddbp import AdamW
from ddbp.sklearn import DDBPClassifier, DDBPRegressor
from ddbp.sklearn.estimator import NetworkEstimator
from layers import Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy, Tanh

from ...conftest import run_process

X, LABELS = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
SHUFFLED = np.random.default_rng(0).permutation(len(X))
X, LABELS = X[SHUFFLED], LABELS[SHUFFLED]
X_NUMBERS, NUMBERS = load_diabetes(return_X_y=True)
X_NUMBERS, NUMBERS = X_NUMBERS / X_NUMBERS.std(axis=0), (NUMBERS - 152) / 77
SHORT = {"max_iter": 3, "n_iter_no_change": 3, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def network(features, outputs, rng):
    """Return a network of a user's own."""
    hidden = Linear(features, 7, rng=rng)
    return Sequential(hidden, Tanh(), Dropout(0.1), Linear(7, outputs, rng=rng))


def other_types(features, outputs, rng):
    """Return a network in the other floating type."""
    return network(features, outputs, rng).astype(np.float64)


def parameters(estimator):
    """Return the parameters of a network as one array."""
    return np.concatenate([p.value.ravel() for p in estimator.model_.parameters()])


@pytest.mark.parametrize(
    "names",
    [
        np.array(["setosa", "versicolor", "virginica"]),
        np.array(["b", "a", "c"], object),
        np.array([-7, 4, 1000]),
        np.array([0.0, 1.0, 5.0]),
    ],
    ids=["texts", "objects", "integers", "floats"],
)
def test_classes_are_of_any_type(names):
    classifier = DDBPClassifier((16,), max_iter=150, learning_rate_init=0.02, random_state=0)
    classifier.fit(X, names[LABELS])
    assert classifier.classes_.tolist() == sorted(names.tolist())
    assert classifier.predict(X).dtype == names.dtype
    assert classifier.score(X, names[LABELS]) > 0.95
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    logarithms = classifier.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(logarithms), classifier.predict_proba(X), rtol=1e-5)


def test_two_classes_may_be_true_and_false():
    classifier = DDBPClassifier(max_iter=50, random_state=0).fit(X, LABELS == 2)
    assert classifier.predict(X).dtype == bool
    assert classifier.predict_proba(X).shape == (150, 2)


def test_of_several_labels_each_has_a_probability_of_its_own():
    labels = np.stack([LABELS == 0, LABELS != 1, X[:, 0] > 0], axis=1).astype(int)
    dense = DDBPClassifier((32,), max_iter=80, learning_rate_init=0.01, random_state=0)
    dense.fit(X, labels)
    assert dense.predict(X).shape == labels.shape
    assert dense.score(X, labels) > 0.85
    assert np.array_equal(dense.predict(X), dense.predict_proba(X) > 0.5)
    of_sparse = clone(dense).fit(X, sparse.csr_array(labels))
    assert np.array_equal(parameters(of_sparse), parameters(dense))
    again = clone(dense).set_params(early_stopping=True, **SHORT).fit(X, labels)
    assert "validation_loss" in again.history_[0]


def test_several_classes_for_each_sample_are_for_several_classifiers():
    y = np.stack([LABELS, 2 - LABELS], axis=1)
    with pytest.raises(ValueError, match=r"one class for each sample.*MultiOutputClassifier"):
        DDBPClassifier().fit(X, y)
    assert MultiOutputClassifier(DDBPClassifier(**SHORT)).fit(X, y).predict(X).shape == y.shape


def test_a_regressor_predicts_in_the_shape_of_the_targets():
    pair = np.stack([NUMBERS, -NUMBERS], axis=1)
    regressor = DDBPRegressor((32,), max_iter=40, learning_rate_init=0.01, random_state=0)
    for y in (NUMBERS, NUMBERS[:, np.newaxis], pair):
        fitted = clone(regressor).fit(X_NUMBERS, y)
        assert fitted.predict(X_NUMBERS).shape == y.shape
        assert fitted.score(X_NUMBERS, y) > 0.5
    assert fitted.n_outputs_ == 2


def test_tools_of_scikit_learn_take_them():
    pipeline = make_pipeline(StandardScaler(), DDBPClassifier((16,), max_iter=30, random_state=0))
    scores = cross_val_score(pipeline, X, LABELS, cv=3)
    assert scores.shape == (3,)
    grid = {"ddbpclassifier__alpha": [1e-4, 1.0], "ddbpclassifier__activation": ["tanh", "gelu"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, LABELS)
    assert search.best_params_.keys() == grid.keys()
    copied = clone(DDBPRegressor(solver=AdamW(1e-2), loss=None))
    assert repr(copied.solver) == repr(AdamW(1e-2))


def test_other_processes_find_what_this_one_finds():
    grid = {"alpha": [1e-4, 1e-2], "model": [None, network]}
    search = GridSearchCV(DDBPClassifier(**SHORT), grid, cv=2, n_jobs=2, error_score="raise")
    apart = search.fit(X, LABELS).cv_results_["mean_test_score"]
    here = clone(search).set_params(n_jobs=None).fit(X, LABELS).cv_results_["mean_test_score"]
    assert np.array_equal(apart, here)


def test_metadata_routing_hands_weights_on():
    weights = np.linspace(0, 2, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = DDBPClassifier(**SHORT).set_fit_request(sample_weight=True)
        estimator = estimator.set_score_request(sample_weight=True)
        search = GridSearchCV(estimator, {"alpha": [1e-4]}, cv=2, error_score="raise")
        assert search.fit(X, LABELS, sample_weight=weights).best_score_ > 0


def test_a_seed_gives_the_same_bits_and_another_one_others():
    first, second = (DDBPClassifier(**SHORT).fit(X, LABELS) for _ in range(2))
    assert np.array_equal(parameters(first), parameters(second))
    other = DDBPClassifier(max_iter=3, random_state=1).fit(X, LABELS)
    assert not np.array_equal(parameters(first), parameters(other))
    drawn = np.random.RandomState(0)
    of_state = DDBPClassifier(max_iter=3, random_state=drawn).fit(X, LABELS)
    assert np.array_equal(parameters(of_state), parameters(first))
    following = DDBPClassifier(max_iter=3, random_state=drawn).fit(X, LABELS)
    assert not np.array_equal(parameters(following), parameters(first))


def test_a_sample_of_weight_zero_is_as_if_it_were_not_there():
    weights = np.where(np.arange(len(X)) % 3 == 0, 0.0, 1.0)
    weighted = DDBPClassifier(batch_size=16, **SHORT).fit(X, LABELS, sample_weight=weights)
    kept = weights > 0
    without = DDBPClassifier(batch_size=16, **SHORT).fit(X[kept], LABELS[kept])
    assert np.array_equal(parameters(weighted), parameters(without))


def test_weights_of_classes_move_the_decision():
    y = (LABELS == 1).astype(int)
    options = {"max_iter": 40, "random_state": 0, "learning_rate_init": 0.01}
    usual = DDBPClassifier((8,), **options).fit(X, y).predict(X).sum()
    heavy = DDBPClassifier((8,), class_weight={1: 50.0}, **options).fit(X, y).predict(X).sum()
    balanced = DDBPClassifier((8,), class_weight="balanced", **options).fit(X, y)
    assert heavy > usual
    assert balanced.predict(X).sum() > 0


def test_too_few_samples_for_early_stopping_are_said_by_the_name_of_a_class():
    for labels, said in ((["a", "a", "b", "b"], "4 samples, 2 of 'a', and"), ("aaab", "1 of 'b'")):
        with pytest.raises(ValueError, match=said):
            DDBPClassifier(early_stopping=True).fit(X[:4], list(labels))


def test_early_stopping_goes_back_to_the_best_epoch():
    options = {"early_stopping": True, "n_iter_no_change": 3, "learning_rate_init": 0.05}
    regressor = DDBPRegressor((32,), random_state=0, validation_fraction=0.3, **options)
    regressor.fit(X_NUMBERS, NUMBERS)
    losses = [record["validation_loss"] for record in regressor.history_]
    assert regressor.n_iter_ == len(losses) < regressor.max_iter
    best = int(np.argmin(losses)) + 1
    assert best < regressor.n_iter_
    # Those of so many epochs without stopping.
    shorter = clone(regressor).set_params(max_iter=best).fit(X_NUMBERS, NUMBERS)
    assert np.array_equal(parameters(regressor), parameters(shorter))


def test_training_that_goes_on_is_said():
    with pytest.warns(ConvergenceWarning, match="DDBPClassifier: training should stop before"):
        DDBPClassifier(max_iter=3, n_iter_no_change=2).fit(X, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DDBPClassifier(**SHORT).fit(X, LABELS).n_iter_ == 3


def test_sparse_samples_are_refused_clearly():
    with pytest.raises(TypeError, match=r"Sparse data was passed.*dense data is required"):
        DDBPClassifier().fit(sparse.csr_array(X), LABELS)
    with pytest.raises(TypeError, match="dense data is required"):
        DDBPRegressor(**SHORT).fit(X, LABELS).predict(sparse.csr_array(X))


def test_partial_fit_takes_one_step_for_each_batch():
    classifier = DDBPClassifier(batch_size=50, random_state=0)
    with pytest.raises(ValueError, match="the first call of partial_fit needs classes"):
        classifier.partial_fit(X, LABELS)
    for part in range(3):
        rows = slice(50 * part, 50 * part + 50)
        classifier.partial_fit(X[rows], LABELS[rows], classes=[0, 1, 2])
    at_once = clone(classifier).partial_fit(X, LABELS, classes=[0, 1, 2])
    assert np.array_equal(parameters(classifier), parameters(at_once))
    assert (classifier.n_iter_, at_once.n_iter_) == (3, 1)
    assert len(classifier.loss_curve_) == 3
    assert classifier.loss_ == classifier.loss_curve_[-1]


def test_batches_of_partial_fit_are_as_large_as_is_said():
    samples, y = np.tile(X, (3, 1)), np.tile(LABELS, 3)
    steps = {}
    for size in (450, 300, 10**9, "auto"):
        classifier = DDBPClassifier(batch_size=size, random_state=0)
        classifier.partial_fit(samples, y, classes=[0, 1, 2])
        steps[size] = classifier._trainer.step_count
    assert steps == {450: 1, 300: 2, 10**9: 1, "auto": 3}


def test_classes_of_partial_fit_stay():
    classifier = DDBPClassifier(random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2, 3])
    assert classifier.predict_proba(X).shape == (150, 4)
    with pytest.raises(ValueError, match="classes must stay"):
        classifier.partial_fit(X, LABELS, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"y must be among the classes .* got \[4\]"):
        classifier.partial_fit(X, LABELS + 2)
    with pytest.raises(ValueError, match="early_stopping=False"):
        classifier.set_params(early_stopping=True).partial_fit(X, LABELS)
    with pytest.raises(ValueError, match="how often classes come"):
        DDBPClassifier(class_weight="balanced").partial_fit(X, LABELS, classes=[0, 1, 2])


def test_a_pickled_estimator_is_arrays_numbers_and_texts():
    estimators = [
        DDBPClassifier(**SHORT).fit(X, LABELS.astype(str)),
        DDBPClassifier(random_state=0).partial_fit(X, LABELS, classes=[0, 1, 2]),
        DDBPRegressor(**SHORT).fit(X, LABELS),
    ]

    def require_plain(entry):
        if isinstance(entry, dict):
            require_plain([*entry.keys(), *entry.values()])
        elif isinstance(entry, list | tuple):
            for each in entry:
                require_plain(each)
        elif not isinstance(entry, np.ndarray):
            json.dumps(entry)

    for estimator in estimators:
        require_plain(estimator.__getstate__())


def test_a_fitted_estimator_keeps_no_trainer():
    made = []

    class Kept(ddbp.Callback):
        def on_attach(self, trainer):
            made.append(weakref.ref(trainer))

    DDBPClassifier(trainer_options={"callbacks": [Kept()]}, **SHORT).fit(X, LABELS)
    gc.collect()
    assert len(made) == 1
    assert made[0]() is None


def test_warm_start_goes_on_and_knows_the_classes():
    classifier = DDBPClassifier(warm_start=True, **SHORT).fit(X, LABELS)
    first = classifier.loss_
    assert classifier.fit(X, LABELS).loss_curve_[0] < first
    with pytest.raises(ValueError, match="y must be among the classes"):
        classifier.fit(X, LABELS + 1)


@pytest.mark.parametrize("model", [network, other_types])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_of_ones_own_has_the_type_that_is_asked_for(model, dtype):
    classifier = DDBPClassifier(model=model, dtype=dtype, **SHORT).fit(X, LABELS)
    assert [layer.__class__ for layer in classifier.model_.layers] == [
        Linear,
        Tanh,
        Dropout,
        Linear,
    ]
    assert parameters(classifier).dtype == dtype
    assert classifier.predict_proba(X).dtype == dtype


def test_options_of_the_trainer_are_handed_on(tmp_path):
    options = {"run_dir": tmp_path / "run", "clip_norm": 1.0, "shards": 2}
    classifier = DDBPClassifier(
        (5, 4),
        solver=AdamW(0.01),
        loss=SoftmaxCrossEntropy(label_smoothing=0.1),
        trainer_options=options,
        **SHORT,
    ).fit(X, LABELS)
    configuration = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (configuration["clip_norm"], configuration["shards"]) == (1.0, 2)
    assert "AdamW" in str(configuration["optimizer"])
    assert "0.1" in str(configuration["loss"])
    assert [p.value.shape for p in classifier.model_.parameters()][::2] == [(5, 4), (4, 5), (3, 4)]


def test_samples_are_augmented_and_read_ahead_as_the_trainer_does():
    options = {"augment": "Noise(0.1)", "prefetch": True}
    short = {**SHORT, "batch_size": 50, "alpha": 0.0}
    regressor = DDBPRegressor((5,), trainer_options=options, **short)
    plain, ahead = (
        clone(regressor).set_params(trainer_options=each) for each in (None, {"prefetch": True})
    )
    fitted = [each.fit(X_NUMBERS, NUMBERS) for each in (regressor, plain, ahead)]
    noisy, first, second = map(parameters, fitted)
    assert np.array_equal(first, second)
    model = clone(plain).set_params(max_iter=1).fit(X_NUMBERS, NUMBERS)
    seed = model._seed()
    again = model._network(seed)
    trainer = ddbp.Trainer(
        again, loss="mse", optimizer="adam", batch_size=50, seed=seed, quiet=True, **options
    )
    x, y = X_NUMBERS.astype(np.float32), NUMBERS.astype(np.float32)[:, np.newaxis]
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=3)
    assert np.array_equal(noisy, np.concatenate([p.value.ravel() for p in again.parameters()]))
    assert not np.array_equal(noisy, first)
    with pytest.raises(ValueError, match="partial_fit takes samples as they are, without augment"):
        clone(regressor).partial_fit(X_NUMBERS, NUMBERS)


def test_the_penalty_of_weights_is_scikit_learns():
    still = {"learning_rate_init": 1e-12, "batch_size": 100, "random_state": 0}
    rows = X_NUMBERS[:100], NUMBERS[:100]
    without, heavy = (DDBPRegressor(alpha=a, **still).partial_fit(*rows) for a in (0, 7.0))
    weights = [p.value for p in heavy.model_.parameters() if p.value.ndim == 2]
    penalty = 7.0 / 2 * sum(float((weight * weight).sum()) for weight in weights) / 100
    assert heavy.loss_ - without.loss_ == pytest.approx(penalty, rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be"),
        ({"activation": "rely"}, 'activation must be one of .*Write activation="relu"'),
        ({"activation": "swishy"}, 'activation must be one of .*activation="relu" is usual'),
        ({"solver": "lbfgs"}, r"trained by batches: write solver=\"adam\""),
        ({"solver": "adamant"}, "solver must be the name of an optimizer"),
        ({"alpha": -1}, "alpha must"),
        ({"batch_size": 0}, "batch_size must"),
        ({"batch_size": "all"}, "batch_size must"),
        ({"learning_rate_init": 0}, "learning_rate_init must"),
        ({"max_iter": 0}, "max_iter must"),
        ({"tol": -1}, "tol must"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must"),
        ({"early_stopping": "yes"}, "early_stopping must"),
        ({"validation_fraction": 1.0}, "validation_fraction must"),
        ({"validation_fraction": 0.0}, "validation_fraction must be above 0"),
        ({"dropout": 1}, "dropout must"),
        ({"model": Sequential()}, "model must be a function"),
        ({"model": lambda features, outputs, rng: None}, "must return a layer"),
        ({"model": lambda features, outputs, rng: ReLU()}, r"the model must return \(N, 3\)"),
        ({"loss": "huge"}, "loss must be"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"class_weight": {7: 1.0}}, "class_weight must"),
        ({"class_weight": "fair"}, "class_weight must"),
        ({"trainer_options": [1]}, "trainer_options must be options by name"),
        ({"trainer_options": {"seed": 1}}, "trainer_options must be among .*got seed"),
        ({"trainer_options": {"resume": "auto"}}, "got resume. Use a Trainer for resume, rule"),
        ({"warm_start": None}, "warm_start must"),
        ({"random_state": "seed"}, "random_state must"),
        ({"verbose": 2}, "verbose must"),
    ],
)
def test_wrong_parameters_are_refused_by_fit(wrong, says):
    estimator = DDBPClassifier(**{"max_iter": 2, **wrong})
    with pytest.raises((TypeError, ValueError), match=f"^(DDBPClassifier|Trainer): .*{says}"):
        estimator.fit(X, LABELS).predict(X)


def test_wrong_data_are_refused():
    with pytest.raises(ValueError, match="X and y must have equally many samples"):
        DDBPClassifier().fit(X, LABELS[:-1])
    with pytest.raises(ValueError, match="sample_weight must be"):
        DDBPClassifier().fit(X, LABELS, sample_weight=-np.ones(len(X)))
    with pytest.raises(ValueError, match="too large for dtype"), np.errstate(all="ignore"):
        DDBPRegressor().fit(X * 1e300, NUMBERS[: len(X)])
    with pytest.raises(ValueError, match="dim <= 2"):
        DDBPRegressor().fit(X, np.ones((len(X), 2, 2)))
    with pytest.raises(NotFittedError):
        DDBPClassifier().predict(X)
    regressor = DDBPRegressor(random_state=0).partial_fit(X, LABELS)
    with pytest.raises(ValueError, match="y must have 1 outputs"):
        regressor.partial_fit(X, np.ones((len(X), 2)))


def test_both_have_the_same_parameters_but_for_classes():
    base = NetworkEstimator().get_params()
    assert DDBPRegressor().get_params() == base
    assert DDBPClassifier().get_params() == {**base, "class_weight": None}


def test_without_scikit_learn_the_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None\nimport ddbp.sklearn"
    finished = run_process([sys.executable, "-c", code], timeout=300)
    assert finished.status != 0
    assert "pip install 'ddbp[sklearn]'" in finished.err


def test_logarithms_of_small_probabilities_are_finite():
    labels = np.stack([LABELS == 0, LABELS > 0], axis=1).astype(int)
    for y in (LABELS, labels):
        classifier = DDBPClassifier((8,), **SHORT).fit(X, y)
        near, far = (classifier.predict_log_proba(scale * X) for scale in (1, 1e5))
        assert np.allclose(near, np.log(classifier.predict_proba(X)), atol=1e-5)
        assert np.isfinite(far).all()
        assert far.min() < -200
