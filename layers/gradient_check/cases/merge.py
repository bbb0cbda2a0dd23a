"""The cases of layers that join several inputs."""

from layers.engine.merge import Add, Concatenate, Multiply

from .case import BATCH, Case, layer, real

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)

CASES = (
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
)
