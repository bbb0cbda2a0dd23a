"""Changes that a script makes to parameters itself, between two steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddbp.comm.base import CollectiveKind, NotRecoveredError
from layers import Parameter, State
from layers.engine.parameter import unique_parameters
from layers.engine.state import unique_states
from layers.errors import message

from .recovery import RESTART

if TYPE_CHECKING:
    from .trainer import Trainer


@contextmanager
def modify_parameters(trainer: "Trainer") -> Iterator[bool]:
    """Return a context in which parameters may be changed, on all ranks alike; collective.

    The ranks of a host share parameters, so one of them changes these while the others wait: the
    context's value is true there. Where a script is run again to go on from a state, a change
    between two of its loops that the state has already is taken back at the end of the context.

    >>> with ddbp.modify_parameters(trainer) as mine:
    ...     if mine:
    ...         model[0].weight.value = np.clip(model[0].weight.value, -1, 1)
    """
    if not hasattr(trainer, "step_count"):
        must, fix = "it must be given a trainer", "with ddbp.modify_parameters(trainer): …"
        raise TypeError(message("modify_parameters", must, f"a {type(trainer).__name__}", fix))
    stream = trainer._stream
    known = not stream.come_to_run and stream.changes.is_known(stream.runs)
    with modified(trainer, known=known) as mine:
        yield mine


@contextmanager
def modified(trainer: "Trainer", *, known: bool = False) -> Iterator[bool]:
    """Return a context as that of `modify_parameters`, whose changes are taken back if they are
    `known`, and which no state counts; collective.
    """
    with trainer._update.resting(), _modified(trainer, known) as mine:
        yield mine


@contextmanager
def _modified(trainer: "Trainer", known: bool) -> Iterator[bool]:
    """Do what `modified` does with parameters that all ranks have in common."""
    comm, collective = trainer._update.comm, (CollectiveKind.GATHER, trainer.step_count)
    # What the others still compute is of the parameters as they were.
    trainer.recovered(comm.host_barrier, collective)
    Parameter.writes += 1
    first = comm.slots[comm.topology.first]
    mine = comm.slot == first
    kept = [(each, each.value.copy()) for each in _held(trainer, mine)] if known else []
    yield mine

    def meet() -> None:
        if first not in comm.slots:
            must, fix = "the rank that changes parameters must live until it has", RESTART
            raise NotRecoveredError(message("modify_parameters", must, "it killed", fix))
        comm.host_barrier(collective)

    trainer.recovered(meet)
    if known:
        Parameter.writes += 1
        for each, before in kept:
            each.value[...] = before
        # Nobody goes on while another rank takes parameters back.
        trainer.recovered(meet)


def _held(trainer: "Trainer", mine: bool) -> Iterator[Parameter | State]:
    """Yield what this rank puts back: the states of the model, and parameters where they are
    `mine` to change.
    """
    yield from (state for _, state in unique_states(trainer.model))
    if mine:
        yield from (parameter for _, parameter in unique_parameters(trainer.model))


changing = modify_parameters
"""The name of `modify_parameters` before; it goes with version 1.0."""
