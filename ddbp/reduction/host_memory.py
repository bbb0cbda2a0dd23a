"""A model's parameters and gradients in memory that the ranks of a host share."""

from itertools import chain
from typing import Any

import numpy as np

from ddbp.comm.base import Communicator
from layers import FlatParameters, Module
from layers.engine.flat_parameters import sizes
from layers.types import Array, Integers

from .buckets import room_for_counts
from .shards import ShardPlan
from .shared_arrays import SharedArrays


class HostMemory:
    """The flat parameters of a model in memory that the ranks of a host share, and the gradients of
    the host's ranks.

    Parameters
    ----------
    model
        Its parameters are moved there.
    plan, comm
        Who owns which shards, and the ranks.
    shared
        Where the memory comes from.
    apart
        Whether the gradients of all shards are kept, and none are added up before they are reduced.

    Attributes
    ----------
    flat
        Parameters, once per host; gradients of this rank: see `ShardPlan.kept`.
    gradients
        Those of all ranks of the host (P, n).
    pieces, sizes
        The shards that each of them is the sum of, (first shard, number of shards); and these
        numbers (P,).
    sums
        Where sums over all shards go if hosts are whole (n,): the first of the gradients, but
        memory of its own where ranks survive, as another host may need them later.
    """

    def __init__(
        self,
        model: Module,
        plan: ShardPlan,
        comm: Communicator,
        shared: SharedArrays,
        *,
        apart: bool = False,
    ) -> None:
        ranks = range(comm.topology.first, comm.topology.last)
        kept = [plan.apart(rank) if apart else plan.kept(rank) for rank in ranks]
        self.pieces = list(chain.from_iterable(kept))
        self.sizes: Integers = np.array([size for _, size in self.pieces], np.int64)
        mine = kept[comm.rank - comm.topology.first]
        first = self.pieces.index(mine[0])

        keeps_sums = comm.survives and len(comm.hosts) > 2

        def values(shape: tuple[int, ...], dtype: Any) -> Array:
            itemsize = np.dtype(dtype).itemsize
            total, elements = sizes(model)
            needs = {
                "parameters": total * itemsize,
                "gradients": len(self.pieces) * elements * itemsize,
                "sums": elements * itemsize if keeps_sums else 0,
            }
            shared.plan(needs | {"counts of buckets": room_for_counts(elements, itemsize, comm)})
            return shared.get("parameters", shape, dtype)

        def part(shape: tuple[int, ...], dtype: Any) -> Array:
            rows = len(self.pieces), *shape[1:]
            self.gradients: Array = shared.get("gradients", rows, dtype)
            own: Array = self.gradients[first : first + len(mine)]
            return own

        self.flat = FlatParameters(
            model, [size for _, size in mine], allocate=values, allocate_gradients=part
        )
        self.sums: Array = self.gradients[0]
        if shared.has("sums") or keeps_sums:
            self.sums = shared.get("sums", self.sums.shape, self.sums.dtype)
