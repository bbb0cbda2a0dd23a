"""Entries of a state that each worker has its own of."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddbp.snapshot import Entry, Pieces, State, array


def stacked(state: Mapping[str, Any]) -> dict[str, Entry]:
    """Return what has the arrays of a state with an axis before, of any length."""
    return {
        name: array(entry.dtype, None, *entry.shape)
        for name, entry in state.items()
        if isinstance(entry, np.ndarray | Pieces)
    }


def of_worker(state: State, worker: int) -> dict[str, Any]:
    """Return the entries of a state, of arrays with an axis of workers those of one of them."""
    result = {}
    for name, entry in state.items():
        part = name == "totals" or name.startswith(("inner.", "own."))
        if part and hasattr(entry, "shape"):
            size = math.prod(entry.shape[1:])
            rows = entry.reshape(-1)[worker * size : (worker + 1) * size]
            entry = np.asarray(rows).reshape(entry.shape[1:])
        result[name] = entry
    return result
