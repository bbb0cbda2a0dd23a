"""Names of before 1.0: refused, with what they are called now."""

import re

import numpy as np
import pytest

import layers
from layers import models
from layers.engine.inference import INFERENCE

RNG = np.random.default_rng(0)
CONV = {"in_channels": 16, "out_channels": 16, "kernel_size": 3}
SIZES = {"input_size": 3, "hidden_size": 4}
OF_CONV = {"size": "kernel_size", "method": "algorithm"}
OF_SEQUENCES = {"inputs": "input_size", "hidden": "hidden_size"}
OF_TREES = {"in_features": "input_size", "hidden": "hidden_size"}

# What makes it, with all its arguments; what an argument was called, and is called now.
ARGUMENTS = [
    (layers.Conv2d, CONV, OF_CONV),
    (layers.Conv1d, CONV, OF_CONV),
    (layers.Conv3d, CONV, OF_CONV),
    (layers.ConvTranspose1d, CONV, OF_CONV),
    (layers.ConvTranspose3d, CONV, OF_CONV),
    (layers.ConvTranspose2d, CONV, OF_CONV),
    (layers.MaxPool2d, {"kernel_size": 2}, {"size": "kernel_size"}),
    (layers.AvgPool2d, {"kernel_size": 2}, {"size": "kernel_size"}),
    (models.small_cnn, {}, {"method": "algorithm"}),
    (models.resnet20, {}, {"method": "algorithm"}),
    (models.resnet32, {}, {"method": "algorithm"}),
    (models.resnet56, {}, {"method": "algorithm"}),
    *((getattr(layers, name), SIZES, OF_SEQUENCES) for name in ("RNN", "LSTM", "GRU")),
    *((getattr(layers, f"{name}Cell"), SIZES, OF_SEQUENCES) for name in ("RNN", "LSTM", "GRU")),
    (layers.TreeRNN, SIZES, OF_TREES),
    (layers.TreeLSTM, SIZES, OF_TREES),
]
OF_WEIGHTS = {"input_weight": "weight_ih", "state_weight": "weight_hh"}
ATTRIBUTES = [
    (layers.Conv2d, CONV, OF_CONV),
    (layers.ConvTranspose2d, CONV, OF_CONV),
    (layers.MaxPool2d, {"kernel_size": 2}, {"size": "kernel_size"}),
    (layers.LSTM, SIZES, OF_SEQUENCES),
    (layers.TreeRNN, SIZES, {**OF_TREES, **OF_WEIGHTS}),
    (layers.TreeLSTM, SIZES, {**OF_TREES, **OF_WEIGHTS, "forget_weight": "weight_hh_forget"}),
]


def made(make, arguments):
    return make(**arguments, **({} if "Pool" in make.__name__ else {"rng": RNG}))


def name_of(value):
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("make", "arguments", "names"), ARGUMENTS, ids=name_of)
def test_argument_under_its_old_name_is_refused_with_the_new_one(make, arguments, names):
    made(make, arguments)
    for old, new in names.items():
        value = arguments.get(new, "default")
        others = {name: of for name, of in arguments.items() if name != new}
        must = f"{make.__name__}: the argument `{old}` is now called `{new}`; got {old}={value!r}."
        with pytest.raises(TypeError, match=re.escape(f"{must} Write {new}={value!r}.")):
            made(make, {**others, old: value})


@pytest.mark.parametrize(("make", "arguments", "names"), ATTRIBUTES, ids=name_of)
def test_attribute_under_its_old_name_is_refused_with_the_new_one(make, arguments, names):
    layer = made(make, arguments)
    for old, new in names.items():
        assert hasattr(layer, new)
        assert not hasattr(layer, old)
        must = f"{make.__name__}: the attribute `{old}` is now called `{new}`"
        with pytest.raises(AttributeError, match=re.escape(must)):
            getattr(layer, old)
        with pytest.raises(AttributeError, match=re.escape(must)):
            setattr(layer, old, 1)


def test_unknown_arguments_are_refused_as_ever():
    with pytest.raises(TypeError, match="unexpected keyword argument 'sizes'"):
        layers.MaxPool2d(sizes=2)


def test_what_layers_of_users_call_is_refused_under_its_old_name():
    tape = layers.Tape()
    layers.ReLU()(tape.input(np.ones((2, 3))))
    (call,) = tape.calls
    parameter = layers.Parameter(np.ones(3))
    names = {"observe": "on_gathered", "take": "take_gradient"}
    names |= {"gradient_into": "gradient_buffer", "transient": "pooled"}
    for owner, old, new in [
        *((each, *pair) for each in (call, INFERENCE) for pair in names.items()),
        (parameter, "stale", "store.stale"),
    ]:
        with pytest.raises(AttributeError, match=re.escape(f"`{old}` is now called `{new}`")):
            getattr(owner, old)
