"""The cases of segments that are computed again."""

from typing import Any

from layers.activation import ReLU, Tanh
from layers.batch_norm import BatchNorm
from layers.containers import Sequential
from layers.dropout import Dropout
from layers.engine.module import Module
from layers.recompute import Recompute
from layers.residual import Residual

from .case import BATCH, Apply, Case, Generator, dense, real

_ROWS = (BATCH, 5)


def _nested(rng: Generator) -> Module:
    inner = Recompute(Sequential(dense(5, 5)(rng), Dropout(0.25)))
    return Sequential(Dropout(0.25), Recompute(Sequential(inner, Residual(inner), Tanh())))


def _with_statistics(rng: Generator) -> Module:
    return Recompute(Sequential(dense(5, 4, bias=False)(rng), BatchNorm(4), ReLU()))


def _several(rng: Generator) -> Module:
    def function(layer: Any, x: Any, y: Any) -> Any:
        h = layer(x)
        return h * y, h + y

    return Recompute(Apply(function, dense(5, 4)(rng)))


CASES = (
    Case("Recompute", lambda rng: Recompute(dense(5, 4)(rng)), real(_ROWS)),
    Case("Recompute in Recompute", _nested, real(_ROWS)),
    Case("Recompute with BatchNorm", _with_statistics, real(_ROWS), per_sample=False),
    Case(
        "Recompute of several",
        lambda rng: Apply(lambda layer, x, y: sum(layer(x, y)), _several(rng)),
        real(_ROWS, (BATCH, 4)),
    ),
)
