"""The order of samples: a pure function of (seed, epoch)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from layers.types import Integers


def permutation(samples: int, seed: int, epoch: int) -> Integers:
    """Return the order of the samples in an epoch: a function of (seed, epoch) alone, the same on
    every rank.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    return generator.permutation(samples)


def batches(samples: int, batch_size: int, order: Any = None) -> Iterator[Any]:
    """Yield the sample numbers of each global batch, of an order or `range`s; the last one may be
    smaller. No sample is left out or repeated.
    """
    order = range(samples) if order is None else order
    for start in range(0, samples, batch_size):
        yield order[start : min(start + batch_size, samples)]
