"""Tables of named numbers: what a planner in Python works out once, and a kernel reads by name."""

from typing import Any

import numpy as np


def record(*names: str) -> np.dtype[Any]:
    """Return the type of a row of 64-bit integers with these names."""
    return np.dtype([(name, np.int64) for name in names])


def table(of: np.dtype[Any], rows: list[dict[str, int]]) -> np.ndarray[Any, Any]:
    """Return the rows, each given by name, as an array of records."""
    names = of.names or ()
    for row in rows:
        if row.keys() != set(names):
            missing, unknown = sorted(set(names) - row.keys()), sorted(row.keys() - set(names))
            raise TypeError(f"a row must have the names {names}; missing {missing}, not {unknown}")
    return np.array([tuple(row[name] for name in names) for row in rows], of)
