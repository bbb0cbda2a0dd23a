"""The cases of batch normalisation."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers.activation import ReLU, Tanh
from layers.batch_norm import BatchNorm, BatchNorm2d
from layers.containers import Sequential
from layers.engine.module import Module
from layers.residual import Residual

from .case import BATCH, Case, Generator, dense, real


def normalising(
    make: Callable[..., BatchNorm], features: int, **options: Any
) -> Callable[[Generator], BatchNorm]:
    """Return the constructor of a batch normalisation whose parameters and running statistics are
    not those of the beginning.

    The running means go from -0.5 to 0.5 over the channels, the running variances from 0.5 to 2.
    """

    def made(rng: Generator) -> BatchNorm:
        norm = make(features, **options)
        if norm.weight is not None and norm.bias is not None:
            norm.weight.value = rng.uniform(0.5, 1.5, features) * rng.choice((-1.0, 1.0), features)
            norm.bias.value = rng.standard_normal(features)
        norm.running_mean.value = np.linspace(-0.5, 0.5, features)
        norm.running_variance.value = np.linspace(0.5, 2, features)
        return norm

    return made


def _block(shortcut: bool, **options: Any) -> Callable[[Generator], Module]:
    """Return the constructor of a residual block whose body ends with a batch normalisation, and a
    ReLU after it.
    """

    def made(rng: Generator) -> Module:
        body = Sequential(dense(4, 4)(rng), Tanh(), normalising(BatchNorm, 4, **options)(rng))
        if shortcut:
            return Sequential(Residual(body, normalising(BatchNorm, 4, **options)(rng)), ReLU())
        return Sequential(Residual(body), ReLU())

    return made


_ROWS, _IMAGES, _LARGE = real((BATCH, 5)), real((BATCH, 3, 2, 4)), real((BATCH, 14, 14, 6))
_2D = normalising(BatchNorm2d, 4)


def _rectified(rng: Generator) -> Module:
    return Sequential(_2D(rng), ReLU())


CASES = (
    Case("BatchNorm", normalising(BatchNorm, 5), _ROWS, per_sample=False),
    Case("BatchNorm in evaluation", normalising(BatchNorm, 5), _ROWS, training=False),
    Case(
        "BatchNorm of 3-D inputs",
        normalising(BatchNorm, 4, epsilon=0.1),
        real((BATCH, 3, 4)),
        per_sample=False,
    ),
    Case(
        "BatchNorm of many channels",
        normalising(BatchNorm, 600),
        real((BATCH, 600)),
        per_sample=False,
    ),
    Case("BatchNorm2d", _2D, _IMAGES, per_sample=False),
    Case("BatchNorm2d in evaluation", _2D, _IMAGES, training=False),
    Case("BatchNorm2d of large images", normalising(BatchNorm2d, 6), _LARGE, per_sample=False),
    Case(
        "BatchNorm2d not affine",
        normalising(BatchNorm2d, 4, affine=False),
        _IMAGES,
        per_sample=False,
    ),
    Case(
        "BatchNorm2d not affine in evaluation",
        normalising(BatchNorm2d, 4, affine=False),
        _IMAGES,
        training=False,
    ),
    Case(
        "BatchNorm2d synchronized",
        normalising(BatchNorm2d, 4, synchronized=True),
        _IMAGES,
        per_sample=False,
        per_shard=False,
    ),
    Case("BatchNorm2d with ReLU", _rectified, _IMAGES, per_sample=False),
    Case("BatchNorm2d with ReLU in evaluation", _rectified, _IMAGES, training=False),
    Case(
        "Residual with BatchNorm and ReLU",
        _block(shortcut=False),
        real((BATCH, 3, 4)),
        per_sample=False,
    ),
    Case(
        "Residual with BatchNorm and ReLU in evaluation",
        _block(shortcut=False),
        real((BATCH, 3, 4)),
        training=False,
    ),
    Case(
        "Residual with BatchNorm twice, synchronized",
        _block(shortcut=True, synchronized=True),
        real((BATCH, 3, 4)),
        per_sample=False,
        per_shard=False,
    ),
    Case("Residual with ReLU", lambda rng: Sequential(Residual(dense(5, 5)(rng)), ReLU()), _ROWS),
)
