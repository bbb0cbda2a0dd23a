"""The layer contract: owns parameters, and nothing else."""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from layers.errors import message
from layers.types import Array

from .inference import INFERENCE
from .parameter import Parameter
from .state import State, unique_states

if TYPE_CHECKING:
    from .call import Call
    from .tape import Tape


class Recorded:
    """What a tape hands out in place of an array; `layers.Value` is the only one."""

    __slots__ = ()
    tape: "Tape"


class Layer:
    """A differentiable function with parameters, and `State` only where training itself changes it.

    Arrays in, array out, and nothing is recorded. If any input is a `Value`, the call is recorded
    on its tape and the result is a `Value`. Because what backward needs is kept by the call, one
    layer may be used many times in one graph.

    A layer of your own defines `forward` and `backward`; parameters are attributes of type
    `Parameter`:

    >>> class Scale(Layer):
    ...     def __init__(self, features):
    ...         self.gain = Parameter(np.ones(features, np.float32))
    ...     def forward(self, call, x):
    ...         call.save(x)
    ...         return x * self.gain.value
    ...     def backward(self, call, dy):
    ...         (x,) = call.saved
    ...         for gradient, rows in call.shards(self.gain, dy):
    ...             gradient += (dy[rows] * x[rows]).sum(axis=0)
    ...         return (dy * call.feedback(self.gain),)
    """

    analytic: bool = False
    """Whether forward also takes complex arrays and is then analytic: the gradient check can use a
    complex step.
    """

    parts: "Sequence[Layer]" = ()
    """The layers that this one runs as one call, in the order of execution, if it stands for
    several.
    """

    def forward(self, call: "Call", *inputs: Any) -> Any:
        """Return the output for the input arrays, or a tuple of outputs; what backward needs goes
        to `call.save`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(call, *inputs)")

    def backward(self, call: "Call", dy: Any, *further: Any) -> tuple[Array | None, ...]:
        """Return the gradient of each input (None where there is none), and add those of the
        parameters to `call`'s.

        There is one dy per output, None for an output that nobody used if there are several. `dy`
        must not be written to.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(call, dy)")

    def __call__(self, *inputs: Any) -> Any:
        for x in inputs:
            if isinstance(x, Recorded):
                return x.tape.record(self, inputs)
        return self.forward(INFERENCE, *inputs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter) in the order in which attributes were set; shared
        parameters come repeatedly.

        Attributes whose name begins with an underscore are left out.
        """
        for name, attribute in vars(self).items():
            if name[0] != "_":
                yield from _named(f"{prefix}{name}", attribute, Parameter)

    def named_states(self, prefix: str = "") -> Iterator[tuple[str, State]]:
        """Yield (dotted name, state) as `named_parameters` does for parameters."""
        for name, attribute in vars(self).items():
            if name[0] != "_":
                yield from _named(f"{prefix}{name}", attribute, State)

    def named_layers(self) -> Iterator[tuple[str, "Layer"]]:
        """Yield (dotted name, layer) once for each layer that this one is made of, itself first, as
        "".

        Names are by public attributes where any lead to a layer. A layer that only hidden ones lead
        to and that does the work of several has the name of the first of these.
        """
        names: dict[int, str] = {}
        for path, layer in _layers("", self, set()):
            name = path
            if path.startswith("_") or "._" in path:
                name = next((names[id(part)] for part in layer.parts if id(part) in names), path)
            names[id(layer)] = name
            yield name, layer

    def parameters(self) -> list[Parameter]:
        """Return the parameters, shared ones once."""
        return list({id(parameter): parameter for _, parameter in self.named_parameters()}.values())

    def own_parameters(self) -> list[Parameter]:
        """Return the parameters that are direct attributes."""
        return [attribute for attribute in vars(self).values() if isinstance(attribute, Parameter)]

    def astype(self, dtype: Any) -> Self:
        """Return a copy whose parameters and states have another floating type."""
        result = copy.deepcopy(self)
        for parameter in result.parameters():
            parameter.cast(dtype)
        for _, state in unique_states(result):
            state.cast(dtype)
        return result

    def refuse_dtype(self, x: Array, expected: Any) -> None:
        """Raise for an input whose type is not that of the layer's parameters."""
        fix = f"Convert it with x.astype(np.{expected})"
        if np.issubdtype(x.dtype, np.inexact):
            fix += f" or the layer with layer.astype(np.{x.dtype})"
        raise TypeError(
            message(
                self,
                f"the input must have the dtype of the weights, {expected}",
                x.dtype,
                f"{fix}.",
            )
        )


class Composite(Layer):
    """A layer made of layers: define `__call__` in ordinary Python, with loops, branches and shared
    layers as you like.

    >>> class Net(Composite):
    ...     def __init__(self, first, second):
    ...         self.first, self.second = first, second
    ...     def __call__(self, x):
    ...         h = self.first(x)
    ...         return self.second(h) + h
    """

    def __call__(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, *inputs)")

    def _chain(self) -> Sequence[Layer]:
        """Return the layers that a call runs one after the other, to the last of which others may
        be joined; this one alone, if it is no chain.
        """
        return (self,)


def _named(name: str, attribute: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the parameters or the states in an attribute."""
    if isinstance(attribute, kind):
        yield name, attribute
    elif isinstance(attribute, Layer):
        prefix = f"{name}."
        yield from (
            attribute.named_parameters(prefix)
            if kind is Parameter
            else attribute.named_states(prefix)
        )
    elif isinstance(attribute, dict):
        for key, item in attribute.items():
            yield from _named(f"{name}.{key}", item, kind)
    elif isinstance(attribute, list | tuple):
        for index, item in enumerate(attribute):
            yield from _named(f"{name}.{index}", item, kind)


def _layers(path: str, attribute: Any, seen: set[int]) -> Iterator[tuple[str, Layer]]:
    """Yield (path, layer) once for each of the layers in an attribute, by public attributes
    first.
    """
    items: Any = ()
    if isinstance(attribute, Layer):
        if id(attribute) in seen:
            return
        seen.add(id(attribute))
        yield path, attribute
        items = sorted(vars(attribute).items(), key=lambda item: item[0].startswith("_"))
    elif isinstance(attribute, dict):
        items = attribute.items()
    elif isinstance(attribute, list | tuple):
        items = enumerate(attribute)
    for name, part in items:
        yield from _layers(f"{path}.{name}" if path else str(name), part, seen)
