"""One execution of a layer on a tape."""

import math
import operator
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from layers.errors import message, noting
from layers.kernels import half
from layers.types import Array, Integers

from . import sample_axes
from .batch_sum import BatchSum
from .forward_call import ForwardCall
from .layer import Layer
from .memory import contiguous, empty, flat, matrix
from .parameter import Parameter
from .storage import Storage
from .value import Outputs, Value

if TYPE_CHECKING:
    from .rules import KeptGradients, Rule
    from .tape import Tape


Gather = Callable[[Array], Array]
"""Takes numbers of the local shards (local S, k) in float64; returns those of all shards of the
global batch (S, k), in order.
"""


class Call(ForwardCall):
    """One execution of a layer: its inputs, what its backward needs, and its part of the
    workspace.
    """

    __slots__ = (
        "_buffers",
        "_own",
        "batch_sum",
        "draws",
        "index",
        "inputs",
        "layer",
        "output",
        "reported",
        "saved",
        "tape",
        "words",
    )
    recorded = True
    counts_itself = False
    """Whether its backward counts the uses of its parameters down: see `Readiness`."""
    output: Value | Outputs

    def __init__(self, tape: "Tape", layer: Layer, inputs: tuple[Any, ...], index: int) -> None:
        self.tape = tape
        self.layer = layer
        self.inputs = inputs
        self.index = index
        self.saved: tuple[Any, ...] = ()
        self.batch_sum: BatchSum | None = None
        """What the output is the mean of over the batch, if it was reported or asked for."""
        self.reported = False
        self.words: Array | None = None
        """What the output is kept in, if it is."""
        self._own: list[Any] | None = None
        self._buffers = tape.workspace.current(index)
        self.draws = tape.draws
        """Those of the tape when this call began; see `Tape.drawing_again`."""

    def __repr__(self) -> str:
        return f"call {self.index}: {self.layer!r}"

    @property
    def training(self) -> bool:
        return self.tape.training

    @property
    def begins_pass(self) -> bool:
        """Whether it is the first of a pass over the whole model, not over a segment."""
        return not self.index and not self.tape.is_segment

    @property
    def trained(self) -> "list[Parameter]":
        """The parameters that it uses and that are trained, as often as it uses them."""
        return self.tape.workspace.trained(self.layer)

    @property
    def step(self) -> int:
        """The number of the step."""
        return self.tape.step

    def save(self, *arrays: Any) -> None:
        self.saved = arrays

    def buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        array = self._buffers.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            if self._own is not None and self.tape.is_segment:
                return self.pooled(name, shape, dtype)
            array = self.tape.workspace.cut(self.index, name, shape, dtype)
        if self._own is not None:
            self._own.append(array)
        return array

    def constant(self, index: int, constant: Array) -> Array:
        """Return a copy of input number `index`, which is no value, unless it is read-only."""
        if not constant.flags.writeable:
            return constant
        return self.tape.workspace.copy(constant, self.index, "constant", index)

    def matrix_buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        array = self.output_buffer(name, shape, dtype)
        if self.tape.live is not None or self.tape.is_segment:
            return array, matrix(array)
        return array, array if array.ndim == 2 else self._buffers[name, "rows"]

    def output_buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        take = self.buffer if self.tape.live is None else self.pooled
        return take(name, shape, dtype)

    def keep(self, storage: Storage, x: Array, source: int | str | None = None) -> Array:
        owner: Any = self if source is None else None
        if isinstance(source, int):
            owner = self.inputs[source]
        words: Array | None = getattr(owner, "words", None)
        if words is None or words.dtype != storage.words or words.size != x.size:
            words = self.buffer(f"words {source}", (x.size,), storage.words)
            self.run(half.narrow, words, flat(x))
            if hasattr(owner, "words"):
                owner.words = words
        return words.reshape(x.shape)

    def kept(self, name: str, x: Array) -> Array:
        """Return the numbers of an array that was saved, which may be words: these in memory as of
        `pooled`.
        """
        if x.dtype.kind not in "iu":
            return x
        # Not the memory of what was kept, which may be the output.
        array = self.pooled(f"kept {name}", x.shape, np.float32)
        self.run(half.widen, flat(array), flat(x))
        return array

    run: Any = staticmethod(operator.call)
    make: Any = staticmethod(operator.call)

    def returns(self, expected: Any, function: Callable[..., Any], *arguments: Any) -> bool:
        # A kernel that has not been compiled yet, where that is prepared, returns None.
        return function(*arguments) in (expected, None)

    def pooled(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an uninitialised array for backward to return: a buffer if it is small, and memory
        that is soon used again if not.

        Nobody may keep it beyond the backward pass but those that refer to it.
        """
        array = self._buffers.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            dtype = np.dtype(dtype)
            if math.prod(shape) * dtype.itemsize >= self.tape.workspace.pooled_from:
                self.tape.end_notes()
                array = self.tape.workspace.pooled(shape, dtype)
                if self._own is not None:
                    self._own.append(weakref.ref(array))
                return array
            array = self.tape.workspace.cut(self.index, name, shape, dtype)
        if self._own is not None:
            self._own.append(array)
        return array

    def scratch(self, dtype: Any, *shapes: int | tuple[int, ...]) -> list[Array]:
        return self.tape.workspace.scratch(dtype, shapes)

    def report(self, sums: Array, divisor: float | None = None) -> None:
        self.batch_sum = BatchSum(sums, divisor)
        if not self.reported:
            self.reported = True
            self.tape.shares.append(self)

    def samples_axis(self) -> int:
        tape, x = self.tape, self.inputs[0]
        if not tape.divided or not x.array.ndim:
            return sample_axes.NOWHERE
        if not tape.moved:
            apart = len(x.array) == tape.rows and x.batch_sum is None
            return 0 if apart else sample_axes.NOWHERE
        place = sample_axes.of(x)
        if isinstance(place, sample_axes.Merged):
            sample_axes.refuse(self, f"samples merged with others in shape {x.shape}")
        return cast(int, place)

    def require_samples_apart(self, axis: int = 0, index: int = 0) -> None:
        tape, x = self.tape, self.inputs[index]
        if not tape.divided or not tape.rows or not (tape.moved or axis == 0):
            return
        place = sample_axes.of(x)
        if place == axis or isinstance(place, sample_axes.Merged):
            sample_axes.refuse(self, x.shape)

    def moves_samples(self, ndim: int = 0) -> None:
        if self.tape.divided and (
            not ndim or any(isinstance(x, Value) and 0 < x.array.ndim < ndim for x in self.inputs)
        ):
            self.tape.moved = True

    def gather(self, numbers: Array) -> Array:
        return noting(self, self.tape.gather, numbers)

    def on_gathered(
        self, numbers: Array, apply: Callable[[Array], None], *, gathered: bool = False
    ) -> None:
        self.tape.on_gathered(numbers, apply, gathered=gathered)

    def random_key(self) -> tuple[int, int, int, np.uint64]:
        tape = self.tape
        draw = tape.draws
        tape.draws = draw + 1
        return tape.first_sample, tape.step, draw, np.uint64(tape.seed)

    def wants(self, index: int) -> bool:
        x = self.inputs[index]
        return isinstance(x, Value) and x.wants

    def take_gradient(self, index: int) -> Array | None:
        """Return the gradient that input number `index` has received so far, if any: backward must
        return its sum with that.
        """
        x: Value = self.inputs[index]
        return x.take()

    def backward(self, dy: Any, rule: "Rule | None") -> None:
        """Run backward of the layer on the gradient of its output, or those of several, and give
        the inputs theirs.
        """
        self._own = []
        if rule is not None:
            dys = dy if type(dy) is tuple else (dy,)
            asked = [d if d is None else self._error(rule, d) for d in dys]
            gradients = rule.backward(self, *asked)
        elif type(dy) is tuple:
            gradients = self.layer.backward(self, *dy)
        else:
            gradients = self.layer.backward(self, dy)
        self.give(gradients)

    def give(self, gradients: tuple[Array | None, ...]) -> None:
        """Give the inputs their gradients."""
        inputs, count = self.inputs, len(gradients)
        if count != len(inputs):
            must = f"backward must return {len(inputs)} gradients"
            fix = "Return a tuple with one entry per input, None where there is no gradient."
            raise ValueError(message(self.layer, must, count, fix))
        if count > 1 and self._own and len(set(map(id, gradients))) < count:
            # One array for several inputs: it may not be added to in place.
            self._own = None
        for index, dx in enumerate(gradients):
            x = inputs[index]
            if dx is None or not isinstance(x, Value) or not x.wants:
                continue
            if dx.shape != x.array.shape:
                must = f"backward must return a gradient of the input's shape {x.array.shape}"
                fix = "Sum it over the axes that forward broadcast."
                raise ValueError(message(self.layer, must, dx.shape, fix))
            if dx.dtype != x.array.dtype:
                # Of arrays of a wider type in backward: no gradient drifts away from its value.
                dx = dx.astype(x.array.dtype)
            if self.tape.is_segment:
                dx = self.tape.workspace.lasting(self, index, dx)
            x.receive(dx, self, index)

    def release(self) -> None:
        """Let go of inputs and output, which refer to this call: without that the garbage collector
        has nothing to do.
        """
        del self.output
        self.inputs = ()

    def bounds(self, rows: int) -> Integers:
        return self.tape.shard_bounds.of(rows)

    def samples(self, rows: int) -> int:
        return rows if self.tape.samples is None else self.tape.samples

    def rows_per_sample(self, rows: int) -> int:
        return max(1, rows // max(1, self.tape.rows))

    def give_several(self, arrays: tuple[Array, ...], wants: bool) -> tuple[Value, ...]:
        """Return the values of several outputs."""
        values = tuple(Value(self.tape, y, self, wants and y.dtype.kind in "fc") for y in arrays)
        self.output = Outputs(values)
        return values

    def gradient(self, parameter: Parameter) -> Array:
        """Return the gradients (S, \\*shape) of a parameter's shards, to be added to."""
        gradients, accumulate = self.gradient_buffer(parameter)
        if not accumulate:
            gradients[...] = 0
        return gradients

    def gradient_buffer(self, parameter: Parameter) -> tuple[Array, bool]:
        """Return the gradients (S, \\*shape) and whether to add to them; if not, they must be
        overwritten. They are in vain where the parameter is not trained: see `trains`.
        """
        store, owner = parameter.store, self.tape.owner
        if parameter.trainable and store.owner is owner:
            return store.buffer(self.tape.shards)
        return self._foreign_buffer(parameter)

    def trains(self, parameter: Parameter) -> bool:
        """Return whether the gradient of a parameter is wanted: it is not frozen, nor another
        trainer's.
        """
        return parameter.trains_for(self.tape.owner)

    def wanted_gradient(self, parameter: Parameter | None, nothing: Array) -> tuple[Array, bool]:
        """Return what `gradient_buffer` does, or an empty array and False if the gradient is not
        wanted: `nothing`, if there is no parameter.
        """
        if parameter is not None and parameter.trainable:
            store, owner = parameter.store, self.tape.owner
            if store.owner is owner:
                return store.buffer(self.tape.shards)
            if owner is None:
                return self._foreign_buffer(parameter)
        return self._no_gradient(parameter, nothing), False

    def _no_gradient(self, parameter: Parameter | None, nothing: Array) -> Array:
        return nothing if parameter is None else empty(parameter.value, parameter.value.ndim + 1)

    def summed_gradients(
        self, nothing: Array, *parameters: Parameter | None
    ) -> tuple[Integers, list[tuple[Array, bool]]]:
        """Return how the shards are grouped, the bounds (P + 1,) of neighbouring ones, and what
        `wanted_gradient` does of each parameter, for groups in place of shards: of a group's
        gradients their sum by the fixed tree is wanted.

        Groups are of single shards unless this is all that is contributed to these parameters.
        """
        tape = self.tape
        readiness, owner = tape.readiness, tape.owner
        if tape.adds_up and readiness is not None and owner is not None:
            uses = readiness.uses
            stores: list[Any] = [
                None if each is None or not self.trains(each) else each.store for each in parameters
            ]
            if all(
                store is None or (store.stale and uses.get(id(each)) == 1)
                for each, store in zip(parameters, stores, strict=True)
            ):
                return owner.groups, [
                    (self._no_gradient(each, nothing) if store is None else store.added_up(), False)
                    for each, store in zip(parameters, stores, strict=True)
                ]
        return tape.shard_bounds.single, [
            self.wanted_gradient(each, nothing) for each in parameters
        ]

    def _foreign_buffer(self, parameter: Parameter) -> tuple[Array, bool]:
        """Return gradients of a parameter that is not this tape's, in vain unless it belongs to
        nobody here.
        """
        shards, store = self.tape.shards, parameter.store
        if not parameter.trains_for(self.tape.owner):
            shape = (shards, *parameter.shape)
            return self.pooled(f"gradient {id(parameter)}", shape, parameter.dtype), False
        if store.owner is not None:
            store.owner.take_foreign(parameter)
        return store.buffer(shards)

    def shards(self, parameter: Parameter, like: Array) -> Iterator[tuple[Array, slice]]:
        """Yield for each shard the gradient to add to, and the rows of `like` that belong to it."""
        bounds = self.bounds(len(like))
        for gradient, start, stop in zip(
            self.gradient(parameter), bounds[:-1], bounds[1:], strict=True
        ):
            yield gradient, slice(int(start), int(stop))

    def feedback(self, parameter: Parameter) -> Array:
        """Return what carries the error back through a parameter: its value, or what the rule puts
        in its place.
        """
        rule = self.tape.rule
        if rule is None:
            return parameter.value
        return contiguous(_like(parameter.value, rule, "feedback", rule.feedback(parameter)))

    def top_k(self, width: int) -> "KeptGradients | None":
        """Return which gradients of the outputs of a layer, of so many features, are kept; None for
        all: see `Rule.top_k`.
        """
        rule = self.tape.rule
        if rule is None:
            return None
        top = rule.top_k(self, width)
        if top is not None and not 1 <= top.k <= width:
            must = f"k must be from 1 to the {width} outputs of {self.layer!r}"
            fix = "Keep fewer of them, or all: None."
            raise ValueError(message(type(rule).__name__, must, top.k, fix))
        return None if top is None or top.k == width else top

    def _error(self, rule: "Rule", dy: Array) -> Array:
        return _like(dy, rule, "error", rule.error(self, dy))

    def own(self, array: Array) -> None:
        """Know that nobody else refers to an array that backward returns."""
        if self._own is not None:
            self._own.append(weakref.ref(array))

    def owns(self, array: Array) -> bool:
        """Return whether backward took this very array from `buffer` or `pooled`, so that nobody
        else refers to it.
        """
        own = self._own or ()
        return any(array is (held() if isinstance(held, weakref.ref) else held) for held in own)


def _like(array: Array, rule: "Rule", question: str, answer: Any) -> Array:
    """Return what a rule gives in place of an array, in its dtype, once its shape has been
    checked.
    """
    result: Array = np.asarray(answer)
    if result is array:
        return array
    if result.shape != array.shape or result.dtype.kind not in "fc":
        must = f"{question} must return floating numbers of shape {array.shape}"
        got, fix = f"{result.shape} {result.dtype}", "Return what stands in place of its argument."
        raise ValueError(message(type(rule).__name__, must, got, fix))
    return result.astype(array.dtype, copy=False)
