"""The cases of losses."""

from typing import Any

import numpy as np

from layers.loss.classification import KLDivergence, MultiClassHinge, SoftmaxCrossEntropy
from layers.loss.ctc import CTC
from layers.loss.regression import (
    BinaryCrossEntropy,
    GaussianNLL,
    Hinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    PoissonNLL,
    SmoothL1,
)
from layers.loss.similarity import CosineDistance, CosineEmbedding
from layers.types import Array

from .case import (
    BATCH,
    Case,
    Generator,
    distinct,
    layer,
    positive,
    real,
    with_labels,
    with_probabilities,
    with_signs,
    with_targets,
    with_weights,
)

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)


def _counts(rng: Generator) -> tuple[Array, ...]:
    """Draw predictions, and counts."""
    return rng.uniform(0.5, 2, _ROWS), rng.integers(0, 5, _ROWS)


def _of_samples(rng: Generator) -> tuple[Array, ...]:
    """Draw predictions, targets, and weights of the samples."""
    return *real(_DEEP, _DEEP)(rng), np.arange(BATCH) / 2


def _pairs(rng: Generator) -> tuple[Array, ...]:
    """Draw pairs of vectors, and whether they shall be alike."""
    a, b = real(_ROWS, _ROWS)(rng)
    return a, b, rng.choice((-1, 1), BATCH)


def _spoken(rng: Generator) -> tuple[Array, ...]:
    """Draw frames and the labels that they say, 0 to 2 of the classes 1, 3."""
    labels = rng.choice((1, 3), (BATCH, 2))
    labels[0], labels[1, 1] = -1, -1
    return rng.standard_normal((BATCH, 4, 4)), labels


def _weighted(name: str, make: Any, inputs: Any) -> Case:
    """Return a case whose rows are not averaged by their number."""
    return Case(name, make, inputs, per_sample=False, per_shard=False)


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
    _weighted(
        "SoftmaxCrossEntropy of classes",
        layer(SoftmaxCrossEntropy, class_weights=(1, 3, 0.5, 2)),
        with_labels(4, BATCH, 3),
    ),
    _weighted(
        "SoftmaxCrossEntropy of classes, smoothed",
        layer(SoftmaxCrossEntropy, 0.2, class_weights=(1, 3, 0.5, 2)),
        with_labels(4, BATCH),
    ),
    Case(
        "SoftmaxCrossEntropy of classes, soft",
        layer(SoftmaxCrossEntropy, class_weights=(1, 3, 0.5, 2)),
        with_probabilities(BATCH, 4),
        constant=(1,),
    ),
    Case("KLDivergence", layer(KLDivergence), with_probabilities(BATCH, 3, 4), constant=(1,)),
    Case("CTC", layer(CTC), _spoken),
    Case("CTC of labels", layer(CTC, blank=2, per_label=True), _spoken),
    Case("MultiClassHinge", layer(MultiClassHinge, 0.7), with_labels(4, BATCH, 3)),
    Case("BinaryCrossEntropy", layer(BinaryCrossEntropy), with_targets(*_ROWS)),
    Case("BinaryCrossEntropy of vectors", layer(BinaryCrossEntropy), with_targets(BATCH)),
    Case(
        "BinaryCrossEntropy of positives",
        layer(BinaryCrossEntropy, (0.5, 2, 3, 1, 4)),
        with_targets(*_ROWS),
        constant=(1,),
    ),
    Case("Hinge", layer(Hinge), with_signs(*_ROWS), constant=(1,)),
    Case("Hinge squared", layer(Hinge, squared=True), with_signs(*_ROWS), constant=(1,)),
    Case("PoissonNLL", layer(PoissonNLL), _counts),
    Case("PoissonNLL of rates", layer(PoissonNLL, log_input=False), _counts),
    Case(
        "GaussianNLL",
        layer(GaussianNLL),
        lambda rng: (*real(_ROWS)(rng), *positive(_ROWS)(rng), *real(_ROWS)(rng)),
        constant=(2,),
    ),
    Case("CosineDistance", layer(CosineDistance), real(_DEEP, _DEEP)),
    Case("CosineEmbedding", layer(CosineEmbedding, 0.1), _pairs),
    Case("MeanAbsoluteError", layer(MeanAbsoluteError), distinct(_ROWS, _ROWS)),
    Case("Huber", layer(Huber, 0.7), distinct(_ROWS, _ROWS)),
    Case("SmoothL1", layer(SmoothL1, 0.7), distinct(_ROWS, _ROWS)),
    Case("MeanSquaredError", layer(MeanSquaredError), real(_ROWS, _ROWS)),
    Case("MeanSquaredError of 3-D inputs", layer(MeanSquaredError), real(_DEEP, _DEEP)),
    Case(
        "MeanSquaredError weighted",
        layer(MeanSquaredError),
        _of_samples,
        per_sample=False,
        constant=(2,),
        per_shard=False,
    ),
    Case(
        "BinaryCrossEntropy weighted",
        layer(BinaryCrossEntropy),
        lambda rng: (*with_targets(*_DEEP)(rng), positive(_DEEP[:2])(rng)[0]),
        per_sample=False,
        constant=(2,),
        per_shard=False,
    ),
)
