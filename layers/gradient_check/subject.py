"""What is checked: a layer or a function, run as often as the check asks."""

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import array, require_numbers
from layers.engine.merge import Concatenate
from layers.engine.module import Module
from layers.engine.parameter import Parameter
from layers.engine.precision import FLOAT32, Precision
from layers.engine.state import State
from layers.engine.tape import Tape
from layers.engine.value import Value
from layers.engine.workspace import Workspace
from layers.errors import message
from layers.types import Array

if TYPE_CHECKING:
    pass


class Subject:
    """What is checked: the function, its inputs, its parameters, and how to run it."""

    def __init__(
        self,
        function: Any,
        inputs: tuple[Any, ...],
        constant: Collection[int],
        training: bool,
        seed: int,
    ) -> None:
        self.function = copy.deepcopy(function) if isinstance(function, Module) else function
        self.training = training
        self.seed = seed
        self.dy_kept = True
        self.widths: list[int] = []
        """How many columns of the whole each of several outputs has."""
        self.only: int | None = None
        """Number of the output to look at, of several; all unless set."""
        self.inputs = [
            np.array(array("gradcheck", "an input", x), order="C")
            if isinstance(x, np.ndarray | np.generic | list | float)
            else x
            for x in inputs
        ]
        for x in self.inputs:
            if isinstance(x, np.ndarray):
                require_numbers("gradcheck", x)
        self.free = [
            i
            for i, x in enumerate(self.inputs)
            if isinstance(x, np.ndarray) and x.dtype.kind == "f" and i not in constant
        ]
        for i in constant:
            if not isinstance(i, int | np.integer) or not -len(inputs) <= i < len(inputs):
                must = "constant must hold numbers of inputs"
                raise ValueError(message("gradcheck", must, repr(i), "Inputs count from 0."))
        self.constant = [
            i
            for i in constant
            if isinstance(self.inputs[i], np.ndarray) and self.inputs[i].dtype.kind == "f"
        ]
        self.parameters: dict[str, Parameter] = {}
        self.states: list[State] = []
        self.dtype: Any = None
        """That of all blocks now."""
        found = _layers_of(self.function)
        self._precisions = [
            (part, part.precision) for _, layer in found for _, part in layer.named_layers()
        ]
        for prefix, layer in found:
            self.states += [state for _, state in layer.named_states()]
            for name, parameter in layer.named_parameters(prefix):
                if not any(parameter is known for known in self.parameters.values()):
                    self.parameters[name] = parameter
        self.workspace = Workspace()

    @contextmanager
    def cast(
        self, dtype: Any, precision_of: Callable[[Precision], Precision] = lambda _: FLOAT32
    ) -> Iterator[None]:
        """Convert inputs and parameters, and put the former ones back at the end; in other numbers
        than float32 precisions are what `precision_of` them says: nothing is rounded unless given.
        """
        inputs, before = self.inputs, self.dtype
        self.dtype = dtype
        for layer, precision in self._precisions:
            layer.precision = precision if dtype is np.float32 else precision_of(precision)
        kept = [(p, p.value, p.store) for p in self.parameters.values()]
        states = [(state, state.value.copy()) for state in self.states]
        real = np.empty(0, dtype).real.dtype
        self.inputs = [
            (
                x.astype(dtype if i in self.free else real)
                if i in self.free or i in self.constant
                else x
            )
            for i, x in enumerate(inputs)
        ]
        for parameter in self.parameters.values():
            parameter.cast(dtype)
        try:
            yield
        finally:
            self.inputs, self.dtype = inputs, before
            for layer, precision in self._precisions:
                layer.precision = precision if before in (None, np.float32) else FLOAT32
            for parameter, value, store in kept:
                parameter.rebind(value, store)
            for state, value in states:
                state.value = value

    @property
    def rounding(self) -> tuple[float, str]:
        """The largest unit roundoff of its layers' precisions, 0 if they do not round, and the name
        of that.
        """
        found = [(precision.unit, precision.name) for _, precision in self._precisions]
        return max(found, default=(0.0, ""))

    @property
    def samples(self) -> int:
        """The size of axis 0 of the first floating input (of the first array, if none is floating),
        0 if there is none.
        """
        arrays = self.free or [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)]
        return next((len(self.inputs[i]) for i in arrays if self.inputs[i].ndim), 0)

    def array(self, name: str) -> Array:
        """Return the array of a block, to be moved in place."""
        if name in self.parameters:
            return self.parameters[name].value
        array: Array = self.inputs[int(name.removeprefix("input "))]
        return array

    def record(
        self, workspace: Workspace | None = None, shards: Any = None, rows: slice | None = None
    ) -> tuple[list[Any], Value]:
        """Run the function on a new tape, on these rows of the batch if given; return its arguments
        and its result.
        """
        inputs, place = self.inputs, {}
        if rows is not None:
            inputs = [
                x[rows] if isinstance(x, np.ndarray) and x.ndim and len(x) == self.samples else x
                for x in inputs
            ]
            place = {"samples": self.samples, "first_sample": rows.start}
        tape = Tape(
            training=self.training, seed=self.seed, workspace=workspace, shards=shards, **place
        )
        tape.complex_step = True
        # Without any floating input the first array is a value all the same, else nothing would be
        # recorded.
        values = (
            self.free or [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)][:1]
        )
        # Nothing would be seen of who writes into a copy.
        arguments = [tape.input(x, copy=False) if i in values else x for i, x in enumerate(inputs)]
        y = self.function(*arguments)
        if isinstance(y, tuple):
            y = self._joined(list(_flattened(y)))
        if not isinstance(y, Value):
            fix = (
                "Compute with layers and with the operators and functions of values; np.asarray and"
                " .array leave the tape."
            )
            raise TypeError(
                message("gradcheck", "the function must return a value", type(y).__name__, fix)
            )
        return arguments, y

    def _joined(self, outputs: list[Any]) -> Any:
        """Return several outputs as one matrix, a row for each sample if all have their samples on
        axis 0.
        """
        outputs = [y for y in outputs if isinstance(y, Value) and y.dtype.kind in "fc"]
        samples = {len(y) if y.ndim else 0 for y in outputs}
        rows = samples.pop() if len(samples) == 1 else 1
        outputs = [y.reshape(rows or 1, -1) for y in outputs]
        self.widths = [y.shape[1] for y in outputs]
        if self.only is not None:
            return outputs[self.only]
        return Concatenate(-1)(*outputs) if outputs else None

    def evaluate(self) -> Array:
        """Return a copy of the output."""
        return self.record(self.workspace)[1].array.copy()

    def zero(self) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.parameters.values():
            parameter.forget_gradients()

    def backward(self, arguments: list[Any], y: Value, cotangent: Array) -> dict[str, Array]:
        """Propagate; return copies of the gradients of all blocks."""
        given = cotangent.copy()
        if y.wants and y.call is not None:
            # `y.backward` would copy it, and nothing be seen of who writes into it.
            y.tape.backward(y, given, None)
        self.dy_kept = self.dy_kept and given.tobytes() == cotangent.tobytes()
        found: dict[str, Array] = {}
        for i in self.free:
            gradient = arguments[i].grad
            found[f"input {i}"] = (
                np.zeros_like(arguments[i].array) if gradient is None else np.array(gradient)
            )
        return found | {
            name: parameter.gradient.copy()
            for name, parameter in self.parameters.items()
            if parameter.trainable
        }

    def gradients(self, cotangent: Array) -> tuple[dict[str, Array], bool]:
        """Return the gradients of all blocks, and whether every recorded layer is analytic."""
        self.zero()
        arguments, y = self.record(self.workspace)
        calls = y.tape.calls
        hidden = {
            repr(call.layer)
            for call in calls
            for parameter in call.layer.own_parameters()
            if not any(parameter is known for known in self.parameters.values())
        }
        if hidden:
            fix = (
                "Keep them in attributes without an underscore, in lists or in dicts; or pass a"
                " layer instead of a function."
            )
            raise ValueError(
                message(
                    "gradcheck",
                    "all parameters must be found",
                    f"unlisted ones of {sorted(hidden)}",
                    fix,
                )
            )
        return self.backward(arguments, y, cotangent), all(call.layer.analytic for call in calls)


def _flattened(outputs: tuple[Any, ...]) -> Iterator[Any]:
    for y in outputs:
        if isinstance(y, tuple):
            yield from _flattened(y)
        else:
            yield y


def _layers_of(function: Any) -> list[tuple[str, Module]]:
    """Return the layers that a function refers to, with the prefix of their parameters' names."""
    if isinstance(function, Module):
        return [("", function)]
    if isinstance(function, functools.partial):
        found = _layers_of(function.func)
        named: dict[str, Any] = {str(i): x for i, x in enumerate(function.args)} | dict(
            function.keywords
        )
    elif inspect.isfunction(function) or inspect.ismethod(function):
        outside = inspect.getclosurevars(function)
        named = {**outside.globals, **outside.nonlocals}
        found = _layers_of(function.__self__) if inspect.ismethod(function) else []
    else:
        named, found = dict(getattr(function, "__dict__", {})), []
    for name, thing in named.items():
        if isinstance(thing, Module):
            found.append((f"{name}.", thing))
        elif (
            inspect.isfunction(thing)
            and thing.__module__ == getattr(function, "__module__", None)
            and thing is not function
        ):
            found += [
                (prefix, layer)
                for prefix, layer in _layers_of(thing)
                if not any(layer is known for _, known in found)
            ]
        elif isinstance(thing, list | tuple):
            found += [
                (f"{name}.{i}.", layer)
                for i, layer in enumerate(thing)
                if isinstance(layer, Module)
            ]
    return found
