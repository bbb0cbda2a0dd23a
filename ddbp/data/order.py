"""The order of samples: a pure function of (seed, epoch)."""

from collections.abc import Iterator, Sequence
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


def spread_evenly(samples: int, most: int) -> Integers:
    """Return the numbers of so many samples at most, spread evenly over all."""
    return np.linspace(0, samples - 1, min(most, samples)).astype(np.int64)


def scattered(samples: int, most: int) -> Integers:
    """Return the numbers of so many samples at most, spread over all, the same each time: one of
    each of equal stretches, at a place in it that is drawn, so that what comes in turns is met as
    often as it comes.
    """
    edges = np.linspace(0, samples, min(most, samples) + 1)
    places = np.random.default_rng(0).random(len(edges) - 1)
    return (edges[:-1] + places * np.diff(edges)).astype(np.int64)


def parts(
    samples: int, fractions: Sequence[float], seed: int, labels: Any = None
) -> list[Integers]:
    """Return the numbers of samples of random parts, each with its fraction of them, as a function
    of the seed; of each label the same fraction, to within some samples, if labels (N,) are given.
    Each part has its samples in the order of one permutation.
    """
    order = permutation(samples, seed, 0)
    if labels is None:
        return np.split(order, _cuts(samples, fractions))
    rest = order[np.argsort(labels[order], kind="stable")]
    part = np.zeros(samples, np.int64)
    left = 1.0
    for number in range(len(fractions) - 1, 0, -1):
        # Of samples that are in the order of their labels every 1/f-th.
        fraction = fractions[number] / left
        whole = np.floor(np.arange(len(rest) + 1) * fraction + 0.5)
        chosen = whole[1:] > whole[:-1]
        part[rest[chosen]] = number
        rest, left = rest[~chosen], left - fractions[number]
    return [order[part[order] == number] for number in range(len(fractions))]


def _cuts(samples: int, fractions: Sequence[float]) -> list[int]:
    """Return where to cut so many samples, so that each part has one or more."""
    cuts: list[int] = []
    last = len(fractions) - 1
    for number in range(last):
        cut = samples - round(samples * sum(fractions[number + 1 :]))
        cuts.append(max(cut, cuts[-1] + 1 if cuts else 1))
    return [min(cut, samples - last + number) for number, cut in enumerate(cuts)]
