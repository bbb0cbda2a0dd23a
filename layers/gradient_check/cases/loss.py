"""The cases of losses."""

from layers.loss.classification import SoftmaxCrossEntropy
from layers.loss.regression import BinaryCrossEntropy, MeanSquaredError

from .case import (
    BATCH,
    Case,
    layer,
    real,
    with_labels,
    with_probabilities,
    with_targets,
    with_weights,
)

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)

CASES = (
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
)
