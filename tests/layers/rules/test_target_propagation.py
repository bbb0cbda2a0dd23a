"""Target propagation and its difference form: targets against NumPy, inverses that learn."""

import numpy as np
import pytest

from layers import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MeanSquaredError,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
)
from layers.rules import DifferenceTargetPropagation, TargetPropagation

from .networks import dense, gradients

BOTH = pytest.mark.parametrize("kind", [TargetPropagation, DifferenceTargetPropagation])


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def inverse_of(rule, number):
    layer = rule.inverses[number - 1].layers[0]
    return layer.weight.value, layer.bias.value


@BOTH
def test_targets_go_back_by_the_inverses(kind, rng):
    model = dense(rng, 7, 9, 6, 5, 4, activation=Tanh)
    x, y = rng.standard_normal((5, 7)), rng.standard_normal((5, 4))
    rule = kind(0.3)
    own = rule.bind(model)
    assert [name for name, _ in own.named_parameters()] == [
        f"inverses.{n}.layers.0.{part}" for n in (0, 1) for part in ("weight", "bias")
    ]
    found = gradients(model, x, y, rule)
    h = [x]
    for layer in model:
        if isinstance(layer, Linear):
            z = h[-1] @ layer.weight.value.T + layer.bias.value
            h.append(np.tanh(z) if layer is not model[-1] else z)
    e = 2 * (h[4] - y) / y.size
    deltas = {3: e @ model[6].weight.value}
    reach = 0.3 * len(x)
    for n in (2, 1):
        v, c = inverse_of(rule, n)

        def g(a, v=v, c=c):
            return np.tanh(a @ v.T + c)

        target = g(h[n + 1] - reach * deltas[n + 1])
        if kind is DifferenceTargetPropagation:
            target += h[n] - g(h[n + 1])
        deltas[n] = (h[n] - target) / reach
    for n in (1, 2, 3):
        expected = (deltas[n] * (1 - h[n] ** 2)).T @ h[n - 1]
        assert np.allclose(found[2 * (n - 1)], expected, rtol=1e-9, atol=1e-12)
    assert np.allclose(found[6], e.T @ h[3], rtol=1e-12)


@BOTH
def test_exact_inverses_give_the_targets_of_gauss_newton_on_a_linear_network(kind, rng):
    model = dense(rng, 5, 5, 5, 5, 2)
    x, y = rng.standard_normal((3, 5)), rng.standard_normal((3, 2))
    rule = kind(0.3)
    rule.bind(model)
    for n in (1, 2):
        inverse, layer = rule.inverses[n - 1].layers[0], model[n]
        inverse.weight.value = np.linalg.inv(layer.weight.value)
        inverse.bias.value = -np.linalg.inv(layer.weight.value) @ layer.bias.value
    found = gradients(model, x, y, rule)
    h = [x]
    for layer in model:
        h.append(layer(h[-1]))
    # What moves the last hidden layer by its target moves each before it by the inverse Jacobian,
    # the step of Gauss and Newton there.
    moves, jacobian = 2 * (h[4] - y) / y.size @ model[3].weight.value, np.eye(5)
    for n in (2, 1, 0):
        step = np.linalg.solve(jacobian, moves.T).T
        assert np.allclose(found[2 * n], step.T @ h[n], rtol=1e-8, atol=1e-10)
        jacobian = jacobian @ model[n].weight.value


def test_inverses_learn_to_undo_their_layers_and_the_loss_is_that_of_the_network(rng):
    model = dense(rng, 6, 8, 8, 3, activation=Tanh)
    rule = DifferenceTargetPropagation(noise=0.2, seed=1)
    own = rule.bind(model)
    x, labels = rng.standard_normal((40, 6)), rng.integers(0, 3, 40)

    def reconstruction():
        before = np.tanh(model[0](x))
        return np.mean((rule.inverses[0](np.tanh(model[2](before))) - before) ** 2)

    errors = [reconstruction()]
    for step in range(300):
        for parameter in own.parameters():
            parameter.zero_gradient()
        value = Tape(training=True, step=step).input(x)
        loss, start = rule.losses(model, SoftmaxCrossEntropy(), value, labels)
        assert loss.item() == SoftmaxCrossEntropy()(model(x), labels)
        start.backward(rule=rule)
        for parameter in own.parameters():
            parameter.value = parameter.value - 0.5 * parameter.gradient
    assert reconstruction() < errors[0] / 5


def test_noise_is_that_of_the_sample_wherever_it_is_computed(rng):
    model = dense(rng, 6, 8, 8, 3, activation=Tanh)
    rule = DifferenceTargetPropagation()
    rule.bind(model)
    h = rng.standard_normal((6, 8))
    whole = rule._noisy(1, Tape(step=3, first_sample=10).input(h))
    part = rule._noisy(1, Tape(step=3, first_sample=12).input(h[2:]))
    other = rule._noisy(1, Tape(step=4, first_sample=10).input(h))
    assert (whole[2:] == part).all()
    assert not (whole == other).any()


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (lambda rng: [Conv2d(1, 2, 3, rng=rng), Flatten(), Linear(8, 2, rng=rng)], "Conv2d"),
        (lambda rng: [Linear(3, 4, rng=rng), Dropout(0.5), Linear(4, 2, rng=rng)], "Dropout"),
        (lambda rng: [Linear(3, 2, rng=rng)], "1 with weights"),
        (lambda rng: [Residual(Linear(3, 3, rng=rng)), Linear(3, 3, rng=rng)], "Residual"),
    ],
)
@BOTH
def test_other_networks_are_refused_by_name(kind, parts, named, rng):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: .*{named}"):
        kind().bind(Sequential(*parts(rng)))


def test_what_is_no_sequential_and_arguments_out_of_range_are_refused(rng):
    with pytest.raises(ValueError, match="the model must be one Sequential"):
        TargetPropagation().bind(Linear(3, 2, rng=rng))
    with pytest.raises(ValueError, match="rate must be"):
        TargetPropagation(rate=0)
    with pytest.raises(ValueError, match="noise must not be negative"):
        DifferenceTargetPropagation(noise=-1)
    rule, model = TargetPropagation(), dense(rng, 3, 4, 4, 2)
    rule.bind(model)
    with pytest.raises(TypeError, match="x must be one array"):
        rule.losses(model, MeanSquaredError(), (1, 2), 3)


@BOTH
def test_with_one_hidden_layer_it_warns_that_it_is_backpropagation_which_it_is(kind, rng):
    model = dense(rng, 7, 9, 4, activation=Tanh)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule = kind()
    with pytest.warns(RuntimeWarning, match=rf"^{kind.__name__}: .* With one this is backprop"):
        assert rule.bind(model) is None
    exact = gradients(model, x, labels)
    assert all(map(np.array_equal, gradients(model, x, labels, rule), exact))
