"""The tape: a flat list of calls in the order of execution, walked in reverse by backward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import add
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from layers.checks import array as as_array
from layers.checks import (
    boolean,
    non_negative_int,
    require_below,
    require_numbers,
    require_unmasked,
)
from layers.errors import message
from layers.kernels import underflow
from layers.types import Array, Integers

from . import sample_axes
from .call import Call, Gather
from .hooks import TapeHook, TapeHooks, bound
from .layer import Layer
from .live_outputs import LiveOutputs
from .observation import Observation
from .parameter import Parameter
from .readiness import Readiness
from .replay.replay import Following, Replay, all_stale
from .replay.steps import NotedCall, Notes
from .rules import Rule
from .shard_bounds import ShardBounds
from .value import Value
from .workspace import Workspace

if TYPE_CHECKING:
    from .flat_parameters import FlatParameters


def _flag(name: str, value: Any) -> bool:
    return value if value.__class__ is bool else boolean("Tape", name, value)


class Tape:
    """Records calls of layers, and runs their backward passes in reverse.

    Parameters
    ----------
    training
        Whether layers such as Dropout behave as in training.
    shards
        Bounds of the shards in the rows of the batch, as (0, …, rows); one shard unless said.
        Parameter gradients are kept per shard.
    samples
        Number of samples in the global batch, which a loss is divided by; the rows of the local
        batch unless said.
    first_sample
        Number of the first local row in the global batch. With `seed` and `step` it keys the random
        masks, so that they do not depend on how the batch is spread over processes.
    seed, step
        The rest of that key.
    workspace
        Buffers to reuse; pass the same one every step.
    hooks
        What watches the tape, see `TapeHook`; pass a `TapeHooks` to many tapes.
    gather
        How to learn of the shards of other processes; unless given, there are none.
    deferred
        Whether what layers observe waits for `settle`.
    owner
        Compute the gradients of its parameters only, as if all others were frozen; of all unless
        given.
    observer
        Refused: it is now `hooks`.
    """

    complex_step: bool = False
    """Whether inputs may be complex, which is for the gradient check."""
    rule: Rule | None = None
    propagated_by: Rule | None = None
    """The rule of the backward pass that began last."""
    draws: int = 0
    """How often calls have asked for a random key."""
    inputs: int = 0
    """How many arrays it has copied."""
    released: bool = False
    turn: int = 0
    """Of the tapes of its workspace that have recorded, which one this is; 0 before."""
    is_segment: bool = False
    """Whether it is of a pass over a segment."""
    notes: Notes | None = None
    """Where what this step runs is noted, if a later one may be replayed."""
    pending: Sequence[Observation] = ()
    """What layers have observed and `settle` will tell them of."""
    numbers: Any = None
    """Numbers of the local rows in a data set (rows,), or the first's in the batch, or None."""
    completes: bool = False
    """Whether nothing is added to the owner's gradients after the next backward pass."""
    readiness: Readiness | None = None
    """What counts the uses of parameters in the backward pass, where somebody asks."""
    adds_up: bool = False
    """Whether nobody asks for the gradients of single shards in that pass."""
    live: LiveOutputs | None = None
    """The outputs that may still be read, where calls keep in 16 bits what backward needs."""
    moved: bool = False
    """Whether samples may lie elsewhere than on axis 0: see `sample_axes`."""
    _following: Following | None = None
    _unfinished: bool = False

    def __init__(
        self,
        *,
        training: bool = False,
        shards: Sequence[int] | Integers | None = None,
        samples: int | None = None,
        first_sample: int = 0,
        seed: int = 0,
        step: int = 0,
        workspace: Workspace | None = None,
        hooks: TapeHooks | Sequence[TapeHook] | None = None,
        gather: Gather | None = None,
        deferred: bool = False,
        owner: "FlatParameters | None" = None,
        observer: Any = None,
    ) -> None:
        if observer is not None:
            must, fix = "what it tells must go to hooks", "Pass hooks=[…]: see layers.TapeHook."
            raise TypeError(message("Tape", must, f"observer={observer!r}", fix))
        require_below("Tape", "first_sample", first_sample, 63)
        require_below("Tape", "seed", seed, 64)
        require_below("Tape", "step", step, 63)
        if samples is not None:
            samples = non_negative_int("Tape", "samples", samples, "Leave it out for the rows.")
        if not isinstance(cast(Any, workspace), Workspace | None):
            must, fix = "workspace must be a Workspace", "Pass one layers.Workspace() every step."
            raise TypeError(message("Tape", must, repr(workspace), fix))
        if owner is not None and not hasattr(owner, "begin_pass"):
            must, fix = "owner must be FlatParameters", "Leave it out for all parameters."
            raise TypeError(message("Tape", must, repr(owner), fix))
        self.training = _flag("training", training)
        self.samples = samples
        self.first_sample = first_sample
        self.seed = seed
        self.step = step
        self.workspace = Workspace() if workspace is None else workspace
        self.hooks = hooks if hooks is None or type(hooks) is TapeHooks else bound("Tape", hooks)
        self.deferred = deferred
        self.owner = owner
        self._gather = gather
        if shards is not self.workspace.shards.given:
            self.workspace.shards = ShardBounds(shards)
        self.shard_bounds = self.workspace.shards
        self.shards = self.shard_bounds.count
        self.divided = samples is not None and (self.shards > 1 or self.rows != samples)
        """Whether the global batch is more than one shard, here or on several ranks."""
        self.replays = training and workspace is not None and not self.watched
        """Whether steps on it may be replayed: nobody watches, and it has the memory of others."""
        self._made = {**vars(self)}
        self._begin()

    def _begin(self) -> None:
        """Be empty."""
        workspace = self.workspace
        if self.owner is not workspace.owner or workspace.freezes != Parameter.freezes:
            workspace.begin(self.owner)
        self._calls: list[Call] = []
        self.kept: list[Value] = []
        """Values whose gradients are kept: inputs, and those that `Value.keep_grad` was called
        on.
        """
        self.shares: list[Call] = []
        """Calls that have averaged over the batch."""
        if self.replays and self.__class__ is Tape:
            if workspace.replay is None:
                workspace.replay = Replay()
            self.notes, self._following = workspace.replay.begin(self)

    def next(self, step: int, first_sample: int) -> "Tape":
        """Return a new tape made as this one, which `replays`, was, for another step."""
        tape = Tape.__new__(self.__class__)
        vars(tape).update(self._made, _made=self._made, step=step, first_sample=first_sample)
        self.workspace.shards = self.shard_bounds
        tape._begin()
        return tape

    def input(self, array: Any, *, gradient: bool = True, copy: bool = True) -> Value:
        """Return a value for an array.

        Parameters
        ----------
        array
            Numbers; the tape copies them.
        gradient
            Whether its own gradient is computed, unless it is of integers.
        copy
            Without a copy, the array must not change before backward has ended.
        """
        gradient, copy = _flag("gradient", gradient), _flag("copy", copy)
        if array.__class__ is not np.ndarray:
            require_unmasked("Tape.input", "x", array)
            array = as_array("Tape.input", "x", array)
        require_numbers("Tape.input", array, or_complex=self.complex_step)
        if copy and array.flags.writeable:
            array = self.workspace.copy(array, 0, "tape input", self.inputs)
            self.inputs += 1
        value = Value(self, array, None, gradient and array.dtype.kind in "fc")
        if value.wants:
            value.keep_grad()
        if self.notes is not None:
            self.notes.values.append(value)
        elif self._following is not None and not self._following.take(value):
            self.unfold()
        return value

    def repeat(self, model: Any, loss: Any, x: Any, constants: tuple[Any, ...]) -> Value | None:
        """Return the loss of what a model makes of x, beside constants, without calling either
        where it is known that they do what they have done in the step before; else None. Nothing
        else may be called on this tape before its backward pass.
        """
        if self._following is not None:
            return self._following.repeat(self, (model, loss), x, constants)
        if self.notes is not None:
            self.notes.program = model, loss
        return None

    @property
    def calls(self) -> list[Call]:
        """The calls that have been recorded, in their order."""
        if self._following is not None and self._following.has_calls:
            self.unfold()
        return self._calls

    def unfold(self) -> None:
        """Be an ordinary tape from now on, if this one replays: see `layers.engine.replay`."""
        following, self._following = self._following, None
        if following is not None:
            self.workspace.replay.miss()
            self._calls = [*following.calls(self)]
            self.moved = self.divided

    def end_notes(self) -> None:
        """Note what this step runs no longer, which cannot be replayed."""
        if self.notes is not None:
            self.notes = None
            self.workspace.replay.refuse()

    @property
    def rows(self) -> int:
        """The rows of the local batch; 0 where no shards were given."""
        return self.shard_bounds.rows

    def bounds(self, rows: int) -> Integers:
        """Return the bounds (S + 1,) of the shards in an array of so many rows."""
        return self.shard_bounds.of(rows)

    def record(self, layer: Layer, inputs: tuple[Any, ...]) -> Any:
        """Run a layer on values and arrays, and remember the call; return its value or values."""
        following = self._following
        if following is not None:
            value = following.record(self, layer, inputs)
            if value is not None:
                return value
            self.unfold()
        if self.live is not None:
            self.live.sweep()
        elif layer.precision.storage is not None and self.training:
            self.live = LiveOutputs()
        calls = self._calls
        if not calls:
            self.workspace.begin_turn(self)
        kind = layer.call_kind or (Call if self.notes is None else NotedCall)
        call = kind(self, layer, inputs, len(calls))
        # Before forward runs, so that calls which a layer makes within its own come after it.
        calls.append(call)
        hooks = self.hooks
        mode = underflow.flush()
        try:
            if hooks is not None:
                for tell in hooks.forward_begin:
                    tell(call)
            if len(inputs) == 1:
                (x,) = inputs
                wants = x.wants
                array = layer.answer(call, x.array)
            else:
                wants, arrays = self._arrays(call)
                array = layer.answer(call, *arrays)
            wants = wants or bool(call.trained)
            if array.__class__ is tuple:
                result: Any = call.give_several(array, wants)
            else:
                result = call.output = Value(self, array, call, wants)
            if self.moved:
                sample_axes.place(call)
        except BaseException:
            del calls[call.index :]
            self.notes = None
            self.shares = [share for share in self.shares if share.index < call.index]
            self.draws = call.draws
            raise
        finally:
            underflow.restore(mode)
        if self.notes is not None:
            self.notes.end_call(call, result if result.__class__ is tuple else (result,))
        if self.live is not None:
            self.live.add(call)
        if hooks is not None:
            for tell in hooks.forward_end:
                tell(call)
        return result

    def _arrays(self, call: Call) -> tuple[bool, list[Any]]:
        """Return whether any of the inputs of a call wants a gradient, and their arrays."""
        layer = call.layer
        wants = False
        arrays: list[Any] = []
        for x in call.inputs:
            if isinstance(x, Value):
                if x.tape is not self:
                    must, got = "all inputs must be on one tape", "values of two tapes"
                    raise ValueError(message(layer, must, got, "Record both on the same tape."))
                wants = wants or x.wants
                x = x.array
            elif x.__class__ is np.ndarray:
                require_numbers(layer, x, or_complex=self.complex_step)
                if layer.keeps_constants:
                    x = call.constant(len(arrays), x)
            elif isinstance(x, np.ma.MaskedArray):
                require_unmasked(layer, "x", x)
            arrays.append(x)
        return wants, arrays

    @contextmanager
    def observed(self, *hooks: TapeHook, alone: bool = False) -> Iterator[None]:
        """Return a context in which the tape tells these hooks, too, after those that it has, or
        these `alone`.
        """
        self.unfold()
        self.end_notes()
        before, more = self.hooks, bound("Tape.observed", hooks)
        if before is not None and more is not None and not alone:
            more = TapeHooks._make(map(add, before, more))
        self.hooks = more or before
        try:
            yield
        finally:
            self.hooks = before

    def gather(self, numbers: Array) -> Array:
        """See `Call.gather`."""
        return numbers if self._gather is None or not numbers.shape[1] else self._gather(numbers)

    def on_gathered(
        self, numbers: Array, apply: Callable[[Array], None], *, gathered: bool = False
    ) -> None:
        """See `Call.on_gathered`."""
        if self.deferred:
            self.pending = [*self.pending, Observation(numbers, apply, gathered)]
        else:
            apply(numbers if gathered else self.gather(numbers))

    def settle(self) -> None:
        """Gather all that layers have observed at once, and call what they passed with it."""
        for apply, numbers in self.observed_by_all():
            apply(numbers)

    def observed_by_all(self) -> list[tuple[Callable[[Array], None], Array]]:
        """Gather all that layers have observed at once; return what they passed, and for what."""
        pending, self.pending = self.pending, ()
        local = [numbers for numbers, _, gathered in pending if not gathered]
        everywhere = self.gather(np.concatenate(local, axis=1)) if local else None
        found = []
        start = 0
        for numbers, apply, gathered in pending:
            if everywhere is not None and not gathered:
                stop = start + numbers.shape[1]
                numbers = everywhere[:, start:stop]
                start = stop
            found.append((apply, numbers))
        return found

    @contextmanager
    def drawing_again(self, call: Call) -> Iterator[None]:
        """Give out the random keys that followed the beginning of a call once more."""
        draws, self.draws = self.draws, call.draws
        try:
            yield
        finally:
            self.draws = draws

    @property
    def watched(self) -> bool:
        """Whether there are hooks that may look at arrays."""
        return self.hooks is not None and not self.hooks.replayable

    def run(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a function, and note it if this step may be replayed."""
        if self.notes is not None:
            self.notes.runs.append((function, arguments))
        function(*arguments)

    def restart(self) -> None:
        """Forget all calls and what they observed, to record the same step from its inputs."""
        inputs = [value for value in self.kept if value.call is None]
        self._forget()
        self.kept = inputs
        self.pending = ()

    def release(self) -> None:
        """Forget all calls, and free memory: values can no longer be differentiated."""
        self.released = True
        self._forget()

    def _forget(self) -> None:
        for call in self._calls:
            call.release()
        self._calls = []
        self._following = self.notes = self.live = None
        self.completes = self.adds_up = self.moved = False
        self.draws = 0
        self.kept = []
        self.shares = []

    def backward(self, value: Value, gradient: Array, rule: Rule | None) -> None:
        """Walk the calls up to `value` in reverse."""
        self.workspace.require_held_by(self)
        self.propagated_by = rule
        following = self._following
        if following is not None:
            if self.owner is not None:
                self.owner.begin_pass()
            if rule is None and following.backward(value, gradient):
                self.workspace.replay.steps += 1
                return
            self.unfold()
        if value.call is None or not value.wants:
            must, got = "the value must depend on something differentiable", "a constant"
            fix = "Compute it from tape.input(…) or from layers with parameters."
            raise ValueError(message("Value.backward", must, got, fix))
        if self._unfinished:
            for call in self._calls:
                call.output.clear()
        for kept in self.kept:
            kept.clear()
        self._unfinished = True
        if self.owner is not None:
            self.owner.begin_pass()
        if self.live is not None:
            self.live.sweep()
        self.rule = rule
        if rule is not None:
            self.end_notes()
            rule.begin(value, gradient)
        notes = self.notes
        if notes is not None:
            notes.forward = len(notes.runs)
            self.notes = notes if all_stale(self) else None
        mode = underflow.flush()
        try:
            self._walk(value, gradient, rule)
        finally:
            underflow.restore(mode)
        self.rule = None
        self._unfinished = False
        if self.hooks is not None:
            for end in self.hooks.backward_pass_end:
                end(self)
        if notes is not None and self.notes is notes:
            self.notes = None
            self.workspace.replay.learn(self, notes, value, gradient)
        self.completes = self.adds_up = False

    def _walk(self, value: Value, gradient: Array, rule: Rule | None) -> None:
        hooks = self.hooks
        tells, completes = () if hooks is None else hooks.parameter_ready, self.completes
        asked = completes or tells
        self.readiness = Readiness(self._calls, tells, completes=completes) if asked else None
        for begin in () if hooks is None else hooks.backward_pass_begin:
            begin(self)
        value.receive(gradient)
        self._walk_calls(rule)
        for kept in self.kept:
            kept.own_gradient()

    def _walk_calls(self, rule: Rule | None) -> None:
        """Run backward of the calls that are reached, the last first; each alone has its dy."""
        hooks, readiness = self.hooks, self.readiness
        for call in reversed(self._calls):
            reached = call.output.received is not None
            if hooks is not None and reached:
                for tell in hooks.backward_begin:
                    tell(call)
            if reached:
                call.backward(call.output.hand_on(), rule)
                if hooks is not None:
                    for tell in hooks.backward_end:
                        tell(call)
            if readiness is not None and not (reached and call.counts_itself):
                readiness.count(call)
