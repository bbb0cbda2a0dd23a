"""The tape: a flat list of calls in the order of execution, walked in reverse by backward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from layers.checks import array as as_array
from layers.checks import (
    boolean,
    non_negative_int,
    require_hooks,
    require_numbers,
    require_unmasked,
)
from layers.errors import message
from layers.kernels import underflow
from layers.types import Array, Integers

from .call import Call, Gather
from .hooks import TapeHook, TapeHooks
from .layer import Layer
from .parameter import Parameter
from .rules import Rule
from .shard_bounds import ShardBounds
from .value import Outputs, Value
from .workspace import Workspace

if TYPE_CHECKING:
    from .flat_parameters import FlatParameters


class Observation(NamedTuple):
    """What a layer has observed of the shards, and what it wants to be told then.

    Attributes
    ----------
    numbers
        Those of the local shards (S, k) or, if `gathered`, of all.
    apply
        Called with the numbers of all.
    gathered
        Whether there is nothing left to gather.
    """

    numbers: Array
    apply: Callable[[Array], None]
    gathered: bool


def _bound(owner: str, hooks: Any) -> TapeHooks | None:
    """Return the methods of what users pass as hooks, none of which may be anything else."""
    fix = "Derive from layers.TapeHook."
    return TapeHooks.of(require_hooks(owner, "hooks", hooks, (TapeHook,), fix))


_KEYS = {"first_sample": 2**63, "seed": 2**64, "step": 2**63}
"""What the numbers that key random masks must be below."""


def _flag(name: str, value: Any) -> bool:
    return value if value.__class__ is bool else boolean("Tape", name, value)


def _refuse_key(name: str, number: Any) -> None:
    """Refuse what is no integer from 0 to below the limit."""
    if not isinstance(number, int | np.integer) or not 0 <= number < _KEYS[name]:
        must = f"{name} must be an integer from 0 to 2^{_KEYS[name].bit_length() - 1} - 1"
        raise ValueError(message("Tape", must, repr(number), "Leave it out for 0."))


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
    pending: Sequence[Observation] = ()
    """What layers have observed and `settle` will tell them of."""
    numbers: Any = None
    """What tells who the rows of the local batch are: their numbers in a data set (rows,), or the
    first one's in the global batch; None where that is not known.
    """

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
        for name, number in (("first_sample", first_sample), ("seed", seed), ("step", step)):
            if number.__class__ is not int or not 0 <= number < _KEYS[name]:
                _refuse_key(name, number)
        if samples is not None and (samples.__class__ is not int or samples < 0):
            samples = non_negative_int("Tape", "samples", samples, "Leave it out for the rows.")
        memory: Any = workspace
        if memory is not None and not isinstance(memory, Workspace):
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
        self._hooks = hooks if hooks is None or type(hooks) is TapeHooks else _bound("Tape", hooks)
        self.deferred = deferred
        self.owner = owner
        if owner is not self.workspace.owner or self.workspace.freezes != Parameter.freezes:
            self.workspace.begin(owner)
        self._gather = gather
        self.rule: Rule | None = None
        self.calls: list[Call] = []
        self.draws = 0
        """How often calls have asked for a random key."""
        self.inputs = 0
        """How many arrays it has copied."""
        self.kept: list[Value] = []
        """Values whose gradients are kept: inputs, and those that `Value.keep_grad` was called
        on.
        """
        self.shares: list[Call] = []
        """Calls that have averaged over the batch."""
        self.released = False
        self._unfinished = False
        if shards is not self.workspace.shards.given:
            self.workspace.shards = ShardBounds(shards)
        self.shard_bounds = self.workspace.shards
        self.shards = self.shard_bounds.count
        self.divided = samples is not None and (self.shards > 1 or self.rows != samples)
        """Whether the global batch is more than one shard, here or on several ranks."""

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
        return value

    @property
    def rows(self) -> int:
        """The rows of the local batch; 0 where no shards were given."""
        return self.shard_bounds.rows

    def bounds(self, rows: int) -> Integers:
        """Return the bounds (S + 1,) of the shards in an array of so many rows."""
        return self.shard_bounds.of(rows)

    def record(self, layer: Layer, inputs: tuple[Any, ...]) -> Any:
        """Run a layer on values and arrays, and remember the call; return its value, or a tuple of
        them.
        """
        call = Call(self, layer, inputs, len(self.calls))
        # Appended before forward runs, so that calls which a layer makes inside its forward come
        # after it.
        self.calls.append(call)
        hooks = self._hooks
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
        except BaseException:
            del self.calls[call.index :]
            self.shares = [share for share in self.shares if share.index < call.index]
            self.draws = call.draws
            raise
        finally:
            underflow.restore(mode)
        if array.__class__ is tuple:
            wants = wants or self.workspace.is_trainable(layer)
            call.output = Outputs(
                tuple(Value(self, y, call, wants and y.dtype.kind in "fc") for y in array)
            )
            result: Any = call.output.values
        else:
            result = call.output = Value(
                self, array, call, wants or self.workspace.is_trainable(layer)
            )
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
                    x = call.kept(len(arrays), x)
            elif isinstance(x, np.ma.MaskedArray):
                require_unmasked(layer, "x", x)
            arrays.append(x)
        return wants, arrays

    @contextmanager
    def observed(self, *hooks: TapeHook, alone: bool = False) -> Iterator[None]:
        """Return a context in which the tape tells these hooks, too, after those that it has, or
        these `alone`.
        """
        before, more = self._hooks, _bound("Tape.observed", hooks)
        if before is not None and more is not None and not alone:
            more = TapeHooks._make(map(add, before, more))
        self._hooks = more or before
        try:
            yield
        finally:
            self._hooks = before

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
        """Gather all that layers have observed at once; return what they passed with what it is to
        be called with.
        """
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
        """Give out the random keys that followed the beginning of a call once more: what is
        computed again then draws the same numbers.
        """
        draws, self.draws = self.draws, call.draws
        try:
            yield
        finally:
            self.draws = draws

    def restart(self) -> None:
        """Forget all calls and what they observed, to record the same step again from its
        inputs.
        """
        inputs = [value for value in self.kept if value.call is None]
        self._forget()
        self.kept = inputs
        self.pending = ()

    def release(self) -> None:
        """Forget all calls, so that their memory is free at once: values on this tape can no longer
        be differentiated.
        """
        self.released = True
        self._forget()

    def _forget(self) -> None:
        for call in self.calls:
            call.release()
        self.calls = []
        self.draws = 0
        self.kept = []
        self.shares = []

    def backward(self, value: Value, gradient: Array, rule: Rule | None) -> None:
        """Walk the calls up to `value` in reverse."""
        if self.released:
            fix = "Propagate before Trainer.update, which is the end of a step."
            raise ValueError(
                message(
                    "Value.backward", "the tape must still hold its calls", "a released tape", fix
                )
            )
        if value.call is None or not value.wants:
            fix = "Compute it from tape.input(…) or from layers with parameters."
            raise ValueError(
                message(
                    "Value.backward",
                    "the value must depend on something differentiable",
                    "a constant",
                    fix,
                )
            )
        if self._unfinished:
            for call in self.calls:
                call.output.clear()
        for kept in self.kept:
            kept.clear()
        self._unfinished = True
        if self.owner is not None:
            self.owner.begin_pass()
        self.rule = rule
        mode = underflow.flush()
        try:
            self._walk(value, gradient, rule)
        finally:
            underflow.restore(mode)
        self.rule = None
        self._unfinished = False
        if self._hooks is not None:
            for end in self._hooks.backward_pass_end:
                end(self)

    def _walk(self, value: Value, gradient: Array, rule: Rule | None) -> None:
        hooks = self._hooks
        uses: dict[int, int] | None = None
        if hooks is not None:
            if hooks.parameter_ready:
                uses = self._uses()
            for begin in hooks.backward_pass_begin:
                begin(self)
        value.receive(gradient)
        for call in reversed(self.calls):
            if hooks is not None and call.output.received is not None:
                for tell in hooks.backward_begin:
                    tell(call)
            dy = call.output.hand_on()
            if dy is not None:
                call.backward(dy, rule)
                if hooks is not None:
                    for tell in hooks.backward_end:
                        tell(call)
            if uses is not None:
                self._tell_what_is_ready(call, uses)
        for kept in self.kept:
            kept.own_gradient()

    def _uses(self) -> dict[int, int]:
        """Count the uses of each parameter on the tape."""
        uses: dict[int, int] = {}
        for call in self.calls:
            for parameter in call.layer.own_parameters():
                if call.trains(parameter):
                    uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        return uses

    def _tell_what_is_ready(self, call: Call, uses: dict[int, int]) -> None:
        """Count a call's uses of parameters down, and tell of those that have no other left."""
        assert self._hooks is not None
        for parameter in call.layer.own_parameters():
            if id(parameter) not in uses:
                continue
            uses[id(parameter)] -= 1
            if not uses[id(parameter)]:
                for tell in self._hooks.parameter_ready:
                    tell(parameter)
