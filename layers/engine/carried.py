"""States that a model carries from one part of a sequence to the next: arrays or values, None, and
tuples of such.
"""

from collections.abc import Sequence
from typing import Any


def taken_apart(state: Any, leaves: list[Any]) -> Any:
    """Return the structure of a state, lists for tuples and numbers for what is neither a tuple nor
    None, which is added to the leaves.
    """
    if isinstance(state, tuple):
        return [taken_apart(part, leaves) for part in state]
    if state is None:
        return None
    leaves.append(state)
    return len(leaves) - 1


def put_together(structure: Any, leaves: Sequence[Any]) -> Any:
    """Return the state that `taken_apart` has taken apart."""
    if isinstance(structure, list):
        return tuple([put_together(part, leaves) for part in structure])
    return None if structure is None else leaves[structure]
