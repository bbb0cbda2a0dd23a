"""Decay rates, and their powers, which are the same bits on every processor."""

from functools import lru_cache
from typing import Any

import numpy as np

from layers.checks import fraction
from layers.errors import message
from layers.kernels.elementary import power

USUAL = "0.9 is usual."
"""What helps who gives a decay rate that is none."""

_POWERS = 256
"""How many powers of a decay rate are computed at a time: each by itself takes longer than small
models have for a step.
"""


def decay_rates(owner: str, betas: Any) -> tuple[float, float]:
    """Return a pair of decay rates, each in [0, 1)."""
    if not (isinstance(betas, tuple | list) and len(betas) == 2):
        fix = "betas=(0.9, 0.999) are usual."
        raise ValueError(message(owner, "betas must be a pair of numbers", repr(betas), fix))
    return fraction(owner, "betas", betas[0], USUAL), fraction(owner, "betas", betas[1], USUAL)


def power_of(decay: float, steps: int) -> float:
    """Return decay^steps."""
    block, number = divmod(steps, _POWERS)
    return _powers(decay, block)[number]


@lru_cache(maxsize=64)
def _powers(decay: float, block: int) -> list[float]:
    """Return `_POWERS` powers of a decay rate, from that of `block` times as many steps on: those
    of the C library are not the same on every processor.
    """
    steps, powers = (
        np.arange(block * _POWERS, (block + 1) * _POWERS, dtype=float),
        np.empty(_POWERS),
    )
    power(powers, np.full(_POWERS, float(decay)), steps)
    return powers.tolist()
