"""Wrong inputs are refused by every layer with the layer, the argument, what was got, and the
likely fix.
"""

import re

import numpy as np
import pytest

import layers
from layers import Tape

x32 = np.ones((4, 3), np.float32)
rng = np.random.default_rng(0)

# (layer, inputs, exception, what the message must hold: layer, shapes or types, fix)
REFUSED = [
    (
        layers.Linear(5, 2, rng=rng),
        (x32,),
        ValueError,
        ["Linear(5, 2)", "(N, …, 5)", "(4, 3)", "Flatten()"],
    ),
    (
        layers.Linear(3, 2, rng=rng),
        (x32[0],),
        ValueError,
        ["Linear(3, 2)", "(N, …, 3)", "(3,)", "x[np.newaxis]"],
    ),
    (
        layers.Linear(3, 2, rng=rng),
        (x32.astype(float),),
        TypeError,
        ["Linear(3, 2)", "float32", "float64", "astype"],
    ),
    (
        layers.Linear(3, 2, rng=rng),
        (x32.astype(int),),
        TypeError,
        ["Linear(3, 2)", "float32", "int64", "x.astype(np.float32)"],
    ),
    (layers.ReLU(), (x32.astype(int),), TypeError, ["ReLU()", "floating", "int64", "astype"]),
    (layers.GELU(), (x32.astype(bool),), TypeError, ["GELU('none')", "floating", "bool", "astype"]),
    (layers.Softmax(), (x32.astype(int),), TypeError, ["Softmax()", "floating", "int64", "astype"]),
    (
        layers.Softmax(),
        (np.ones((4, 0), np.float32),),
        ValueError,
        ["Softmax()", "last axis", "(4, 0)", "(N, C)"],
    ),
    (
        layers.Dropout(0.5),
        (x32.astype(int),),
        TypeError,
        ["Dropout(0.5)", "floating", "int64", "astype"],
    ),
    (
        layers.Reshape(2, 2),
        (x32,),
        ValueError,
        ["Reshape(2, 2)", "4 elements", "(4, 3)", "without the batch axis"],
    ),
    (
        layers.Add(),
        (x32, np.ones((4, 2), np.float32)),
        ValueError,
        ["Add()", "(4, 3)", "(4, 2)", "last axis backwards"],
    ),
    (
        layers.Multiply(),
        (x32, np.ones((2, 3), np.float32)),
        ValueError,
        ["Multiply()", "(4, 3)", "(2, 3)"],
    ),
    (
        layers.Concatenate(),
        (x32, x32[:2]),
        ValueError,
        ["Concatenate(axis=-1)", "(4, 3)", "(2, 3)", "Only axis -1"],
    ),
    (
        layers.SoftmaxCrossEntropy(),
        (x32, np.zeros((4, 1), int)),
        ValueError,
        ["labels (4,)", "(4, 3)", "(4, 1)", "y[:, 0]"],
    ),
    (
        layers.SoftmaxCrossEntropy(),
        (x32, np.zeros(4)),
        TypeError,
        ["SoftmaxCrossEntropy()", "integers", "float64", "np.int64"],
    ),
    (
        layers.SoftmaxCrossEntropy(),
        (x32, np.array([0, 1, 3, 0])),
        ValueError,
        ["0..2", "3 in row 2", "Number the classes from 0"],
    ),
    (
        layers.SoftmaxCrossEntropy(),
        (x32, np.array([0, -1, 2, 0])),
        ValueError,
        ["0..2", "-1 in row 1"],
    ),
    (
        layers.MeanSquaredError(),
        (x32, x32[:, 0]),
        ValueError,
        ["MeanSquaredError()", "(4, 3)", "(4,)", "np.newaxis"],
    ),
    (
        layers.BinaryCrossEntropy(),
        (x32, 2 * x32),
        ValueError,
        ["BinaryCrossEntropy()", "[0, 1]", "2.0", "as 0 and 1"],
    ),
]


@pytest.mark.parametrize(
    ("layer", "inputs", "error", "words"),
    REFUSED,
    ids=[f"{row[0]!r}-{i}" for i, row in enumerate(REFUSED)],
)
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "arrays"])
def test_wrong_inputs_are_refused_by_name_shape_and_fix(layer, inputs, error, words, recorded):
    if recorded:
        tape = Tape(training=True)
        inputs = (tape.input(inputs[0]), *inputs[1:])
    with pytest.raises(error) as caught:
        layer(*inputs)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "; got " in text


@pytest.mark.parametrize("dtype", [np.float16, np.int64, bool, complex, object])
def test_model_of_a_type_without_kernels_is_refused_with_the_types_there_are(dtype):
    makers = {
        "Parameter": lambda: layers.Parameter(np.ones(3, dtype)),
        "Linear(3, 2)": lambda: layers.Linear(3, 2, rng=rng).astype(dtype),
    }
    for owner, make in makers.items():
        must = f"{owner}: parameters must be of float32 or float64; got {np.dtype(dtype)}. "
        with pytest.raises(TypeError, match=f"^{re.escape(must)}.*float32"):
            make()
    with pytest.raises(TypeError, match=r"^Parameter: .* float32 or float64; got float16"):
        layers.Linear(3, 2, rng=rng, dtype=np.float16)


# What numbers do not make of float32: each is joined with values, and the type must stay.
NUMBERS = [2, 0.5, True, np.sqrt(64), np.int64(2), np.float64(0.5), np.float32(2), np.array(2.0)]
ARRAYS = [np.arange(1, 4), np.array([True, False, True]), np.ones(3, np.float16)]
JOINS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: b - a,
    "*": lambda a, b: b * a,
    "/": lambda a, b: a / (b + 1),
    "**": lambda a, b: a**b,
    "maximum": layers.maximum,
    "where": lambda a, b: layers.where([True, False, True], a, b),
    "clip": lambda a, b: layers.clip(a, b, 3),
    "np.add": lambda a, b: np.add(b, a),
}


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("constant", [*NUMBERS, *ARRAYS], ids=repr)
def test_constant_takes_the_type_of_the_value_it_meets(join, constant):
    x = Tape().input(np.array([1.0, 2.0, 4.0], np.float32))
    y = JOINS[join](x, constant)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype) == (np.float32, np.float32)
    expected = JOINS[join](x.array.astype(float), np.asarray(constant, float))
    np.testing.assert_allclose(y.array, expected, rtol=1e-6)


@pytest.mark.parametrize("join", JOINS)
def test_constant_of_a_wider_type_is_refused_with_the_conversion(join):
    x = Tape().input(np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"float32; got .*float64\. .*array\.astype\(np\.float32\)"):
        JOINS[join](x, np.ones(3))
    with pytest.raises(TypeError, match=r"one floating type; got float32 and float64\. .*astype"):
        JOINS[join](x, x.tape.input(np.ones(3)))


def test_layers_that_join_inputs_refuse_two_floating_types():
    tape = Tape()
    x, other = tape.input(x32), tape.input(x32.astype(float))
    for layer in (layers.Add(), layers.Multiply(), layers.Concatenate()):
        for inputs in ((x, other), (x, other.array), (x32, other.array)):
            with pytest.raises(TypeError, match=r"one floating type; got float32 and float64"):
                layer(*inputs)
    assert (layers.Add()(x, np.float64(2)) + layers.Multiply()(x, np.arange(3))).dtype == np.float32


def test_gradient_has_the_type_of_its_value_whatever_backward_returns():
    class Drift(layers.Layer):
        def forward(self, call, x):
            return x * 2

        def backward(self, call, dy):
            return (dy * np.full(dy.shape, 2.0),)

    x = Tape().input(x32)
    Drift()(layers.ReLU()(x)).backward(x32)
    assert x.grad.dtype == np.float32
