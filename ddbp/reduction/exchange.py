"""What hosts tell each other: partial sums of gradients, and parameters."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from ddbp.comm.base import Collective, Communicator
from ddbp.compression.rounded import RoundedSums
from layers.engine.fixed_tree import tree_sum
from layers.types import Array, Integers

from .buckets import Buckets
from .host_memory import HostMemory
from .shards import ShardPlan, dyadic
from .wire import Wire

Messages = Sequence[tuple[int, Array]]
"""Messages, each as the other rank and the array that is sent or filled."""


class Exchange:
    """The messages between hosts in a step, bucket by bucket.

    A rank sends, of the ranges of those whom it serves, the sums over the pieces of the tree that
    its host owns. When it has those of the other hosts on its own range, the range can be summed.
    Updated parameters go the same ways back.

    Parameters
    ----------
    buckets
        Who owns what.
    wire
        How gradients are sent; as they are if None.
    whole
        Whether it is sums that are published, and not parameters.
    rounded
        What sums are rounded by, if they are: published sums are sent in as few bits, then.

    Attributes
    ----------
    parts, sizes
        After `run`: of each bucket the sums of all hosts on the range of this rank (P, m), and of
        how many shards each is (P,).
    """

    def __init__(
        self,
        memory: HostMemory,
        plan: ShardPlan,
        comm: Communicator,
        buckets: Buckets,
        wire: Wire | None = None,
        *,
        whole: bool = False,
        rounded: RoundedSums | None = None,
    ) -> None:
        self._comm = comm
        self._wire = rounded or wire
        self._rounded = rounded
        self._add = adding(rounded)
        self._gradients = memory.gradients
        self._owned = [buckets.owned(rank) for rank in range(comm.size)]
        pieces = [
            dyadic(*plan.owned_by(first, last)) for first, last in pairwise(comm.hosts.tolist())
        ]
        mine = pieces[comm.topology.own]
        # Of each piece its first shard, and the gradients that it is the sum of.
        self._pieces = [(piece[0], _within(memory.pieces, piece)) for piece in mine]
        self._sizes = memory.sizes
        self.sizes: Integers = np.array(
            [size for of_host in pieces for _, size in of_host], np.int64
        )
        ends = list(accumulate(map(len, pieces), initial=0))
        self._of_host = [slice(start, stop) for start, stop in pairwise(ends)]
        self._pending = comm.pending_messages(len(buckets))
        self._allocate()
        owned = self._owned[comm.rank]
        self._sums = [(part.start, memory.sums[part]) for part in owned]
        values = memory.sums if whole else memory.flat.values
        receive_from, send_to = (
            [rank for rank, _ in comm.topology.receive_from],
            comm.topology.send_to,
        )
        self._published: Messages = [
            (rank, values[part]) for part in owned for rank in receive_from
        ]
        self._updated: Messages = [
            (rank, values[self._owned[rank][k]]) for k in range(len(owned)) for rank in send_to
        ]
        self._coded = [self._buffers(each) for each in (self._published, self._updated)]

    def _buffers(self, messages: Messages) -> Messages:
        """Return where rounded sums of messages are coded."""
        rounded = self._rounded
        if rounded is None:
            return []
        return [(rank, rounded.buffer(sums.shape, sums.dtype)) for rank, sums in messages]

    def _allocate(self) -> None:
        self._buckets = [_Bucket(self, k) for k in range(len(self._owned[0]))]
        self.parts: list[Array] = [bucket.parts for bucket in self._buckets]
        self._begun = False
        self._started: set[int] = set()

    def begin(self, attempt: int) -> None:
        """Expect the sums of the other hosts; `attempt` tells the messages of one exchange from
        those of all others.
        """
        self._begun = True
        self._started.clear()
        self._pending.begin(attempt)
        for number, bucket in enumerate(self._buckets):
            self._pending.expect(number, bucket.receives)

    def start(self, number: int) -> None:
        """Send the sums of a bucket, unless that is done; the gradients of this host's ranks must
        be complete.
        """
        if number not in self._started:
            self._started.add(number)
            self._pending.send(number, self._buckets[number].filled())

    def run(self, collective: Collective, attempt: int) -> None:
        """Send what is not sent yet, and wait for the sums of the other hosts; this host's
        gradients must be complete.
        """
        if not self._begun:
            self.begin(attempt)
        for number in reversed(range(len(self._buckets))):
            self.start(number)
        self._pending.wait(collective)
        self._begun = False
        for bucket in self._buckets:
            bucket.decode()

    def progress(self) -> None:
        """Let messages that are on their way get on."""
        self._pending.progress()

    def drop(self) -> None:
        """Forget an exchange that was begun and shall not be completed; what is still to come of it
        goes nowhere.
        """
        self._pending.drop()
        self._allocate()

    def awaited(self) -> list[tuple[int, set[int]]]:
        """Return the hosts whose sums have not all come, with the numbers of those buckets."""
        missing = self._pending.missing() if self._begun else []
        of_host = [
            (host, {number for other, number in missing if other == rank})
            for rank, host in self._comm.topology.receive_from
        ]
        return [(host, numbers) for host, numbers in of_host if numbers]

    def add_up(self) -> None:
        """Sum this rank's ranges, after `run`, to what is published.

        Of the gradients of its host it alone has read these ranges, and those that it takes in.
        """
        for (place, sums), parts in zip(self._sums, self.parts, strict=True):
            self._add(parts, self.sizes, out=sums, place=place)

    def publish(self, collective: Collective) -> None:
        """Send this rank's ranges of the parameters, or of the sums, to other hosts, and take in
        the ranges of those whom it serves.
        """
        if self._rounded is None:
            self._comm.sendrecv(collective, self._published, self._updated)
            return
        sends, receives = self._coded
        for (_, sums), (_, coded) in zip(self._published, sends, strict=True):
            self._rounded.encode(coded, sums)
        self._comm.sendrecv(collective, sends, receives)
        for (_, sums), (_, coded) in zip(self._updated, receives, strict=True):
            self._rounded.decode(sums, coded)


class _Bucket:
    """What this rank sends and receives of a bucket."""

    def __init__(self, exchange: Exchange, number: int) -> None:
        owned, topology, wire = (
            [parts[number] for parts in exchange._owned],
            exchange._comm.topology,
            exchange._wire,
        )
        gradients, mine = exchange._gradients, owned[exchange._comm.rank]
        self._exchange = exchange
        self._start = mine.start
        self.parts: Array = np.empty((len(exchange.sizes), mine.stop - mine.start), gradients.dtype)
        self._own = self.parts[exchange._of_host[topology.own]]
        self._received: Messages = [
            (rank, self.parts[exchange._of_host[host]]) for rank, host in topology.receive_from
        ]
        self._served = [owned[rank].start for rank in topology.send_to]
        shapes = [
            (len(exchange._pieces), owned[rank].stop - owned[rank].start)
            for rank in topology.send_to
        ]
        self._sent: Messages = [
            (rank, np.empty(shape, gradients.dtype))
            for rank, shape in zip(topology.send_to, shapes, strict=True)
        ]
        self.receives = self._received
        self._sends = self._sent
        if wire is not None:
            self.receives = [
                (rank, wire.buffer(array.shape, array.dtype)) for rank, array in self._received
            ]
            self._sends = [
                (rank, wire.buffer(array.shape, array.dtype)) for rank, array in self._sent
            ]

    def filled(self) -> Messages:
        """Return the messages with this host's sums."""
        for (_, sums), start in zip(self._sent, self._served, strict=True):
            self._sum(sums, start)
        self._sum(self._own, self._start)
        if self._exchange._wire is not None:
            for (_, coded), (_, sums) in zip(self._sends, self._sent, strict=True):
                self._exchange._wire.encode(coded, sums)
        return self._sends

    def decode(self) -> None:
        """Take in what was received."""
        if self._exchange._wire is not None:
            for (_, parts), (_, coded) in zip(self._received, self.receives, strict=True):
                self._exchange._wire.decode(parts, coded)

    def _sum(self, sums: Array, start: int) -> None:
        """Write the sums over this host's pieces of the tree, of a range that begins at `start`."""
        for into, (shard, rows) in zip(sums, self._exchange._pieces, strict=True):
            gradients, sizes = self._exchange._gradients[rows], self._exchange._sizes[rows]
            self._exchange._add(gradients, sizes, out=into, start=start, shard=shard)


def adding(rounded: RoundedSums | None) -> Callable[..., None]:
    """Return what writes sums over shards, rounded if so: see `RoundedSums`."""
    return rounded or _exact_sum


def _exact_sum(
    parts: Array,
    sizes: Integers,
    *,
    out: Array,
    start: int = 0,
    shard: int = 0,
    place: int = 0,
) -> None:
    tree_sum(parts, sizes, out=out, start=start)


def _within(pieces: Sequence[tuple[int, int]], piece: tuple[int, int]) -> slice:
    """Return which of the pieces the larger one consists of."""
    first, size = piece
    inside = [number for number, (shard, _) in enumerate(pieces) if first <= shard < first + size]
    return slice(inside[0], inside[-1] + 1)
