"""One model on all ranks: parameters and states are those of rank 0, and a digest tells."""

import hashlib

from ddbp.comm.base import Communicator
from layers import FlatParameters, Module
from layers.engine.parameter import unique_parameters
from layers.engine.state import unique_states


def broadcast(model: Module, comm: Communicator) -> None:
    """Overwrite parameters and states with those of rank 0."""
    for _, parameter in unique_parameters(model):
        comm.broadcast(parameter.value)
    for _, state in unique_states(model):
        comm.broadcast(state.value)


def digest(model: Module, flat: FlatParameters) -> str:
    """Return a digest of all parameters and states."""
    total = hashlib.sha256(flat.values.tobytes())
    for _, state in unique_states(model):
        total.update(state.value.tobytes())
    return total.hexdigest()
