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
        ["Linear(5, 2)", "(N, ..., 5)", "(4, 3)", "Flatten()"],
    ),
    (
        layers.Linear(3, 2, rng=rng),
        (x32[0],),
        ValueError,
        ["Linear(3, 2)", "(N, ..., 3)", "(3,)", "x[np.newaxis]"],
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
        layers.Softmax(0),
        (x32,),
        ValueError,
        ["Softmax(axis=0)", "axis must not be that of the samples", "(4, 3)", "Leave it out"],
    ),
    (
        layers.LogSoftmax(2),
        (x32,),
        ValueError,
        ["LogSoftmax(axis=2)", "axis 2 must hold", "(4, 3)", "(N, C)"],
    ),
    (layers.PReLU(5), (x32,), ValueError, ["PReLU(5)", "(N, ..., 5)", "(4, 3)", "last axis"]),
    (layers.PReLU(), (x32.astype(float),), TypeError, ["PReLU(1)", "float32", "float64", "astype"]),
    (
        layers.GroupNorm(3, 3),
        (x32,),
        ValueError,
        ["GroupNorm(3, 3)", "more than one value", "(4, 3)", "LayerNorm"],
    ),
    (
        layers.InstanceNorm2d(3),
        (np.ones((2, 3, 5, 5), np.float32),),
        ValueError,
        ["InstanceNorm2d(3)", "(N, H, W, 3)", "(2, 3, 5, 5)", "transpose"],
    ),
    (
        layers.LayerNorm((2, 3)),
        (np.ones((4, 4, 3), np.float32),),
        ValueError,
        ["LayerNorm((2, 3), 1e-05)", "(N, ..., 2, 3)", "(4, 4, 3)", "last axes"],
    ),
    (
        layers.Upsample(2),
        (x32,),
        ValueError,
        ["Upsample(2)", "(N, H, W, C)", "(4, 3)", "reshape"],
    ),
    (
        layers.PoolOverTime(),
        (np.ones((2, 4, 3), np.float32), np.array([1, 5])),
        ValueError,
        ["PoolOverTime('mean')", "1..4", "5 of sample 1", "empty"],
    ),
    (
        layers.PoolOverTime("last"),
        (np.ones((2, 4, 3), np.float32), np.array([1.0, 2.0])),
        ValueError,
        ["PoolOverTime('last')", "integers of shape (2,)", "float64", "valid steps"],
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
    assert text.isascii()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.ELU(0), ["ELU", "alpha", "positive", "0"]),
        (lambda: layers.Softplus(np.inf), ["Softplus", "beta", "finite", "inf"]),
        (lambda: layers.Hardtanh(1, 1), ["Hardtanh", "low must be below high", "(1.0, 1.0)"]),
        (lambda: layers.PReLU(0), ["PReLU", "features", "0"]),
        (lambda: layers.Softmax(1.5), ["Softmax", "axis", "1.5", "-1"]),
        (lambda: layers.GroupNorm(3, 8), ["GroupNorm", "divide the 8 channels", "3"]),
        (lambda: layers.GroupNorm(0, 8), ["GroupNorm", "groups", "0", "32"]),
        (lambda: layers.LayerNorm((2, 0)), ["LayerNorm", "features", "0"]),
        (lambda: layers.LayerNorm(()), ["LayerNorm", "features", "()"]),
        (lambda: layers.Upsample(), ["Upsample", "either scale or size", "None and None"]),
        (lambda: layers.Upsample(2, size=4), ["Upsample", "either scale or size", "2 and 4"]),
        (lambda: layers.Upsample(0.5), ["Upsample", "scale", "0.5"]),
        (lambda: layers.Upsample(2, mode="cubic"), ["Upsample", "mode", "'cubic'"]),
        (lambda: layers.Upsample(2, align_corners=True), ["Upsample", "bilinear", "nearest"]),
        (lambda: layers.PoolOverTime("sum"), ["PoolOverTime", "kind", "'sum'", "mean"]),
        (lambda: layers.MaxPool1d((2, 2)), ["MaxPool1d", "kernel_size", "(2, 2)"]),
        (lambda: layers.AdaptiveAvgPool2d(0), ["AdaptiveAvgPool2d", "output_size", "0"]),
    ],
)
def test_options_that_mean_nothing_are_refused(make, words):
    with pytest.raises(ValueError, match="; got ") as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value


def test_new_options_are_shown_as_they_are_written():
    for made, shown in (
        (layers.ELU(), "ELU(1)"),
        (layers.Hardtanh(-2, 2), "Hardtanh(-2, 2)"),
        (layers.ReLU6(), "ReLU6()"),
        (layers.PReLU(4), "PReLU(4)"),
        (layers.Softmax(), "Softmax()"),
        (layers.LogSoftmax(1), "LogSoftmax(axis=1)"),
        (layers.GroupNorm(2, 8, affine=False), "GroupNorm(2, 8, affine=False)"),
        (layers.InstanceNorm1d(8, affine=True), "InstanceNorm1d(8, affine=True)"),
        (layers.LayerNorm((2, 3), affine=False), "LayerNorm((2, 3), 1e-05, affine=False)"),
        (layers.Upsample(size=(2, 3)), "Upsample(size=(2, 3))"),
        (
            layers.Upsample(2, mode="bilinear", align_corners=True),
            'Upsample(2, mode="bilinear", align_corners=True)',
        ),
    ):
        assert repr(made) == shown


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
    with pytest.raises(TypeError, match=r"^(Parameter|Linear): .* float32 or float64; got float16"):
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
