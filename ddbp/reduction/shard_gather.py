"""Numbers of shards, such as the statistics of a batch, gathered from all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ddbp.comm.base import (
    CollectiveKind,
    CommunicationError,
    Communicator,
    RankLost,
    described,
)
from ddbp.comm.host_barrier import SharedRow
from layers.errors import message
from layers.types import Array

from .shards import ShardPlan


class ShardGather:
    """Gathers numbers of shards: given those of this rank's (local S, k), returns those of all (S,
    k) in order; collective.

    Attributes
    ----------
    comm
        The ranks.
    asked_alone
        Whether it was called within `alone`.
    lost
        What was raised when ranks were lost: numbers are placeholders since.
    """

    def __init__(self, plan: ShardPlan, comm: Communicator) -> None:
        self.comm = comm
        self._alone = False
        self.asked_alone = False
        self.follow(plan)

    def follow(self, plan: ShardPlan) -> None:
        """Go on with another plan."""
        self._counts = [last - first for first, last in map(plan.owned, range(plan.ranks))]
        self._calls = 0
        self.lost: RankLost | None = None

    def require_all(self) -> None:
        """Raise what was raised when ranks were lost."""
        if self.lost is not None:
            raise self.lost

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Return a context in which this rank waits for no other, for passes whose results are
        thrown away.
        """
        self._alone = self.comm.size > 1
        try:
            yield
        finally:
            self._alone = False

    def __call__(self, numbers: Array) -> Array:
        """Gather; ranks that gather something else, or are elsewhere, are named."""
        if self.comm.size == 1:
            return numbers
        if self._alone:
            self.asked_alone = True
        if self._alone or self.lost is not None:
            return self._placeholders(numbers.shape[1])
        self._calls += 1
        width = numbers.shape[1]
        row = SharedRow(max(self._counts) * width, self.comm.size, self.comm.rank)
        row.numbers[: numbers.size] = numbers.reshape(-1)
        collective = CollectiveKind.STATISTICS, self._calls
        try:
            same = self.comm.gather(collective, row)
        except RankLost as lost:
            # Passes are code of users, who do not expect it; the step knows that they are void.
            self.lost = lost
            return self._placeholders(width)
        if not same:
            # Of another trainer, say, whose gatherings are counted apart.
            numbers = row.rows[:, 2].tolist()
            rank = next(rank for rank, number in enumerate(numbers) if number != self._calls)
            got = f"{described((CollectiveKind.STATISTICS, numbers[rank]))} on rank {rank}"
            fix = "Every rank must run the same loop, and the same layers in the same order."
            raise CommunicationError(
                message(
                    f"rank {self.comm.rank}",
                    f"all ranks must take part in {described(collective)}",
                    got,
                    fix,
                )
            )
        parts = [
            shown[: count * width].reshape(count, width)
            for shown, count in zip(row.all, self._counts, strict=True)
        ]
        return np.concatenate(parts)

    def _placeholders(self, width: int) -> Array:
        # Any numbers will do, but as a count of values 1 would have no variance, and 0 no mean.
        return np.full((sum(self._counts), width), 2.0)
