"""The cases of all layers but those of a family that has a file of its own."""

from typing import Any

import numpy as np

from layers.activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from layers.containers import Sequential
from layers.dropout import Dropout
from layers.engine import operators
from layers.engine.layer import Layer
from layers.engine.merge import Add, Concatenate, Multiply
from layers.linear import Linear
from layers.loss import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from layers.residual import Residual
from layers.shape import Flatten, Reshape
from layers.shortcut import PaddedShortcut

from .case import (
    BATCH,
    Apply,
    Case,
    Generator,
    dense,
    distinct,
    layer,
    off_zero,
    positive,
    real,
    values,
    with_labels,
    with_probabilities,
    with_targets,
    with_weights,
)


def _recurrent(cell: Linear, x: Any) -> Any:
    """Return the last state of h = tanh(W x + h), the same cell used at each of three steps."""
    h = operators.tanh(cell(x[:, 0]))
    for t in range(1, 3):
        h = operators.tanh(cell(x[:, t]) + h)
    return h


def _network(rng: Generator) -> Layer:
    return Sequential(
        Flatten(),
        dense(12, 9)(rng),
        GELU("tanh"),
        Residual(dense(9, 9)(rng)),
        Dropout(0.25),
        dense(9, 4, bias=False)(rng),
        Softmax(),
    )


_ROWS, _DEEP = (BATCH, 5), (BATCH, 3, 4)

CASES = (
    Case("Linear", dense(5, 4), real(_ROWS)),
    Case("Linear without bias", dense(5, 4, bias=False), real(_ROWS)),
    Case("Linear of one output", dense(5, 1), real(_ROWS)),
    Case("Linear of odd sizes", dense(19, 13), real((BATCH, 19))),
    Case("Linear of 3-D inputs", dense(4, 6), real(_DEEP)),
    Case("Linear and GELU", lambda rng: Sequential(dense(5, 4)(rng), GELU()), real(_ROWS)),
    Case("ReLU", layer(ReLU), off_zero(_DEEP)),
    Case("LeakyReLU", layer(LeakyReLU), off_zero(_DEEP)),
    Case("LeakyReLU of slope 0.3", layer(LeakyReLU, 0.3), off_zero(_ROWS)),
    Case("Sigmoid", layer(Sigmoid), real(_DEEP)),
    Case("Tanh", layer(Tanh), real(_DEEP)),
    Case("SiLU", layer(SiLU), real(_DEEP)),
    Case("GELU", layer(GELU), real(_DEEP)),
    Case("GELU of tanh form", layer(GELU, "tanh"), real(_DEEP)),
    Case("Softmax", layer(Softmax), real(_ROWS)),
    Case("Softmax of 3-D inputs", layer(Softmax), real(_DEEP)),
    Case("Dropout", layer(Dropout, 0.4), real(_DEEP)),
    Case("Dropout in evaluation", layer(Dropout, 0.4), real(_ROWS), training=False),
    Case("Flatten", layer(Flatten), real(_DEEP)),
    Case("Reshape", layer(Reshape, 2, -1), real(_DEEP)),
    Case("Add", layer(Add), real(_ROWS, _ROWS)),
    Case("Add of three", layer(Add), real(_ROWS, _ROWS, _ROWS)),
    Case("Add with broadcasting", layer(Add), real(_DEEP, (4,), (3, 1), (BATCH, 1, 4))),
    Case("Multiply", layer(Multiply), real(_ROWS, _ROWS)),
    Case("Multiply of three", layer(Multiply), real(_ROWS, _ROWS, _ROWS)),
    Case("Multiply with broadcasting", layer(Multiply), real(_DEEP, (4,), (BATCH, 1, 1))),
    Case("Concatenate", layer(Concatenate), real(_ROWS, (BATCH, 1), (BATCH, 3))),
    Case("Concatenate along axis 1", layer(Concatenate, 1), real(_DEEP, (BATCH, 2, 4))),
    Case(
        "Concatenate along the batch", layer(Concatenate, 0), real(_ROWS, (3, 5)), per_sample=False
    ),
    Case(
        "Sequential",
        lambda rng: Sequential(dense(5, 4)(rng), Tanh(), dense(4, 3)(rng)),
        real(_ROWS),
    ),
    Case(
        "Sequential with ReLU",
        lambda rng: Sequential(dense(5, 8)(rng), ReLU(), dense(8, 3)(rng)),
        real(_ROWS),
    ),
    Case("Residual", lambda rng: Residual(dense(5, 5)(rng)), real(_ROWS)),
    Case(
        "Residual with shortcut",
        lambda rng: Residual(dense(5, 3)(rng), dense(5, 3, bias=False)(rng)),
        real(_ROWS),
    ),
    Case("PaddedShortcut", layer(PaddedShortcut, 3, 5, 2), real((BATCH, 5, 4, 3))),
    Case("PaddedShortcut of stride 1", layer(PaddedShortcut, 2, 2), real((BATCH, 3, 2, 2))),
    Case("network", _network, real(_DEEP)),
    Case("Linear used three times", lambda rng: Apply(_recurrent, dense(4, 4)(rng)), real(_DEEP)),
    Case("SoftmaxCrossEntropy", layer(SoftmaxCrossEntropy), with_labels(4, BATCH)),
    Case("SoftmaxCrossEntropy smoothed", layer(SoftmaxCrossEntropy, 0.1), with_labels(4, BATCH)),
    Case("SoftmaxCrossEntropy of positions", layer(SoftmaxCrossEntropy), with_labels(4, BATCH, 3)),
    Case(
        "SoftmaxCrossEntropy smoothed, positions",
        layer(SoftmaxCrossEntropy, 0.2),
        with_labels(4, BATCH, 3),
    ),
    Case(
        "SoftmaxCrossEntropy soft",
        layer(SoftmaxCrossEntropy),
        with_probabilities(BATCH, 4),
        constant=(1,),
    ),
    Case(
        "SoftmaxCrossEntropy soft smoothed",
        layer(SoftmaxCrossEntropy, 0.1),
        with_probabilities(BATCH, 3, 4),
        constant=(1,),
    ),
    Case(
        "SoftmaxCrossEntropy ignoring",
        layer(SoftmaxCrossEntropy, 0.1, 2),
        with_labels(4, BATCH, 3),
        per_sample=False,
        per_shard=False,
    ),
    Case(
        "SoftmaxCrossEntropy weighted",
        layer(SoftmaxCrossEntropy),
        with_weights(with_labels(4, BATCH)),
        per_sample=False,
        constant=(2,),
        per_shard=False,
    ),
    Case(
        "SoftmaxCrossEntropy soft, weighted",
        layer(SoftmaxCrossEntropy),
        with_weights(with_probabilities(BATCH, 3, 4)),
        per_sample=False,
        constant=(1, 2),
        per_shard=False,
    ),
    Case("BinaryCrossEntropy", layer(BinaryCrossEntropy), with_targets(*_ROWS)),
    Case("BinaryCrossEntropy of vectors", layer(BinaryCrossEntropy), with_targets(BATCH)),
    Case("MeanSquaredError", layer(MeanSquaredError), real(_ROWS, _ROWS)),
    Case("MeanSquaredError of 3-D inputs", layer(MeanSquaredError), real(_DEEP, _DEEP)),
    Case("a + b", values(lambda a, b: a + b + 2), real(_ROWS, (5,))),
    Case("a - b", values(lambda a, b: 1 - (a - b)), real(_ROWS, (5,))),
    Case("a b", values(lambda a, b: 3 * a * b), real(_ROWS, (5,))),
    Case("a / b", values(lambda a, b: a / b + 2 / b), positive(_ROWS, (5,))),
    Case("a ** b", values(lambda a, b: a**b), positive(_ROWS, (5,))),
    Case("a ** 3", values(lambda a: a**3), real(_ROWS)),
    Case("2 ** a", values(lambda a: 2**a), real(_ROWS)),
    Case("-a", values(lambda a: -a), real(_ROWS)),
    Case("abs a", values(lambda a: abs(a)), off_zero(_ROWS)),
    Case("a @ b", values(lambda a, b: a @ b), real(_ROWS, (5, 4))),
    Case("a @ b of stacks", values(lambda a, b: a @ b), real(_DEEP, (BATCH, 4, 2))),
    Case("a @ vector", values(lambda a, b: a @ b), real(_ROWS, (5,))),
    Case("a.T @ b", values(lambda a, b: a.T @ b), real(_ROWS, (BATCH, 4)), per_sample=False),
    Case("a[1:4]", values(lambda a: a[1:4]), real(_ROWS), per_sample=False),
    Case("a[..., indices]", values(lambda a: a[..., [3, 3, 0]]), real(_ROWS)),
    Case("sum", values(lambda a: a.sum()), real(_ROWS), per_sample=False),
    Case("sum over axes", values(lambda a: a.sum(axis=(1, -1), keepdims=True)), real(_DEEP)),
    Case("mean", values(lambda a: a.mean()), real(_ROWS), per_sample=False),
    Case("mean over an axis", values(lambda a: a.mean(axis=1)), real(_DEEP)),
    Case("max", values(lambda a: a.max()), distinct(_ROWS), per_sample=False),
    Case("max over an axis", values(lambda a: a.max(axis=1)), distinct(_DEEP)),
    Case("min over an axis", values(lambda a: a.min(axis=-1, keepdims=True)), distinct(_DEEP)),
    Case("reshape", values(lambda a: a.reshape(-1, 12)), real(_DEEP)),
    Case("transpose", values(lambda a: a.transpose(0, 2, 1)), real(_DEEP)),
    Case("exp", layer(lambda: operators.exp), real(_ROWS)),
    Case("log", layer(lambda: operators.log), positive(_ROWS)),
    Case("sqrt", layer(lambda: operators.sqrt), positive(_ROWS)),
    Case("sin", layer(lambda: operators.sin), real(_ROWS)),
    Case("cos", layer(lambda: operators.cos), real(_ROWS)),
    Case("tanh", layer(lambda: operators.tanh), real(_ROWS)),
    Case("maximum", values(lambda a, b: operators.maximum(a, b)), distinct(_ROWS, _ROWS)),
    Case("minimum", values(lambda a, b: operators.minimum(a, b)), distinct(_ROWS, _ROWS)),
    Case("where", values(lambda a, b: operators.where(np.arange(5) > 2, a, b)), real(_ROWS, _ROWS)),
)
