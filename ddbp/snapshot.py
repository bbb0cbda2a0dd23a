"""Snapshots: what training has changed until a moment, as named arrays and values that JSON holds.

A part of training (an optimizer, a schedule, a callback) gives its state as a dictionary whose
entries are arrays, or what JSON can hold; a snapshot holds the states of all parts, under dotted
names. Nothing in it depends on the number of ranks.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array

VERSION = 1
"""The version of the names and meanings of what a trainer's snapshot holds."""

State = Mapping[str, Any]
"""The state of a part of training, by names."""


@dataclass(frozen=True)
class Snapshot:
    """The state of training at one moment.

    Attributes
    ----------
    arrays
        Whole arrays, whatever ranks held parts of them, by dotted names.
    values
        What JSON can hold, by dotted names.
    """

    arrays: dict[str, Array]
    values: dict[str, Any]

    @classmethod
    def of(cls, parts: Mapping[str, State]) -> "Snapshot":
        """Return the snapshot of parts by their states.

        Raises
        ------
        TypeError
            An entry is neither an array nor what JSON can hold.
        """
        arrays: dict[str, Array] = {}
        values: dict[str, Any] = {}
        for part, state in parts.items():
            for name, entry in state.items():
                if isinstance(entry, np.ndarray):
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
            total.update(array.tobytes())
        return total.hexdigest()


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
