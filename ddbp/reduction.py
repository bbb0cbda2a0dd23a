"""The reduction: shard gradients are summed in one fixed order, each rank updates its slice and publishes it.

The ranks of a host read each other's gradients where they lie. Hosts exchange the largest aligned partial sums of the tree, each
rank those of some slices; so the bits do not depend on how many ranks there are, or where.
"""

import numpy as np

from layers import Layer
from layers.errors import message
from layers.kernels import reduce
from layers.types import Array, Integers

from .board import Row
from .communicator import EXCHANGE, PUBLISHING, CommunicationError, Communicator, Task
from .exchange import Exchange, HostMemory
from .shards import ShardPlan, cut, tree_total
from .wire import Wire, chosen


class Reduction:
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

    Attributes
    ----------
    flat
        Parameters, once per host; gradients of this rank's shards.
    start, stop
        The slice of the flat arrays that this rank owns. Slices begin at multiples of `layers.kernels.reduce.BLOCK`.
    alone
        The gradient of the slice if there is nothing to be summed, else None.
    """

    def __init__(self, model: Layer, plan: ShardPlan, comm: Communicator, wire: str | Wire | None = None) -> None:
        memory = HostMemory(model, plan, comm)
        self.flat, self.plan, self.comm = memory.flat, plan, comm
        n = self.flat.values.size
        blocks = -(-n // reduce.BLOCK)
        bounds: Integers = np.minimum(cut(blocks, comm.size) * reduce.BLOCK, n)
        self.start, self.stop = int(bounds[comm.rank]), int(bounds[comm.rank + 1])
        counts = [last - first for first, last in map(plan.owned, range(comm.size))]
        self._row = Row(2 + max(counts), comm.size)
        # Where in what all ranks show the loss sums of the shards stand.
        width = self._row.numbers.size
        self._places = np.array([rank * width + 2 + i for rank, count in enumerate(counts) for i in range(count)])
        self._exchange = Exchange(memory, plan, comm, bounds, chosen(wire)) if len(comm.hosts) > 2 else None
        if self._exchange is None:
            self._parts, self._sizes, self._first = memory.gradients, np.ones(plan.shards, np.int64), self.start
        else:
            self._parts, self._sizes, self._first = self._exchange.parts, self._exchange.sizes, 0
        self.alone: Array | None = self._parts[0] if plan.shards == 1 else None

    def exchange(self, step: int, samples: int, sums: Array, observed: int = 0) -> Array:
        """Meet with all ranks, whose gradients are complete then, and return the loss sums (S,) of all shards.

        What travels along states the step, the size of the global batch and how many numbers layers have observed of a shard;
        ranks that are elsewhere are named.
        """
        if self.comm.size == 1:
            return sums
        numbers = self._row.numbers
        numbers[0], numbers[1] = samples, observed
        numbers[2 : 2 + len(sums)] = sums
        task = Task(EXCHANGE, step)
        if not self.comm.gather(task, self._row, same=2):
            self._refuse(step, samples, observed)
        if self._exchange is not None:
            self._exchange.run(task)
        result: Array = self._row.all.take(self._places)
        return result

    def sum(self, gradient: Array, start: int) -> None:
        """Write the gradient of the global batch on a part of this rank's slice that begins at `start` of the slice."""
        reduce.tree_sum(gradient, self._parts, self._sizes, self._first + start)

    def publish(self, step: int) -> None:
        """Wait until the parameters, of which this rank has updated its slice, are updated everywhere."""
        if self.comm.size == 1:
            return
        task = Task(PUBLISHING, step)
        if self._exchange is not None:
            self._exchange.publish(task)
        self.comm.meet(task)

    def _refuse(self, step: int, samples: int, observed: int) -> None:
        steps = self._row.received[:, 2].tolist()
        for rank, (other_step, (other_samples, other_observed)) in enumerate(zip(steps, self._row.all[:, :2], strict=True)):
            if (other_step, other_samples) != (step, samples):
                here, there = f"step {step} with {samples} samples", f"step {other_step} with {other_samples:.0f}"
                must = "all ranks must be in the same step with the same global batch"
                fix = "Every rank must run the same loop over the same data."
            elif other_observed != observed:
                here, there = f"{observed} statistics of layers", f"{other_observed:.0f}"
                must = f"all ranks must run the same layers in step {step}"
                fix = "No branch may depend on a rank's part of the batch."
            else:
                continue
            got = f"{here} here, {there} on rank {rank}"
            raise CommunicationError(message(f"rank {self.comm.rank}", must, got, fix))


def total_over_ranks(local: Array, plan: ShardPlan, comm: Communicator) -> Array:
    """Return the sum over batches, shards and ranks of sums (batches, local shards, columns), by the fixed tree; collective."""
    counts = [last - first for first, last in map(plan.owned, range(plan.ranks))]
    padded = np.zeros((len(local), max(counts), local.shape[2]))
    padded[:, : local.shape[1]] = local
    gathered = comm.all_gather(padded)
    shards = np.concatenate([part[:, :count] for part, count in zip(gathered, counts, strict=True)], axis=1)
    return tree_total(np.array([tree_total(batch) for batch in shards]))
