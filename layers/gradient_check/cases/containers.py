"""The cases of layers one after the other."""

from layers.activation import GELU, ReLU, Softmax, Tanh
from layers.containers import Sequential
from layers.dropout import Dropout
from layers.engine.module import Module
from layers.residual import Residual
from layers.shape import Flatten

from .case import BATCH, Case, Generator, dense, real

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)


def _network(rng: Generator) -> Module:
    return Sequential(
        Flatten(),
        dense(12, 9)(rng),
        GELU("tanh"),
        Residual(dense(9, 9)(rng)),
        Dropout(0.25),
        dense(9, 4, bias=False)(rng),
        Softmax(),
    )


CASES = (
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
    Case("network", _network, real(_DEEP)),
)
