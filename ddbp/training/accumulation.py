"""Gradient accumulation: batches of a group add to one update, which is that of one batch with the
samples of all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from ddbp.comm.agreement import gather_uneven
from ddbp.data.samples import call
from ddbp.reduction.reducer import Reducer
from ddbp.snapshot import BOOLEAN, NUMBER, Entry, Schema, State, array, below, integer, listing
from layers import Parameter, Rule, Tape, Value
from layers.engine.observation import Observation
from layers.engine.shares import required
from layers.errors import message
from layers.types import Array

from . import checks
from .batch import Batch
from .loss_scale import LossScaling

_NO_SUMS: Array = np.zeros(0)


class Accumulation:
    """Decides which batches make a group that one update is for, and keeps what they have
    contributed since the last one.

    A batch's loss L_i is a mean over M_i samples (or Σ w of a loss with weights), and so is its
    gradient. The mean over the group is Σ M_i L_i / Σ M_i, where M_i L_i are the sums that losses
    report. How large the group becomes is not known
    beforehand: gradients add up as Σ (M_i / M_1) ∇L_i, and the update multiplies by M_1 / Σ M_i.
    Where all batches are of one size, the first factor is 1; for a single batch, both are.

    Parameters
    ----------
    every
        Batches of a group.
    reducer
        Where gradients go when a group ends.
    scaling
        What gradients are multiplied by on their way back; a group has one scale.
    rule
        What is propagated backwards; the exact gradient unless given.

    Attributes
    ----------
    batches, samples
        How many batches, and samples of global batches, the group has so far.
    updated
        How many samples the last update was for.
    counted, by_samples
        What the loss of the last update was a mean over, Σ M_i, and whether that are samples.
    before
        What is called with a loss and its gradient before a rule propagates it, if given.
    last
        The tape of a batch that ends its group, however many came before it.
    newest
        The tape of the batch that was made last, whose memory is that of all before.
    ends_run
        Whether the run ends with the batch that was given out last.
    sums
        The sums of this rank's shards that the losses are made of, (local S,).
    """

    def __init__(
        self, every: int, reducer: Reducer, scaling: LossScaling, rule: Rule | None = None
    ) -> None:
        self.every = every
        self.rule = rule
        self.before: Callable[[Value, Any], None] | None = None
        self._reducer = reducer
        self._scaling = scaling
        self.last: Tape | None = None
        self.newest: Tape | None = None
        self.ends_run = False
        self._numbers: set[float] = set()
        self.held = False
        """Whether gradients accumulate whatever the number of batches."""
        self._begin()
        self.clear()

    def clear(self) -> None:
        """Begin a new group, after an update."""
        self.updated = self.samples
        self.counted = self._total
        self.by_samples = self._by_samples
        self._begin()

    def _begin(self) -> None:
        self.samples = 0
        self.batches = 0
        self.sums = _NO_SUMS
        # What layers have observed, and shall be told once of all shards: in the update, as it
        # takes the other ranks.
        self._observed: list[Observation] = []
        self._first = 0.0
        self._total = 0.0
        self._by_samples = True
        # Gradients of this rank's shards that were loaded, by parameter.
        self._loaded: dict[str, Array] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Return a context in which no group ends."""
        before = self.held
        self.held = True
        try:
            yield
        finally:
            self.held = before

    def factor(self, loss: Value) -> float:
        """Return M_i / M_1 of the next batch, times the loss scale."""
        return self._scaling.value * (_weight(loss) / self._first if self._first else 1.0)

    def run_pass(self, forward: Any, loss: Any, batch: Batch) -> Value:
        """Propagate a batch forward, from the beginning of its tape, and backward; return its
        loss.
        """
        x, y, _, weights, tape = batch
        assert tape is not None
        self.newest = tape
        if tape.calls:
            tape.restart()
        arguments = (y,) if weights is None else (y, weights)
        if self.rule is not None:
            losses = self.rule.losses(forward, loss, x, *arguments)
            if losses is not None:
                value, start = losses
                return self.backward(value, start=start)
        repeated = tape.repeat(forward, loss, x, arguments)
        if repeated is not None:
            return self.backward(repeated)
        prediction = forward(x) if x.__class__ is Value else call(forward, x)
        return self.backward(loss(prediction, *arguments))

    def backward(
        self, loss: Value, gradient: Any = None, *, start: Value | None = None, **options: Any
    ) -> Value:
        """Propagate backwards from the loss of the next batch, with its factor, or the value
        that it is to `start` from; return the loss.

        If that fails, the group begins anew: what the pass has added cannot be told from what had
        accumulated.
        """
        self._require_newest(loss)
        factor = self.factor(loss)
        if factor != 1:
            gradient = (
                np.full(loss.shape, factor) if gradient is None else np.asarray(gradient) * factor
            )
        ends = self._ends(self.batches + 1, loss.tape)
        # Until kernels have been compiled, by the first update, passes may only be for practice.
        try:
            if self.rule is not None:
                options.setdefault("rule", self.rule)
                if self.before is not None:
                    self.before(loss, gradient)
            with (
                self._reducer.overlapping(loss.tape, send=bool(self.updated))
                if ends
                else nullcontext()
            ):
                (loss if start is None else start).backward(gradient, **options)
        except BaseException:
            self.lose()
            raise
        return loss

    def require_no_factor(self, loss: Value) -> Value:
        """Return the loss, or refuse a batch whose gradient had to be multiplied, or that of the
        rule, and was not.
        """
        self._require_newest(loss)
        if self.factor(loss) != 1:
            must = (
                "a batch of another size than the first that accumulates must be propagated"
                " backwards by step"
            )
            got = f"{_weight(loss):g} samples after {self._first:g}"
            if self._scaling.on:
                must = "a batch must be propagated backwards by step where losses are scaled"
                got = f"a scale of {self._scaling.value:g}"
            fix = "Call trainer.step(loss) instead of loss.backward() and trainer.update(loss)."
            raise ValueError(message("Trainer.update", must, got, fix))
        if self.rule is not None and loss.tape.propagated_by is not self.rule:
            self.lose()
            must = f"a batch must be propagated backwards by the trainer's rule, {self.rule!r}"
            got = str(loss.tape.propagated_by or "exact backpropagation")
            fix = "Call trainer.step(loss), or loss.backward(rule=trainer.options.rule)."
            raise ValueError(message("Trainer.update", must, got, fix))
        return loss

    def _require_newest(self, loss: Value) -> None:
        """Refuse a loss that is not of the batch that was made last."""
        flat = self._reducer.flat
        checks.is_value(loss)
        if loss.tape.owner is not flat or flat.freezes != Parameter.freezes:
            checks.own_tape(loss, flat)
        if loss.tape is not self.newest and self.newest is not None:
            must = "the loss must be of the batch that was made last"
            got = "one of a batch whose memory another has taken since"
            fix = "Step before anything else makes a batch: batches, batch, train_step, fit, fork."
            raise ValueError(message("Trainer.step", must, got, fix))

    def add(self, loss: Value) -> None:
        """Count a batch whose gradient has been added; if its loss is refused, the group begins
        anew.
        """
        assert loss.tape.samples is not None
        try:
            sums, divisor = required(loss, "Trainer", self._numbers)
        except ValueError:
            self.lose()
            raise
        weight = float(loss.tape.samples) if divisor is None else divisor
        # The memory of the sums is used again by the next batch.
        self.sums = self.sums + sums if self.batches else sums.copy()
        if not self._first:
            # What came before, if anything, was of no weight.
            self._first = weight
        self._total += weight
        self._by_samples = divisor is None
        self.batches += 1
        self.samples += loss.tape.samples

    def goes_on(self, tape: Tape) -> bool:
        """Return whether the group goes on after the batch on this tape; if so, keep what layers
        have observed in it.
        """
        if self._ends(self.batches, tape):
            return False
        # The memory is used again by the next batch.
        self._observed += [each._replace(numbers=each.numbers.copy()) for each in tape.pending]
        return True

    def pending(self, tape: Tape) -> Sequence[Observation]:
        """Return what layers have observed in the group, which the batch on this tape ends."""
        if not self._observed:
            return tape.pending
        unknown = [each for each in self._observed if each.apply is _not_known]
        if not unknown:
            return [*self._observed, *tape.pending]
        # Every batch of a group runs the same layers in the same order.
        known = [*self._observed[len(unknown) :], *tape.pending][: len(tape.pending)]
        width = [(each.gathered, each.numbers.shape[1]) for each in known]
        found = [(each.gathered, each.numbers.shape[1]) for each in unknown]
        if not width or found != (width * len(found))[: len(found)] or len(found) % len(width):
            must = "the batches of a group that was loaded must observe the same in the same layers"
            fix = "Load a state from between two updates, where layers differ between batches."
            raise ValueError(message("Trainer", must, f"{found} before {width}", fix))
        applies = [each.apply for each in known] * (len(unknown) // len(known))
        return [
            *(each._replace(apply=apply) for each, apply in zip(unknown, applies, strict=True)),
            *self._observed[len(unknown) :],
            *tape.pending,
        ]

    def move(self, reducer: Reducer) -> None:
        """Have gradients go to another reducer from now on, between two groups."""
        self._reducer = reducer
        self.updated = 0

    def lose(self) -> None:
        """Begin the group anew, whose gradients have been lost."""
        self._begin()
        self._reducer.flat.zero_gradients()

    def restart(self) -> None:
        """Forget gradients that were only computed for practice, before the first batch."""
        self._reducer.flat.zero_gradients()
        self._write_loaded()

    def _ends(self, batches: int, tape: Tape) -> bool:
        """Return whether the group ends with the batch on this tape, with so many batches."""
        return not self.held and (batches >= self.every or tape is self.last)

    def state(self) -> dict[str, Any]:
        """Return what the group has so far, of every shard; collective. Between groups
        that is their number, 0.
        """
        if not self.batches:
            return {"batches": 0}
        gradients = self._gradients()
        return {
            "batches": self.batches,
            "samples": self.samples,
            "first": self._first,
            "total": self._total,
            "by_samples": self._by_samples,
            "gradients": [*gradients],
            "gathered": [each.gathered for each in self._observed],
            "sums": self._of_all(self.sums),
            **{
                f"observed.{number}": numbers if gathered else self._of_all(numbers)
                for number, (numbers, _, gathered) in enumerate(self._observed)
            },
            **{f"gradients.{name}": whole for name, whole in gradients.items()},
        }

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes: the whole of a group, or that there is none."""
        none = integer(0, 0)
        if none.holds(state.get("batches")):
            return {"batches": none}
        flat, shards = self._reducer.flat, self._reducer.plan.shards
        stored = dict(zip(flat.names, flat.parameters, strict=True))
        named = Entry("a name of a parameter", lambda name: type(name) is str and name in stored)
        accumulated, gathered = listing(named), listing(BOOLEAN)
        names: Any = state.get("gradients")
        flags: Any = state.get("gathered")
        return {
            "batches": integer(1),
            "samples": integer(1),
            "first": NUMBER,
            "total": NUMBER,
            "by_samples": BOOLEAN,
            "sums": array(np.float64, shards),
            "gradients": accumulated,
            "gathered": gathered,
            **{
                f"observed.{number}": array(np.float64, None if whole else shards, None)
                for number, whole in enumerate(flags if gathered.holds(flags) else [])
            },
            **{
                f"gradients.{name}": array(stored[name].dtype, shards, *stored[name].shape)
                for name in (names if accumulated.holds(names) else [])
            },
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks."""
        self._reducer.flat.zero_gradients()
        self.updated = 0
        self._begin()
        if not state["batches"]:
            return
        first, last = self._reducer.plan.owned(self._reducer.plan.rank)
        self.batches = state["batches"]
        self.samples = state["samples"]
        self._first = state["first"]
        self._total = state["total"]
        self._by_samples = state["by_samples"]
        self.sums = state["sums"][first:last].copy()
        for number, gathered in enumerate(state["gathered"]):
            numbers = state[f"observed.{number}"]
            mine = numbers if gathered else numbers[first:last]
            self._observed.append(Observation(mine.copy(), _not_known, gathered))
        self._loaded = {
            name: whole[first:last].copy() for name, whole in below("gradients", state).items()
        }
        self._write_loaded()

    def _write_loaded(self) -> None:
        if self._loaded:
            self._reducer.flat.begin_pass()
        for name, parameter, _, _ in self._reducer.flat.segments():
            if name in self._loaded:
                gradients, _ = parameter.store.buffer(self._reducer.plan.local)
                gradients[...] = self._loaded[name]

    def _gradients(self) -> dict[str, Array]:
        """Return the gradients of all shards (S, …) of the parameters that have any; collective."""
        flat, comm, local = self._reducer.flat, self._reducer.comm, self._reducer.plan.local
        stale = np.array([parameter.store.stale for parameter in flat.parameters])
        nowhere = np.logical_and.reduce(comm.all_gather(stale))
        result = {}
        for name, parameter, nothing in zip(flat.names, flat.parameters, nowhere, strict=True):
            if nothing:
                continue
            mine = np.zeros((local, *parameter.shape), parameter.dtype)
            if not parameter.store.stale:
                mine[...], _ = parameter.store.buffer(local)
            result[name] = self._of_all(mine)
        return result

    def _of_all(self, mine: Array) -> Array:
        """Return numbers of all shards (S, …), given those of this rank's; collective."""
        return np.concatenate(gather_uneven(self._reducer.comm, mine))

    @property
    def scale(self) -> float:
        """M_1 / Σ M_i, over the loss scale: what the summed gradient is multiplied by."""
        return (self._first / self._total if self._total else 1.0) / self._scaling.value

    def counted_of(self, part: float) -> float:
        """Return what the loss of the last update was a mean over, if its batches were so much of
        their samples: weights count what is there.
        """
        return self.counted * part if self.by_samples else self.counted

    def loss(self, total: float) -> float:
        """Return the mean loss over the group, given the sum of `sums` over all shards of all
        ranks.
        """
        return total / self._total if self._total else 0.0


def _not_known(everywhere: Array) -> None:
    """Stand for what a layer does with what it has observed, until the layer is run again."""
    raise NotImplementedError


def _weight(loss: Value) -> float:
    """Return what a loss is a mean over: the samples of the global batch, or the sum of its
    weights.
    """
    divisor = required(loss, "Trainer").divisor
    return float(loss.tape.samples or 0) if divisor is None else divisor
