"""Architectures: what a model is made of, as JSON holds it, and models made of that.

A layer is `{"kind": "Linear", "arguments": {"in_features": 2, …}}`; layers among the arguments are
written likewise. One that stands at several places has a number at the first, `{"kind": …,
"number": 0, …}`, and is `{"again": 0}` at the others. Nothing of a file is executed: kinds are
looked up in a table, see `ddbp.architecture.kinds`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from layers import Module, set_precision
from layers.engine.parameter import Parameter
from layers.errors import message, wording
from layers.types import Array

from .kinds import KINDS, kind_of

_OWNER = "ddbp.export"
_DEEPEST = 64
"""How deep layers may lie in each other."""
_MOST = 2**16
"""At how many places layers may stand."""
_MOST_TIED = 8
"""So many layers may share a large weight."""
_FREE = 2**24
"""Numbers that a model may hold beside those of its file, such as tables of positions."""


class ArchitectureError(ValueError):
    """What should describe a model does not."""


@wording("architecture")
def architecture(model: Module) -> dict[str, Any]:
    """Return what a model is made of, as JSON can hold it: its layers with what they were made
    with, which parameters they share, and which are frozen.

    Parameters
    ----------
    model
        A model of layers of this package, and of kinds that were registered.

    Raises
    ------
    TypeError
        A layer of it is of a kind that files cannot name, or an argument is nothing that JSON
        holds; the layer is named.
    """
    _require_model("architecture", model)
    counts = Counter(id(layer) for layer in _parts(model, 0))
    root = _Writer(counts).node(model)
    first: dict[int, list[str]] = {}
    frozen = []
    for name, parameter in model.named_parameters():
        names = first.setdefault(id(parameter), [])
        names.append(name)
        if len(names) == 1 and not parameter.trainable:
            frozen.append(name)
    tied = [names for names in first.values() if len(names) > 1]
    found = {layer.precision.name for _, layer in model.named_layers()}
    precision = found.pop() if len(found) == 1 else model.precision.name
    return {"root": root, "tied": tied, "frozen": frozen, "precision": precision}


@wording("build")
def build(description: Mapping[str, Any], *, rng: Any) -> Module:
    """Return a model made of what `architecture` has returned, with parameters as `rng` draws them.

    Parameters
    ----------
    description
        What `architecture` returned, perhaps by way of JSON.
    rng
        Draws the initial weights.

    Raises
    ------
    ArchitectureError
        It describes no model: a kind or an argument is not known, or out of range; the place is
        named. (It is a `ValueError`.)
    """
    if not isinstance(rng, np.random.Generator):
        fix = "Pass rng=np.random.default_rng(seed)."
        must = "rng must be a np.random.Generator"
        raise TypeError(message("build", must, repr(rng), fix))
    model = _built(description, _Reader(rng))
    require_precision(model, description)
    return model


def build_for(description: Any, arrays: Mapping[str, Array]) -> Module:
    """Return a model whose parameters will be these arrays, in their types; none is drawn, and no
    more memory is taken than they do, and layers that share them.
    """
    total = sum(array.size for array in arrays.values())
    # What layers share is made for each of them, before it is shared.
    tied = description.get("tied") if isinstance(description, Mapping) else None
    names = [each for each in tied if isinstance(each, list)] if isinstance(tied, list) else []
    places = max((len(each) for each in names), default=1)
    model = _built(description, _Reader(_NoDraws(min(places, _MOST_TIED) * total + _FREE)))
    for name, parameter in model.named_parameters():
        if name in arrays and arrays[name].dtype != parameter.dtype:
            _checked(parameter.cast, "root", arrays[name].dtype)
    for name, state in model.named_states():
        if name in arrays and arrays[name].dtype.kind == "f":
            state.cast(arrays[name].dtype)
    return model


def require_precision(model: Module, description: Mapping[str, Any]) -> None:
    """Have a model compute in the precision that its description names."""
    precision = description.get("precision", "float32")
    if precision != "float32":
        _checked(lambda: set_precision(model, precision), "precision")


def _require_model(owner: str, model: Any) -> None:
    if not isinstance(model, Module):
        must, fix = "model must be a layer or made of layers", "Pass the model itself."
        raise TypeError(message(owner, must, f"a {type(model).__name__}", fix))


def _parts(value: Any, depth: int) -> Iterator[Module]:
    """Yield the layers among arguments, once for each place where they stand."""
    if isinstance(value, Module):
        if depth > _DEEPEST:
            fix = "Take layers out of each other."
            must = f"layers must lie in each other at most {_DEEPEST} deep"
            raise TypeError(message("architecture", must, "more", fix))
        yield value
        _, kind = kind_of(value)
        for read in kind.arguments.values():
            yield from _parts(read(value), depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _parts(each, depth)


class _Writer:
    """Writes layers as JSON.

    Parameters
    ----------
    counts
        At how many places each layer stands, by its identity.
    """

    def __init__(self, counts: Counter[int]) -> None:
        self._counts = counts
        self._numbers: dict[int, int] = {}

    def node(self, layer: Module) -> dict[str, Any]:
        """Return a layer as JSON holds it."""
        known = self._numbers.get(id(layer))
        if known is not None:
            return {"again": known}
        name, kind = kind_of(layer)
        node: dict[str, Any] = {"kind": name}
        if self._counts[id(layer)] > 1:
            node["number"] = self._numbers[id(layer)] = len(self._numbers)
        node["arguments"] = {
            each: self._value(layer, each, read(layer)) for each, read in kind.arguments.items()
        }
        return node

    def _value(self, layer: Module, name: str, value: Any) -> Any:
        if isinstance(value, Module):
            return self.node(value)
        if isinstance(value, list | tuple):
            return [self._value(layer, name, each) for each in value]
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            return [self._value(layer, name, each) for each in value]
        must = f"{name} of {layer!r} must be numbers, texts, layers, or lists of these"
        fix = "Functions have no place in files: make a layer of it, and register that."
        raise TypeError(message(_OWNER, must, repr(value), fix))


class _NoDraws(np.random.Generator):
    """Stands for a generator where arrays of a file will take the place of what it draws; refuses
    to make more numbers than there are.
    """

    def __init__(self, budget: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.left = budget

    def take(self, count: int) -> None:
        """Count numbers that a layer holds."""
        self.left -= count
        if self.left < 0:
            must = "layers must hold no more numbers than the file"
            raise ArchitectureError(message(_OWNER, must, "more", "It was changed, or cut off."))

    def nothing(self, rng: Any, shape: tuple[int, ...]) -> Array:
        """Return zeros, as an initialiser does."""
        self.take(int(np.prod(shape, dtype=object)))
        return np.zeros(shape)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self.nothing(self, size)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        # Rows that are made orthogonal must not be zeros.
        self.take(int(np.prod(size, dtype=object)))
        return super().normal(loc, scale, size)


class _Reader:
    """Makes layers of JSON of anybody's making.

    Parameters
    ----------
    rng
        Draws their parameters.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._made: dict[int, tuple[Module, int]] = {}
        self._places = 0

    def layer(self, node: Any, path: str, depth: int = 0) -> Module:
        """Return the layer that a node describes."""
        if not isinstance(node, dict) or depth > _DEEPEST:
            raise _refusal(path, "a layer must be an object with a kind", node)
        before = self._places
        self._count(path, 1)
        if node.keys() == {"again"}:
            if type(node["again"]) is not int or node["again"] not in self._made:
                raise _refusal(path, "again must be the number of a layer before", node["again"])
            known, places = self._made[node["again"]]
            # Layers that hold each other twice would stand at 2^depth places.
            self._count(path, places)
            return known
        name, arguments = node.get("kind"), node.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise _refusal(path, "a layer must have a kind and arguments", node)
        kind = KINDS.get(name)
        if kind is None:
            fix = "A class of layers of your own must be imported and registered before loading."
            must = f"{path}: the kind of a layer must be known"
            raise ArchitectureError(message(_OWNER, must, _short(name), fix))
        if unknown := arguments.keys() - kind.arguments.keys():
            must = f"arguments of {name} must be among {', '.join(kind.arguments) or 'none'}"
            raise _refusal(path, must, sorted(unknown))
        given = {
            each: self._value(value, f"{path}.{each}", depth) for each, value in arguments.items()
        }
        if isinstance(self._rng, _NoDraws):
            self._rng.take(kind.elements(arguments))
            if kind.takes("weight_init"):
                given["weight_init"] = self._rng.nothing
        if kind.takes("rng"):
            given["rng"] = self._rng
        made: Module = _checked(lambda: kind.make(**given), path)
        if "number" in node:
            if type(node["number"]) is not int or node["number"] in self._made:
                raise _refusal(path, "the numbers of layers must differ", node["number"])
            self._made[node["number"]] = made, self._places - before
        return made

    def _count(self, path: str, places: int) -> None:
        self._places += places
        if self._places > _MOST:
            raise _refusal(path, f"layers must stand at no more than {_MOST} places", self._places)

    def _value(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, dict):
            return self.layer(value, path, depth + 1)
        if isinstance(value, list):
            return [self._value(each, f"{path}.{i}", depth) for i, each in enumerate(value)]
        return value


def _built(description: Any, reader: _Reader) -> Module:
    if not isinstance(description, Mapping) or "root" not in description:
        raise _refusal("architecture", "it must be an object with a root", description)
    model = reader.layer(description["root"], "root")
    parameters = dict(model.named_parameters())
    for names in _names_of(description, "tied", parameters):
        for name in names[1:]:
            _tie(model, name, parameters[names[0]])
    for name in _names_of(description, "frozen", parameters):
        parameters[name].trainable = False
    return model


def _names_of(description: Any, key: str, parameters: Mapping[str, Parameter]) -> list[Any]:
    """Return what a description lists under a key, names or lists of names, all of parameters."""
    listed = description.get(key, [])
    nested = key == "tied"
    whole = isinstance(listed, list) and all(isinstance(each, list) == nested for each in listed)
    names = [name for each in listed for name in (each if nested else [each])] if whole else []
    if not whole or not all(isinstance(name, str) and name in parameters for name in names):
        raise _refusal(key, "it must list parameters of the model", listed)
    return list(listed)


def _tie(model: Module, name: str, parameter: Parameter) -> None:
    """Have a parameter of a model be another one."""
    owner: Any = model
    *path, last = name.split(".")
    for part in path:
        if isinstance(owner, list | tuple):
            owner = owner[int(part)]
        else:
            owner = owner[part] if isinstance(owner, dict) else getattr(owner, part)
    if isinstance(owner, Module) and getattr(owner, last) is not parameter:
        _checked(lambda: setattr(owner, last, parameter), name)


def _checked(make: Callable[..., Any], path: str, *arguments: Any) -> Any:
    """Return what is made; what layers refuse, they refuse of a file."""
    try:
        return make(*arguments)
    except ArchitectureError:
        raise
    except Exception as error:
        raise _refusal(path, "arguments must be ones that the layer takes", error) from error


def _refusal(path: str, must: str, got: Any) -> ArchitectureError:
    fix = "It was changed, or written by another version of ddbp."
    return ArchitectureError(message(_OWNER, f"{path}: {must}", _short(got), fix))


def _short(got: Any) -> str:
    text = str(got) if isinstance(got, Exception) else repr(got)
    return text if len(text) < 200 else f"{text[:197]}…"
