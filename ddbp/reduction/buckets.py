"""Buckets: what the flat arrays are cut into so that hosts can exchange a part of the gradients
while others are still computed.
"""

from bisect import bisect_left, bisect_right
from itertools import pairwise
from math import prod

import numpy as np

from ddbp import settings
from ddbp.comm.base import Communicator
from layers import FlatParameters, Parameter
from layers.kernels import reduce, sync
from layers.types import Integers

from .shards import cut

BYTES = 2**18
"""The least bytes of gradients in a bucket; see docs/distributed.md for what was measured."""
SHARE = 16 * reduce.BLOCK
"""The least elements of it for each rank: smaller messages cost more than they carry."""


class Buckets:
    """Consecutive parts of the flat arrays, of each of which every rank owns a range. They decide
    no bits.

    A bucket begins where a parameter begins, or up to a block later: so it is complete when its
    parameters are, and the last layers', which backward comes to first, wait for none before them.

    Parameters
    ----------
    flat
        The parameters.
    ranks
        N.
    several
        Whether there may be more than one.

    Attributes
    ----------
    ranges
        Bounds (K, N + 1) of the ranges, at multiples of `layers.kernels.reduce.BLOCK`.
    """

    def __init__(self, flat: FlatParameters, ranks: int, *, several: bool) -> None:
        self._flat = flat
        n = flat.values.size
        bounds = _bounds(flat.starts, n, _least(flat.dtype.itemsize, ranks)) if several else [0, n]
        self._bounds = bounds
        shares = [cut_into_blocks(start, stop, ranks) for start, stop in pairwise(bounds)]
        self.ranges: Integers = np.array(shares)

    def __len__(self) -> int:
        return len(self.ranges)

    def owned(self, rank: int) -> list[slice]:
        """Return the range of a rank in each bucket."""
        return [slice(*pair) for pair in self.ranges[:, rank : rank + 2].tolist()]

    def segments(self) -> list[tuple[str, Parameter, range]]:
        """Return the name of each parameter, itself, and the numbers of the buckets that it lies
        in.
        """
        result = []
        for name, parameter, start, stop in self._flat.segments():
            first = min(bisect_right(self._bounds, start), len(self)) - 1
            result.append(
                (name, parameter, range(first, max(first + 1, bisect_left(self._bounds, stop))))
            )
        return result


def cut_into_blocks(start: int, stop: int, parts: int) -> Integers:
    """Return the bounds (parts + 1,) of neighbouring ranges of whole blocks, but for the end of the
    last, from `start`, where a block begins, to `stop`.
    """
    first, last = start // reduce.BLOCK, -(-stop // reduce.BLOCK)
    bounds: Integers = np.minimum((first + cut(last - first, parts)) * reduce.BLOCK, stop)
    return bounds


def counts_of(buckets: int, comm: Communicator) -> tuple[int, int, int]:
    """Return the shape of the cells in which the ranks of a host count, bucket by bucket, what they
    have completed.
    """
    return buckets, comm.topology.last - comm.topology.first, sync.COUNT_CELLS


def room_for_counts(elements: int, itemsize: int, comm: Communicator) -> int:
    """Return the most bytes that these take for so many elements, however buckets are cut: all but
    the first are full.
    """
    most = 1 + int(elements // _least(itemsize, comm.size))
    return 8 * prod(counts_of(most, comm)) if len(comm.hosts) > 2 else 0


def _bounds(starts: list[int], n: int, least: float) -> list[int]:
    """Return the bounds of buckets of at least so many elements, the first apart, for parameters
    that begin at `starts`.
    """
    bounds = [n]
    for start in reversed(starts[1:]):
        start = -(-start // reduce.BLOCK) * reduce.BLOCK
        if start and bounds[-1] - start >= least:
            bounds.append(start)
    return [0, *reversed(bounds)]


def _least(itemsize: int, ranks: int) -> float:
    """Return the least elements of a bucket: what DDBP_BUCKET says, in KiB (0 for one bucket), or
    else BYTES and SHARE.
    """
    chosen = settings.bucket()
    if chosen is None:
        return max(BYTES // itemsize, SHARE * ranks)
    return chosen / itemsize or np.inf
