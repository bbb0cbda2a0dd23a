"""The cases of pooling over time."""

from collections.abc import Callable

import numpy as np

from layers.time_pool import PoolOverTime
from layers.types import Array

from .case import BATCH, Case, Generator, distinct, layer, real

_SEQUENCES, _WIDE = (BATCH, 4, 3), (BATCH, 5, 19)


def _ragged(
    draw: Callable[[Generator], tuple[Array, ...]],
) -> Callable[[Generator], tuple[Array, ...]]:
    return lambda rng: (*draw(rng), np.array([4, 1, 2, 3, 4, 1, 3]))


CASES = (
    Case("PoolOverTime", layer(PoolOverTime), real(_WIDE)),
    Case("PoolOverTime of lengths", layer(PoolOverTime), _ragged(real(_SEQUENCES))),
    Case("PoolOverTime, maximum", layer(PoolOverTime, "max"), distinct(_WIDE)),
    Case(
        "PoolOverTime, maximum of lengths",
        layer(PoolOverTime, "max"),
        _ragged(distinct(_SEQUENCES)),
    ),
    Case("PoolOverTime, last", layer(PoolOverTime, "last"), real(_WIDE)),
    Case("PoolOverTime, last of lengths", layer(PoolOverTime, "last"), _ragged(real(_SEQUENCES))),
)
