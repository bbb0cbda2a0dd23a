"""Snapshots: what training has changed until a moment, as named arrays and values that JSON holds.

A part of training (an optimizer, a schedule, a callback) gives its state as a dictionary whose
entries are arrays, the pieces of arrays that its rank holds, or what JSON can hold; a snapshot
holds the states of all parts, under dotted names. Nothing in it depends on the number of ranks.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from layers.errors import message
from layers.types import Array

VERSION = 3
"""The version of the names and meanings of what a trainer's snapshot holds."""

State = Mapping[str, Any]
"""The state of a part of training, by names."""


class Pieces(NamedTuple):
    """An array in a state of which each rank holds pieces, and all ranks together the whole.

    Attributes
    ----------
    shape, dtype
        Of the whole.
    parts
        Where in the whole, flattened, each piece begins, and its elements (n,).
    whole
        The whole, where this rank has it.
    """

    shape: tuple[int, ...]
    dtype: Any
    parts: list[tuple[int, Array]]
    whole: Array | None = None

    @classmethod
    def share(cls, whole: Array, rank: int, ranks: int) -> "Pieces":
        """Return the share of a rank in an array that all ranks have."""
        flat = whole.reshape(-1)
        start, stop = (flat.size * number // ranks for number in (rank, rank + 1))
        parts = [(start, flat[start:stop])] if start < stop else []
        return cls(whole.shape, whole.dtype, parts, whole)


class StoredArray(ABC):
    """An array in a state that lies in files: `np.asarray` reads the whole, and
    `stored.reshape(-1)[start:stop]` no more than that.

    Parameters
    ----------
    shape, dtype
        Of the array.
    digest
        A text that is the same for the same elements in the same files.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, digest: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.digest = digest
        self.ndim = len(shape)
        self.size = math.prod(shape)

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return elements (stop - start,) of the array, flattened."""

    def reshape(self, size: int) -> "StoredArray":
        """Return the array, flattened; `size` must be -1."""
        assert size == -1
        return self

    def __getitem__(self, place: slice) -> Array:
        start, stop, _ = place.indices(self.size)
        return self.read(start, stop)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.read(0, self.size).reshape(self.shape), dtype)


@dataclass(frozen=True)
class Snapshot:
    """The state of training at one moment.

    Attributes
    ----------
    arrays
        Whole arrays, whatever ranks held parts of them, by dotted names; where it is not collected
        yet, the pieces of this rank, and where it is read from files, `StoredArray`s.
    values
        What JSON can hold, by dotted names.
    """

    arrays: dict[str, Any]
    values: dict[str, Any]

    @classmethod
    def of(cls, parts: Mapping[str, State]) -> "Snapshot":
        """Return the snapshot of parts by their states.

        Raises
        ------
        TypeError
            An entry is neither an array nor what JSON can hold.
        """
        arrays: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for part, state in parts.items():
            for name, entry in state.items():
                if isinstance(entry, np.ndarray | Pieces):
                    arrays[f"{part}.{name}"] = entry
                else:
                    values[f"{part}.{name}"] = _json(part, name, entry)
        return cls(arrays, values)

    def part(self, name: str) -> dict[str, Any]:
        """Return the state of a part; it is empty if there is none."""
        return below(name, self.values | self.arrays)

    def digest(self) -> str:
        """Return a text that is the same for the same snapshot."""
        total = hashlib.sha256(json.dumps(self.values, sort_keys=True).encode())
        for name, array in sorted(self.arrays.items()):
            total.update(f"{name} {array.shape} {array.dtype}".encode())
            stored = isinstance(array, StoredArray)
            total.update(array.digest.encode() if stored else array.tobytes())
        return total.hexdigest()


class Entry(NamedTuple):
    """What an entry of a state must be.

    Attributes
    ----------
    kind
        It, in words.
    holds
        Whether an entry is that.
    """

    kind: str
    holds: Callable[[Any], bool]


Schema = Mapping[str, Entry]
"""What all entries of a whole state must be, by names."""

VALUE = Entry("a value", lambda entry: not isinstance(entry, np.ndarray | StoredArray))
NUMBER = Entry("a number", lambda entry: type(entry) in (int, float))
BOOLEAN = Entry("True or False", lambda entry: type(entry) is bool)
TEXT = Entry("a text", lambda entry: type(entry) is str)


def integer(least: int, most: int | None = None) -> Entry:
    """Return the entry that is an integer from `least` to `most`."""
    kind = f"an integer of at least {least}" if most is None else f"an integer in {least}…{most}"
    return Entry(
        kind,
        lambda entry: type(entry) is int and least <= entry and (most is None or entry <= most),
    )


def optional(entry: Entry) -> Entry:
    """Return the entry that may be None instead."""
    return Entry(f"{entry.kind} or None", lambda given: given is None or entry.holds(given))


def listing(part: Entry, length: int | None = None) -> Entry:
    """Return the entry that is a list of parts, of so many if that is known."""
    count = "" if length is None else f"{length} times "
    return Entry(
        f"a list of {count}{part.kind}",
        lambda entry: (
            type(entry) is list
            and (length is None or len(entry) == length)
            and all(map(part.holds, entry))
        ),
    )


def array(dtype: Any, *shape: int | None) -> Entry:
    """Return the entry that is an array of a type and shape, where None is any length."""
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return Entry(
        f"an array ({sizes}{',' * (len(shape) == 1)}) {np.dtype(dtype)}",
        lambda entry: (
            isinstance(entry, np.ndarray | StoredArray)
            and entry.dtype == dtype
            and entry.ndim == len(shape)
            and all(size in (None, n) for size, n in zip(shape, entry.shape, strict=True))
        ),
    )


def like(state: State) -> Schema:
    """Return what has the same arrays as a state, in their shapes and types, and the same values,
    whatever they are.
    """
    return {
        name: array(entry.dtype, *entry.shape) if isinstance(entry, np.ndarray | Pieces) else VALUE
        for name, entry in state.items()
    }


def below(name: str, state: State) -> dict[str, Any]:
    """Return the entries whose dotted names begin with a name, by the rest of theirs."""
    start = f"{name}."
    return {
        full.removeprefix(start): entry for full, entry in state.items() if full.startswith(start)
    }


def _json(part: str, name: str, entry: Any) -> Any:
    """Return an entry as it comes back from JSON, or refuse it."""
    try:
        return json.loads(json.dumps(entry))
    except (TypeError, ValueError) as error:
        must = f"{name} of a state must be an array, or what JSON can hold"
        fix = "Return numbers, texts, lists and dictionaries of them, or NumPy arrays."
        raise TypeError(message(part, must, repr(entry), fix)) from error
