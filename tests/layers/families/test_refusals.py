"""Wrong inputs are refused by every layer with the layer, the argument, what was got, and the
likely fix.
"""

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
