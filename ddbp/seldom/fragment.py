"""The common parameters of a part of a model, and how workers change them."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.compression import Compressor, Rounded
from ddbp.optim.clipping import limit_norm
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan
from ddbp.reduction.wire import Wire
from ddbp.snapshot import Schema, State, array, below
from layers import FlatParameters, Module, Parameter
from layers.engine.fixed_tree import tree_sum
from layers.errors import message
from layers.types import Array


def cut(flat: FlatParameters, fragments: int) -> list[slice]:
    """Return the parts of flat parameters that so many fragments are, of whole parameters and as
    equal as these allow.

    Raises
    ------
    ValueError
        There are fewer parameters.
    """
    starts, total = flat.starts, flat.values.size
    if fragments > len(starts):
        must, fix = "the model must have a parameter for each fragment", "Write fewer fragments."
        raise ValueError(
            message("DiLoCo", must, f"fragments={fragments} of {len(starts)} parameters", fix)
        )
    first = [0]
    for number in range(1, fragments):
        # At least one parameter for each of this and those that follow.
        least, most = first[-1] + 1, len(starts) - (fragments - number)
        near = min(
            range(least, most + 1), key=lambda i: abs(starts[i] * fragments - total * number)
        )
        first.append(near)
    bounds = [*(starts[i] for i in first), total]
    return [slice(*pair) for pair in pairwise(bounds)]


class Fragment:
    """Neighbouring parameters that all workers have in common, and the optimizer that changes them
    by the mean of what the workers have moved by.

    They lie in memory that the ranks of a host share, apart from those of the model, which are a
    worker's. Gradients of shards are here what workers have moved by, which are summed, sent and
    updated by as all gradients are.

    Parameters
    ----------
    flat
        The model's parameters.
    place
        Which part of them it is.
    plan, comm
        Which rank has which workers, a shard each; and the ranks.
    wire
        How sums are sent between hosts.
    compression
        How what a worker has moved by is compressed, if it is; what is left out goes with the next.
    narrow
        The option that rounds sums of what workers have moved by to float16, if one does.
    optimizer
        What changes the parameters; it belongs to this fragment.

    Attributes
    ----------
    values
        The common parameters (n,).
    """

    def __init__(
        self,
        flat: FlatParameters,
        place: slice,
        plan: ShardPlan,
        comm: Communicator,
        wire: str | Wire | None,
        compression: Compressor | Rounded | None,
        narrow: str | None,
        optimizer: Optimizer,
    ) -> None:
        copies = _Copies(flat, place)
        self.place = place
        self.optimizer = optimizer
        self.reducer = Reducer(copies, plan, comm, wire, compression=compression)
        self.values: Array = self.reducer.flat.values
        self._part = Partition(self.reducer, whole=narrow is not None)
        self._narrow = narrow
        self._workers = plan.shards
        self._first = plan.owned(plan.rank)[0]
        compressed = compression is not None
        self._pieces = plan.apart(plan.rank) if compressed else plan.kept(plan.rank)
        optimizer.bind(self._part)

    def exchange(self, theirs: Array, step: int, batches: int) -> None:
        """Meet with all ranks, given the parameters of this rank's workers (local W, all of the
        model), of which this part is overwritten.
        """
        moved: Array = theirs[:, self.place]
        np.subtract(self.values, moved, out=moved)
        for (first, size), row in zip(self._pieces, self.reducer.flat.gradients, strict=True):
            here = first - self._first
            tree_sum(theirs[here : here + size], out=row, start=self.place.start)
        if self.reducer.compressed is not None:
            self.reducer.compressed.encode(1 / self._workers)
        self.reducer.exchange(step, batches, np.zeros(len(theirs)), 0, batches)
        self._part.scale = 1 / self._workers
        self._part.forget()

    def require_finite(self, step: int) -> None:
        """Refuse sums that have become infinite, on all ranks; collective.

        Raises
        ------
        NotFiniteError
            They have; nothing has been updated.
        """
        if self._narrow is not None:
            limit_norm(self._part, math.inf, step)

    def update(self) -> None:
        """Change what is this rank's of the common parameters."""
        self.optimizer.step(self._part)
        if self.reducer.compressed is not None:
            self.reducer.compressed.keep(self.reducer.plan.rank)

    def state(self) -> dict[str, Any]:
        """Return the state of the optimizer, and what messages have left out."""
        compressed = self.reducer.compressed
        left_out = {} if compressed is None else compressed.state()
        return self.optimizer.state() | {f"sent.{name}": each for name, each in left_out.items()}

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes: of any number of workers."""
        compressed = self.reducer.compressed
        schema = dict(self.optimizer.state_schema(state))
        for name, entry in ({} if compressed is None else compressed.state()).items():
            schema[f"sent.{name}"] = array(entry.dtype, None, *entry.shape[1:])
        return schema

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks. Who was no worker there has
        left out nothing yet.
        """
        self.optimizer.load_state(state)
        if self.reducer.compressed is not None:
            of_workers = {
                name: _of_so_many(np.asarray(entry), self._workers)
                for name, entry in below("sent", state).items()
            }
            self.reducer.compressed.load_state(of_workers)


def _of_so_many(given: Array, workers: int) -> Array:
    """Return what workers have, with zeros for those who are more, and without those who left."""
    result = np.zeros((workers, *given.shape[1:]), given.dtype)
    result[: len(given)] = given[:workers]
    return result


class _Copies(Module):
    """Copies of neighbouring parameters, under their names."""

    def __init__(self, flat: FlatParameters, place: slice) -> None:
        self._named = [
            (name, Parameter(each.value, regularized=each.regularized))
            for name, each, start, _ in flat.segments()
            if place.start <= start < place.stop
        ]

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        for name, parameter in self._named:
            yield f"{prefix}{name}", parameter
