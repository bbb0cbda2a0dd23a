"""What ranks tell each other besides gradients: states, and numbers of shards such as the statistics of a batch."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from layers import FlatParameters, Layer
from layers.errors import message
from layers.state import unique_states
from layers.types import Array

from .communicator import CommunicationError, Communicator
from .shards import ShardPlan


def broadcast(model: Layer, flat: FlatParameters, comm: Communicator) -> None:
    """Overwrite parameters and states with those of rank 0."""
    comm.broadcast(flat.values)
    for _, state in unique_states(model):
        comm.broadcast(state.value)


def digest(model: Layer, flat: FlatParameters) -> str:
    """Return a digest of all parameters and states."""
    total = hashlib.sha256(flat.values.tobytes())
    for _, state in unique_states(model):
        total.update(state.value.tobytes())
    return total.hexdigest()


class ShardGather:
    """Gathers numbers of shards: given those of this rank's (local S, k), returns those of all (S, k) in order; collective.

    Attributes
    ----------
    asked_alone
        Whether it was called within `alone`.
    """

    def __init__(self, plan: ShardPlan, comm: Communicator) -> None:
        self._comm = comm
        self._counts = [last - first for first, last in map(plan.owned, range(plan.ranks))]
        self._calls = 0
        self._alone = self.asked_alone = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Return a context in which this rank waits for no other, for passes whose results are thrown away."""
        self._alone = self._comm.size > 1
        try:
            yield
        finally:
            self._alone = False

    def __call__(self, numbers: Array) -> Array:
        """Gather; ranks that gather something else, or are elsewhere, are named."""
        if self._comm.size == 1:
            return numbers
        if self._alone:
            self.asked_alone = True
            # Any numbers will do, but as a count of values 1 would have no variance, and 0 no mean.
            return np.full((sum(self._counts), numbers.shape[1]), 2.0)
        self._calls += 1
        width = numbers.shape[1]
        # The first number is negative: the exchange of gradients, which another rank may be at, begins with a step.
        sent = np.zeros(2 + max(self._counts) * width)
        sent[:2] = -self._calls, width
        sent[2 : 2 + numbers.size] = numbers.reshape(-1)
        received = self._comm.exchange(sent, [], [], f"gathering statistics of the batch, number {self._calls}")
        for rank, (number, other_width) in enumerate(received[:, :2]):
            if (number, other_width) != (-self._calls, width):
                there = "an exchange of gradients" if number >= 0 else f"{other_width:.0f} numbers in gathering {-number:.0f}"
                must = "all ranks must gather the same statistics"
                got = f"{width} numbers in gathering {self._calls} here, {there} on rank {rank}"
                fix = "Every rank must run the same layers in the same order."
                raise CommunicationError(message(f"rank {self._comm.rank}", must, got, fix))
        parts = [row[2 : 2 + count * width].reshape(count, width) for row, count in zip(received, self._counts, strict=True)]
        return np.concatenate(parts)
