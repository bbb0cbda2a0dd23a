"""The reduction: shard gradients are summed in one fixed order, each rank updates its slice and publishes it.

This is the plain-MPI engine. Ranks exchange the largest aligned partial sums of the tree, slice by slice; so the bits do not
depend on how many ranks there are.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from layers import FlatParameters
from layers.errors import message
from layers.kernels import reduce
from layers.types import Array, Integers

from .communicator import CommunicationError, Communicator
from .shards import ShardPlan, cut, tree_total


class Reduction:
    """Reduces the gradients of a model's flat parameters over shards and ranks.

    Parameters
    ----------
    flat
        The parameters; `flat.gradients` (local shards, n) are what is summed.
    plan
        Who owns which shards.
    comm
        The ranks.

    Attributes
    ----------
    start, stop
        The slice of the flat arrays that this rank owns. Slices begin at multiples of `layers.kernels.reduce.BLOCK`.
    gradient
        After `reduce`: the gradient of the global batch on the slice (stop - start,).
    """

    def __init__(self, flat: FlatParameters, plan: ShardPlan, comm: Communicator) -> None:
        self.flat, self.plan, self.comm = flat, plan, comm
        n = flat.values.size
        blocks = -(-n // reduce.BLOCK)
        self.bounds: Integers = np.minimum(cut(blocks, comm.size) * reduce.BLOCK, n)
        self.start, self.stop = int(self.bounds[comm.rank]), int(self.bounds[comm.rank + 1])
        self._own_pieces = plan.pieces(comm.rank)
        first = plan.owned(comm.rank)[0]
        self._own_rows = [(begin - first, begin - first + size) for begin, size in self._own_pieces]
        self._alone = comm.size == 1 and plan.shards == 1
        width = self.stop - self.start
        all_pieces = [(rank, size) for rank in range(comm.size) for _, size in plan.pieces(rank)]
        self._sizes = np.array([size for _, size in all_pieces], np.int64)
        self._parts: Array = np.empty((0 if self._alone else len(all_pieces), width), flat.dtype)
        self._receives = (
            [(rank, self._parts[i]) for i, (rank, _) in enumerate(all_pieces) if rank != comm.rank] if not self._alone else []
        )
        self._mine = [i for i, (rank, _) in enumerate(all_pieces) if rank == comm.rank]
        self._partial: list[Array | None] = [
            None if size == 1 else np.empty(n, flat.dtype) for _, size in self._own_pieces if comm.size > 1
        ]
        self.gradient: Array = flat.gradients[0] if self._alone else np.empty(width, flat.dtype)
        self._header_width = 4 + max(plan.owned(rank)[1] - plan.owned(rank)[0] for rank in range(comm.size))

    def reduce(self, step: int, samples: int, sums: Array, observed: int = 0) -> Array:
        """Sum the gradients of all shards on this rank's slice, and return the loss sums (S,) of all shards.

        The header that travels along states the step, the size of the global batch and how many numbers layers have observed of a
        shard; ranks that are elsewhere are named.
        """
        if self._alone:
            return sums
        if self.comm.size == 1:
            reduce.tree_sum(self.gradient, self.flat.gradients, np.ones(len(self.flat.gradients), np.int64))
            return sums
        header = np.zeros(self._header_width)
        header[:4] = step, samples, observed, len(sums)
        header[4 : 4 + len(sums)] = sums
        partials = [self._partial_sum(i, begin, end) for i, (begin, end) in enumerate(self._own_rows)]
        sends = [
            (rank, partial[self.bounds[rank] : self.bounds[rank + 1]])
            for rank in range(self.comm.size)
            if rank != self.comm.rank
            for partial in partials
        ]
        headers = self.comm.exchange(header, sends, self._receives, f"the gradient exchange of step {step}")
        self._check(headers, step, samples, observed)
        if len(self._parts) == 2 and len(self._mine) == 1:
            # Two ranks with a part each: the order of two terms does not matter, and neither need be copied.
            reduce.add(self.gradient, partials[0][self.start : self.stop], self._receives[0][1])
        else:
            for i, partial in zip(self._mine, partials, strict=True):
                self._parts[i] = partial[self.start : self.stop]
            reduce.tree_sum(self.gradient, self._parts, self._sizes)
        return np.concatenate([row[4 : 4 + int(row[3])] for row in headers])

    def _partial_sum(self, index: int, begin: int, end: int) -> Array:
        """Return the sum of local shards begin..end-1 over all parameters."""
        gradients = self.flat.gradients
        into = self._partial[index]
        if into is None:
            result: Array = gradients[begin]
            return result
        reduce.tree_sum(into, gradients[begin:end], np.ones(end - begin, np.int64))
        return into

    def _check(self, headers: Array, step: int, samples: int, observed: int) -> None:
        if (headers[:, :3] == (step, samples, observed)).all():
            return
        for rank, (other_step, other_samples, other_observed) in enumerate(headers[:, :3]):
            if (other_step, other_samples) != (step, samples):
                here, there = f"step {step} with {samples} samples", f"step {other_step:.0f} with {other_samples:.0f}"
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

    def publish(self, step: int) -> None:
        """Give the updated slice of the parameters to all ranks."""
        if self.comm.size > 1:
            self.comm.publish(self.flat.values, self.bounds, f"publishing the parameters of step {step}")


class Slice:
    """This rank's part of the flat arrays, as optimizers see it.

    Attributes
    ----------
    values, gradient
        Parameters (a view) and gradient of the slice, (m,).
    regularized
        Runs [start, stop) of the slice to which L1, L2 and weight decay apply.
    """

    def __init__(self, flat: FlatParameters, reduction: Reduction) -> None:
        self._comm = reduction.comm
        start, stop = reduction.start, reduction.stop
        self.values: Array = flat.values[start:stop]
        self.gradient: Array = reduction.gradient
        self.regularized: list[tuple[int, int]] = []
        pieces, owners = [], []
        for number, (_, parameter, begin, end) in enumerate(flat.segments()):
            # Pieces of a norm are cut at block bounds, as slices are, so that they are the same for any number of ranks.
            cuts = [begin, *range((begin // reduce.BLOCK + 1) * reduce.BLOCK, end, reduce.BLOCK), end]
            inside = [(a - start, b - start) for a, b in pairwise(cuts) if start <= a and b <= stop]
            pieces += inside
            owners += [number] * len(inside)
            if parameter.regularized and inside:
                self.regularized.append((inside[0][0], inside[-1][1]))
        self._pieces = np.array(pieces, np.int64).reshape(-1, 2)
        counts = self._comm.all_gather(np.array([len(pieces)], np.int64))[:, 0]
        padded = np.full(int(counts.max()), -1, np.int64)
        padded[: len(owners)] = owners
        gathered = self._comm.all_gather(padded)
        self._present = gathered >= 0
        self._owner_of_piece = gathered[self._present]
        self.parameters = len(flat.parameters)
        self._own_parameter = np.array(owners, np.int64)

    def _piece_sums(self, kernel: Any, array: Array) -> Array:
        """Return the sums of all pieces of all ranks, in the order of the flat array."""
        sums = np.zeros(self._present.shape[1])
        kernel(sums[: len(self._pieces)], array, self._pieces)
        result: Array = self._comm.all_gather(sums)[self._present]
        return result

    def square_norm(self, array: Array) -> float:
        """Return the squared Euclidean norm of an array over all slices; collective."""
        return float(tree_total(self._piece_sums(reduce.square_sums, array)))

    def parameter_norms(self, array: Array) -> Array:
        """Return the Euclidean norm of each parameter's part of an array over all slices; collective."""
        sums = self._piece_sums(reduce.square_sums, array)
        return np.sqrt([float(tree_total(sums[self._owner_of_piece == number])) for number in range(self.parameters)])

    def penalty(self, l1: float, l2: float, flat: FlatParameters) -> float:
        """Return l1 |w|_1 + l2 |w|^2 / 2 of the regularized parameters; collective."""
        chosen = np.array([parameter.regularized for parameter in flat.parameters])[self._owner_of_piece]
        absolute = tree_total(self._piece_sums(reduce.absolute_sums, self.values)[chosen]) if l1 else 0.0
        squares = tree_total(self._piece_sums(reduce.square_sums, self.values)[chosen]) if l2 else 0.0
        return float(l1 * absolute + l2 * squares / 2)

    def runs(self) -> list[tuple[int, int, int]]:
        """Return (parameter number, start, stop) of each parameter's run in the slice."""
        result = []
        for number in np.unique(self._own_parameter):
            mine = self._pieces[self._own_parameter == number]
            result.append((int(number), int(mine[0, 0]), int(mine[-1, 1])))
        return result


def total_over_ranks(local: Array, plan: ShardPlan, comm: Communicator) -> Array:
    """Return the sum over batches, shards and ranks of sums (batches, local shards, columns), by the fixed tree; collective."""
    counts = [last - first for first, last in map(plan.owned, range(plan.ranks))]
    padded = np.zeros((len(local), max(counts), local.shape[2]))
    padded[:, : local.shape[1]] = local
    gathered = comm.all_gather(padded)
    shards = np.concatenate([part[:, :count] for part, count in zip(gathered, counts, strict=True)], axis=1)
    return tree_total(np.array([tree_total(batch) for batch in shards]))
