"""Objects as JSON and arrays, for processes that this one starts itself.

An object is the class that it is of, by its name in a module, and what it consists of; functions
and classes are names alone. The other process imports the modules: code does not travel, and
nothing is pickled. What reads such a text makes objects of any class that it names, so it is no
format of files: it lies in a folder of this user alone, for as long as a job runs.
"""

import copyreg
import inspect
import json
import mmap
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddbp.data.mapped import is_still_there
from layers.errors import message
from layers.types import Array

_PLAIN = (type(None), bool, int, float, str)
_MAKERS: tuple[Any, ...] = (copyreg.__newobj__, copyreg.__newobj_ex__, getattr)  # type: ignore[attr-defined]
"""Functions that make objects, beside classes and the generators of NumPy."""
_GENERATORS = ("numpy.random._pickle", "numpy.random.bit_generator")
_COLLECTIONS: dict[type[Any], str] = {
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
}
_KINDS = {name: kind for kind, name in _COLLECTIONS.items()}


_FILE = "objects.json"


class Anew(NamedTuple):
    """An object that is made again by its class, whatever it has become since.

    Attributes
    ----------
    kind, arguments
        What makes it.
    """

    kind: type[Any]
    arguments: dict[str, Any]

    @classmethod
    def of(cls, owner: str, given: Any) -> "Anew":
        """Return what makes an object that keeps the arguments of its class in attributes of their
        names.

        Raises
        ------
        TypeError
            It does not keep one.
        """
        kind = type(given)
        plain = kind.__init__ is object.__init__
        of = () if plain else inspect.signature(kind).parameters.values()
        for each in of:
            several = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            if several or not hasattr(given, each.name):
                must = f"{kind.__name__}, for other processes, must keep what it was made with"
                fix = f"Write self.{each.name} = {each.name} in its __init__."
                raise TypeError(message(owner, must, f"no attribute {each.name}", fix))
        return cls(kind, {each.name: getattr(given, each.name) for each in of})


def write(owner: str, values: Mapping[str, Any], folder: Path) -> None:
    """Write objects to a file of JSON in a folder, and their arrays beside it.

    Parameters
    ----------
    owner
        Who refuses what cannot be written.
    values
        The objects by names, which errors tell.
    folder
        The folder.

    Raises
    ------
    TypeError
        A part of it is of a class, or is a function, that modules do not have; or it is one that
        other processes cannot have, such as an open file.
    """
    packer = _Packer(owner, folder)
    packed = {name: packer.pack(value, name) for name, value in values.items()}
    (folder / _FILE).write_text(json.dumps(packed), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Return the objects that `write` has written there. Arrays are mapped; what is written to them
    is written to memory of this process, but those that came from maps that are only read are so
    here, too.
    """
    packed: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    maker = _Maker(folder)
    return {name: maker.make(each) for name, each in packed.items()}


class _Packer:
    """Makes JSON of an object; what occurs several times in it is there once.

    Parameters
    ----------
    owner
        Who refuses what cannot be.
    folder
        Where arrays go.
    """

    def __init__(self, owner: str, folder: Path) -> None:
        self._owner = owner
        self._folder = folder
        # Of what has been met, by its id, which is its own as long as it is held here.
        self._numbers: dict[int, int] = {}
        self._held: list[Any] = []
        # Those that cannot be had before what they are made of.
        self._open: set[int] = set()

    def pack(self, value: Any, path: str) -> Any:
        """Return an object, which `path` names, as JSON."""
        if type(value) in _PLAIN:
            return value
        if (name := self._found(value, path)) is not None:
            return {"name": name}
        if type(value) is bytes:
            return {"bytes": value.hex()}
        if isinstance(value, np.dtype) and value.names is None:
            return {"dtype": value.str}
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            return {"scalar": value.dtype.str, "bytes": value.tobytes().hex()}
        number = self._numbers.get(id(value))
        if number is not None:
            if number in self._open:
                raise self._refused(path, "a part of itself", "Leave the circle out.")
            return {"same": number}
        number = self._numbers[id(value)] = len(self._held)
        self._held.append(value)
        kind = _COLLECTIONS.get(type(value))
        if kind is not None:
            if kind != "list":
                self._open.add(number)
            of = [self.pack(each, f"{path}[{i}]") for i, each in enumerate(value)]
            self._open.discard(number)
            return {kind: number, "of": of}
        if type(value) is Anew:
            arguments = {
                name: self.pack(each, f"{path}.{name}") for name, each in value.arguments.items()
            }
            return {"anew": number, "kind": self.pack(value.kind, path), "arguments": arguments}
        if type(value) is dict:
            return {"dict": number, "of": self._pairs(value.items(), path)}
        if type(value) in (np.ndarray, np.memmap) and not value.dtype.hasobject:
            return {"array": number, **self._keep(value, number)}
        return self._object(value, number, path)

    def _pairs(self, pairs: Any, path: str) -> list[Any]:
        return [
            [self.pack(key, f"a key of {path}"), self.pack(each, f"{path}[{key!r}]")]
            for key, each in pairs
        ]

    def _object(self, value: Any, number: int, path: str) -> dict[str, Any]:
        """Return an object by what makes it and what it holds, as it tells `copy`."""
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            raise self._strange(value, path) from error
        if isinstance(made, str) or len(made) > 5:
            raise self._strange(value, path)
        make, arguments, state, items, pairs = (*made, None, None, None)[:5]
        module = getattr(make, "__module__", None)
        kind = make.func if isinstance(make, partial) else make
        if not (isinstance(kind, type) or make in _MAKERS or module in _GENERATORS):
            raise self._strange(value, path)
        self._open.add(number)
        packed = {
            "object": number,
            "make": self.pack(make, path),
            "arguments": [self.pack(each, path) for each in arguments],
        }
        self._open.discard(number)
        if items is not None:
            packed["items"] = [self.pack(each, f"{path}[{i}]") for i, each in enumerate(items)]
        if pairs is not None:
            packed["pairs"] = self._pairs(pairs, path)
        if state is not None:
            packed["state"] = self._state(state, path)
        return packed

    def _state(self, state: Any, path: str) -> Any:
        """Return the state of an object, whose attributes are named in errors."""
        if type(state) is dict and all(type(name) is str for name in state):
            return {name: self.pack(each, f"{path}.{name}") for name, each in state.items()}
        if type(state) is tuple and len(state) == 2:
            return [None if part is None else self._state(part, path) for part in state]
        return [self.pack(state, path)]

    def _found(self, value: Any, path: str) -> str | None:
        """Return the name by which other processes find a class or a function, None for what is
        neither.
        """
        if isinstance(value, np.ufunc):
            return f"numpy:{value.__name__}"
        module, name = (getattr(value, key, None) for key in ("__module__", "__qualname__"))
        if not (isinstance(module, str) and isinstance(name, str)):
            return _constant(value)
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value and module != "__main__":
            return f"{module}:{name}"
        if getattr(value, "__self__", None) is not None and not isinstance(value, type):
            # A method of an object, which is sent with it.
            return None
        fix = (
            "Move it to a module and import it: in a notebook begin its cell with %%writefile"
            " layers_of_mine.py."
        )
        raise self._refused(path, f"{name} of {module}", fix)

    def _keep(self, array: Array, number: int) -> dict[str, Any]:
        """Return where an array lies: in the file that it is mapped from, or in a new one."""
        if mapped := _mapped(array):
            return mapped
        file = f"{number}.npy"
        np.save(self._folder / file, array, allow_pickle=False)
        return {"file": file}

    def _strange(self, value: Any, path: str) -> TypeError:
        fix = "Leave it out, or have its class make it when it is used first."
        return self._refused(path, f"a {type(value).__name__}", fix)

    def _refused(self, path: str, got: str, fix: str) -> TypeError:
        must = f"{path}, for other processes, must be data, or what they find in a module"
        return TypeError(message(self._owner, must, got, fix))


def _constant(value: Any) -> str | None:
    """Return the name of what a module has for good: it is a frozen dataclass of that module."""
    kind = type(value)
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        return None
    held = vars(sys.modules[kind.__module__]) if kind.__module__ != "__main__" else {}
    name = next((name for name, found in held.items() if found is value), None)
    return None if name is None else f"{kind.__module__}:{name}"


def _mapped(array: Array) -> dict[str, Any] | None:
    """Return where in a file an array lies, if it is all of a mapping of what is written there."""
    origin: Any = array if isinstance(array, np.memmap) else array.base
    below: Any = origin.base if type(origin) is np.memmap else None
    if type(below) is not mmap.mmap:
        return None
    same = array.__array_interface__ == origin.__array_interface__
    whole = array.flags.c_contiguous or array.flags.f_contiguous
    if not (same and whole and origin.filename and origin.mode in ("r", "r+")):
        return None
    if not is_still_there(origin):
        return None
    origin.flush()
    return {
        "file": str(Path(origin.filename).absolute()),
        "mode": "r" if origin.mode == "r" else "c",
        "offset": origin.offset,
        "shape": [*array.shape],
        "order": "C" if array.flags.c_contiguous else "F",
        "dtype": array.dtype.str,
    }


class _Maker:
    """Makes an object of JSON.

    Parameters
    ----------
    folder
        Where arrays are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[int, Any] = {}

    def make(self, packed: Any) -> Any:
        """Return what a `_Packer` has packed."""
        if not isinstance(packed, dict):
            return packed
        kind, what = next(iter(packed.items()))
        if kind == "name":
            return _named(what)
        if kind == "same":
            return self._made[what]
        if kind == "bytes":
            return bytes.fromhex(what)
        if kind == "dtype":
            return np.dtype(what)
        if kind == "scalar":
            return np.frombuffer(bytes.fromhex(packed["bytes"]), np.dtype(what))[0]
        if kind == "object":
            return self._object(packed)
        if kind == "array":
            result: Any = self._array(packed)
        elif kind == "anew":
            make = self.make(packed["kind"])
            result = make(**{name: self.make(each) for name, each in packed["arguments"].items()})
        elif kind in ("list", "dict"):
            result = self._made[what] = [] if kind == "list" else {}
            if kind == "list":
                result += map(self.make, packed["of"])
            else:
                result.update(self._pairs(packed["of"]))
        else:
            result = _KINDS[kind](map(self.make, packed["of"]))
        self._made[what] = result
        return result

    def _pairs(self, packed: list[Any]) -> list[tuple[Any, Any]]:
        return [(self.make(key), self.make(each)) for key, each in packed]

    def _object(self, packed: dict[str, Any]) -> Any:
        make: Callable[..., Any] = self.make(packed["make"])
        result = make(*map(self.make, packed["arguments"]))
        self._made[packed["object"]] = result
        for each in packed.get("items", ()):
            result.append(self.make(each))
        for key, each in self._pairs(packed.get("pairs", [])):
            result[key] = each
        if "state" in packed:
            _set_state(result, self._state(packed["state"]))
        return result

    def _state(self, packed: Any) -> Any:
        if isinstance(packed, dict):
            return {name: self.make(each) for name, each in packed.items()}
        if len(packed) == 2:
            return tuple(None if part is None else self._state(part) for part in packed)
        return self.make(packed[0])

    def _array(self, packed: dict[str, Any]) -> Array:
        path = self._folder / packed["file"]
        if "shape" in packed:
            shape, dtype = tuple(packed["shape"]), packed["dtype"]
            mode, offset, order = (packed[name] for name in ("mode", "offset", "order"))
            return np.asarray(np.memmap(path, dtype, mode, offset, shape, order))
        try:
            return np.asarray(np.load(path, mmap_mode="c"))
        except ValueError:
            # Nothing cannot be mapped.
            return np.asarray(np.load(path))


def _named(name: str) -> Any:
    """Return what a module has under a name."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _set_state(made: Any, state: Any) -> None:
    """Give an object its state, as `copy` does."""
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    slots: dict[str, Any] | None = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        made.__dict__.update(state)
    for name, each in (slots or {}).items():
        setattr(made, name, each)
