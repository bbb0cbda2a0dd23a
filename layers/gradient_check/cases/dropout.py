"""The cases of dropout."""

from layers.dropout import Dropout, Dropout2d

from .case import BATCH, Case, layer, real

_ROWS = (BATCH, 5)
_DEEP = (BATCH, 3, 4)
_EVEN = (BATCH, 4, 6, 3)
_WIDE = (BATCH, 3, 5, 19)

CASES = (
    Case("Dropout", layer(Dropout, 0.4), real(_DEEP)),
    Case("Dropout in evaluation", layer(Dropout, 0.4), real(_ROWS), training=False),
    Case("Dropout2d", layer(Dropout2d, 0.4), real(_WIDE)),
    Case("Dropout2d in evaluation", layer(Dropout2d, 0.4), real(_EVEN), training=False),
)
