"""meProp: which columns are kept, and what that changes."""

import numpy as np
import pytest

from layers import GELU, Composite, Conv2d, Flatten, Linear, ReLU, Sequential, Tanh, Tape
from layers.rules import MeProp

from .networks import WIDTHS, convolutional, dense, gradients


class Own(Composite):
    """A network of somebody's own."""

    def __init__(self, body):
        self.body = body

    def __call__(self, x):
        return self.body(x)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.parametrize(
    "make", [convolutional, lambda rng: dense(rng, 6, 9, 9, 4, activation=ReLU)]
)
def test_the_whole_width_is_backpropagation_bit_for_bit(per, make, rng):
    model = make(rng).astype(np.float32)
    image = isinstance(model[0], Conv2d)
    x = rng.standard_normal((5, 6, 6, 2) if image else (5, 6)).astype(np.float32)
    labels = rng.integers(0, 4, 5)
    rule = MeProp(1.0, per=per)
    rule.bind(model)
    found, exact = gradients(model, x, labels, rule), gradients(model, x, labels)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in exact]


@pytest.mark.parametrize("activation", [Tanh, ReLU, GELU])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_the_largest_errors_before_the_activation_go_back(activation, per, rng):
    model = dense(rng, *WIDTHS, activation=activation)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    k = 2
    rule = MeProp(k, per=per)
    rule.bind(model)
    found = gradients(model, x, labels, rule)

    # By exact backpropagation through each layer alone, with what is not kept set to zero.
    apart = Sequential(*model, fuse=False)
    tape = Tape()
    values = [tape.input(x)]
    for layer in apart:
        values.append(layer(values[-1]).keep_grad())
    e = np.exp(values[-1].array - values[-1].array.max(axis=1, keepdims=True))
    dz = e / e.sum(axis=1, keepdims=True)
    dz[np.arange(5), labels] -= 1
    dz /= 5
    expected = []
    for number in (2, 1, 0):
        linear, h = model[2 * number], values[2 * number].array
        expected = [dz.T @ h, dz.sum(axis=0), *expected]
        if number:
            dh = dz @ linear.weight.value
            slope = Tape().input(values[2 * number - 1].array)
            model[2 * number - 1](slope).backward(dh)
            dz = slope.grad.copy()
            magnitude = np.abs(dz) if per == "sample" else np.abs(dz).sum(axis=0)[None]
            order = np.argsort(-magnitude, axis=1, kind="stable")[:, k:]
            for row, columns in enumerate(order):
                dz[row if per == "sample" else slice(None), columns] = 0
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_the_layer_that_ran_last_is_exact_in_every_pass(rng):
    model = dense(rng, *WIDTHS, activation=Tanh)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule = MeProp(1)
    rule.bind(model)
    exact = gradients(model, x, labels)
    for _ in range(2):
        found = gradients(model, x, labels, rule)
        assert found[-2].tobytes() == exact[-2].tobytes()
        assert (found[0] != 0).any(axis=1).sum() <= 5


def test_columns_of_a_batch_are_those_of_each_shard(rng):
    model = dense(rng, 7, 9, 8, 4, activation=ReLU).astype(np.float32)
    x, labels = rng.standard_normal((6, 7)).astype(np.float32), rng.integers(0, 4, 6)
    rule = MeProp(2, per="batch")
    rule.bind(model)
    for parameter in model.parameters():
        parameter.forget_gradients()
    gradients(model, x, labels, rule, shards=(0, 2, 6))
    together = [parameter.gradients.copy() for parameter in model.parameters()]
    for shard, rows in enumerate((slice(0, 2), slice(2, 6))):
        apart = gradients(model, x[rows], labels[rows], rule, samples=6)
        for whole, part in zip(together, apart, strict=True):
            assert whole[shard].tobytes() == part.tobytes()


def test_the_share_of_a_width_is_rounded_and_never_nothing(rng):
    rule, model = MeProp(0.05), dense(rng, 3, 4, 2)
    call = model[0](Tape().input(np.ones((1, 3)))).call
    assert [rule.top_k(call, width).k for width in (1, 8, 100, 500)] == [1, 1, 5, 25]


def test_more_columns_than_a_layer_has_are_refused_by_its_name(rng):
    layers, refused = (
        dense(rng, 7, 9, 6, 4),
        r"k must be at most the width of Linear\(9, 6\), 6; got",
    )
    rule = MeProp(7)
    for model in (layers, Sequential(*layers[:1], Sequential(*layers[1:], Tanh()))):
        with pytest.raises(ValueError, match=rf"^MeProp: {refused}"):
            rule.bind(model)
    # Which layer of a network of one's own runs last is only known then.
    model = Own(layers)
    rule.bind(model)
    with pytest.raises(ValueError, match=rf"^MeProp: {refused}"):
        gradients(model, rng.standard_normal((2, 7)), np.array([0, 1]), rule)
    narrow = Sequential(Conv2d(1, 6, 1, rng=rng), Flatten(), Linear(24, 9, rng=rng))
    with pytest.raises(ValueError, match=r"width of Conv2d\(1, 6, .*, 6; got 7"):
        rule.bind(narrow)


def test_the_width_of_the_last_layer_and_of_frozen_ones_does_not_matter(rng):
    model = dense(rng, 7, 3, 9, 4)
    model[0].freeze()
    rule = MeProp(9)
    rule.bind(model)
    assert gradients(model, rng.standard_normal((2, 7)), np.array([0, 1]), rule)[2].any()


@pytest.mark.parametrize("k", [0, -1, 0.0, 1.5, True, "all", None])
def test_what_is_no_number_of_columns_is_refused(k):
    with pytest.raises(ValueError, match="MeProp: k must be a number of columns, or a fraction"):
        MeProp(k)


def test_what_is_neither_of_a_sample_nor_of_a_batch_is_refused():
    with pytest.raises(ValueError, match="MeProp: per must be one of sample, batch"):
        MeProp(per="layer")


def test_pixels_of_a_convolution_keep_channels_of_their_own(rng):
    model = Sequential(Conv2d(1, 4, 1, rng=rng), Flatten(), Linear(16, 3, rng=rng))
    model = model.astype(np.float64)
    rule = MeProp(1)
    rule.bind(model)
    x, labels = rng.standard_normal((1, 2, 2, 1)), np.array([1])
    found, exact = gradients(model, x, labels, rule), gradients(model, x, labels)
    e = np.exp(model(x) - model(x).max())
    e = e / e.sum() - np.eye(3)[labels]
    dz = (e @ model[2].weight.value).reshape(4, 4)
    kept = np.zeros_like(dz)
    kept[np.arange(4), np.abs(dz).argmax(axis=1)] = dz[np.arange(4), np.abs(dz).argmax(axis=1)]
    assert np.allclose(found[0].reshape(4), x.reshape(4) @ kept, rtol=1e-12)
    assert not np.allclose(found[0], exact[0])
