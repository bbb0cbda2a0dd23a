"""The cases of activations."""

from collections.abc import Callable

import numpy as np

from layers.activation import (
    CELU,
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from layers.types import Array

from .case import BATCH, Case, Generator, layer, off_zero, real

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)


def _around(low: float, high: float) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw numbers below, between and above two kinks, at least 0.1 away from both."""

    def draw(rng: Generator) -> tuple[Array, ...]:
        width = high - low
        parts = [
            (low - width, low - 0.1),
            (low + 0.1, high - 0.1),
            (high + 0.1, high + width),
        ]
        return (np.array([rng.uniform(*parts[i]) for i in rng.integers(0, 3, 84)]).reshape(_DEEP),)

    return draw


def _of_channels(rng: Generator) -> PReLU:
    made = PReLU(4)
    made.weight.value = rng.uniform(0.1, 0.5, 4)
    return made


CASES = (
    Case("ReLU", layer(ReLU), off_zero(_DEEP)),
    Case("LeakyReLU", layer(LeakyReLU), off_zero(_DEEP)),
    Case("LeakyReLU of slope 0.3", layer(LeakyReLU, 0.3), off_zero(_ROWS)),
    Case("Sigmoid", layer(Sigmoid), real(_DEEP)),
    Case("Tanh", layer(Tanh), real(_DEEP)),
    Case("SiLU", layer(SiLU), real(_DEEP)),
    Case("GELU", layer(GELU), real(_DEEP)),
    Case("GELU of tanh form", layer(GELU, "tanh"), real(_DEEP)),
    Case("ELU", layer(ELU), off_zero(_DEEP)),
    Case("ELU of alpha 0.5", layer(ELU, 0.5), off_zero(_ROWS)),
    Case("CELU", layer(CELU, 0.5), off_zero(_DEEP)),
    Case("SELU", layer(SELU), off_zero(_DEEP)),
    Case("Softplus", layer(Softplus), real(_DEEP)),
    Case("Softplus of beta 3", layer(Softplus, 3), real(_ROWS)),
    Case("Mish", layer(Mish), real(_DEEP)),
    Case("Hardtanh", layer(Hardtanh, -0.5, 1), _around(-0.5, 1)),
    Case("ReLU6", layer(ReLU6), _around(0, 6)),
    Case("Hardsigmoid", layer(Hardsigmoid), _around(-3, 3)),
    Case("Hardswish", layer(Hardswish), _around(-3, 3)),
    Case("PReLU", layer(PReLU), off_zero(_DEEP)),
    Case("PReLU of channels", _of_channels, off_zero(_DEEP)),
    Case("Identity", layer(Identity), real(_DEEP)),
    Case("Softmax", layer(Softmax), real(_ROWS)),
    Case("Softmax of 3-D inputs", layer(Softmax), real(_DEEP)),
    Case("Softmax of a vector", layer(Softmax), real((5,)), per_sample=False),
    Case("Softmax of a middle axis", layer(Softmax, 1), real(_DEEP)),
    Case("LogSoftmax", layer(LogSoftmax), real(_ROWS)),
    Case("LogSoftmax of a middle axis", layer(LogSoftmax, -2), real(_DEEP)),
)
