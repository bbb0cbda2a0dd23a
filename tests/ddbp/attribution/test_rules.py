"""Guided backpropagation and DeepLIFT: rules of the backward pass."""

import numpy as np
import pytest

import layers
from ddbp import attribution
from layers import (
    CELU,
    ELU,
    GELU,
    GRU,
    LSTM,
    RNN,
    SELU,
    AdaptiveMaxPool2d,
    BatchNorm2d,
    Composite,
    Conv1d,
    Conv2d,
    EncoderBlock,
    Flatten,
    GroupNorm,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Mish,
    MultiHeadAttention,
    PoolOverTime,
    PReLU,
    ReLU,
    ReLU6,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
    Tape,
    exp,
    where,
)

from .networks import cnn, images

LABELS = np.array([0, 2, 1, 1, 0])
ACTIVATIONS = (
    *(CELU(), ELU(), GELU(), GELU("tanh"), SELU(), Hardsigmoid(), Hardswish(), Hardtanh()),
    *(LeakyReLU(), Mish(), PReLU(6, dtype=np.float64), ReLU(), ReLU6(), Sigmoid(), SiLU()),
    *(Softplus(), Tanh()),
)


POOLS = (MaxPool2d(2), MaxPool2d(3, stride=1), AdaptiveMaxPool2d(3))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_deep_lift_is_complete_through_every_activation(activation, baseline):
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal((5, 4))
    model = Sequential(Linear(4, 6, rng=rng), activation, Linear(6, 3, rng=rng)).astype(np.float64)
    found = attribution.deep_lift(model, x, LABELS, baseline=baseline)
    assert np.abs(found.error).max() < 1e-12


@pytest.mark.parametrize(
    "pool", [MaxPool2d(2), MaxPool2d(3, stride=1), AdaptiveMaxPool2d(3)], ids=repr
)
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_deep_lift_is_complete_through_maxima(pool, baseline):
    rng = np.random.default_rng(0)
    first = (Conv2d(2, 4, 3, padding=1, rng=rng), ReLU(), pool)
    width = Flatten()(Sequential(*first)(images(dtype=np.float32))).shape[1]
    model = Sequential(*first, Flatten(), Linear(width, 3, rng=rng)).astype(np.float64)
    found = attribution.deep_lift(model, images(), LABELS, baseline=baseline)
    assert np.abs(found.error).max() < 1e-12


@pytest.mark.parametrize("last", [PoolOverTime("max"), PoolOverTime("mean")], ids=repr)
def test_deep_lift_is_complete_for_sequences_of_several_lengths(last):
    rng = np.random.default_rng(0)

    class Net(Composite):
        def __init__(self):
            self.first = Sequential(Conv1d(2, 4, 3, padding="same", rng=rng), ReLU())
            self.head = Linear(4, 3, rng=rng)

        def __call__(self, x, lengths):
            return self.head(last(self.first(x), lengths))

    x = [rng.standard_normal((n, 2)) for n in (5, 3, 8, 4, 4)]
    found = attribution.deep_lift(Net().astype(np.float64), x, LABELS, baseline=[0.5, -1])
    assert np.abs(found.error).max() < 1e-12
    assert found.values.lengths.tolist() == [5, 3, 8, 4, 4]


def test_deep_lift_is_complete_through_residual_blocks_and_batch_norms():
    rng = np.random.default_rng(0)
    body = (Conv2d(2, 2, 3, padding=1, rng=rng), BatchNorm2d(2), ReLU())
    model = Sequential(
        *(Residual(Sequential(*body, Conv2d(2, 2, 1, rng=rng), BatchNorm2d(2))), ReLU()),
        *(Flatten(), Linear(128, 3, rng=rng)),
    ).astype(np.float64)
    model(Tape(training=True).input(images()))  # The norms have seen a batch.
    found = attribution.deep_lift(model, images(), LABELS)
    assert np.abs(found.error).max() < 1e-12
    guided = attribution.guided_backpropagation(model, images(), LABELS)
    apart = attribution.guided_backpropagation(
        Sequential(*model.layers, fuse=False), images(), LABELS
    )
    assert guided.sha256() == apart.sha256()


def test_functions_of_values_are_rescaled():
    x = np.random.default_rng(0).standard_normal((5, 4))
    for function in (layers.exp, np.tanh, np.abs, layers.sin):
        found = attribution.deep_lift(lambda x, f=function: f(2 * x + 1).sum(axis=1), x)
        assert np.abs(found.error).max() < 1e-12


ONE_NUMBER = {
    "v ** 2": lambda v: v**2,
    "v ** 3": lambda v: v**3,
    "2 ** v": lambda v: 2**v,
    "1 / (v ** 2 + 1)": lambda v: 1 / (v**2 + 1),
    "sqrt(v ** 2 + 1)": lambda v: layers.sqrt(v**2 + 1),
    "maximum(v, 0.3)": lambda v: layers.maximum(v, 0.3),
    "clip(v, -0.5, 0.5)": lambda v: layers.clip(v, -0.5, 0.5),
    "v ** [1, 2, 3]": lambda v: v.reshape(-1, 6, 1) ** np.arange(1, 4),
}


@pytest.mark.parametrize("function", ONE_NUMBER.values(), ids=[*ONE_NUMBER])
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_deep_lift_is_complete_through_operators_with_a_constant(function, baseline):
    rng = np.random.default_rng(0)
    model = Linear(4, 6, rng=rng).astype(np.float64)
    weights = rng.standard_normal(6)

    def whole(x):
        y = function(model(x))
        return (y.reshape(len(y), 6, -1).sum(axis=2) * weights).sum(axis=1)

    found = attribution.deep_lift(whole, rng.standard_normal((5, 4)), baseline=baseline)
    assert np.abs(found.error).max() < 1e-12


@pytest.mark.filterwarnings("error")
def test_what_is_masked_by_infinity_has_no_share():
    def masked(x):
        return layers.exp(layers.where(np.array([True, False]), x, -np.inf)).sum(axis=1)

    found = attribution.deep_lift(masked, np.random.default_rng(0).standard_normal((5, 2)))
    assert (found.values[:, 1] == 0).all()
    assert np.abs(found.error).max() < 1e-12


def test_deep_lift_takes_functions_of_the_output_as_targets():
    model, x = cnn(), images()
    by_class = attribution.deep_lift(model, x, 1, baseline=0.3)
    found = attribution.deep_lift(model, x, lambda output: output[:, 1], baseline=0.3)
    np.testing.assert_array_equal(found.values, by_class.values)
    squared = attribution.deep_lift(model, x, lambda output: output[:, 1] ** 2, baseline=0.3)
    assert np.abs(squared.error).max() < 1e-12

    def branching(output):
        return output[:, 1] if output.array[0, 1] == by_class.scores[0] else 2 * output[:, 1]

    with pytest.raises(ValueError, match="must call the same layers at the"):
        attribution.deep_lift(model, x, branching, baseline=0.3)


def many(*first, width=8, seed=0):
    """Return layers over sequences (N, 6, 8), and a head, in float64."""
    rng = np.random.default_rng(seed)
    return Sequential(*first, PoolOverTime(), Linear(width, 3, rng=rng)).astype(np.float64)


def wide(layer, rng, **options):
    return layer(8, 8, rng=rng, **options)


OF_MANY_NUMBERS = {
    "LSTM": lambda rng: many(wide(LSTM, rng, layers=2)),
    "LSTM both ways": lambda rng: many(wide(LSTM, rng, bidirectional=True), width=16),
    "GRU": lambda rng: many(wide(GRU, rng)),
    "RNN": lambda rng: many(wide(RNN, rng)),
    "attention": lambda rng: many(MultiHeadAttention(8, 2, rng=rng)),
    "layer norm": lambda rng: many(LayerNorm(8)),
    "group norm": lambda rng: many(GroupNorm(2, 8)),
    "block": lambda rng: many(EncoderBlock(8, 2, rng=rng)),
    "product": lambda rng: lambda x: (x * (x[:, ::-1] - 0.5) * 2).sum(axis=1),
    "quotient": lambda rng: lambda x: (x / (1 + x[:, ::-1] ** 2)).sum(axis=1),
    "softmax": lambda rng: lambda x: (exp(x) / exp(x).sum(axis=2, keepdims=True)).sum(axis=1),
}


@pytest.mark.parametrize("baseline", [None, 0.7])
@pytest.mark.parametrize("name", OF_MANY_NUMBERS)
def test_deep_lift_is_complete_through_functions_of_many_numbers(name, baseline):
    rng = np.random.default_rng(0)
    model, x = OF_MANY_NUMBERS[name](rng), rng.standard_normal((5, 6, 8))
    found = attribution.deep_lift(model, x, LABELS, baseline=baseline)
    scale = np.abs(found.values).reshape(5, -1).sum(axis=1)
    assert (np.abs(found.error) < 1e-5 * scale).all()
    total = found.values.reshape(5, -1).sum(axis=1) - (found.scores - found.baseline_scores)
    np.testing.assert_allclose(found.error, total, atol=1e-12)
    # A sample has the same bits whatever else is in its batch.
    alone = attribution.deep_lift(model, x[:2], LABELS[:2], baseline=baseline, batch_size=1)
    np.testing.assert_array_equal(alone.values, found.values[:2])


def test_factors_of_a_product_share_its_difference():
    x, baseline = np.array([[3.0, 5.0]]), np.array([1.0, 2.0])
    found = attribution.deep_lift(lambda v: v[:, 0] * v[:, 1], x, baseline=baseline)
    np.testing.assert_allclose(found.values, [[2 * 3.5, 3 * 2.0]], rtol=1e-12)


def test_the_error_of_deep_lift_says_where_it_is_not_complete():
    x = np.random.default_rng(0).standard_normal((5, 4)) + 1
    found = attribution.deep_lift(lambda v: where(v.array > 0, v, 2 - v).sum(axis=1), x)
    assert np.abs(found.error).max() > 0.1
    total = found.values.sum(axis=1) - (found.scores - found.baseline_scores)
    np.testing.assert_allclose(found.error, total, atol=1e-12)


def test_where_sample_and_baseline_are_equal_the_slope_is_the_derivative():
    rng = np.random.default_rng(0)
    model = Sequential(Linear(4, 6, rng=rng), Tanh(), Linear(6, 3, rng=rng)).astype(np.float64)
    x = rng.standard_normal((5, 4))
    near = attribution.deep_lift(model, x, LABELS, baseline=x * (1 + 1e-12))
    exact = attribution.saliency(model, x, LABELS)
    np.testing.assert_allclose(np.abs(near.values / (x - x * (1 + 1e-12))), exact.values, rtol=1e-6)
    assert (attribution.deep_lift(model, x, LABELS, baseline=x).values == 0).all()


@pytest.mark.parametrize(("pool", "stride"), [(2, 2), (3, 1)])
def test_rules_meet_the_layers_that_the_user_wrote(pool, stride):
    model = cnn(pool, stride)
    apart = Sequential(*model.layers, fuse=False)
    for method in (attribution.guided_backpropagation, attribution.deep_lift):
        fused, plain = (method(each, images(), LABELS).sha256() for each in (model, apart))
        assert fused == plain


def test_guided_backpropagation_lets_only_what_is_positive_through():
    rng = np.random.default_rng(0)
    first, second = Linear(4, 6, rng=rng), Linear(6, 3, rng=rng)
    model = Sequential(first, ReLU(), second).astype(np.float64)
    x = rng.standard_normal((5, 4))
    w, v = model.layers[0].weight.value, model.layers[2].weight.value
    on = x @ w.T + model.layers[0].bias.value > 0
    found = attribution.guided_backpropagation(model, x, LABELS)
    np.testing.assert_allclose(found.values, (np.maximum(v[LABELS], 0) * on) @ w, rtol=1e-9)


def test_guided_backpropagation_of_a_model_without_relu_is_refused():
    model = Sequential(Linear(4, 3, rng=np.random.default_rng(0)), Tanh())
    with pytest.raises(ValueError, match="the model must have a ReLU; got none"):
        attribution.guided_backpropagation(model, np.ones((2, 4)))


def test_a_model_that_branches_on_its_input_is_refused():
    deep = Sequential(Linear(4, 4, rng=np.random.default_rng(0)), Tanh())

    def branching(x):
        return deep(x).sum(axis=1) if x.array.any() else x.sum(axis=1)

    with pytest.raises(ValueError, match="must call the same layers at the"):
        attribution.deep_lift(branching, np.ones((2, 4), np.float32))
