"""Rounds of workers that train apart from each other: the update of `Trainer(exchange=…)`.

Each worker is a shard that goes its own way: a batch of it is a step of its own, with parameters,
states and moments of its own, as that of a trainer on one process. What the trainer counts as a
step is an exchange, by which the common parameters change; like batches that accumulate, those
between two exchanges are on the way to the next one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from ddbp.comm.base import CollectiveKind, Communicator
from ddbp.comm.serial import SerialCommunicator
from ddbp.compression import Compressor, Rounded
from ddbp.compression.bits import Bits
from ddbp.instruments.instruments import Instruments
from ddbp.observers.observer import StepPhase
from ddbp.optim.checksums import Memory
from ddbp.optim.clipping import NotFiniteError
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.transform import GradientTransform
from ddbp.reduction.reducer import total_over_ranks
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.shards import ShardPlan
from ddbp.seldom.fragment import Fragment, cut
from ddbp.seldom.states import mean_over_workers, of_worker, pieces_of, stacked
from ddbp.snapshot import BOOLEAN, Pieces, Schema, State, array, below, integer
from layers import Module, Parameter, Value
from layers.engine.memory import zeros
from layers.engine.state import unique_states
from layers.errors import message
from layers.types import Array

from . import checks
from .loss_scale import LossScaling
from .nonfinite import Guard
from .options import TrainerOptions
from .snapshots import gathered
from .update import Update
from .warm_up import compile_update

_NUMBERS = 3
"""What is counted of a worker: Σ M L of its batches, Σ M, and samples."""
_ALONE = ShardPlan(1, 1, 0)


def kind(options: TrainerOptions, comm: Communicator, callbacks: Sequence[Any]) -> type[Update]:
    """Return what follows backward passes with these options, on these ranks."""
    if options.exchange is None:
        return Update
    if comm.survives:
        must, fix = "workers that train apart need ranks that stay", "Launch without --survive."
        raise ValueError(message("Trainer", must, "ranks that survive each other", fix))
    if any(isinstance(each, Instruments) for each in callbacks):
        must = "instruments and a doctor need workers that exchange gradients in each step"
        fix = "Leave them out, or exchange."
        raise ValueError(message("Trainer", must, f"exchange={options.exchange}", fix))
    return Rounds


def gather_of_steps(options: TrainerOptions, gather: ShardGather) -> ShardGather:
    """Return what layers ask others by in a step: nobody, where each worker has its own."""
    return gather if options.exchange is None else ShardGather(_ALONE, SerialCommunicator())


class Rounds(Update):
    """Has each worker of this rank update parameters of its own by each batch, and all workers
    exchange what they have moved by now and then.

    The model holds the parameters of the worker whose turn it is, and the common ones when it is
    nobody's: see `rest`. The arguments are those of `Update`. `on_plan` is called when there are
    other workers, with which rank has which.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        options: TrainerOptions,
        transforms: Sequence[GradientTransform],
        plan: ShardPlan,
        comm: Communicator,
        gather: ShardGather,
        guard: Guard,
        scaling: LossScaling,
        memory: Memory,
    ) -> None:
        alone = replace(options, wire=None, compression=None)
        inner = _ALONE, SerialCommunicator(), gather, guard, scaling, Memory.TRUSTED
        super().__init__(model, optimizer, alone, transforms, *inner)
        assert options.exchange is not None
        self._exchange = options.exchange
        compressor: Compressor | Rounded | None = options.compression
        if self._exchange.bits is not None:
            compressor = Bits(self._exchange.bits)
        self._everyone = comm
        self._narrow_one = options.narrow(sends=len(comm.hosts) > 2)
        self._how = comm, options.wire, compressor, self._narrow_one
        n, ranks = self.flat.values.size, comm.size
        self._share = n * comm.rank // ranks, n * (comm.rank + 1) // ranks
        # What callbacks tell of the parameters is told by one rank.
        self.reducer.share = self._share
        for each in (optimizer, options.exchange.outer()):
            compile_update(comm, each, self.flat.dtype)
        named = unique_states(model)
        self._state_names = [name for name, _ in named]
        self._states = [state for _, state in named]
        self._common_states = [state.value.copy() for state in self._states]
        self._optimizers = [optimizer]
        self._hire(plan)
        self._asked = 0
        # Exchanges and batches so far, and those since the last exchange; whether workers have
        # parameters that they have not exchanged; whose turn it is, whose the model has, and if a
        # batch is computed.
        self._exchanges = 0
        self._count = 0
        self._since = 0
        self._apart = False
        self._turn = 0
        self._inside: int | None = None
        self._computes = self._over = False

    def _hire(self, plan: ShardPlan) -> None:
        """Make what workers need, which all begin with the parameters that the model has, and a
        place for what they have in common; collective.
        """
        self._workers = plan
        exchange, flat = self._exchange, self.flat
        self._fragments = [
            Fragment(flat, place, plan, *self._how, exchange.outer())
            for place in cut(flat, exchange.fragments)
        ]
        first = self._optimizers[0]
        self._optimizers = [first, *(self._another(first) for _ in range(plan.local - 1))]
        self._values = zeros((plan.local, flat.values.size), flat.dtype)
        self._values[:] = flat.values
        self._own_states = [
            [value.copy() for value in self._common_states] for _ in range(plan.local)
        ]
        self._totals = np.zeros((plan.local, _NUMBERS))

    def _regroup(self, workers: int) -> None:
        """Go on with so many workers, between two rounds; collective."""
        if workers == self._workers.shards:
            return
        state = self.state()
        spread = {name: each for name, each in state.items() if isinstance(each, Pieces)}
        self._let_go(workers)
        self._load({**state, **gathered(self._everyone, spread)})

    def _let_go(self, workers: int) -> None:
        """Begin anew with so many workers; collective."""
        if workers != self._workers.shards:
            self._hire(ShardPlan(workers, self._everyone.size, self._everyone.rank))
            if self.on_plan is not None:
                self.on_plan(self._workers)

    @property
    def over(self) -> bool:
        return self._over

    @property
    def samples_before(self) -> int:
        return self._since * self._options.batch_size

    def _another(self, first: Optimizer) -> Optimizer:
        """Return an optimizer like that of the first worker, with the schedules of that one."""
        other = copy(first)
        other.bind(self.part)
        for member, of_first in zip(other.members, first.members, strict=True):
            member.schedule = of_first.schedule
        return other

    # Whose parameters the model has

    def enter(self) -> None:
        """Give the model what is of the worker whose turn it is."""
        self._computes = True
        if self._inside == self._turn:
            return
        if self._inside is None:
            self._adopt()
        self._leave()
        self._inside = self._turn
        self._optimizer = self._optimizers[self._turn]
        self.flat.values[...] = self._values[self._turn]
        self._set_states(self._own_states[self._turn])

    def _leave(self) -> None:
        if self._inside is not None:
            self._values[self._inside] = self.flat.values
            for own, state in zip(self._own_states[self._inside], self._states, strict=True):
                own[...] = state.value
            self._inside = None

    def rest(self) -> None:
        """Give the model what all workers have in common."""
        self._computes = False
        if self._inside is not None:
            self._leave()
            self._give_common()

    @contextmanager
    def resting(self) -> Iterator[None]:
        computes = self._computes
        self.rest()
        try:
            yield
        finally:
            if computes:
                self.enter()

    def _give_common(self) -> None:
        for fragment in self._fragments:
            self.flat.values[fragment.place] = fragment.values
        self._set_states(self._common_states)

    def _set_states(self, values: Sequence[Array]) -> None:
        for state, value in zip(self._states, values, strict=True):
            state.value[...] = value

    def _adopt(self) -> None:
        """Have all workers go on with what a script has made of the common parameters and states,
        if it has, on all ranks alike.
        """
        same = all(
            np.array_equal(self.flat.values[each.place], each.values) for each in self._fragments
        ) and all(
            np.array_equal(state.value, common)
            for state, common in zip(self._states, self._common_states, strict=True)
        )
        if not same:
            self._take_over()

    def _take_over(self) -> None:
        """Have all workers go on with what the model has; collective."""
        meet = CollectiveKind.GATHER, 0
        self._everyone.host_barrier(meet)
        if self._everyone.rank == self._everyone.topology.first:
            Parameter.writes += 1
            for fragment in self._fragments:
                fragment.values[...] = self.flat.values[fragment.place]
        self._everyone.host_barrier(meet)
        self._values[:] = self.flat.values
        for each in (self._common_states, *self._own_states):
            for common, state in zip(each, self._states, strict=True):
                common[...] = state.value

    def follow(self) -> bool:
        """Give the model what all have in common, and refuse changes of what is trained."""
        self.rest()
        if not self.flat.is_current():
            must = "with exchange= parameters must be frozen before the trainer is made"
            got, fix = "some frozen or unfrozen since", "Make another trainer for the next part."
            raise RuntimeError(message("Trainer", must, got, fix))
        return False

    # Batches and exchanges

    def __call__(
        self, loss: Value, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]
    ) -> float:
        """Return the loss of all batches since the last exchange if there is one after this batch,
        else NaN.
        """
        optimizer = self._optimizer
        value = super().__call__(loss, optimizer.steps, ())
        self._computes = False
        self._asked |= self.reducer.requested
        self.reducer.requested = 0
        counted, samples = self.group.counted, self.group.updated
        self._totals[self._turn] += value * counted, counted, samples
        self._over = False
        self._turn = (self._turn + 1) % len(self._optimizers)
        if self._turn:
            return math.nan
        self._count += 1
        self._since += 1
        self._apart = True
        if self.group.ends_run:
            return self._end_round(self._fragments, step, phase_hooks)
        due = self._exchange.due(self._count)
        if due is None:
            return math.nan
        return self._end_round([self._fragments[due]], step, phase_hooks)

    def close(self, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]) -> float | None:
        self._require_no_turn("Trainer.end_round", "a round must end")
        if not self._apart:
            return None
        self.reducer.requested = 0
        last = None if self._since else self._exchange.due(self._count)
        left = [each for number, each in enumerate(self._fragments) if number != last]
        trained = self._since > 0
        value = self._end_round(left, step, phase_hooks)
        self._apart = False
        return value if trained else math.nan

    def _end_round(
        self,
        fragments: Sequence[Fragment],
        step: int,
        phase_hooks: Sequence[Callable[[StepPhase], None]],
    ) -> float:
        """Have all workers exchange some fragments; return the loss of all batches since the last
        exchange; collective.
        """
        self._leave()
        self._meet(fragments, step, phase_hooks)
        total, counted, samples = self._settled()
        self.group.counted = counted
        self.group.updated = int(samples)
        self.group.ends_run = False
        self._since = 0
        self._apart = len(fragments) < len(self._fragments)
        self._over = True
        self._exchanges += 1
        self._give_common()
        self._regroup(self._exchange.workers_from(self._exchanges))
        return float(total / counted) if counted else 0.0

    def _meet(
        self,
        fragments: Sequence[Fragment],
        step: int,
        phase_hooks: Sequence[Callable[[StepPhase], None]],
    ) -> None:
        """Have all workers exchange some fragments, and the states; collective."""
        for tell in phase_hooks:
            tell(StepPhase.EXCHANGE)
        for fragment in fragments:
            fragment.reducer.request = self._asked | self.reducer.request
            self._asked = self.reducer.request = 0
            fragment.exchange(self._values, step, self._count)
            self.reducer.requested |= fragment.reducer.requested
        for tell in phase_hooks:
            tell(StepPhase.UPDATE)
        try:
            for fragment in fragments:
                fragment.require_finite(step)
        except NotFiniteError as error:
            raise checks.too_large_for_float16(str(self._narrow_one), step) from error
        for fragment in fragments:
            fragment.update()
        for tell in phase_hooks:
            tell(StepPhase.PUBLISH)
        for fragment in fragments:
            fragment.reducer.publish(step)
            self._values[:, fragment.place] = fragment.values
        means = mean_over_workers(self._workers, self._everyone, self._own_states)
        for number, (common, mean) in enumerate(zip(self._common_states, means, strict=True)):
            common[...] = mean
            for each in self._own_states:
                each[number][...] = mean

    def _settled(self) -> Any:
        """Return what was counted of all workers since that was asked for; collective."""
        totals = total_over_ranks(self._totals[np.newaxis], self._workers, self._everyone)
        self._totals[:] = 0
        return totals.tolist()

    def settle(self) -> tuple[float, float, float]:
        """Give the model what all have in common, and return Σ M L, Σ M and samples of what no
        exchange has told of yet; collective.
        """
        self.rest()
        result: tuple[float, float, float] = tuple(self._settled())
        return result

    def _require_no_turn(self, owner: str, what: str) -> None:
        """Refuse what needs all workers to have had the same batches."""
        if self._turn:
            must = f"{what} between two batches of all workers"
            fix = "Call it in on_step_end, or after the last worker's step."
            raise RuntimeError(message(owner, must, "a call between workers", fix))

    # State

    def parts(self) -> dict[str, Any]:
        return {"rounds": self}

    def state(self) -> dict[str, Any]:
        """Return what workers have of their own, and what the outer optimizers have.

        Raises
        ------
        RuntimeError
            It is the turn of another worker of this rank in the same batch.
        """
        self._require_no_turn("Trainer.state", "a state must be taken")
        self.rest()
        return {
            "exchanges": self._exchanges,
            "batches": self._count,
            "since": self._since,
            "apart": self._apart,
            "totals": pieces_of(self._workers, [*self._totals]),
            **self._named("inner", self._inner_states()),
            **(self._named("own", self._own()) if self._apart else {}),
            **{
                f"outer.{number}.{name}": entry
                for number, each in enumerate(self._fragments)
                for name, entry in each.state().items()
            },
        }

    def _inner_states(self) -> list[dict[str, Any]]:
        """Return the states of the optimizers of this rank's workers, whole."""
        self.reducer.share = 0, self.flat.values.size
        try:
            return [each.state() for each in self._optimizers]
        finally:
            self.reducer.share = self._share

    def _own(self) -> list[dict[str, Array]]:
        """Return views of the parameters and states of this rank's workers."""
        return [
            {
                **{
                    f"values.{name}": values[start:stop].reshape(each.shape)
                    for name, each, start, stop in self.flat.segments()
                },
                **{
                    f"states.{name}": state
                    for name, state in zip(self._state_names, states, strict=True)
                },
            }
            for values, states in zip(self._values, self._own_states, strict=True)
        ]

    def _named(self, prefix: str, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the entries of the states of this rank's workers: arrays with an axis of workers,
        and those of the first of what all have alike.
        """
        return {
            f"{prefix}.{name}": pieces_of(self._workers, [state[name] for state in states])
            if isinstance(entry, np.ndarray | Pieces)
            else entry
            for name, entry in states[0].items()
        }

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes: of any number of workers."""
        first = self._optimizers[0]
        inner = first.state_schema(below("inner", state))
        outer = {
            f"outer.{number}.{name}": entry
            for number, each in enumerate(self._fragments)
            for name, entry in each.state_schema(below(f"outer.{number}", state)).items()
        }
        own = self._own()[0] if state.get("apart") is True else {}
        return {
            "exchanges": integer(0),
            "batches": integer(0),
            "since": integer(0),
            "apart": BOOLEAN,
            "totals": array(np.float64, None, _NUMBERS),
            **{
                f"inner.{name}": entry
                for name, entry in {**inner, **stacked(self._inner_states()[0])}.items()
            },
            **{f"own.{name}": entry for name, entry in stacked(own).items()},
            **outer,
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks, once the model has what workers
        have in common. Who was no worker there begins with that, and with the moments of one that
        was.
        """
        self._let_go(self._exchange.workers_from(state["exchanges"]))
        self._load(state)

    def _load(self, state: State) -> None:
        self._inside = None
        self._turn = 0
        self._exchanges = state["exchanges"]
        self._count = state["batches"]
        self._since = state["since"]
        self._apart = state["apart"]
        self._asked = 0
        self._take_over()
        first, last = self._workers.owned(self._workers.rank)
        there = state["totals"].shape[0]
        for number, worker in enumerate(range(first, last)):
            mine = of_worker(state, worker % there)
            self._optimizers[number].load_state(below("inner", mine))
            stays = worker < there
            self._totals[number] = mine["totals"] if stays else 0
            if state["apart"] and stays:
                for name, view in self._own()[number].items():
                    view[...] = mine[f"own.{name}"]
        for number, fragment in enumerate(self._fragments):
            fragment.load_state(below(f"outer.{number}", state))
