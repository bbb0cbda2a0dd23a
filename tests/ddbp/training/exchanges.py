"""Exchanges of workers that train apart, and data that they can share evenly."""

import ddbp

from .small import LABELS, X, parameters

EXCHANGES = [
    ddbp.LocalSGD(4, 3),
    ddbp.LocalSGD(2, 4, after=3),
    ddbp.DiLoCo(4, 4),
    ddbp.DiLoCo(4, 4, fragments=2, bits=4),
    ddbp.DiLoCo({0: 4, 2: 5, 4: 2}, 4, fragments=2),
]
EVEN = ddbp.ArrayDataset(X[:80], LABELS[:80])


def common(trainer):
    """Return a copy of the parameters that workers have in common."""
    trainer.evaluate(EVEN)
    return parameters(trainer)
