"""What owns parameters: layers, and what is made of layers."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Self, TypeVar, overload

from layers.checks import require_model_type
from layers.errors import message

from .parameter import Parameter
from .state import State, unique_states

Attribute = TypeVar("Attribute")


class Module:
    """Base of what owns parameters and states, by itself or by other modules in its attributes.

    A `Layer` has a forward and a backward of its own; a `Composite` is called in ordinary Python.
    """

    parts: "Sequence[Module]" = ()
    """The layers that this one runs as one call, in the order of execution, if it stands for
    several.
    """

    def __call__(self, *inputs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, *inputs)")

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

    def named_layers(self) -> Iterator[tuple[str, "Module"]]:
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

    def freeze(self) -> Self:
        """Freeze all parameters: set `Parameter.trainable` to False. Return the module itself.

        States, such as the running statistics of batch normalisation, go on learning.
        """
        return self._set_trainable(False)

    def unfreeze(self) -> Self:
        """Have all parameters trained again. Return the module itself."""
        return self._set_trainable(True)

    def _set_trainable(self, trainable: bool) -> Self:
        for parameter in self.parameters():
            if parameter.trainable != trainable:
                parameter.trainable = trainable
        return self

    def astype(self, dtype: Any) -> Self:
        """Return a copy whose parameters and states have another floating type."""
        require_model_type(self, dtype)
        result = copy.deepcopy(self)
        for parameter in result.parameters():
            parameter.cast(dtype)
        for _, state in unique_states(result):
            state.cast(dtype)
        return result


class Composite(Module):
    """A layer made of layers: define `__call__` in ordinary Python, with loops, branches and shared
    layers as you like.

    >>> class Net(Composite):
    ...     def __init__(self, first, second):
    ...         self.first = first
    ...         self.second = second
    ...     def __call__(self, x):
    ...         h = self.first(x)
    ...         return self.second(h) + h
    """

    def _chain(self) -> Sequence[Module]:
        """Return the layers that a call runs one after the other, to the last of which others may
        be joined; this one alone, if it is no chain.
        """
        return (self,)


def takes_lengths(layer: Any) -> bool:
    """Return whether a layer is called `layer(x, lengths=…)` where sequences have lengths: its
    attribute of this name says so.
    """
    return bool(getattr(layer, "takes_lengths", False))


class Fixed(Generic[Attribute]):
    """An attribute that is given once, when a module is made: what runs as one call with others
    has been made from it.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, module: None, owner: type) -> Self: ...

    @overload
    def __get__(self, module: Module, owner: type) -> Attribute: ...

    def __get__(self, module: Module | None, owner: type) -> Any:
        if module is None:
            return self
        try:
            return vars(module)[self._name]
        except KeyError:
            raise AttributeError(f"{owner.__name__} has no `{self._name}` yet") from None

    def __set__(self, module: Module, value: Attribute) -> None:
        if self._name in vars(module):
            owner = type(module).__name__
            must = f"`{self._name}` must be given when it is made"
            fix = f"Make another {owner}."
            raise AttributeError(message(owner, must, f".{self._name} = {value!r}", fix))
        vars(module)[self._name] = value


def _named(name: str, attribute: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the parameters or the states in an attribute."""
    if isinstance(attribute, kind):
        yield name, attribute
    elif isinstance(attribute, Module):
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


def _layers(path: str, attribute: Any, seen: set[int]) -> Iterator[tuple[str, Module]]:
    """Yield (path, layer) once for each of the layers in an attribute, by public attributes
    first.
    """
    items: Any = ()
    if isinstance(attribute, Module):
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
