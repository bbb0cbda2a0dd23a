"""What owns parameters: layers, and what is made of layers."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from layers.checks import require_model_type
from layers.errors import message

from .fixed_array import FixedArray
from .parameter import Parameter
from .precision import FLOAT32, Precision
from .state import State, unique_states


def is_of_package(kind: type) -> bool:
    """Return whether a class is one of this package's."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


class Module:
    """Base of what owns parameters and states, by itself or by other modules in its attributes.

    A `Layer` has a forward and a backward of its own; a `Composite` is called in ordinary Python.

    A parameter or state in an attribute can be replaced by another of the same shape and dtype only
    (`head.weight = table.weight` ties them). Other attributes of the layers of this package are
    given once, when the layer is made, but for those that are properties, and only modules and
    parameters can be added. Those of your own modules are yours.
    """

    _fixed: ClassVar[frozenset[str] | None] = None
    """The public attributes that have been given for good, once they have been."""

    changes: ClassVar[int] = 0
    """How often an attribute of any layer that is replayable has been set, so that it is cheap to
    see that none has.
    """

    replayable: bool = False
    """Whether all that forward and backward do to arrays goes through `Call.run` and `Call.make`,
    with arguments that depend on shapes and types alone; of a module without these, whether a call
    calls others alone, the same ones for all inputs: see `layers.engine.replay`.
    """

    parts: "Sequence[Module]" = ()
    """The layers that this one runs as one call, in the order of execution, if it stands for
    several.
    """

    precision: Precision = FLOAT32
    """What products are computed in: see `layers.set_precision`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if is_of_package(cls) and "__init__" in vars(cls):
            cls.__init__ = _making(vars(cls)["__init__"])  # type: ignore[method-assign]

    def __setattr__(self, name: str, new: Any) -> None:
        kind, before = type(self), vars(self).get(name)
        if isinstance(before, FixedArray):
            _require_same_kind(self, name, before, new)
        elif self._fixed is not None and name[0] != "_":
            must = ""
            if name in self._fixed:
                must = f"`{name}` must be given when it is made"
            elif not (
                isinstance(new, Module | FixedArray)
                or hasattr(kind, name)
                or not is_of_package(kind)
            ):
                must = f"`{name}` must be an attribute of it to be set"
            if must:
                fix = f"Make another {kind.__name__}."
                raise AttributeError(message(kind.__name__, must, f".{name} = {new!r}", fix))
        if self.replayable and self._fixed is not None and name != "trainable":
            Module.changes += 1
        super().__setattr__(name, new)

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

    @property
    def trainable(self) -> bool:
        """Whether all parameters are trained; True where there are none. Setting it freezes or
        unfreezes them all.
        """
        return all(parameter.trainable for parameter in self.parameters())

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        for parameter in self.parameters():
            if parameter.trainable is not trainable:
                parameter.trainable = trainable

    def freeze(self) -> Self:
        """Freeze all parameters: set `Parameter.trainable` to False. Return the module itself.

        States, such as the running statistics of batch normalisation, go on learning.
        """
        self.trainable = False
        return self

    def unfreeze(self) -> Self:
        """Have all parameters trained again. Return the module itself."""
        self.trainable = True
        return self

    def astype(self, dtype: Any) -> Self:
        """Return a copy whose parameters and states have another floating type; in float64 it
        rounds nothing, whatever the precision was.
        """
        dtype = require_model_type(self, dtype)
        result = copy.deepcopy(self)
        for parameter in result.parameters():
            parameter.cast(dtype)
        for _, state in unique_states(result):
            state.cast(dtype)
        if dtype != np.float32:
            for _, layer in result.named_layers():
                layer.precision = FLOAT32
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


def _making(make: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor of a layer of this package after which what it has set is fixed."""

    @functools.wraps(make)
    def made(module: Module, *arguments: Any, **options: Any) -> None:
        own = set(vars(module))
        make(module, *arguments, **options)
        classes = (each for each in type(module).__mro__ if is_of_package(each))
        outermost = next(each for each in classes if "__init__" in vars(each))
        if vars(outermost)["__init__"] is made:
            vars(module)["_fixed"] = frozenset(
                name for name in vars(module) if name not in own and name[0] != "_"
            )

    return made


def _require_same_kind(module: Module, name: str, before: FixedArray, new: Any) -> None:
    """Refuse anything but a parameter for a parameter, and a state for a state, of the same shape
    and dtype.
    """
    kind = Parameter if isinstance(before, Parameter) else State
    owner = type(module).__name__
    if not isinstance(new, kind):
        got = "an array" if isinstance(new, np.ndarray) else repr(new)
        fix = f"Assign numbers to {name}.value."
        raise TypeError(message(owner, f"`{name}` must be a {kind.__name__}", got, fix))
    if (new.shape, new.dtype) != (before.shape, before.dtype):
        must = f"`{name}` must have shape {before.shape} and dtype {before.dtype}"
        got = f"shape {new.shape} and dtype {new.dtype}"
        raise ValueError(message(owner, must, got, f"Make another {owner} of the sizes."))


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
