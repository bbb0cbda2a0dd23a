"""Gradients and parameters that are not finite are refused, and named."""

import re

import numpy as np
import pytest

import ddbp
import layers
from layers import Layer, recompute

from . import small
from .small import LABELS, make, network, parameters

X, ROWS = small.X.astype(np.float32), slice(0, 24)


class Poison(Layer):
    """Passes on what it gets, and in one backward pass NaN instead of a gradient."""

    def __init__(self, number):
        self._passes, self._number = 0, number

    def forward(self, call, x):
        return x

    def backward(self, call, dy):
        self._passes += 1
        return (np.full_like(dy, np.nan),) if self._passes == self._number else (dy,)


def trainer(number, **options):
    """Return a trainer whose first layer gets a NaN in backward pass `number`, though the loss is
    finite.
    """
    return make(network(Poison(number)), batch_size=24, **options)


def step(trainer):
    return trainer.train_step(X[ROWS], LABELS[ROWS])


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("norm", [None, 1.0])
def test_gradient_that_is_not_finite_is_refused_before_the_update(shards, norm):
    poisoned, other = (trainer(number, clip_norm=norm, shards=shards) for number in (3, 0))
    for _ in range(2):
        step(poisoned)
        step(other)
    before = parameters(poisoned)
    text = (
        r"the gradient must be finite; got NaN or inf in step 2 for layers\.0\.weight,"
        r" layers\.0\.bias; what comes back to layers\.0: Linear\(6, 16\) \+ ReLU\(\) is finite\."
        r" Look for"
    )
    with pytest.raises(FloatingPointError, match=text):
        step(poisoned)
    assert parameters(poisoned).tobytes() == before.tobytes()
    # Nothing is lost: training goes on as if that step had not been.
    assert step(poisoned) == step(other)
    assert parameters(poisoned).tobytes() == parameters(other).tobytes()


def test_parameters_that_are_not_finite_are_named_by_the_next_step():
    overflowing = make(batch_size=24, optimizer=ddbp.SGD(1e39))
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.isfinite(step(overflowing))
    text = (
        r"the loss must be finite; got nan in step 1; layers\.0\.weight is not finite, since the"
        r" update of step 0 or a change"
    )
    with pytest.raises(FloatingPointError, match=text):
        step(overflowing)


def test_parameters_that_are_not_finite_at_first_are_named_without_a_step_before():
    untrained = trainer(0)
    untrained.model.layers[0].weight.value[0, 0] = np.nan
    text = r"got nan in step 0; layers\.0\.weight is not finite, since before the first step\."
    with pytest.raises(FloatingPointError, match=text):
        step(untrained)


def test_last_update_of_an_epoch_is_looked_at():
    data = ddbp.ArrayDataset(X[:24], LABELS[:24])
    text = r"the parameters must be finite; got NaN or inf in layers\.0\.weight after step 0\. The"
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(FloatingPointError, match=text),
    ):
        make(batch_size=24, optimizer=ddbp.SGD(1e39)).fit(data, epochs=1)
    assert len(trainer(0).fit(data, epochs=1)) == 1


NETWORKS = {
    "dense": lambda rng: layers.Sequential(layers.Linear(6, 5, rng=rng), layers.ReLU()),
    "maximum": lambda rng: Applied(layers.Linear(6, 5, rng=rng), lambda h: layers.maximum(h, 0.0)),
    "minimum": lambda rng: Applied(layers.Linear(6, 5, rng=rng), lambda h: layers.minimum(6.0, h)),
    "saturated": lambda rng: layers.Sequential(layers.Linear(6, 5, rng=rng), layers.Sigmoid()),
    "normed": lambda rng: layers.Sequential(layers.Linear(6, 5, rng=rng), layers.LayerNorm(5)),
}


class Applied(layers.Composite):
    def __init__(self, layer, function):
        self.layer, self.function = layer, function

    def __repr__(self):
        return "Applied()"

    def __call__(self, x):
        return self.function(self.layer(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_weight_that_is_nan_ends_training(name):
    trainer = make(NETWORKS[name](np.random.default_rng(0)), batch_size=24)
    weights = trainer.model.parameters()[0].value
    weights[...] = np.nan
    with pytest.raises(FloatingPointError, match=r"weight is not finite"):
        step(trainer)


class Faulty(Layer):
    """Gives NaN for large samples, or has it come back from them."""

    def __init__(self, back):
        self._back = back

    def __repr__(self):
        return "Faulty()"

    def _mark(self, x, y):
        return np.where(np.abs(x).max(axis=1, keepdims=True) > 1e3, np.float32(np.nan), y)

    def forward(self, call, x):
        call.save(x)
        return x if self._back else self._mark(x, x)

    def backward(self, call, dy):
        (x,) = call.saved
        return (self._mark(x, dy) if self._back else dy,)


def nested(back, wrap=layers.Recompute):
    """Return a model whose faulty layer is in a segment of a segment."""
    rng = np.random.default_rng(0)
    inner = wrap(layers.Sequential(layers.Linear(16, 16, rng=rng), Faulty(back)))
    middle = layers.Linear(16, 16, rng=rng), inner, layers.Tanh()
    return network(wrap(layers.Sequential(*middle)))


PLANS = {
    "segments": lambda back: (nested(back), "layers.2.segment.layers.1.segment.layers.1"),
    "a plan": lambda back: (
        nested(back, lambda layer: layer),
        "layers.2.layers.1.layers.1",
    ),
}


@pytest.mark.parametrize("back", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("name", PLANS)
def test_layer_in_a_segment_is_named(name, back):
    model, place = PLANS[name](back)
    trainer = make(model, batch_size=24)
    if name == "a plan":
        links = len(recompute.links(model))
        recompute.use_plan(model, [0, [1, [*range(2, links - 1)]], links - 1])
    x = X[ROWS].copy()
    x[5] *= 1e6
    what = "gradient" if back else "output"
    text = f"the first layer whose {what} is not finite is {place}: Faulty(), in sample 5 of"
    with pytest.raises(FloatingPointError, match=re.escape(text)):
        trainer.train_step(x, LABELS[ROWS])


# ---- numbers that the model's type does not hold, and hidden ones

LARGE = small.X[:24].astype(np.float64)
LARGE[5, 1] = -1e39
TEXT = r"must be at most 3\.40e\+38 in size, as float32 .*; got -1e\+39 at x\[5, 1\]\. Scale"


def test_numbers_too_large_for_the_model_are_named_with_their_place():
    trainer, labels = make(network(layers.ReLU()), batch_size=24), LABELS[ROWS]
    data = ddbp.ArrayDataset(LARGE, labels)
    for use in (lambda: trainer.fit(data, epochs=1), lambda: trainer.evaluate(data)):
        with pytest.raises(ValueError, match=f"ArrayDataset: x {TEXT}"):
            use()
    with pytest.raises(ValueError, match=rf"Trainer\.train_step: x {TEXT}"):
        trainer.train_step(LARGE, labels)
    with pytest.raises(ValueError, match=rf"Trainer\.predict: x {TEXT}"):
        trainer.predict(LARGE)
    with pytest.raises(ValueError, match=r"x\[1\] must .* at x\[1\]\[5, 1\]\. Scale"):
        ddbp.ArrayDataset((LARGE * 0, LARGE), labels).astype(np.float32)
    largest = np.full_like(LARGE, np.finfo(np.float32).max)
    assert np.isfinite(ddbp.ArrayDataset(largest, labels).astype(np.float32).x).all()


def test_a_float64_model_takes_them():
    trainer = make(network(layers.ReLU()).astype(np.float64), batch_size=24)
    assert np.isfinite(trainer.predict(LARGE)).all()


def test_masked_elements_are_refused_wherever_they_come_in():
    masked = np.ma.masked_less(X[ROWS], -1.5)
    first = np.argwhere(masked.mask)[0].tolist()
    labels = np.ma.masked_equal(LABELS[ROWS], 1)
    trainer = make(network(layers.ReLU()), batch_size=24)
    value = layers.Tape().input(X[ROWS])
    text = re.escape(f"{masked.mask.sum()} masked, the first at x{first}. Fill them, x.filled(0)")
    for use in (
        lambda: ddbp.ArrayDataset(masked, LABELS[ROWS]),
        lambda: trainer.train_step(masked, LABELS[ROWS]),
        lambda: trainer.predict(masked),
        lambda: trainer.model(masked),
        lambda: layers.Tape().input(masked),
        lambda: value * masked,
        lambda: layers.MeanSquaredError()(value, masked),
    ):
        with pytest.raises(TypeError, match=f"x must have no masked elements; got {text}"):
            use()
    for use in (
        lambda: ddbp.ArrayDataset(X[ROWS], labels),
        lambda: trainer.train_step(X[ROWS], labels),
    ):
        with pytest.raises(TypeError, match=r"y must have no masked elements"):
            use()


def test_masked_array_that_hides_nothing_is_an_array():
    trainer, other = (make(network(layers.ReLU()), batch_size=24) for _ in range(2))
    assert trainer.train_step(np.ma.masked_array(X[ROWS]), LABELS[ROWS]) == step(other)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}])
def test_transform_that_makes_nan_is_named(options):
    def spoil(gradient, step):
        for part in gradient.parts():
            if part.name == "layers.2.bias" and step == 1:
                part.gradient[-1] = np.nan

    spoilt = make(transforms=[ddbp.ClipParameterNorms(1.0), spoil], **options)
    step(spoilt)
    before = parameters(spoilt)
    said = r"NaN or inf in layers\.2\.bias after .*spoil in step 1\. It was finite before"
    with pytest.raises(FloatingPointError, match=said):
        step(spoilt)
    assert parameters(spoilt).tobytes() == before.tobytes()


def test_transform_is_not_blamed_for_the_gradient_that_it_was_given():
    poisoned = trainer(1, transforms=[ddbp.ClipParameterNorms(1.0)], clip_norm=1.0)
    with pytest.raises(FloatingPointError, match=r"the gradient must be finite; got NaN or inf in"):
        step(poisoned)
