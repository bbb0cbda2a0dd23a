"""The shard contract: the global batch is cut into S shards of fixed content, and ranks own
neighbouring shards.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ddbp import settings
from layers.checks import positive_int
from layers.errors import message
from layers.types import Integers

MOST_SHARDS = 2**20
"""Shards that gradients may be added up from, each by itself."""


RANKS = "ranks"
"""What asks for one shard per rank."""
_USUAL = 8


def chosen(shards: int | str | None, ranks: int) -> int:
    """Return the number of shards: the trainer's argument if it is a number, else that of the
    environment variable, else one per rank, if that is asked for.

    Else there are 8, or the next power of two from the number of ranks on: the same for any number
    of ranks up to 8, and ranks that are a power of two have equal shares.
    """
    if shards is not None and shards != RANKS:
        return int(shards)
    begun = settings.ranks() or ranks
    return settings.shards() or (begun if shards == RANKS else usual(begun))


def usual(ranks: int) -> int:
    """Return how many shards there are if nobody chooses."""
    return max(_USUAL, 1 << (ranks - 1).bit_length())


def cut(total: int, parts: int) -> Integers:
    """Return the bounds (parts + 1,) of `parts` neighbouring parts of `total` things, as equal as
    whole numbers allow.
    """
    return np.arange(parts + 1, dtype=np.int64) * total // parts


def dyadic(first: int, last: int) -> list[tuple[int, int]]:
    """Return the largest aligned powers of two that shards first..last-1 consist of, as (first
    shard, number of shards).

    A node of the fixed tree over shard numbers is such a piece; these are the partial sums that a
    rank can form alone.
    """
    pieces = []
    while first < last:
        size = 1
        while first % (2 * size) == 0 and first + 2 * size <= last:
            size *= 2
        pieces.append((first, size))
        first += size
    return pieces


@dataclass(frozen=True)
class ShardPlan:
    """Which rank computes which shards.

    Attributes
    ----------
    shards, ranks, rank
        S, the number of ranks, and this one.
    """

    shards: int
    ranks: int
    rank: int
    _rows: dict[int, tuple[int, int, Integers]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        positive_int("Trainer", "shards", self.shards, "Leave it out for 8 or more.")
        if self.ranks > self.shards:
            fix = f"Start at most {self.shards} ranks, or raise shards."
            raise ValueError(
                message(
                    "Trainer",
                    f"shards={self.shards} allows at most {self.shards} ranks",
                    self.ranks,
                    fix,
                )
            )

    def owned(self, rank: int) -> tuple[int, int]:
        """Return the first and the end of the shards of a rank."""
        return self.owned_by(rank, rank + 1)

    def owned_by(self, first: int, last: int) -> tuple[int, int]:
        """Return the first and the end of the shards of ranks first..last-1."""
        bounds = cut(self.shards, self.ranks)
        return int(bounds[first]), int(bounds[last])

    def kept(self, rank: int) -> list[tuple[int, int]]:
        """Return the largest partial sums that a rank can form of gradients, as (first shard,
        number of shards).
        """
        return dyadic(*self.owned(rank))

    def apart(self, rank: int) -> list[tuple[int, int]]:
        """Return the shards of a rank, each by itself, as (shard, 1)."""
        return [(shard, 1) for shard in range(*self.owned(rank))]

    @cached_property
    def local(self) -> int:
        """Number of shards of this rank."""
        first, last = self.owned(self.rank)
        return last - first

    def rows(self, samples: int) -> tuple[int, int, Integers]:
        """Return start and stop of this rank's rows in a global batch, and the bounds (local shards
        + 1,) of its shards therein.
        """
        known = self._rows.get(samples)
        if known is None:
            first, last = self.owned(self.rank)
            bounds = cut(samples, self.shards)[first : last + 1]
            known = self._rows[samples] = int(bounds[0]), int(bounds[-1]), bounds - bounds[0]
        return known
