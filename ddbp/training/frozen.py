"""Which parameters are frozen: how a state says it, and how a trainer goes on with its."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddbp import terminal
from ddbp.snapshot import Snapshot
from layers import Module

if TYPE_CHECKING:
    from .trainer import Trainer

_FROZEN = " frozen"


def described(model: Module) -> list[str]:
    """Return name, shape and type of each parameter of a model, and whether it is frozen."""
    return [
        f"{name} {parameter.shape} {parameter.dtype}{'' if parameter.trainable else _FROZEN}"
        for name, parameter in model.named_parameters()
    ]


@contextmanager
def as_in(trainer: "Trainer", snapshot: Snapshot) -> Iterator[None]:
    """Freeze and unfreeze what is otherwise in a snapshot, the same on all ranks, for what is
    loaded in the context; if that fails it is as before. Collective.

    So a run goes on whose callbacks freeze and thaw layers. As it may be a mistake of a script, it
    is said. With other parameters, or workers that train apart, nothing is done.
    """
    facts: Any = snapshot.part("facts").get("parameters")
    there = [*map(str, facts)] if isinstance(facts, list) else []
    here = described(trainer.model)
    alike = [*map(_known, there)] == [*map(_known, here)] and trainer.options.exchange is None
    others = [
        (name, parameter)
        for (name, parameter), found, own in zip(
            trainer.model.named_parameters(), there, here, strict=False
        )
        if alike and found != own
    ]
    if not others:
        yield
        return
    _turn(others)
    try:
        trainer._follow()
        yield
    except BaseException:
        _turn(others)
        trainer._follow()
        raise
    if trainer.comm.leads:
        for trainable, what in (False, "frozen"), (True, "trained"):
            names = [name for name, parameter in others if parameter.trainable is trainable]
            if names:
                shown = textwrap.shorten(", ".join(names), 200, placeholder=" …")
                terminal.say(f"Trainer: as in the state it goes on from, now {what}: {shown}")


def _turn(others: list[tuple[str, Any]]) -> None:
    """Freeze what is trained of some parameters, and the other way round."""
    for parameter in {id(each): each for _, each in others}.values():
        parameter.trainable = not parameter.trainable


def _known(fact: str) -> str:
    """Return what is said of a parameter that is trained."""
    return fact.removesuffix(_FROZEN)
