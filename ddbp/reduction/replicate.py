"""One model on all ranks: parameters and states are those of rank 0, and a digest tells."""

import hashlib
from typing import Any

from ddbp.comm.base import CollectiveKind, Communicator
from ddbp.snapshot import Schema, like
from ddbp.snapshot import State as SnapshotState
from layers import FlatParameters, Module, Parameter, State
from layers.engine.parameter import unique_parameters
from layers.engine.state import unique_states


def named_arrays(model: Module) -> dict[str, Parameter | State]:
    """Return all parameters and states of a model by name."""
    return {**dict(unique_parameters(model)), **dict(unique_states(model))}


def broadcast(model: Module, comm: Communicator) -> None:
    """Overwrite parameters and states with those of rank 0."""
    for array in named_arrays(model).values():
        comm.broadcast(array.value)


def digest(model: Module, flat: FlatParameters) -> str:
    """Return a digest of all parameters and states."""
    total = hashlib.sha256(flat.values.tobytes())
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
    """

    def __init__(self, model: Module, comm: Communicator) -> None:
        self._arrays = named_arrays(model)
        self._comm = comm

    def state(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.value.copy() for name, array in self._arrays.items()}

    def state_schema(self, state: SnapshotState) -> Schema:
        """Return what `load_state` takes."""
        return like({name: array.value for name, array in self._arrays.items()})

    def load_state(self, state: SnapshotState) -> None:
        """Take the values that `state` returned; collective."""
        first = self._comm.rank == self._comm.topology.first
        self._comm.host_barrier((CollectiveKind.GATHER, 0))
        for name, array in self._arrays.items():
            if first or isinstance(array, State):
                array.value = state[name]
        self._comm.host_barrier((CollectiveKind.GATHER, 0))
