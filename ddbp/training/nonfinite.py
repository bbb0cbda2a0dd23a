"""Numbers that go wrong: what is done about losses and gradients that are not finite, by all ranks
alike.

Each rank looks at its own loss and at its own gradients before they are exchanged, and what it has
found travels in the header of the exchange: so nothing is spoilt when all know, and no rank waits
for another one for it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ddbp import terminal
from ddbp.comm.agreement import gather_texts
from ddbp.comm.base import Communicator
from ddbp.observers.observer import Request
from ddbp.optim.clipping import NotFiniteError
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction.shard_gather import ShardGather
from ddbp.snapshot import NUMBER, Entry, Schema, State, integer
from layers import FlatParameters, Module, Value
from layers.checks import positive_int
from layers.errors import message

from . import finite
from .checkpoints import Checkpoints
from .diagnosis import LAST, Diagnosis, Finding
from .loss_scale import GradientOverflowError, LossScaling

if TYPE_CHECKING:
    from .trainer import Trainer

_NOT_FINITE = int(Request.NOT_FINITE)
_NAMED = 4
"""So many ranks are named."""
_SAID = 10
"""So many updates that are left out are told of one by one, and then each hundredth."""
_FACTOR = Entry("a number in (0, 1]", lambda entry: NUMBER.holds(entry) and 0 < entry <= 1)


_SUM = Finding(LAST, "a sum of finite numbers is too large")
_OVERFLOW = Finding(LAST, "a gradient has overflowed at this loss scale")


class _Numbers(NamedTuple):
    factor: float
    most: int


class Rollback(_Numbers):
    """What `Trainer(on_nonfinite=…)` does: go back to the last checkpoint, with a lower learning
    rate.

    Attributes
    ----------
    factor
        What the learning rate, whatever schedule it is of, is multiplied by from then on, in
        (0, 1).
    most
        How often in a run, at most; then the run stops.

    Raises
    ------
    ValueError
        A number is out of range.
    """

    __slots__ = ()

    def __new__(cls, factor: float = 0.5, most: int = 3) -> Self:
        fix = "Rollback(factor=0.5, most=3) is usual."
        if not (isinstance(factor, float) and 0 < factor < 1):
            must = "factor must be a number between 0 and 1"
            raise ValueError(message("Rollback", must, repr(factor), fix))
        return super().__new__(cls, factor, positive_int("Rollback", "most", most, fix))


def checked(given: Any) -> Any:
    """Return what shall be done about numbers that are not finite: "stop", "skip" or a `Rollback`.

    Raises
    ------
    ValueError
        It is nothing of these.
    """
    if isinstance(given, str) and given in ("stop", "skip", "rollback"):
        return Rollback() if given == "rollback" else given
    # A configuration that was read has it as a list.
    if isinstance(given, tuple | list) and len(given) == 2:
        return Rollback(*given)
    must = 'on_nonfinite must be "stop", "skip", "rollback" or a Rollback'
    fix = "Leave it out to stop."
    raise ValueError(message("Trainer", must, repr(given), fix))


def require_finite_end(owner: str, metrics: Mapping[str, Any]) -> None:
    """Refuse what has come out of a run whose last validation loss is not finite.

    Raises
    ------
    NotFiniteError
        It is not.
    """
    loss = metrics.get("validation_loss")
    if isinstance(loss, float) and not math.isfinite(loss):
        must, fix = "the last validation loss must be finite", "Lower the learning rate."
        raise NotFiniteError(message(owner, must, loss, fix))


class Guard:
    """Looks at losses and gradients of all steps, and has all ranks do the same about those that
    are not finite.

    Parameters
    ----------
    policy
        "stop", "skip" or a `Rollback`.
    model, loss
        Whose layers are named.
    optimizer
        Whose learning rate is lowered.
    gather
        What layers ask other ranks by.
    scaling
        The loss scale, which is lowered where gradients overflow before anything else is done.
    comm
        The ranks.

    Attributes
    ----------
    strict
        Whether no update may be made by a gradient whose norm is not finite.
    skipped, rollbacks
        How many updates were left out, and how often training went back.
    """

    def __init__(
        self,
        policy: Any,
        model: Module,
        loss: Any,
        optimizer: Optimizer,
        gather: ShardGather,
        scaling: LossScaling,
        comm: Communicator,
    ) -> None:
        self.strict = policy != "stop" or scaling.on
        self.skipped = 0
        self.rollbacks = 0
        self._checkpoints: Sequence[Checkpoints] = ()
        self._policy = policy
        self._scaling = scaling
        self._optimizer = optimizer
        optimizer.factor = 1.0
        self._comm = comm
        self._diagnosis = Diagnosis(model, loss, gather)
        # What this rank has found in the group of batches.
        self._found: Finding | None = None

    def follow(self, flat: FlatParameters) -> None:
        """Look at these parameters and their gradients from now on."""
        self._flat = flat
        self._gradients_finite = finite.GradientCheck(flat, whole=self.strict)

    # What is found

    def begin_group(self) -> None:
        """Forget what was found in a group that has not come to its update."""
        self._found = None

    def look(self, loss: Value, total: float, step: int) -> None:
        """Look at a batch that more batches of its group follow, whose loss sums have this
        total.
        """
        if self._found:
            return
        if not math.isfinite(total):
            self._found = self._diagnosis.of_loss(loss) or _SUM
            return
        # Shards wait apart from their sums; parameters without a gradient may have an old one.
        apart = self._flat.groups[-1] > len(self._flat.gradients)
        if (apart or not self._gradients_finite(step)) and (
            names := finite.gradients_not_finite(self._flat)
        ):
            self._found = (
                _OVERFLOW
                if self._scaling.may_fall
                else self._diagnosis.of_gradient(loss, self._flat, names)
            )

    def look_at_gradients(self, loss: Value, step: int) -> int:
        """Look at the gradients of a group, which are complete, and the last batch of which is
        that of the loss; return what to tell the other ranks.
        """
        if not self._found:
            if self._gradients_finite(step):
                return 0
            if self._scaling.may_fall:
                return _NOT_FINITE
            names = finite.gradients_not_finite(self._flat)
            # A loss that is not finite is the cause, if there is one.
            self._found = self._diagnosis.of_loss(loss) or self._diagnosis.of_gradient(
                loss, self._flat, names
            )
        return _NOT_FINITE

    def require_finite(self, loss: Value, value: float, step: int, requested: int) -> None:
        """Raise the same error on all ranks if the loss of a step or a gradient of a rank is not
        finite; collective.
        """
        if not requested & _NOT_FINITE and math.isfinite(value):
            return
        if math.isfinite(value) and self._scaling.may_fall:
            self._found = None
            raise self._scaling.overflow(step)
        if not self._found and not math.isfinite(value):
            self._found = self._diagnosis.of_loss(loss)
        here, self._found = self._found, None
        found = gather_texts(self._comm, json.dumps(here))
        what = "gradient" if math.isfinite(value) else "loss"
        name = finite.first_parameter(self._flat)
        fix = "Lower the learning rate, clip the gradient with clip_norm=1, or check the data."
        if name is not None:
            since = (
                f"since the update of step {step - 1} or a change by the script"
                if step > 0
                else "since before the first step"
            )
            where = f"; {name} is not finite, {since}"
            fix = "The learning rate was too high, or a sum of gradients or moments too large."
        else:
            where = _of_ranks([json.loads(text) for text in found])
            if " was given " in where:
                fix = "Drop or impute those samples."
            elif what == "gradient":
                fix = (
                    "Look for a division by zero, or a logarithm or a root of zero, in the layers"
                    " from there on and in the loss."
                )
        if what == "gradient" and self._scaling.on:
            where = f" at every loss scale down to {self._scaling.value:g}{where}"
        got = f"{value if what == 'loss' else 'NaN or inf'} in step {step}{where}"
        error = NotFiniteError(message("Trainer", f"the {what} must be finite", got, fix))
        error.of_parameters = name is not None
        raise error

    # What is done

    def use(self, checkpoints: Sequence[Checkpoints]) -> None:
        """Go back to these checkpoints, of which there must be some for a rollback."""
        if isinstance(self._policy, Rollback) and not checkpoints:
            must, fix = "a rollback needs checkpoints", "Pass callbacks=[Checkpoints(…)]."
            raise ValueError(message("Trainer", must, "no Checkpoints among callbacks", fix))
        self._checkpoints = checkpoints

    def begin(self, trainer: "Trainer") -> None:
        """Have a checkpoint to go back to when a run begins; collective."""
        if isinstance(self._policy, Rollback):
            self._checkpoints[0].write(trainer)

    def recovers(self, trainer: "Trainer", error: NotFiniteError) -> bool:
        """Return whether training goes on after an error that all ranks have raised alike, having
        left out the update, or gone back; collective.
        """
        # What ranks have asked for in this step, none has done.
        reducer = trainer._update.reducer
        reducer.request |= reducer.requested & ~_NOT_FINITE
        if isinstance(error, GradientOverflowError):
            self._scaling.fall()
            if trainer._truncation is not None:
                trainer._truncation.undo()
        elif isinstance(self._policy, Rollback):
            self._roll_back(trainer, self._policy, error)
        elif self._policy == "skip" and not error.of_parameters:
            self.skipped += 1
            if trainer._truncation is not None:
                trainer._truncation.undo()
            if self.skipped <= _SAID or self.skipped % 100 == 0:
                self._say(trainer, error, f"The update is left out, {self.skipped} so far.")
        else:
            return False
        return True

    def _roll_back(self, trainer: "Trainer", policy: Rollback, error: NotFiniteError) -> None:
        if self.rollbacks >= policy.most:
            error.add_note(f"Training went back {self.rollbacks} times because of such numbers.")
            raise error
        stream, newest = trainer._stream, self._checkpoints[0].newest()
        if newest is None or not stream.is_within_run(newest.snapshot().part("stream")):
            error.add_note("There is no checkpoint of this run yet to go back to.")
            raise error
        counts = {"skipped": self.skipped, "rollbacks": self.rollbacks + 1}
        factor = self._optimizer.factor * policy.factor
        trainer._go_on(newest.snapshot())
        self.load_state({**counts, "factor": factor})
        stream.interrupt()
        times = f"{self.rollbacks} of at most {policy.most} times"
        done = f"Training goes back to step {newest.step}, with {factor:g} of the learning rate"
        self._say(trainer, error, f"{done}, {times}.")

    def may_be_saved(self, trainer: "Trainer") -> bool:
        """Return whether parameters are fit for a checkpoint, or raise what ends the run; a run
        that goes back does so in its next step.
        """
        error = self.of_parameters(trainer.step_count - 1)
        if error is None:
            return True
        if isinstance(self._policy, Rollback):
            return False
        raise error

    def of_parameters(self, step: int) -> NotFiniteError | None:
        """Return the error of parameters that are not finite after the update of a step, the same
        on all ranks.
        """
        name = finite.first_parameter(self._flat)
        if name is None:
            return None
        got = f"NaN or inf in {name} after step {step}"
        fix = "The learning rate was too high, or a sum of gradients or moments too large."
        error = NotFiniteError(message("Trainer", "the parameters must be finite", got, fix))
        error.of_parameters = True
        return error

    def counts(self) -> dict[str, float]:
        """Return for a record how many updates were left out so far, and how often training went
        back, if any, and the loss scale, if there is one.
        """
        counts = {"skipped": self.skipped, "rollbacks": self.rollbacks}
        return {name: count for name, count in counts.items() if count} | self._scaling.record()

    def _say(self, trainer: "Trainer", error: NotFiniteError, done: str) -> None:
        if trainer.comm.leads:
            terminal.say(f"{error} {done}")
            line = {"step": trainer.step_count, **self.counts(), "error": str(error), "done": done}
            trainer._fit.note(terminal.json_line(line))

    # State

    def state(self) -> dict[str, Any]:
        """Return the counts, and what the learning rate is multiplied by."""
        return {
            "skipped": self.skipped,
            "rollbacks": self.rollbacks,
            "factor": self._optimizer.factor,
        }

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes."""
        return {"skipped": integer(0), "rollbacks": integer(0), "factor": _FACTOR}

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.skipped = state["skipped"]
        self.rollbacks = state["rollbacks"]
        self._optimizer.factor = state["factor"]
        self._found = None


def _of_ranks(found: list[list[Any] | None]) -> str:
    """Return what ranks have found, `Finding`s as JSON has them, in one text; what is found first
    on one rank may be the cause of what others find later.
    """
    first = min((each[0] for each in found if each), default=None)
    some = [(rank, each[1]) for rank, each in enumerate(found) if each and each[0] == first]
    if not some:
        return "; it is finite on each rank" if len(found) > 1 else ""
    if len(found) == 1:
        text = str(some[0][1])
        return f" {text}" if text.startswith("for ") else f"; {text}"
    parts = [f"on rank {rank} {text}" for rank, text in some[:_NAMED]]
    more = [f"on {len(some) - _NAMED} ranks more"] if len(some) > _NAMED else []
    return f": {'; '.join(parts + more)}"
