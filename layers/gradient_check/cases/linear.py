"""The cases of dense layers."""

from typing import Any

from layers.activation import GELU
from layers.containers import Sequential
from layers.engine import operators
from layers.linear import Linear

from .case import BATCH, Apply, Case, dense, real

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)


def _recurrent(cell: Linear, x: Any) -> Any:
    """Return the last state of h = tanh(W x + h), the same cell used at each of three steps."""
    h = operators.tanh(cell(x[:, 0]))
    for t in range(1, 3):
        h = operators.tanh(cell(x[:, t]) + h)
    return h


CASES = (
    Case("Linear", dense(5, 4), real(_ROWS)),
    Case("Linear without bias", dense(5, 4, bias=False), real(_ROWS)),
    Case("Linear of one output", dense(5, 1), real(_ROWS)),
    Case("Linear of odd sizes", dense(19, 13), real((BATCH, 19))),
    Case("Linear of 3-D inputs", dense(4, 6), real(_DEEP)),
    Case("Linear and GELU", lambda rng: Sequential(dense(5, 4)(rng), GELU()), real(_ROWS)),
    Case("Linear used three times", lambda rng: Apply(_recurrent, dense(4, 4)(rng)), real(_DEEP)),
)
