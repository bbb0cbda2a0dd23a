"""The update: what follows the backward pass of a batch, until all ranks have new parameters."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from ddbp import settings
from ddbp.comm.agreement import require_agreement
from ddbp.comm.base import CollectiveKind, Communicator, RankLost
from ddbp.observers.observer import StepPhase
from ddbp.optim.clipping import adjustment, limit_norm
from ddbp.optim.journal import Journal
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.transform import GlobalGradient, GradientTransform
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.shards import ShardPlan
from ddbp.reduction.shared_arrays import SharedArrays
from layers import Module, Value
from layers.engine.parameter import unique_parameters
from layers.kernels import underflow

from . import checks
from .accumulation import Accumulation
from .options import TrainerOptions
from .warm_up import compile_update

# A member of an enum takes ten times as long to look up as a name, in Python 3.11.
_EXCHANGE, _UPDATE, _PUBLISH = StepPhase.EXCHANGE, StepPhase.UPDATE, StepPhase.PUBLISH


class Update:
    """Has a batch join its group and, if the group ends with it, reduces the gradients, limits
    them, updates this rank's partition of the parameters, and publishes it.

    Parameters
    ----------
    model
        Its parameters are moved to memory that the ranks of a host share.
    optimizer
        It belongs to this update from now on.
    options
        The trainer's options.
    transforms
        What is done to gradients before the optimizer sees them.
    plan, comm
        Who owns which shards, and the ranks.
    gather
        How layers learn of the shards of other ranks.

    Attributes
    ----------
    reducer
        Where gradients go when a group ends.
    flat
        The parameters.
    part
        What this rank updates of them.
    group
        What has accumulated.
    batches
        How many batches were made so far: a rank that skips one is found out at once.
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
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._options = options
        self._transforms = transforms
        self._plan = plan
        self._comm = comm
        self._gather = gather
        self._shared = SharedArrays(comm)
        self._journal: Journal | None = None
        self._lay_out()
        optimizer.bind(self.part, self._journal, checked=settings.checks_memory())
        compile_update(comm, optimizer, self.flat.dtype)
        self.group = Accumulation(options.accumulate, self.reducer)
        self.batches = 0

    def _lay_out(self) -> None:
        """Put parameters and gradients where they can be reduced and updated."""
        optimizer, options = self._optimizer, self._options
        plan, comm = self._plan, self._comm
        self.reducer = Reducer(self._model, plan, comm, options.wire, self._shared)
        self.flat = self.reducer.flat
        self.part = Partition(
            self.reducer,
            whole=optimizer.whole or bool(self._transforms) or options.clip_norm is not None,
            adjust=adjustment(options.l1, options.l2, options.clip_value),
            groups=optimizer.group_numbers(dict(unique_parameters(self._model))),
        )
        self._gradient = GlobalGradient(self.part)
        if self._journal is not None:
            self._journal.follow(comm.rank)
        elif comm.survives:
            elements = 0 if optimizer.blockwise else self.flat.values.size
            self._journal = Journal(
                comm, comm.size, comm.rank, optimizer.arrays, self.flat.dtype, elements
            )
        self._group = comm.group
        # The ranks of this layout that share memory.
        first, last = comm.topology.first, comm.topology.last
        self._ranks = {slot: first + i for i, slot in enumerate(comm.slots[first:last])}

    def require_bound(self) -> None:
        """Refuse a model or an optimizer that another trainer has got since."""
        self.flat.require_bound("Trainer")
        self._optimizer.require_bound(self.part)

    def follow(self) -> bool:
        """Return whether parameters have been frozen or unfrozen, having put them where they
        belong; collective if so.

        What was frozen loses its moments, what is trained again begins with those of a first step.

        Raises
        ------
        RuntimeError
            Batches accumulate.
        CommunicationError
            Ranks have frozen different parameters.
        """
        if self.flat.is_current():
            return False
        trained = [name for name, each in unique_parameters(self._model) if each.trainable]
        checks.between_updates(self.group.batches)
        fix = "Freeze and unfreeze the same parameters on all ranks, at the same step."
        require_agreement(self._comm, {"trainable parameters": trained}, fix)
        # What there is now is still read.
        self._renew()
        self._move(self._optimizer.move)
        # Others may still read where the parameters were.
        self._comm.host_barrier((CollectiveKind.GATHER, 0))
        return True

    def _renew(self) -> None:
        """Have memory that ranks share made anew."""
        self._shared.renew()
        self._journal = None

    def _move(self, move: Callable[[Partition, Any], None]) -> None:
        """Lay everything out anew, and have the optimizer go on with that."""
        before = self.reducer
        self._lay_out()
        self.reducer.request, self.reducer.requested = before.request, before.requested
        move(self.part, self._journal)
        self.group.move(self.reducer)

    def regroup(self, plan: ShardPlan, *, newcomers: bool) -> None:
        """Go on with the ranks that there are now, between two groups of batches; collective. With
        newcomers, parameters and moments must be loaded then.
        """
        self._plan = plan
        if newcomers:
            self._renew()
        # Hosts may be one step apart.
        self.batches = 0
        self._move(self._optimizer.follow)

    def lose(self) -> None:
        """Begin the group anew, and ask once more for what has been asked for in its update."""
        self.group.lose()
        self.reducer.request |= self.reducer.requested
        self.reducer.requested = 0

    def __call__(
        self, loss: Value, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]
    ) -> float:
        """Return the loss of the group that a batch ends, or NaN if it goes on; the hooks are told
        of the phases of the step.
        """
        mode = underflow.flush()
        try:
            return self._update(loss, step, phase_hooks)
        finally:
            underflow.restore(mode)

    def _update(
        self, loss: Value, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]
    ) -> float:
        self._gather.require_all()
        group = self.group
        group.add(loss)
        if group.goes_on(loss.tape):
            if not math.isfinite(group.sums.sum()):
                self._optimizer.verify()
                checks.refuse_loss(self.flat, loss, group.sums.sum(), step)
            loss.tape.release()
            return math.nan
        for tell in phase_hooks:
            tell(_EXCHANGE)
        pending = loss.tape.pending = group.pending(loss.tape)
        count = sum(each.numbers.shape[1] for each in pending)
        observed: Sequence[tuple[Callable[[Any], None], Any]] = ()
        if pending and self.reducer.keeps_sums:
            # Nothing may be needed of other hosts once they can have taken the step.
            observed = self._observed(loss)
        value = self._reduce(loss, step, count)
        scale = self.part.scale
        for tell in phase_hooks:
            tell(_UPDATE)
        if not math.isfinite(value):
            checks.refuse_loss(self.flat, loss, value, step)
        while True:
            try:
                penalty = self._prepare(step)
                if loss.tape.pending:
                    observed = self._observed(loss)
                # Up to here nothing has changed that the step needs if ranks have been lost.
                self._change(step, phase_hooks)
                break
            except RankLost:
                if not self.reducer.keeps_sums:
                    raise
                self._resume(scale)
        for learn, numbers in observed:
            learn(numbers)
        loss.tape.release()
        return value + penalty

    def _observed(self, loss: Value) -> Sequence[tuple[Callable[[Any], None], Any]]:
        """Return what layers have observed of the group, of all shards, with what learns it."""
        observed = loss.tape.observed_by_all()
        self._gather.require_all()
        return observed

    def _prepare(self, step: int) -> float:
        """Do to the gradient what comes before the update; return what penalties add to the
        loss.
        """
        options, penalty = self._options, 0.0
        if options.l1 or options.l2:
            penalty = self.part.penalty(options.l1, options.l2)
        if self._transforms:
            self.part.collect()
            was_finite = checks.is_finite(self.part.gradient)
            for transform in self._transforms:
                transform(self._gradient, step)
                if was_finite:
                    checks.finite_gradient(self.part, transform, step)
        if options.clip_norm is not None:
            limit_norm(self.part, options.clip_norm, step)
        if self._comm.survives and self.part.whole:
            # Others may have to finish what one of them leaves.
            self._comm.host_barrier((CollectiveKind.EXCHANGE, step))
        return penalty

    def _change(self, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]) -> None:
        """Update the parameters on all ranks."""
        try:
            self._optimizer.step(self.part)
            for tell in phase_hooks:
                tell(_PUBLISH)
            self.reducer.publish(step)
        except RankLost as error:
            self._mend(step, error)

    def _resume(self, scale: float) -> None:
        """Go on with the ranks that are left of this host, from the sums of gradients that it has:
        others may have taken the step.
        """
        comm = self._comm
        while True:
            try:
                if self._group == comm.group:
                    comm.regroup()
                self.regroup(self._options.plan(comm.rank, comm.size), newcomers=False)
                break
            except RankLost:
                self._group = comm.group
        self.reducer.resume()
        self.part.scale = scale

    def _mend(self, step: int, error: RankLost) -> None:
        """Finish the update of ranks that have been lost in it. Where only they could, take it back
        on all ranks and raise the error.
        """
        comm, part, optimizer = self._comm, self.part, self._optimizer
        lost: list[int] = []
        while True:
            # Who is lost in here is mended, too, and how far it has come with others is known.
            lost += [self._ranks[slot] for slot in comm.regroup() if slot in self._ranks]
            host = comm.of_host
            mine = [
                (other := part.of_rank(rank), optimizer.moments_in(other), rank)
                for rank in lost[host.rank :: host.size]
            ]
            try:
                if optimizer.blockwise:
                    for of_dead in mine:
                        optimizer.finish(*of_dead)
                else:
                    optimizer.undo(mine)
                comm.host_barrier((CollectiveKind.PUBLISH, step))
            except RankLost:
                continue
            break
        if not optimizer.blockwise:
            raise error

    def _reduce(self, loss: Value, step: int, observed: int) -> float:
        """Meet with all ranks at the end of a group, in which layers have observed so many numbers
        of a shard, and begin the next one; return the loss.
        """
        group = self.group
        self.flat.complete()
        if self._journal is not None:
            self._journal.begin()
        total = self.reducer.exchange(step, group.samples, group.sums, observed, self.batches)
        value = group.loss(total)
        self.part.scale = group.scale
        group.clear()
        self.part.forget()
        # Nothing is lost yet: what is to be added next will overwrite.
        self.flat.zero_gradients()
        return value
