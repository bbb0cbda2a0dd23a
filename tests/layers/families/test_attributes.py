"""What becomes of attributes of layers that are assigned after these have been made: they take
effect, or are refused.
"""

import copy

import numpy as np
import pytest

import layers
from layers import BatchNorm, Dropout, Linear, Parameter, Sequential, State, Tape
from layers.gradient_check.cases import CASES, FAMILY


def rng():
    return np.random.default_rng(3)


def modules(case):
    """Return the layers that a case is made of, itself among them."""
    return [layer for _, layer in case.make(rng()).named_layers()]


def attributes(layer):
    return [(name, value) for name, value in vars(layer).items() if name[0] != "_"]


each = pytest.mark.parametrize("case", CASES, ids=[f"{FAMILY[c.name]}: {c.name}" for c in CASES])


@each
def test_public_attributes_are_given_once(case):
    for layer in modules(case):
        for name, before in attributes(layer):
            if not isinstance(before, Parameter | State):
                with pytest.raises(AttributeError, match=rf"`{name}` must be given when it is ma"):
                    setattr(layer, name, 1)
                assert getattr(layer, name) is before


@each
def test_parameters_and_states_are_replaced_by_their_like_only(case):
    for layer in modules(case):
        for name, before in attributes(layer):
            if not isinstance(before, Parameter | State):
                continue
            kind, value = type(before), before.value
            longer = np.ones((*value.shape[:-1], value.shape[-1] + 1), value.dtype)
            for other in (kind(longer), kind(longer[:0]), kind(value.astype(np.float64))):
                must = rf"^{type(layer).__name__}: `{name}` must have shape \(.*float32; got shape "
                with pytest.raises(ValueError, match=must):
                    setattr(layer, name, other)
            other_kind = State if kind is Parameter else Parameter
            for other in (None, value.copy(), other_kind(value)):
                with pytest.raises(TypeError, match=f"`{name}` must be a {kind.__name__}; got "):
                    setattr(layer, name, other)
            assert getattr(layer, name) is before
            like = kind(value)
            setattr(layer, name, like)
            assert getattr(layer, name) is like


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [
        (Dropout(0.5), "rate", 0.9),
        (layers.LSTM(3, 4, rng=rng()), "cells", ()),
        (layers.Conv2d(3, 4, 3, rng=rng()), "stride", 2),
        (Linear(3, 4, bias=False, rng=rng()), "bias", Parameter(np.zeros(3, np.float32))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("copied", [False, True])
def test_what_would_be_dead_is_refused(layer, name, value, copied):
    layer = copy.deepcopy(layer) if copied else layer
    with pytest.raises(AttributeError, match=rf"`{name}` must be .* Make another "):
        setattr(layer, name, value)


def test_modules_and_parameters_can_be_added():
    model = Sequential(Dropout(0.5))
    model.head = Linear(3, 4, rng=rng())
    model.gain = Parameter(np.ones(3, np.float32))
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias", "gain"]


def test_probability_of_dropout_takes_effect_and_is_checked():
    layer = Dropout(0.5)
    Sequential(layer)
    layer.p = 0.9
    x = np.ones((10, 100), np.float32)
    y = Tape(training=True, seed=3).input(x)
    assert (layer(y).array == Dropout(0.9)(Tape(training=True, seed=3).input(x)).array).all()
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\); got 1"):
        layer.p = 1
    assert layer.p == 0.9


def test_momentum_of_a_norm_takes_effect_and_is_checked():
    norm = BatchNorm(3)
    norm.momentum = 1
    x = rng().standard_normal((5, 3)).astype(np.float32)
    norm(Tape(training=True).input(x))
    assert np.allclose(norm.running_mean.value, x.mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="momentum must be"):
        norm.momentum = 2


def test_layers_of_your_own_keep_their_freedom():
    class Mine(Dropout):
        def __init__(self):
            self.first = None
            super().__init__(0.5)
            self.calls = 0

    class Net(layers.Composite):
        def __init__(self):
            self.head = Linear(3, 4, rng=rng())

    mine, net = Mine(), Net()
    mine.calls += 1
    mine.first = 1
    mine.note = "seen"
    net.head = Linear(3, 5, rng=rng())
    assert (mine.calls, net.head.out_features) == (1, 5)
    linear = Sequential(Linear(3, 3, rng=rng()), Linear(3, 3, rng=rng()))
    linear[1].weight = linear[0].weight
    assert len(linear.parameters()) == 3
    assert linear.astype(np.float64)[0].weight.dtype == np.float64


def test_trainable_of_a_module_freezes_and_unfreezes():
    model = Sequential(Linear(3, 3, rng=rng()), BatchNorm(3))
    assert model.trainable
    model[0].trainable = False
    assert not model.trainable
    assert model[1].trainable
    assert [p.trainable for p in model.parameters()] == [False, False, True, True]
    model.trainable = False
    assert not any(p.trainable for p in model.parameters())
    model.trainable = True
    assert all(p.trainable for p in model.parameters())
    with pytest.raises(TypeError, match="trainable must be True or False; got 'no'"):
        model.trainable = "no"
