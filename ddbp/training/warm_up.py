"""Compilation of kernels: says so, once, when that happens, and lets one rank of each host go
first.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import event

from ddbp import terminal
from ddbp.comm.base import Communicator
from ddbp.comm.serial import SerialCommunicator
from ddbp.optim.journal import Journal
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.shards import ShardPlan
from layers import Linear
from layers.engine.fixed_tree import tree_sum
from layers.kernels import underflow
from layers.kernels.cache import CACHE_FOLDER

_ANNOUNCED: list[Any] = []


class _Announce(event.Listener):
    """Prints one line at the first compilation of a kernel of layers."""

    def on_start(self, event: Any) -> None:
        dispatcher = event.data.get("dispatcher")
        if len(_ANNOUNCED) == 1 and getattr(dispatcher, "__module__", "").startswith("layers."):
            _ANNOUNCED.append(True)
            kept = f"kept in {CACHE_FOLDER}" if CACHE_FOLDER else "not kept for the next run"
            terminal.say(f"Compiling kernels for this processor; they are {kept}")

    def on_end(self, event: Any) -> None:
        """Say nothing."""


def announces() -> bool:
    """Return whether a line is printed when kernels are compiled."""
    return bool(_ANNOUNCED)


def announce_compilation() -> None:
    """Print a line when the first kernel is compiled rather than loaded from the cache."""
    if not _ANNOUNCED:
        _ANNOUNCED.append(_Announce())
        register: Any = event.register
        register("numba:compile", _ANNOUNCED[0])


def compile_update(
    comm: Communicator, optimizer: Optimizer, dtype: Any, reducer: Reducer | None = None
) -> None:
    """Update a tiny model once, one rank of each host first: that compiles the kernels of an
    update, and of what a reducer has to compress.
    """
    if comm.size == 1 and not comm.newcomer:
        return
    with comm.leader_first():
        update_once(optimizer, dtype)
        if reducer is not None:
            reducer.practise()


def update_once(optimizer: Optimizer, dtype: Any, *, shards: int = 2) -> None:
    """Update a tiny model of a dtype in the way of an optimizer, by gradients of so many shards
    that are exchanged if there are several.
    """
    underflow.restore(underflow.flush())
    plan, alone = ShardPlan(shards, 1, 0), SerialCommunicator()
    reducer = Reducer(Linear(1, 1, rng=np.random.default_rng(0), dtype=dtype), plan, alone)
    if shards > 1:
        reducer.compile_exchange()
    reducer.exchange(0, 1, np.zeros(plan.local))
    part = Partition(reducer, whole=True)
    part.collect()
    if shards > 1:
        part.square_norm(part.gradient)
    for member in map(copy.copy, optimizer.members):
        member.groups = {}
        arrays, size = 1 + len(member.slots), part.values.size
        journal = member.journal and Journal(alone, 1, 0, arrays, part.values.dtype, size)
        member.bind(part, journal, memory=optimizer.memory)
        member.step(part)
    # Gradients of shards are summed in the type of the model, what states learn in float64.
    for kind in (dtype, np.float64) if shards > 1 else ():
        tree_sum(np.zeros((2, 1), kind))


class WarmUp:
    """Lets one rank of each host go first, as kernels may be compiled, until that is over.

    Parameters
    ----------
    comm
        The ranks.
    gather
        Tells whether a layer needs the other ranks in the middle of a pass.
    restart
        Takes back what a pass has changed.

    Attributes
    ----------
    over
        Whether kernels have been compiled.
    prepare
        Called by the rank that goes first, before its pass, if given.
    """

    prepare: Callable[[], None] | None = None

    def __init__(
        self, comm: Communicator, gather: ShardGather, restart: Callable[[], None]
    ) -> None:
        self.over = False
        self._comm = comm
        self._gather = gather
        self._restart = restart

    def __call__(self, run_pass: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a pass gives for the arguments; collective."""
        if self.over:
            return run_pass(*arguments)
        prepare, self.prepare = self.prepare, None
        with self._comm.leader_first(), self._gather.alone():
            if prepare is not None and not self._comm.of_host.rank:
                prepare()
            result = run_pass(*arguments)
        if self._gather.asked_alone:
            # That was practice, and now all begin together.
            self._gather.asked_alone = False
            self._restart()
            return run_pass(*arguments)
        return result
