"""States of workers: entries that each has its own of, and means."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddbp.comm.agreement import gather_uneven
from ddbp.comm.base import Ranks
from ddbp.reduction.shards import ShardPlan
from ddbp.snapshot import Entry, Pieces, State, array
from layers.engine.fixed_tree import tree_sum
from layers.types import Array


def stacked(state: Mapping[str, Any]) -> dict[str, Entry]:
    """Return what has the arrays of a state with an axis before, of any length."""
    return {
        name: array(entry.dtype, None, *entry.shape)
        for name, entry in state.items()
        if isinstance(entry, np.ndarray | Pieces)
    }


def pieces_of(workers: ShardPlan, arrays: Sequence[Array | Pieces]) -> Pieces:
    """Return arrays of the workers that a plan gives this rank as pieces of one (W, …) of all
    workers.
    """
    first, _ = workers.owned(workers.rank)
    shape, parts = tuple(arrays[0].shape), list[tuple[int, Array]]()
    for worker, each in enumerate(arrays, first):
        held = each.parts if isinstance(each, Pieces) else [(0, each.reshape(-1))]
        parts += [(worker * math.prod(shape) + start, piece) for start, piece in held]
    return Pieces((workers.shards, *shape), arrays[0].dtype, parts)


def mean_over_workers(
    workers: ShardPlan, comm: Ranks, states: Sequence[Sequence[Array]]
) -> list[Array]:
    """Return the mean of each state over all workers, of which `states` has those of this rank's;
    collective, by one message however many states there are.
    """
    if not states[0]:
        return []
    own = np.array([np.concatenate([each.reshape(-1) for each in of]) for of in states], np.float64)
    sums = tree_sum(np.concatenate(gather_uneven(comm, own)))
    ends = np.cumsum([state.size for state in states[0]])
    means = []
    for state, total in zip(states[0], np.split(sums, ends[:-1]), strict=True):
        mean = total.reshape(state.shape).astype(state.dtype)
        mean /= workers.shards
        means.append(mean)
    return means


def of_worker(state: State, worker: int) -> dict[str, Any]:
    """Return the entries of a state, of arrays with an axis of workers those of one of them."""
    result = {}
    for name, entry in state.items():
        part = name == "totals" or name.startswith(("inner.", "own."))
        if part and hasattr(entry, "shape"):
            size = math.prod(entry.shape[1:])
            rows = entry.reshape(-1)[worker * size : (worker + 1) * size]
            entry = np.asarray(rows).reshape(entry.shape[1:])
        result[name] = entry
    return result
