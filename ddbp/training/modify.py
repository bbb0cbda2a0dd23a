"""Changes that a script makes to parameters itself, between two steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddbp.comm.base import CollectiveKind, NotRecoveredError
from layers import Parameter
from layers.errors import message

from .recovery import RESTART

if TYPE_CHECKING:
    from .trainer import Trainer


@contextmanager
def modify_parameters(trainer: "Trainer") -> Iterator[bool]:
    """Return a context in which parameters may be changed, on all ranks alike; collective.

    The ranks of a host share parameters, so one of them changes these while the others wait: the
    context's value is true there.

    >>> with ddbp.modify_parameters(trainer) as mine:
    ...     if mine:
    ...         model[0].weight.value = np.clip(model[0].weight.value, -1, 1)
    """
    if not hasattr(trainer, "step_count"):
        must, fix = "it must be given a trainer", "with ddbp.modify_parameters(trainer): …"
        raise TypeError(message("modify_parameters", must, f"a {type(trainer).__name__}", fix))
    comm, collective = trainer._update.comm, (CollectiveKind.GATHER, trainer.step_count)
    trainer._update.rest()
    # What the others still compute is of the parameters as they were.
    trainer.recovered(comm.host_barrier, collective)
    Parameter.writes += 1
    first = comm.slots[comm.topology.first]
    yield comm.slot == first

    def meet() -> None:
        if first not in comm.slots:
            must, fix = "the rank that changes parameters must live until it has", RESTART
            raise NotRecoveredError(message("modify_parameters", must, "it killed", fix))
        comm.host_barrier(collective)

    trainer.recovered(meet)


changing = modify_parameters
"""The name of `modify_parameters` before; it goes with version 1.0."""
