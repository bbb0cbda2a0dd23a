"""Rules: what the backward pass asks, and that the exact rule costs no bit."""

import numpy as np
import pytest

import layers
from layers import Linear, Sequential, SoftmaxCrossEntropy, Tape


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def linear(rng, inputs, outputs):
    return Linear(inputs, outputs, rng=rng, bias_init=layers.init.normal(1), dtype=np.float64)


class Watching(layers.Rule):
    """Exact backpropagation that notes every question."""

    def __init__(self):
        self.errors, self.feedbacks = [], []

    def error(self, call, dy):
        self.errors.append(call.layer)
        return super().error(call, dy)

    def feedback(self, parameter):
        self.feedbacks.append(parameter)
        return super().feedback(parameter)


def step(model, x, labels, rule=None):
    for parameter in model.parameters():
        parameter.zero_gradient()
    value = Tape().input(x)
    SoftmaxCrossEntropy()(model(value), labels).backward(rule=rule)
    return [value.grad.copy()] + [parameter.gradient.copy() for parameter in model.parameters()]


def test_exact_rule_gives_the_bits_of_no_rule_and_is_asked_both_questions(rng):
    model = Sequential(
        linear(rng, 6, 9), layers.SiLU(), linear(rng, 9, 4), layers.Tanh(), linear(rng, 4, 3)
    )
    x, labels = rng.standard_normal((5, 6)), rng.integers(0, 3, 5)
    rule = Watching()
    for ours, exact in zip(step(model, x, labels, rule), step(model, x, labels), strict=True):
        assert (ours == exact).all()
    assert rule.errors[1:] == list(model)[::-1]
    assert isinstance(rule.errors[0], SoftmaxCrossEntropy)
    assert rule.feedbacks == [model[4].weight, model[2].weight, model[0].weight]


def test_feedback_of_a_rule_carries_the_error_and_leaves_the_own_gradient_exact(rng):
    class Fixed(layers.Rule):
        def feedback(self, parameter):
            return np.full(parameter.shape, 0.25)

    model = Sequential(linear(rng, 3, 4), linear(rng, 4, 2))
    x, dy = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    h = x @ model[0].weight.value.T + model[0].bias.value
    model(Tape().input(x)).backward(dy, rule=Fixed())
    np.testing.assert_allclose(model[1].weight.gradient, dy.T @ h, rtol=1e-13)
    np.testing.assert_allclose(
        model[0].weight.gradient, (dy @ np.full((2, 4), 0.25)).T @ x, rtol=1e-13
    )


def test_rule_replaces_the_error_of_the_layers_it_chooses(rng):
    class Silence(layers.Rule):
        def error(self, call, dy):
            return np.zeros_like(dy) if isinstance(call.layer, layers.Tanh) else dy

    model = Sequential(linear(rng, 3, 4), layers.Tanh(), linear(rng, 4, 2))
    x = Tape().input(rng.standard_normal((5, 3)))
    model(x).backward(np.ones((5, 2)), rule=Silence())
    assert (x.grad == 0).all()
    assert (model[0].weight.gradient == 0).all()
    assert (model[2].bias.gradient == 5).all()


def test_rule_may_answer_for_the_backward_of_a_call(rng):
    class Straight(layers.Rule):
        """As if every function of one number were the identity."""

        def error(self, call, dy):
            return 2 * dy

        def backward(self, call, *dys):
            if isinstance(call.layer, layers.Tanh):
                return dys
            return super().backward(call, *dys)

    model = Sequential(linear(rng, 3, 4), layers.Tanh(), linear(rng, 4, 2))
    x = Tape().input(rng.standard_normal((5, 3)))
    model(x).backward(np.ones((5, 2)), rule=Straight())
    weights = model[2].weight.value @ model[0].weight.value
    np.testing.assert_allclose(x.grad, 8 * np.ones((5, 2)) @ weights, rtol=1e-12)


def test_backward_of_a_rule_gets_a_gradient_for_each_output_that_has_one(rng):
    class Split(layers.Layer):
        def forward(self, call, x):
            return x[:, :1] * 1, x[:, 1:] * 1

        def backward(self, call, first, second):
            given = [np.zeros((5, 1)) if dy is None else dy for dy in (first, second)]
            return (np.concatenate(given, axis=1),)

    class Counts(layers.Rule):
        def backward(self, call, *dys):
            counted.append([dy is not None for dy in dys])
            return super().backward(call, *dys)

    counted = []
    x = Tape().input(rng.standard_normal((5, 2)))
    first, _ = Split()(x)
    first.sum().backward(rule=Counts())
    assert counted[-1] == [True, False]
    np.testing.assert_array_equal(x.grad, np.tile([1.0, 0.0], (5, 1)))


def test_gradients_of_a_rule_must_be_one_for_each_input_in_its_shape(rng):
    class Wrong(layers.Rule):
        def __init__(self, gradients):
            self.gradients = gradients

        def backward(self, call, *dys):
            return self.gradients

    y = linear(rng, 3, 2)(Tape().input(np.ones((5, 3))))
    for gradients, words in (
        ((), "backward must return 1 gradients; got 0"),
        ((np.ones((5, 2)),), r"of the input's shape \(5, 3\); got \(5, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            y.backward(np.ones((5, 2)), rule=Wrong(gradients))


def test_rule_does_not_outlast_its_backward(rng):
    layer = linear(rng, 3, 2)
    x = Tape().input(np.ones((1, 3)))
    y = layer(x)

    class Fails(layers.Rule):
        def feedback(self, parameter):
            raise RuntimeError("no feedback")

    with pytest.raises(RuntimeError, match="no feedback"):
        y.backward(np.ones((1, 2)), rule=Fails())
    y.backward(np.ones((1, 2)))
    np.testing.assert_allclose(x.grad, layer.weight.value.sum(axis=0)[np.newaxis], rtol=1e-14)


@pytest.mark.parametrize(
    "laid_out",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        lambda x: x.astype(np.float32),
        lambda x: x.tolist(),
    ],
    ids=["Fortran order", "strided", "float32", "list"],
)
def test_feedback_may_be_laid_out_in_any_way(rng, laid_out):
    class Mirrored(layers.Rule):
        def feedback(self, parameter):
            return laid_out(np.sign(parameter.value))

    model = Sequential(linear(rng, 3, 4), layers.LayerNorm(4, dtype=np.float64))
    x = Tape().input(rng.standard_normal((5, 3)))
    model(x).backward(np.ones((5, 4)), rule=Mirrored())
    found = x.grad.copy()
    norm = Tape().input(model[0](x.array))
    model[1](norm).backward(np.ones((5, 4)))
    np.testing.assert_allclose(found, norm.grad @ np.sign(model[0].weight.value), atol=1e-12)


def test_answers_of_another_shape_or_type_are_refused_by_the_rule(rng):
    class Wrong(layers.Rule):
        def __init__(self, error=None, feedback=None):
            self._error, self._feedback = error, feedback

        def error(self, call, dy):
            return dy if self._error is None else self._error

        def feedback(self, parameter):
            return parameter.value if self._feedback is None else self._feedback

    layer = linear(rng, 3, 2)
    for options, words in (
        ({"error": np.ones((5, 3))}, r"Wrong: error must return .* \(5, 2\); got \(5, 3\)"),
        ({"feedback": np.ones((3, 2))}, r"Wrong: feedback must return .* \(2, 3\); got \(3, 2\)"),
        ({"feedback": np.ones((2, 3), int)}, "Wrong: feedback must return floating .* int64"),
    ):
        with pytest.raises(ValueError, match=words):
            layer(Tape().input(np.ones((5, 3)))).backward(np.ones((5, 2)), rule=Wrong(**options))
