"""Trainers of networks with faulty layers, and what is said of them."""

import numpy as np
import pytest

import ddbp
import layers

from . import small
from .faults import Faulty, marked
from .small import LABELS, make, network

X = small.X.astype(np.float32)
ROWS = slice(0, 20)
GOOD = ddbp.ArrayDataset(X, LABELS)
DATA = ddbp.ArrayDataset(marked(X, 7, 41), LABELS)
WHERE = ["forward", "backward"]


def faulty(where, **options):
    """Return a trainer whose model has a layer that spoils marked samples."""
    return make(network(Faulty(where)), **options)


def error_of(use, *arguments, **options):
    """Return what is said of numbers that are not finite."""
    with pytest.raises(FloatingPointError) as caught:
        use(*arguments, **options)
    return str(caught.value)


def said(where):
    """Return what is said of a faulty layer."""
    if where == "forward":
        return "the first layer whose output is not finite is layers.2: Faulty('forward')"
    return "the first layer whose gradient is not finite is layers.2: Faulty('backward')"


def loop(trainer, data):
    for batch in trainer.batches(data):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))


def windowed(where, **options):
    """Return a trainer of windows of three steps of time."""
    rng = np.random.default_rng(1)
    model = layers.Sequential(
        layers.Linear(4, 4, rng=rng),
        Faulty(where),
        layers.GRU(4, 5, rng=rng),
        layers.Linear(5, 2, rng=rng),
    )
    usual = {"loss": "mse", "batch_size": 12, "truncate": 3}
    return make(model, **(usual | options))
