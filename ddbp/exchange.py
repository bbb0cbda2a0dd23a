"""What hosts have of a model and tell each other: partial sums of gradients, and parameters."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from layers import FlatParameters, Layer
from layers.kernels import reduce
from layers.types import Array, Integers

from .communicator import Communicator, Task
from .shards import ShardPlan, dyadic
from .wire import Wire

Messages = Sequence[tuple[int, Array]]
"""Of each message the other rank, and the array that is sent or filled."""


class HostMemory:
    """The flat parameters of a model in memory that the ranks of a host share, and the gradients of all shards of the host.

    Attributes
    ----------
    flat
        Parameters, once per host; gradients of this rank's shards.
    gradients
        Those of the host's shards (shards of the host, n).
    """

    def __init__(self, model: Layer, plan: ShardPlan, comm: Communicator) -> None:
        links = comm.links
        begin, end = plan.owned_by(links.first, links.last)
        first, last = plan.owned(comm.rank)

        def part(shape: tuple[int, ...], dtype: Any) -> Array:
            self.gradients: Array = comm.host_array((end - begin, *shape[1:]), dtype)
            mine: Array = self.gradients[first - begin : last - begin]
            return mine

        self.flat = FlatParameters(model, shards=plan.local, allocate=comm.host_array, allocate_gradients=part)


class Exchange:
    """The messages between hosts in a step, each of a slice of the flat arrays.

    A rank sends, of the slices of those whom it serves, the sums over the pieces of the tree that its host owns. When it has
    those of the other hosts on its own slice, the slice can be summed. Updated parameters go the same ways back.

    Parameters
    ----------
    bounds
        Of the slices of all ranks (N + 1,).
    wire
        How gradients are sent; as they are if None.

    Attributes
    ----------
    parts, sizes
        After `run`: the sums of all hosts on the slice of this rank (P, m), and of how many shards each is (P,).
    """

    def __init__(self, memory: HostMemory, plan: ShardPlan, comm: Communicator, bounds: Integers, wire: Wire | None = None) -> None:
        self._comm, self._wire, self._gradients = comm, wire, memory.gradients
        links, values, dtype = comm.links, memory.flat.values, memory.flat.dtype
        slices = [slice(*pair) for pair in pairwise(bounds.tolist())]
        pieces = [dyadic(*plan.owned_by(first, last)) for first, last in pairwise(comm.hosts.tolist())]
        own = pieces[links.own]
        self._rows = [slice(first - own[0][0], first - own[0][0] + size) for first, size in own]
        self._start = slices[comm.rank].start

        self.sizes: Integers = np.array([size for of_host in pieces for _, size in of_host], np.int64)
        self.parts: Array = np.empty((len(self.sizes), slices[comm.rank].stop - self._start), dtype)
        ends = list(accumulate(map(len, pieces), initial=0))
        of_host = [self.parts[start:stop] for start, stop in pairwise(ends)]
        self._own_parts = of_host[links.own]
        self._received: Messages = [(rank, of_host[host]) for rank, host in links.sources]
        self._served = [slices[rank].start for rank in links.served]
        self._sent: Messages = [
            (rank, np.empty((len(own), slices[rank].stop - slices[rank].start), dtype)) for rank in links.served
        ]
        self._published: Messages = [(rank, values[slices[comm.rank]]) for rank, _ in links.sources]
        self._updated: Messages = [(rank, values[slices[rank]]) for rank in links.served]
        if wire is not None:
            self._coded_sent = [(rank, wire.buffer(array.shape, dtype)) for rank, array in self._sent]
            self._coded_received = [(rank, wire.buffer(array.shape, dtype)) for rank, array in self._received]

    def run(self, task: Task) -> None:
        """Exchange the sums of gradients; those of the ranks of this host must be complete."""
        for (_, sums), start in zip(self._sent, self._served, strict=True):
            self._sum(sums, start)
        self._sum(self._own_parts, self._start)
        if self._wire is None:
            self._comm.swap(task, self._sent, self._received)
            return
        for (_, coded), (_, sums) in zip(self._coded_sent, self._sent, strict=True):
            self._wire.encode(coded, sums)
        self._comm.swap(task, self._coded_sent, self._coded_received)
        for (_, parts), (_, coded) in zip(self._received, self._coded_received, strict=True):
            self._wire.decode(parts, coded)

    def publish(self, task: Task) -> None:
        """Send this rank's slice of the parameters to the other hosts, and take in the slices of those whom it serves."""
        self._comm.swap(task, self._published, self._updated)

    def _sum(self, sums: Array, start: int) -> None:
        """Write the sums over this host's pieces of the tree, of a slice that begins at `start`."""
        for into, rows in zip(sums, self._rows, strict=True):
            shards = self._gradients[rows]
            reduce.tree_sum(into, shards, np.ones(len(shards), np.int64), start)
