"""Arrays that the ranks of a host share, by name: the same ones again when the ranks are others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddbp.comm.base import Communicator
from layers.types import Array


class SharedArrays:
    """Memory that the ranks of a host share, which stays where it is when ranks are lost.

    Parameters
    ----------
    comm
        The ranks.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._arrays: dict[str, Array] = {}

    def plan(self, needs: Mapping[str, int]) -> None:
        """Learn what is needed next, bytes by purpose: see `Communicator.plan_memory`."""
        if not self._arrays:
            self._comm.plan_memory(needs)

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array of this name, made of zeros unless there is one like that; collective if
        it is made.
        """
        found = self._arrays.get(name)
        if found is None or (found.shape, found.dtype) != (shape, np.dtype(dtype)):
            found = self._arrays[name] = self._comm.host_array(shape, dtype)
        return found

    def has(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return name in self._arrays

    def renew(self) -> None:
        """Have all arrays made anew when they are next asked for."""
        self._arrays = {}
