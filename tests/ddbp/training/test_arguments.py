"""What is given to a trainer by name, or in another form than it needs."""

import numpy as np
import pytest

import ddbp
import layers
from layers import BinaryCrossEntropy, Linear, MeanSquaredError, ReLU, SoftmaxCrossEntropy

from .small import DATA, make


def hits(prediction, target):
    """Return a metric of one's own."""
    return (prediction.argmax(axis=-1) == target).astype(np.float64)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", ddbp.Adam),
        ("AdamW", ddbp.AdamW),
        ("rmsprop", ddbp.RMSProp),
        ("lion", ddbp.Lion),
        ("radam", ddbp.RAdam),
        ("ada_grad", ddbp.AdaGrad),
    ],
)
def test_optimizer_may_be_given_by_its_name(name, kind):
    assert repr(make(optimizer=name).optimizer) == repr(kind())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mse", MeanSquaredError),
        ("mean_squared_error", MeanSquaredError),
        ("mae", layers.MeanAbsoluteError),
        ("l1", layers.MeanAbsoluteError),
        ("cross_entropy", SoftmaxCrossEntropy),
        ("SoftmaxCrossEntropy", SoftmaxCrossEntropy),
        ("binary_cross_entropy_with_logits", BinaryCrossEntropy),
    ],
)
def test_loss_may_be_given_by_its_name(name, kind):
    assert type(make(loss=name).loss) is kind


def test_metrics_may_be_a_list_of_names_and_functions():
    listed = make(metrics=["accuracy", hits]).evaluate(DATA)
    named = make(metrics={"accuracy": "acc", "hits": hits}).evaluate(DATA)
    assert listed == named
    assert [*listed] == ["loss", "accuracy", "hits"]
    assert listed["accuracy"] == listed["hits"]
    assert [*make(metrics=[]).evaluate(DATA)] == ["loss"]
    assert make(metrics="accuracy").metrics == make(metrics=["accuracy"]).metrics
    assert make(metrics=hits).metrics == {"hits": hits}


def test_name_of_a_metric_is_that_of_the_one_that_goes_with_the_loss():
    data = ddbp.ArrayDataset(DATA.x, np.eye(3)[DATA.y])
    trainer = make(loss=BinaryCrossEntropy(), metrics=["accuracy"])
    assert trainer.evaluate(data) == make(loss=BinaryCrossEntropy()).evaluate(data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": ddbp.Adam}, r"an Optimizer, or the name of one; got Adam. Make one: Adam\("),
        (
            {"optimizer": "adamm"},
            r"got 'adamm'. Write one of Adafactor, Adam, .* optimizer=Adam\(1e-3\)",
        ),
        ({"optimizer": "sgd"}, r"SGD must be given a learning rate.* Write optimizer=SGD\(0.1\)"),
        ({"optimizer": 0.1}, r"got 0.1. Write optimizer=Adam\(1e-3\)"),
        ({"loss": MeanSquaredError}, r"got MeanSquaredError. Make one: MeanSquaredError\(\)"),
        ({"loss": "mean"}, r"got 'mean'. Write one of .*loss=MeanSquaredError\(\)"),
        ({"loss": 3}, r"got 3. Write loss=MeanSquaredError\(\)"),
        (
            {"loss": "sparse_categorical_crossentropy"},
            r"Write SoftmaxCrossEntropy\(\): it takes logits, so leave out the last Softmax",
        ),
        ({"loss": "binary_crossentropy"}, r"Write BinaryCrossEntropy\(\): it takes logits"),
        ({"loss": "bce"}, r"Write BinaryCrossEntropy\(\): it takes logits"),
        ({"loss": "kld"}, r"Write KLDivergence\(\): it takes logits"),
        ({"metrics": 3}, r"got 3. Write metrics=\[\"accuracy\"\]"),
        ({"metrics": {"": hits}}, "metrics must have names; got ''"),
        ({"metrics": {3: hits}}, "metrics must have names; got 3"),
        ({"metrics": ["acuracy"]}, r"got 'acuracy'. Names are accuracy, binary_accuracy"),
        ({"metrics": [lambda p, t: p]}, r"must have a name.*metrics=\{\"name\": function\}"),
        ({"metrics": [hits, hits]}, "must have different names; got hits twice"),
        ({"metrics": {"hits": 3}}, "functions by name.* got 3"),
        ({"callbacks": [ddbp.EarlyStopping]}, r"Make one: EarlyStopping\("),
    ],
)
def test_what_is_meant_is_said_where_something_else_is_given(options, words):
    with pytest.raises(TypeError, match=rf"Trainer: .*{words}"):
        make(**options)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ([Linear(2, 2, rng=np.random.default_rng()), ReLU()], r"a list. Write layers.Sequential\("),
        (ReLU, r"got ReLU. Make one: ReLU\("),
        (print, "Derive from layers.Composite"),
    ],
    ids=["list", "class", "function"],
)
def test_model_must_be_made_of_layers(model, words):
    with pytest.raises(TypeError, match=rf"Trainer: model must be a layer.*{words}"):
        make(model)


@pytest.mark.parametrize("kind", [ddbp.Adam, ddbp.SGD, ddbp.WarmUp])
@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("0.1", "a Schedule; got '0.1'. Try 1e-3"),
        (None, "got None"),
        (True, "got True"),
        (ddbp.Cosine, r"Make one: Cosine\("),
        ([np.zeros(3)], "Leave the parameters out: a trainer passes them"),
    ],
)
def test_learning_rate_must_be_a_number_or_a_schedule(kind, rate, words):
    options = {"steps": 3} if kind is ddbp.WarmUp else {}
    with pytest.raises(TypeError, match=rf"{kind.__name__}: the learning rate must be .*{words}"):
        kind(rate, **options)


@pytest.mark.parametrize(
    "make_one",
    [
        lambda: ddbp.Adam(weight_decay="0.1"),
        lambda: ddbp.Adam(epsilon=None),
        lambda: ddbp.SGD(0.1, momentum="0.9"),
        lambda: ddbp.Cosine("0.1", steps=3),
        lambda: make(clip_norm="1"),
        lambda: make(l2=None),
        lambda: ddbp.EarlyStopping(delta="0.1"),
    ],
)
def test_numbers_must_be_numbers(make_one):
    with pytest.raises(TypeError, match=r"\w+: \w+ must be a number; got "):
        make_one()


def test_every_loss_that_needs_nothing_has_a_name():
    for name, kind in vars(layers).items():
        if isinstance(kind, type) and issubclass(kind, layers.Loss) and kind is not layers.Loss:
            try:
                kind()
            except TypeError:
                continue
            assert type(make(loss=name.lower()).loss) is kind
