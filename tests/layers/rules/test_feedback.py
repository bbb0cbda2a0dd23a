"""Feedback alignment, direct feedback and sign symmetry: what they propagate, against NumPy, and
what they refuse.
"""

import numpy as np
import pytest

from layers import (
    GRU,
    LSTM,
    BatchNorm,
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    Linear,
    MeanSquaredError,
    Parameter,
    Recompute,
    ReLU,
    Sequential,
    Tanh,
    Tape,
    Workspace,
)
from layers.rules import (
    DirectFeedbackAlignment,
    DirectRandomTargetProjection,
    FeedbackAlignment,
    MeProp,
    SignSymmetry,
)

from .networks import WIDTHS, angle, convolutional, dense, gradients


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def passes(model, x):
    """Return the input and the output of each dense layer, with tanh between them."""
    found, h = [], x
    for layer in model:
        if isinstance(layer, Linear):
            z = h @ layer.weight.value.T + layer.bias.value
            found.append((h, z))
            h = z
        else:
            h = np.tanh(h)
    return found


def by_hand(model, x, labels, back):
    """Return the gradients of weights and biases where `back(number, dz, e)` is the error of the
    input of a layer.
    """
    found = passes(model, x)
    e = softmax(found[-1][1])
    e[np.arange(len(x)), labels] -= 1
    e /= len(x)
    dz, result = e, []
    for number in range(len(found) - 1, -1, -1):
        h, _ = found[number]
        result = [dz.T @ h, dz.sum(axis=0), *result]
        if number:
            dz = back(number, dz, e) * (1 - h**2)
    return result


def drawn(rule, number):
    return rule.state()[f"layers.{2 * number}.weight"]


@pytest.mark.parametrize(
    ("rule", "back"),
    [
        (FeedbackAlignment(seed=4), lambda rule: lambda n, dz, e: dz @ drawn(rule, n)),
        (DirectFeedbackAlignment(seed=4), lambda rule: lambda n, dz, e: e @ drawn(rule, n).T),
    ],
)
def test_errors_go_back_by_what_was_drawn(rule, back, rng):
    model = dense(rng, *WIDTHS, activation=Tanh)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule.bind(model)
    found = gradients(model, x, labels, rule)
    for ours, expected in zip(found, by_hand(model, x, labels, back(rule)), strict=True):
        assert np.allclose(ours, expected, rtol=1e-12, atol=1e-14)
    exact = gradients(model, x, labels)
    assert not np.allclose(found[0], exact[0])
    # The last layer needs no feedback for itself.
    assert (found[-2] == exact[-2]).all()


def test_targets_go_back_in_place_of_errors(rng):
    model = dense(rng, *WIDTHS, activation=Tanh)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule = DirectRandomTargetProjection(seed=4)
    rule.bind(model)
    found = gradients(model, x, labels, rule)

    def back(number, dz, e):
        return -np.eye(4)[labels] / len(x) @ drawn(rule, number).T

    for ours, expected in zip(found, by_hand(model, x, labels, back), strict=True):
        assert np.allclose(ours, expected, rtol=1e-12, atol=1e-14)


def test_direct_feedback_with_the_true_products_is_backpropagation_on_a_linear_network(rng):
    model = dense(rng, *WIDTHS)
    x, y = rng.standard_normal((5, 7)), rng.standard_normal((5, 4))
    rule = DirectFeedbackAlignment()
    rule.bind(model)
    weights = [layer.weight.value for layer in model]
    rule.load_state(
        {
            "layers.1.weight": (weights[2] @ weights[1]).T,
            "layers.2.weight": weights[2].T,
        }
    )
    for ours, exact in zip(gradients(model, x, y, rule), gradients(model, x, y), strict=True):
        assert np.allclose(ours, exact, rtol=1e-12, atol=1e-13)


def test_the_angle_of_feedback_alignment_falls_on_a_linear_network(rng):
    model, teacher = dense(rng, 30, 20, 10, bias=False), rng.standard_normal((10, 30))
    for parameter in model.parameters():
        # Small, as in the paper: what is learned soon outweighs them.
        parameter.value = parameter.value / 10
    rule = FeedbackAlignment(seed=2)
    rule.bind(model)
    angles = []
    for _ in range(400):
        x = rng.standard_normal((20, 30))
        y = x @ teacher.T / np.sqrt(30)
        found, exact = gradients(model, x, y, rule), gradients(model, x, y)
        angles.append(angle(found[0], exact[0]))
        for parameter, gradient in zip(model.parameters(), found, strict=True):
            parameter.value = parameter.value - 0.5 * gradient
    assert np.mean(angles[:5]) > 70
    assert np.mean(angles[-20:]) < 45


@pytest.mark.parametrize("magnitudes", ["uniform", "batchwise", "fixed"])
def test_signs_are_those_of_the_weights_and_magnitudes_are_not(magnitudes, rng):
    model = dense(rng, 50, 80, 3)
    rule = SignSymmetry(magnitudes, seed=1)
    rule.bind(model)
    weight, steps = model[0].weight, []
    for step in (4, 5, 4):
        gradients(model, rng.standard_normal((2, 50)), np.array([0, 1]), rule, step=step)
        steps.append(rule.feedback(weight))
    for feedback in steps:
        assert (np.sign(feedback) == np.sign(weight.value)).all()
    magnitude = [np.abs(feedback) for feedback in steps]
    same = (magnitude[0] == magnitude[1]).all()
    assert same == (magnitudes != "batchwise")
    assert (magnitude[0] == magnitude[2]).all()
    deviation = np.sqrt(2 / 50)
    if magnitudes == "uniform":
        assert (magnitude[0] == deviation).all()
    else:
        assert 0.95 < np.sqrt((magnitude[0] ** 2).mean()) / deviation < 1.05
    weight.value = -weight.value
    assert (rule.feedback(weight) == -steps[-1]).all()


@pytest.mark.parametrize(
    "rule", [FeedbackAlignment(), SignSymmetry(), DirectFeedbackAlignment()], ids=repr
)
def test_convolutions_learn_and_the_last_layer_exactly(rule, rng):
    model = convolutional(rng)
    x, labels = rng.standard_normal((4, 6, 6, 2)), rng.integers(0, 4, 4)
    rule.bind(model)
    found, exact = gradients(model, x, labels, rule), gradients(model, x, labels)
    assert all(np.isfinite(each).all() and each.any() for each in found)
    assert (found[-1] == exact[-1]).all()
    assert not np.allclose(found[0], exact[0])


def test_direct_feedback_goes_through_pooling_to_a_convolution(rng):
    model = convolutional(rng)
    x, labels = rng.standard_normal((4, 6, 6, 2)), rng.integers(0, 4, 4)
    rule = DirectFeedbackAlignment(seed=9)
    rule.bind(model)
    ours = gradients(model, x, labels, rule)[0]
    e = softmax(model(x))
    e[np.arange(4), labels] -= 1
    # What the second convolution's input receives, propagated exactly from there.
    sent = (e / 4 @ rule.state()["layers.3.weight"].T).reshape(4, 3, 3, 3)
    head = Sequential(*model[:3])
    for parameter in head.parameters():
        parameter.forget_gradients()
    head(Tape().input(x)).backward(sent)
    assert np.allclose(ours, model[0].weight.gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", [FeedbackAlignment(seed=1), SignSymmetry("fixed")], ids=repr)
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_recurrent_weights_carry_the_error_by_feedback(rule, kind, rng):
    recurrent = kind(3, 5, last=True, rng=rng, dtype=np.float64)
    model = Sequential(recurrent, Linear(5, 2, rng=rng, dtype=np.float64))
    x, labels = rng.standard_normal((4, 6, 3)), rng.integers(0, 2, 4)
    rule.bind(model)
    found, exact = gradients(model, x, labels, rule), gradients(model, x, labels)
    assert not np.allclose(found[0], exact[0])
    # With the weights themselves as feedback it is exact.
    rule.drawn |= {name: p.value for name, p in model.named_parameters() if name in rule.drawn}
    if isinstance(rule, FeedbackAlignment):
        for ours, expected in zip(gradients(model, x, labels, rule), exact, strict=True):
            assert (ours == expected).all()


@pytest.mark.parametrize("rule", [FeedbackAlignment(), DirectFeedbackAlignment()], ids=repr)
def test_what_has_no_weights_that_carry_errors_propagates_exactly(rule, rng):
    model = Sequential(
        Embedding(9, 4, rng=rng, dtype=np.float64),
        LayerNorm(4, dtype=np.float64),
        Dropout(0.2),
        Linear(4, 6, rng=rng, dtype=np.float64),
        ReLU(),
        Linear(6, 3, rng=rng, dtype=np.float64),
    )
    rule.bind(model)
    labels = rng.integers(0, 3, (5, 2))
    found = gradients(model, rng.integers(0, 9, (5, 2)), labels, rule)
    assert all(np.isfinite(each).all() and each.any() for each in found)
    assert sorted(rule.state()) == ["layers.3.weight", "layers.5.weight"]


@pytest.mark.parametrize(
    "rule",
    [
        FeedbackAlignment(),
        SignSymmetry("batchwise"),
        DirectFeedbackAlignment(),
        DirectRandomTargetProjection(),
        MeProp(2),
    ],
    ids=repr,
)
def test_segments_that_are_recomputed_learn_to_the_same_bits(rule, rng):
    parts = [*dense(rng, 7, 9, 6, 8, activation=ReLU), ReLU(), Linear(8, 4, rng=rng)]
    parts[-1] = parts[-1].astype(np.float64)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    found = []
    for model in (
        Sequential(*parts),
        Sequential(Recompute(Sequential(*parts[:4])), Recompute(Sequential(*parts[4:6])), parts[6]),
        Sequential(*parts[:2], Recompute(Sequential(*parts[2:]))),
    ):
        rule.bind(model)
        found.append(gradients(model, x, labels, rule, workspace=Workspace()))
    for other in found[1:]:
        assert [each.tobytes() for each in other] == [each.tobytes() for each in found[0]]


class Own(Layer):
    """A layer with a weight, of somebody's own."""

    def __init__(self):
        self.weight = Parameter(np.ones((3, 3)))

    def __repr__(self):
        return "Own()"


@pytest.mark.parametrize(
    ("rule", "layer", "named"),
    [
        (FeedbackAlignment(), Own(), r"layers\.1: Own\(\)"),
        (SignSymmetry(), Own(), r"layers\.1: Own\(\)"),
        (DirectFeedbackAlignment(), GRU(3, 3, rng=np.random.default_rng(0)), "GRURecurrence"),
        (DirectRandomTargetProjection(), LSTM(3, 3, rng=np.random.default_rng(0)), "LSTM"),
    ],
)
def test_layers_that_a_rule_does_not_define_are_refused_by_name(rule, layer, named, rng):
    model = Sequential(Linear(3, 3, rng=rng), layer)
    with pytest.raises(ValueError, match=rf"{type(rule).__name__}: layers with .*got .*{named}"):
        rule.bind(model)


def test_a_model_without_weights_and_one_that_is_not_bound_are_refused(rng):
    with pytest.raises(ValueError, match="FeedbackAlignment: the model must have a layer with"):
        FeedbackAlignment().bind(BatchNorm(3))
    rule, model = FeedbackAlignment(), dense(rng, 3, 4, 2)
    x, y = rng.standard_normal((2, 3)), rng.standard_normal((2, 2))
    with pytest.raises(ValueError, match="must be bound to the model; got none"):
        gradients(model, x, y, rule)
    rule.bind(dense(rng, 3, 4, 2))
    with pytest.raises(ValueError, match="must be bound to the model; got another one"):
        DirectFeedbackAlignment.place(rule, model[0].weight)


@pytest.mark.parametrize("rule", [FeedbackAlignment(), SignSymmetry()], ids=repr)
def test_weights_of_another_model_are_refused_unless_they_are_frozen(rule, rng):
    model, other = dense(rng, 3, 4, 2), dense(rng, 2, 4, 2)
    x, y = rng.standard_normal((2, 3)), rng.standard_normal((2, 2))
    rule.bind(other)
    with pytest.raises(ValueError, match="must be bound to the model; got another one"):
        gradients(model, x, y, rule)
    rule.bind(model)
    other.freeze()
    found = gradients(model, x, y, rule, lambda z, t: MeanSquaredError()(other(z), t))
    assert all(each.any() for each in found)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"seed": -1}, "seed"), ({"seed": 0.5}, "seed"), ({"magnitudes": "some"}, "magnitudes")],
)
def test_arguments_out_of_range_are_refused(arguments, match):
    with pytest.raises((TypeError, ValueError), match=f"SignSymmetry: .*{match}"):
        SignSymmetry(**arguments)


def test_targets_that_are_no_labels_of_the_output_are_refused(rng):
    model = dense(rng, 3, 4, 2)
    rule = DirectRandomTargetProjection()
    rule.bind(model)
    x = rng.standard_normal((2, 3))
    value = Tape().input(x)
    with pytest.raises(ValueError, match="must be that of a loss with a target"):
        (model(value) ** 2).mean().backward(rule=rule)


def test_direct_feedback_refuses_inputs_of_other_samples_than_the_output(rng):
    model = dense(rng, 3, 4, 2)
    rule = DirectFeedbackAlignment()
    rule.bind(model)
    value = model[0](Tape().input(rng.standard_normal((6, 3)), gradient=False))
    joined = model[1](value.reshape(6, 4)[:3])
    loss = MeanSquaredError()(joined.sum(axis=0).reshape(1, 2), np.zeros((1, 2)))
    loss.backward(rule=rule)
    other = DirectFeedbackAlignment()
    other.bind(model)
    wide = model[0](Tape().input(rng.standard_normal((6, 3)), gradient=False))
    first = model[1](wide)
    second = model[1](wide[:3])
    with pytest.raises(ValueError, match="inputs of layers with weights must begin with"):
        (first.sum() + second.sum()).backward(rule=other)
