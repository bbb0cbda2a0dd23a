"""The reduction: shard gradients are summed in one fixed order, each rank updates its partition and
publishes it.

The ranks of a host read each other's gradients where they lie. Hosts exchange the largest aligned
partial sums of the tree, each rank those of some slices; so the bits do not depend on how many
ranks there are, or where.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, count
from time import monotonic
from typing import Any

import numpy as np

from ddbp import settings
from ddbp.comm.base import (
    Collective,
    CollectiveKind,
    CommunicationError,
    Communicator,
    RankLost,
    Ranks,
)
from ddbp.comm.host_barrier import SharedRow, compile_kernels
from ddbp.compression import Compressor, Rounded
from ddbp.compression.rounded import RoundedSums
from layers import Module, Tape
from layers.engine.fixed_tree import number_sum, tree_sum
from layers.errors import message
from layers.kernels import reduce
from layers.types import Array

from .buckets import Buckets, cut_into_blocks
from .compressed import CompressedShards
from .corruption import Copies
from .exchange import Exchange, adding
from .host_memory import HostMemory
from .overlap import Overlap
from .shards import ShardPlan
from .shared_arrays import SharedArrays
from .wire import Wire, chosen

# A member of an enum takes longer to look up than a name, in Python 3.11.
_EXCHANGE, _PUBLISH = CollectiveKind.EXCHANGE, CollectiveKind.PUBLISH
_STATED = 4
"""How many numbers all ranks must state alike: samples, numbers observed, exchanges begun, and
batches made.
"""


_ATTEMPTS: defaultdict[int, "count[int]"] = defaultdict(lambda: count(1))
"""Numbers exchanges, of all models, in each group of ranks: they count alike, and of one that a
failed backward pass began something may still come.
"""


class Reducer:
    """Reduces the gradients of a model's flat parameters over shards and ranks.

    Parameters
    ----------
    model
        Its parameters are moved to memory that the ranks of a host share.
    plan
        Who owns which shards.
    comm
        The ranks.
    wire
        How gradients are sent between hosts; as they are unless given.
    shared
        Where memory comes from that the ranks of a host share.
    compression
        How the gradients of shards are compressed, or their sums rounded, if they are.

    Attributes
    ----------
    flat
        Parameters, once per host; gradients of this rank's shards.
    ranges
        (start, stop) in the flat arrays of what this rank updates: one range on one host, or where
        hosts are whole, else one of each bucket. Ranges begin at multiples of
        `layers.kernels.reduce.BLOCK`.
    owners
        The ranks among whom the flat arrays are cut into ranges: all of them, or those of this
        host, if hosts are whole.
    share
        (start, stop) in the flat arrays of what these ranks tell of a state that ranks share out:
        all, or this host's share.
    shared
        The memory that the ranks of this host share.
    alone
        The gradient of the partition if there is nothing to be summed, else None.
    compressed
        The messages and residuals of shards, if gradients are compressed. Hosts are whole then.
    request
        What this rank asks of all ranks after the next exchange, as bits.
    requested
        What any of them has asked for by the last exchange, the same on all.
    busy
        Seconds that each rank had not waited for others by the last exchange, since any time (R,).
    """

    def __init__(
        self,
        model: Module,
        plan: ShardPlan,
        comm: Communicator,
        wire: str | Wire | None = None,
        shared: SharedArrays | None = None,
        compression: Compressor | Rounded | None = None,
    ) -> None:
        self.shared = SharedArrays(comm) if shared is None else shared
        compresses = compression is not None
        memory = HostMemory(model, plan, comm, self.shared, apart=compresses)
        self.flat = memory.flat
        self.plan = plan
        self.comm = comm
        several = len(comm.hosts) > 2
        self._whole = whole = several and (comm.survives or compresses or settings.whole_hosts())
        buckets = Buckets(self.flat, comm.size, several=several)
        self._buckets = buckets
        n, number, hosts = self.flat.values.size, comm.topology.own, len(comm.hosts) - 1
        self.owners: Ranks = comm.of_host if whole else comm
        self.share = (n * number // hosts, n * (number + 1) // hosts) if whole else (0, n)
        # Of this host, if hosts are whole: that of before while ranks are lost.
        self._first = comm.topology.first
        self._bounds = cut_into_blocks(0, n, self.owners.size)
        self.ranges = self.ranges_of(comm.rank)
        # Where they begin in the partition.
        self._offsets = list(accumulate((stop - start for start, stop in self.ranges), initial=0))
        counts = [last - first for first, last in map(plan.owned, range(comm.size))]
        self.request = 0
        self.requested = 0
        self._copies = Copies(model, self.flat, comm, settings.compare_every())
        first = _STATED + 2 + Copies.NUMBERS
        self._row = row = SharedRow(first + max(counts), comm.size, comm.rank)
        self._stated: Any = row.numbers.data
        self._requests: Array = row.all[:, _STATED]
        self.busy: Array = row.all[:, _STATED + 1]
        self._compared: Array = row.all[:, _STATED + 2 : first]
        self._sums: Array = row.numbers[first : first + plan.local]
        # Where in what all ranks show requests and the loss sums of the shards stand.
        first, width = SharedRow.TITLE + first, row.rows.shape[1]
        losses = np.array(
            [rank * width + first + i for rank, count in enumerate(counts) for i in range(count)]
        )
        requests = np.arange(comm.size) * width + SharedRow.TITLE + _STATED
        found, shown = np.zeros(2), row.rows.reshape(-1).view(np.float64)
        self._found: Any = found.data
        self._step_sums = found, shown, requests, losses, np.empty(plan.shards)
        self.compressed: CompressedShards | None = None
        self._rounded: RoundedSums | None = None
        self._exchange: Exchange | None = None
        if isinstance(compression, Rounded):
            self._rounded = RoundedSums(compression)
        elif compression is not None:
            self.compressed = CompressedShards(compression, memory, plan, comm, self.shared)
        if several and self.compressed is None:
            around = memory, plan, comm, buckets, chosen(wire)
            self._exchange = Exchange(*around, whole=whole, rounded=self._rounded)
        self._add = adding(self._rounded)
        self._overlap = (
            Overlap(buckets, comm, self._exchange)
            if self._exchange is not None and len(buckets) > 1
            else None
        )
        self._total: Array = memory.sums[np.newaxis]
        self._gradients, self._sizes = memory.gradients, memory.sizes
        self.expect(self.flat.values[:0], 0)
        self._resumes = False
        self._adds_up = len(self.flat.gradients) < plan.local
        self._attempts = 0
        self._begun = False
        self.alone: Array | None = (
            memory.gradients[0] if comm.size == len(memory.pieces) == 1 and not compresses else None
        )

    def ranges_of(self, rank: int) -> list[tuple[int, int]]:
        """Return (start, stop) in the flat arrays of what a rank updates; of this host, if hosts
        are whole.
        """
        if self._whole:
            mine = rank - self._first
            return [(int(self._bounds[mine]), int(self._bounds[mine + 1]))]
        return [(part.start, part.stop) for part in self._buckets.owned(rank)]

    def overlapping(self, tape: Tape, *, send: bool) -> AbstractContextManager[None]:
        """Return a context for the last backward pass on a tape before `exchange`: what it
        completes is added up over shards.

        With `send` that goes to other hosts at once. Gradients must be final when the tape says
        that a parameter is ready. All ranks must enter it alike.
        """
        tape.completes = self._adds_up
        tape.adds_up = self._adds_up and not tape.watched
        if send and self._overlap is not None:
            return self._sending(tape, self._overlap)
        return _NOTHING

    @contextmanager
    def _sending(self, tape: Tape, overlap: Overlap) -> Iterator[None]:
        self._attempts = next(_ATTEMPTS[self.comm.group])
        if self._rounded is not None:
            self._rounded.step = tape.step
        overlap.begin(self._attempts)
        self._begun = True
        try:
            with tape.observed(overlap):
                yield
        except BaseException:
            overlap.drop()
            self._begun = False
            raise

    def exchange(
        self, step: int, samples: int, sums: Array, observed: int = 0, batches: int = 0
    ) -> float:
        """Meet with all ranks, whose gradients are complete then; return the total of loss sums
        (local S,) over all shards.

        What travels along states the step, the size of the global batch, how many numbers layers
        have observed of a shard, and how many batches were made so far; ranks that are elsewhere
        are named.
        """
        self.requested, self.request = self.request, 0
        due = self._copies.is_due(step)
        if due and settings.checks_memory():
            self._copies.verify_frozen(step)
        self._resumes = False
        if self._rounded is not None:
            self._rounded.step = step
        if self.alone is not None:
            return float(number_sum(sums))
        self._sums[:] = sums
        row, several = self._row, self.comm.size > 1
        row.added = False
        if several:
            self._meet(step, samples, observed, batches, due)
        if not row.added:
            reduce.step_sums(*row.sums)
            row.added = True
        total, asked = self._found
        if several and asked:
            self.requested = int(np.bitwise_or.reduce(self._requests.astype(np.int64)))
        return float(total)

    def _meet(self, step: int, samples: int, observed: int, batches: int, due: bool) -> None:
        overlap = self._overlap if self._begun else None
        if self._exchange is not None and not self._begun:
            self._attempts = next(_ATTEMPTS[self.comm.group])
        self._begun = False
        stated = self._stated
        stated[0], stated[1], stated[2], stated[3] = samples, observed, self._attempts, batches
        stated[_STATED] = self.requested
        stated[_STATED + 1] = monotonic() - self.comm.waited
        if due:
            stated[_STATED + 2], stated[_STATED + 3] = self._copies.numbers()
        collective = _EXCHANGE, step
        try:
            if overlap is not None:
                overlap.complete()
            same = self.comm.gather(collective, self._row, _STATED)
            if overlap is not None:
                overlap.end()
            # No sum is used that a host has sent which is elsewhere.
            if same and self._exchange is not None:
                self._run(self._exchange, collective)
            elif same and self.compressed is not None and len(self.comm.hosts) > 2:
                self.compressed.exchange(collective)
        except RankLost:
            raise
        except CommunicationError as error:
            self._name_what_is_awaited(error)
            raise
        if not same:
            self._refuse(step, samples, observed, batches)
        if due:
            self._copies.compare(step, self._compared)

    def _run(self, exchange: Exchange, collective: Collective) -> None:
        if not self._whole:
            exchange.run(collective, self._attempts)
            return
        with self.comm.joint(collective, [*self._total]):
            exchange.run(collective, self._attempts)
            exchange.add_up()
            exchange.publish(collective)

    def _name_what_is_awaited(self, error: CommunicationError) -> None:
        awaited = self._overlap.awaited(self._attempts) if self._overlap is not None else ""
        if awaited:
            error.add_note(f"Gradients that have not come: {awaited}.")

    def expect(self, gradient: Array, first: int) -> None:
        """Have `exchange` write the gradient of the global batch on a part of the flat array that
        begins at `first`, on one host: the next `sum` of the same array has nothing to do then.
        """
        if self._exchange or self.compressed or self._rounded:
            gradient = gradient[:0]
        self._expected = gradient
        self._row.sums = *self._step_sums, gradient, self._gradients, self._sizes, first

    def practise(self) -> None:
        """Compile the kernels that compress gradients."""
        for part in (self.compressed, self._rounded):
            if part is not None:
                part.practise()

    def compile_exchange(self) -> None:
        """Compile the kernels of `exchange`."""
        compile_kernels(self._row.sums)

    def sum(self, gradient: Array, start: int, first: int | None = None) -> None:
        """Write the gradient of the global batch on a part of this rank's partition that begins at
        `start` of the partition; on one host, of one that begins at `first` of the flat array.
        """
        if gradient is self._expected and self._row.added:
            # It may be changed then.
            self._row.added = False
            return
        first = self.ranges[0][0] if first is None else first
        if self.compressed is not None:
            self.compressed.sum(gradient, first + start)
            return
        if self._whole or self._resumes:
            tree_sum(self._total, np.array([self.plan.shards]), out=gradient, start=first + start)
            return
        if self._exchange is None:
            self._add(self._gradients, self._sizes, out=gradient, start=first + start)
            return
        number = bisect_right(self._offsets, start) - 1
        parts, offset = self._exchange.parts[number], self._offsets[number]
        tree_sum(parts, self._exchange.sizes, out=gradient, start=start - offset)

    @property
    def keeps_sums(self) -> bool:
        """Whether this host has the sums of a step until the next one, whatever ranks are lost."""
        return self._resumes or (self._whole and self.comm.survives)

    def resume(self) -> None:
        """Have `sum` tell the sums of the step that the ranks of before have exchanged."""
        self._resumes = True
        if self.alone is not None:
            self.alone[:] = self._total[0]

    def publish(self, step: int) -> None:
        """Wait until the parameters, of which this rank has updated its partition, are updated
        everywhere.
        """
        if self.comm.size == 1:
            return
        collective = _PUBLISH, step
        if self._exchange is not None and not self._whole:
            self._exchange.publish(collective)
        self.comm.host_barrier(collective)

    def _refuse(self, step: int, samples: int, observed: int, batches: int) -> None:
        steps = self._row.rows[:, 2].tolist()
        stated = zip(steps, self._row.all[:, :_STATED].tolist(), strict=True)
        for rank, (
            other_step,
            (other_samples, other_observed, attempts, other_batches),
        ) in enumerate(stated):
            if (other_step, other_samples, other_batches) != (step, samples, batches):
                here, there = (
                    f"step {step} with {samples} samples",
                    f"step {other_step} with {other_samples:.0f}",
                )
                if (other_step, other_samples) == (step, samples):
                    here, there = (
                        f"step {step} after {batches} batches",
                        f"after {other_batches:.0f}",
                    )
                must = "all ranks must be in the same step with the same global batch"
                fix = "Every rank must run the same loop over the same data."
            elif other_observed != observed:
                here, there = f"{observed} statistics of layers", f"{other_observed:.0f}"
                must = f"all ranks must run the same layers in step {step}"
                fix = (
                    "Layers with statistics, such as BatchNorm, must not stand in a branch that"
                    " only some ranks take."
                )
            elif attempts != self._attempts:
                here, there = (
                    f"{self._attempts} backward passes before an update",
                    f"{attempts:.0f}",
                )
                must = (
                    "all ranks must have begun to exchange gradients equally often before step"
                    f" {step}"
                )
                fix = "An error that is caught on one rank must be caught on all."
            else:
                continue
            got = f"{here} here, {there} on rank {rank}"
            raise CommunicationError(message(f"rank {self.comm.rank}", must, got, fix))


_NOTHING = nullcontext()


def total_over_ranks(local: Array, plan: ShardPlan, comm: Communicator) -> Array:
    """Return the sum over batches, shards and ranks of sums (batches, local shards, columns), by
    the fixed tree; collective.
    """
    counts = [last - first for first, last in map(plan.owned, range(plan.ranks))]
    padded = np.zeros((len(local), max(counts), local.shape[2]))
    padded[:, : local.shape[1]] = local
    gathered = comm.all_gather(padded)
    shards = np.concatenate(
        [part[:, :count] for part, count in zip(gathered, counts, strict=True)], axis=1
    )
    return tree_sum(np.array([tree_sum(batch) for batch in shards]))
