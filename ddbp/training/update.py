"""The update: what follows the backward pass of a batch, until all ranks have new parameters."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ddbp.comm.agreement import gather_texts, require_agreement
from ddbp.comm.base import CollectiveKind, Communicator, RankLost
from ddbp.observers.observer import StepPhase
from ddbp.optim.checksums import Memory
from ddbp.optim.clipping import NotFiniteError, adjustment, limit_norm
from ddbp.optim.journal import Journal
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.transform import GlobalGradient, GradientTransform
from ddbp.reduction.compressed import require_codec
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.shards import ShardPlan
from ddbp.reduction.shared_arrays import SharedArrays
from layers import Module, Value
from layers.engine.parameter import unique_parameters
from layers.kernels import underflow
from layers.precision import set_precision

from . import checks
from .accumulation import Accumulation
from .finite import is_finite
from .learning import learner, require_bound
from .loss_scale import LossScaling
from .nonfinite import Guard
from .options import TrainerOptions
from .precision import require_gain
from .warm_up import compile_update

_AS_IT_IS = nullcontext()
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
    guard
        What looks at losses and gradients.
    scaling
        What gradients are multiplied by on their way back.
    memory
        What is done about bits that change between two updates.

    Attributes
    ----------
    reducer
        Where gradients go when a group ends.
    learner
        The model, with what else is trained.
    flat
        The parameters.
    part
        What this rank updates of them.
    group
        What has accumulated.
    batches
        How many batches were made so far: a rank that skips one is found out at once.
    on_plan
        Called with another plan of who has which shards, where that comes in the midst of a run.
    """

    on_plan: Callable[[ShardPlan], None] | None = None

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
        self.learner = model = learner(model, options.rule, warn=comm.rank == 0)
        require_gain(options.precision, comm)
        set_precision(model, options.precision)
        self._optimizer = optimizer
        self._options = options
        self._transforms = transforms
        self._plan = plan
        self._comm = comm
        self._gather = gather
        self._guard = guard
        self._scaling = scaling
        self._shared = SharedArrays(comm)
        self._journal: Journal | None = None
        checks.goes_with_compression(options.compression, model, optimizer, comm)
        # Sums that are too large to be rounded are found by the norm, before the update.
        self._narrow = options.narrow(sends=len(comm.hosts) > 2)
        guard.strict |= self._narrow is not None
        self._lay_out()
        optimizer.bind(self.part, self._journal, memory=memory)
        compile_update(comm, optimizer, self.flat.dtype, self.reducer)
        self.group = Accumulation(options.accumulate, self.reducer, scaling, options.rule)
        self.batches = 0

    def _lay_out(self) -> None:
        """Put parameters and gradients where they can be reduced and updated."""
        optimizer, options = self._optimizer, self._options
        plan, comm = self._plan, self._comm
        self.reducer = Reducer(
            self.learner, plan, comm, options.wire, self._shared, options.compression
        )
        self.flat = self.reducer.flat
        self._divide()
        self._guard.follow(self.flat)
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

    def _divide(self) -> None:
        """Know what this rank updates."""
        optimizer, options = self._optimizer, self._options
        # What the norm of the gradient must not exceed, where anybody looks at it.
        limited = self._transforms or self._guard.strict
        self._limit = math.inf if options.clip_norm is None and limited else options.clip_norm
        self.part = Partition(
            self.reducer,
            whole=optimizer.whole or self._limit is not None,
            adjust=adjustment(options.l1, options.l2, options.clip_value),
            groups=optimizer.group_numbers(dict(unique_parameters(self.learner))),
        )
        self._gradient = GlobalGradient(self.part)

    def branch_off(self, optimizer: Optimizer, options: TrainerOptions) -> None:
        """Go on with another optimizer and other options, until all attributes are those of before
        again; collective.
        """
        self._optimizer, self._options = optimizer, options
        self._divide()
        optimizer.bind(self.part)
        compile_update(self._comm, optimizer, self.flat.dtype)
        self.group.lose()
        self.group.every = options.accumulate

    @property
    def comm(self) -> Communicator:
        """The ranks that share the memory of the parameters, and of each of which an update is."""
        return self._comm

    @property
    def gather(self) -> ShardGather:
        """How layers learn of the shards of other ranks in a step."""
        return self._gather

    @property
    def over(self) -> bool:
        """Whether the last batch has ended its group, and changed the parameters of all ranks."""
        return not self.group.batches

    @property
    def samples_before(self) -> int:
        """How many samples the batches have had that are on the way to the same update."""
        return self.group.samples

    def enter(self) -> None:
        """Have the model be what the next batch is for."""

    def rest(self) -> None:
        """Have the model be what all ranks have in common."""

    def resting(self) -> AbstractContextManager[None]:
        """Return a context in which the model is what all ranks have in common, and after which it
        is again what the batch is for that is computed.
        """
        return _AS_IT_IS

    def settle(self) -> tuple[float, float, float]:
        """Have the model be that at the end of an epoch; return what losses are made of that no
        update has told of, what they are divided by, and samples; collective.
        """
        return 0.0, 0.0, 0.0

    def close(self, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]) -> float | None:
        """Have what no update has told of change the model; return the loss of its batches, None if
        there was nothing; collective.
        """
        return None

    def parts(self) -> dict[str, Any]:
        """Return the parts that have a state, by name."""
        return {"optimizer": self._optimizer}

    def require_bound(self) -> None:
        """Refuse a model, an optimizer or a rule that another trainer has got since."""
        self.flat.require_bound("Trainer")
        self._optimizer.require_bound(self.part)
        require_bound(self._options.rule, self.learner)

    def follow(self) -> bool:
        """Return whether parameters have been frozen or unfrozen, having put them where they
        belong; collective if so.

        What was frozen loses its moments, what is trained again begins with those of a first step.

        Raises
        ------
        RuntimeError
            Batches accumulate.
        ValueError
            Too little is left for the compression; nothing has been changed.
        CommunicationError
            Ranks have frozen different parameters.
        """
        if self.flat.is_current():
            return False
        trained = [name for name, each in unique_parameters(self.learner) if each.trainable]
        checks.between_updates(self.group.batches)
        fix = "Freeze and unfreeze the same parameters on all ranks, at the same step."
        require_agreement(self._comm, {"trainable parameters": trained}, fix)
        require_codec(self._options.compression, self.learner)
        # What there is now is still read.
        self._renew()
        before = self.reducer.compressed
        self._move(self._optimizer.move)
        if before is not None and self.reducer.compressed is not None:
            self.reducer.compressed.follow(before)
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
        except NotFiniteError:
            loss.tape.release()
            raise
        finally:
            underflow.restore(mode)

    def _update(
        self, loss: Value, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]
    ) -> float:
        self._gather.require_all()
        group = self.group
        group.add(loss)
        if group.batches == 1:
            self._guard.begin_group()
        if group.goes_on(loss.tape):
            total = float(group.sums.sum())
            if not math.isfinite(total):
                self._optimizer.verify()
            self._guard.look(loss, total, step)
            loss.tape.release()
            return math.nan
        for tell in phase_hooks:
            tell(_EXCHANGE)
        pending = loss.tape.pending = group.pending(loss.tape)
        count = sum(each.numbers.shape[1] for each in pending) if pending else 0
        observed: Sequence[tuple[Callable[[Any], None], Any]] = ()
        if pending and self.reducer.keeps_sums:
            # Nothing may be needed of other hosts once they can have taken the step.
            observed = self._observed(loss)
        value = self._reduce(loss, step, count)
        scale = self.part.scale
        for tell in phase_hooks:
            tell(_UPDATE)
        if not math.isfinite(value):
            self._optimizer.verify()
        self._guard.require_finite(loss, value, step, self.reducer.requested)
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
        self._scaling.succeed()
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
        if self._limit is not None:
            self._limit_gradient(self._limit, step)
        if self._comm.survives and self.part.whole:
            # Others may have to finish what one of them leaves.
            self._comm.host_barrier((CollectiveKind.EXCHANGE, step))
        return penalty

    def _change(self, step: int, phase_hooks: Sequence[Callable[[StepPhase], None]]) -> None:
        """Update the parameters on all ranks."""
        try:
            self._optimizer.step(self.part)
            if self.reducer.compressed is not None:
                self.reducer.compressed.keep(self.reducer.plan.rank)
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

    def _limit_gradient(self, limit: float, step: int) -> None:
        """Transform the gradient, and limit its norm; collective."""
        part, spoilt = self.part, ""
        part.collect()
        finite = not self._transforms or is_finite(part.gradient)
        for transform in self._transforms:
            transform(self._gradient, step)
            if finite and not spoilt:
                spoilt = checks.spoilt_by(part, transform, step)
        try:
            limit_norm(part, limit, step)
        except NotFiniteError as error:
            said = [text for text in gather_texts(self._comm, spoilt) if text]
            if said:
                raise NotFiniteError(said[0]) from error
            if self._scaling.may_fall:
                raise self._scaling.overflow(step) from error
            if self._narrow is not None:
                raise checks.too_large_for_float16(self._narrow, step) from error
            raise

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
                        if self.reducer.compressed is not None:
                            self.reducer.compressed.keep(of_dead[-1])
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
        self.reducer.request |= self._guard.look_at_gradients(loss, step)
        if self._journal is not None:
            self._journal.begin()
        if self.reducer.compressed is not None:
            self.reducer.compressed.encode(group.scale)
        total = self.reducer.exchange(step, group.samples, group.sums, observed, self.batches)
        value = group.loss(total)
        self.part.scale = group.scale
        group.clear()
        self.part.forget()
        # Nothing is lost yet: what is to be added next will overwrite.
        self.flat.zero_gradients()
        return value
