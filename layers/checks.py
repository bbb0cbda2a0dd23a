"""Options that are sizes: a number, or a pair of them for rows and columns of an image."""

from typing import Any

import numpy as np

from .errors import message

Pair = tuple[int, int]


def pair(
    owner: str, name: str, size: Any, least: int, fix: str = "Pass one number, or (rows, columns)."
) -> Pair:
    """Return a number or a pair (rows, columns) as a pair of integers of at least `least`."""
    both = size if isinstance(size, tuple | list) else (size, size)
    if len(both) != 2 or any(not isinstance(n, int | np.integer) or n < least for n in both):
        raise ValueError(
            message(
                owner, f"{name} must be one or two integers of at least {least}", repr(size), fix
            )
        )
    return int(both[0]), int(both[1])


def positive(owner: str, name: str, size: Any, fix: str = "Pass the size of the axis.") -> int:
    """Return a size of at least 1 as an integer."""
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(message(owner, f"{name} must be a positive integer", repr(size), fix))
    return int(size)
