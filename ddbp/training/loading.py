"""Batches on their way to a step: read, augmented, and made ahead by a thread where that is asked
for.
"""

from collections.abc import Sequence
from functools import partial
from time import monotonic_ns
from typing import Any

import numpy as np

from ddbp.data.augmenter import Augmenter
from ddbp.data.prefetch import Prefetch
from ddbp.data.source import Dataset
from ddbp.reduction.shards import ShardPlan
from layers.checks import boolean
from layers.types import Integers

from .batch import LocalBatch, RowBuffers, local_batch
from .options import TrainerOptions

_ALONE = ShardPlan(1, 1, 0)


class Loader:
    """Makes this rank's rows of the batches of an epoch, in buffers that are used again.

    Parameters
    ----------
    options
        The trainer's options.
    prefetch
        Whether a thread makes the next batches while a step is computed.

    Attributes
    ----------
    waited
        From when to when training has waited for the last batches, nanoseconds of
        `time.monotonic_ns`.
    seconds
        How long it has waited since `reset`.
    """

    def __init__(self, options: TrainerOptions, prefetch: bool) -> None:
        self._options = options
        self._prefetch: Prefetch[list[LocalBatch]] | None = None
        if boolean("Trainer", "prefetch", prefetch):
            self._prefetch = Prefetch()
        self._sides = [_Side(options), _Side(options)]
        self._order: tuple[Dataset, int, Integers] | None = None
        self.waited = 0, 0
        self.seconds = 0.0

    @property
    def prefetches(self) -> bool:
        """Whether a thread makes batches."""
        return self._prefetch is not None

    @property
    def tells(self) -> bool:
        """Whether what training waits for is worth telling: more than rows are copied."""
        return self.prefetches or bool(self._options.augment)

    def reset(self) -> None:
        """Count how long training waits from now on."""
        self.seconds = 0.0

    def take(
        self,
        data: Dataset,
        plan: ShardPlan,
        epoch: int,
        starts: Sequence[int],
        following: Sequence[int] = (),
    ) -> list[LocalBatch]:
        """Return this rank's rows of the batches that begin at some places of the order of an
        epoch, all of which are needed at once; those `following` are needed next.
        """
        began = monotonic_ns()
        order = self._order_of(data, epoch)

        def make(starts: Sequence[int], side: int) -> list[LocalBatch]:
            return self._sides[side].make(data, plan, order, epoch, starts)

        if self._prefetch is None:
            batches = make(starts, 0)
        else:
            # What a thread has made for other data, ranks or epochs has another key.
            batches = self._prefetch.take((data, plan, epoch, starts), partial(make, starts))
            if following:
                self._prefetch.begin((data, plan, epoch, following), partial(make, following))
        self.waited = began, monotonic_ns()
        self.seconds += (self.waited[1] - began) * 1e-9
        return batches

    def _order_of(self, data: Dataset, epoch: int) -> Integers:
        if self._order is None or self._order[:2] != (data, epoch):
            self._order = data, epoch, data.order(self._options.seed, epoch)
        return self._order[2]

    def augmented(self, data: Dataset) -> LocalBatch:
        """Return the first sample of a data set, changed."""
        (batch,) = _Side(self._options).make(data, _ALONE, np.zeros(1, np.int64), 0, (0,))
        return batch

    def close(self) -> None:
        """End what goes on."""
        if self._prefetch is not None:
            self._prefetch.close()


class _Side:
    """Buffers of some batches, and what fills them."""

    def __init__(self, options: TrainerOptions) -> None:
        self._options = options
        self._rows = RowBuffers()
        self._augmenters: list[Augmenter] = []

    def make(
        self,
        data: Dataset,
        plan: ShardPlan,
        order: Integers,
        epoch: int,
        starts: Sequence[int],
    ) -> list[LocalBatch]:
        """Return this rank's rows of batches."""
        size, end = self._options.batch_size, self._options.samples(len(data))
        result = []
        for slot, start in enumerate(starts):
            rows = order[start : min(start + size, end)]
            last = start + size >= end
            batch = local_batch(data, plan, rows, self._rows.take, slot, last)
            result.append(self._augmented(batch, data, epoch, slot))
        return result

    def _augmented(self, batch: LocalBatch, data: Dataset, epoch: int, slot: int) -> LocalBatch:
        augment = self._options.augment
        if not augment:
            return batch
        if slot == len(self._augmenters):
            self._augmenters.append(Augmenter(augment, self._options.seed))

        def read(numbers: Integers) -> tuple[Any, Any, Any]:
            def take(name: str, *given: Any) -> Any:
                return self._rows.take(f"partner {name}", *given)

            found = local_batch(data, _ALONE, numbers, take, slot)
            return found.x, found.y, found.weights

        given = batch.x, batch.y, batch.weights
        numbers: Any = batch.numbers
        x, y, weights = self._augmenters[slot](given, numbers, epoch, read, len(data))
        return batch._replace(x=x, y=y, weights=weights)
