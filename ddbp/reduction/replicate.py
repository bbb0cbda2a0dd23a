"""One model on all ranks: parameters and states are those of rank 0, and a digest tells."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddbp.comm.base import CollectiveKind, Communicator
from ddbp.snapshot import Pieces, Schema, like
from ddbp.snapshot import State as SnapshotState
from layers import Module, Parameter, State
from layers.engine.parameter import unique_parameters
from layers.engine.state import unique_states
from layers.kernels.machine import CACHE_LINE
from layers.types import Array


def named_arrays(model: Module) -> dict[str, Parameter | State]:
    """Return all parameters and states of a model by name."""
    return {**dict(unique_parameters(model)), **dict(unique_states(model))}


def broadcast(model: Module, comm: Communicator) -> None:
    """Overwrite parameters and states with those of rank 0."""
    for array in named_arrays(model).values():
        comm.broadcast(array.value)


def digest(model: Module) -> str:
    """Return a digest of all parameters and states, whichever are frozen."""
    total = hashlib.sha256()
    for _, parameter in unique_parameters(model):
        total.update(parameter.value.tobytes())
        # As parameters lie in flat arrays.
        total.update(bytes(-parameter.value.nbytes % CACHE_LINE))
    for _, state in unique_states(model):
        total.update(state.value.tobytes())
    return total.hexdigest()


class Replica:
    """What training changes of a model: its parameters, once per host, and its states.

    Parameters
    ----------
    model
        The model.
    comm
        The ranks.
    sharing
        Those that share the memory of the parameters, where that are not the ranks of each host.
    """

    def __init__(
        self, model: Module, comm: Communicator, sharing: Communicator | None = None
    ) -> None:
        self._arrays = named_arrays(model)
        self._comm = comm
        self._sharing = sharing or comm

    def state(self) -> dict[str, Any]:
        """Return this rank's share of all arrays, by name."""
        rank, ranks = self._comm.rank, self._comm.size
        return {
            name: Pieces.share(array.value, rank, ranks) for name, array in self._arrays.items()
        }

    def state_schema(self, state: SnapshotState) -> Schema:
        """Return what `load_state` takes."""
        return like({name: array.value for name, array in self._arrays.items()})

    def load_state(self, state: SnapshotState) -> None:
        """Take the values that `state` returned; collective."""
        first = self._sharing.rank == self._sharing.topology.first
        self._comm.host_barrier((CollectiveKind.GATHER, 0))
        # The first rank of the host writes for all.
        Parameter.writes += 1
        for name, array in self._arrays.items():
            if first or isinstance(array, State):
                array.value = np.asarray(state[name])
        self._comm.host_barrier((CollectiveKind.GATHER, 0))


class KeptWeights:
    """A copy of a model's parameters, one for all ranks of a host, and of its states. Methods that
    change anything are collective.

    Parameters
    ----------
    model
        The model.
    comm, sharing
        As of `Replica`.
    """

    def __init__(
        self, model: Module, comm: Communicator, sharing: Communicator | None = None
    ) -> None:
        self._comm = comm
        self._replica = Replica(model, comm, sharing)
        self._named = named_arrays(model)
        parameters = {
            name: array for name, array in self._named.items() if isinstance(array, Parameter)
        }
        size = sum(parameter.value.nbytes for parameter in parameters.values())
        comm.plan_memory({"the best parameters": size})
        memory = comm.host_array((size,), np.uint8)
        self._kept: dict[str, Array] = {}
        start = 0
        for name, array in self._named.items():
            if name in parameters:
                stop = start + array.value.nbytes
                self._kept[name] = memory[start:stop].view(array.dtype).reshape(array.shape)
                start = stop
            else:
                self._kept[name] = array.value.copy()

    def keep(self) -> None:
        """Keep what the model has now."""
        self.load({name: array.value for name, array in self._named.items()})

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Keep these arrays, by the names that `arrays` gives."""
        first = self._comm.rank == self._comm.topology.first
        for name, kept in self._kept.items():
            if first or isinstance(self._named[name], State):
                kept[...] = arrays[name]
        self._comm.host_barrier((CollectiveKind.GATHER, 0))

    def restore(self) -> None:
        """Give the model what was kept."""
        self._replica.load_state(self._kept)

    def arrays(self) -> dict[str, Pieces]:
        """Return this rank's share of what was kept, by name."""
        rank, ranks = self._comm.rank, self._comm.size
        return {name: Pieces.share(kept, rank, ranks) for name, kept in self._kept.items()}
