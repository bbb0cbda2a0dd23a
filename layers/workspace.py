"""Buffers that are reused from step to step."""

from typing import Any

import numpy as np

from .types import Array


class Workspace:
    """Buffers keyed by (call, name); after the second step of a static network nothing is allocated.

    A buffer that is asked for again with another shape is cut from the same memory if that is large enough (a smaller
    last batch), and grown otherwise. The contents of a buffer are undefined when it is handed out.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[int, str], Array] = {}
        self._views: dict[tuple[int, str, tuple[int, ...], Any], Array] = {}
        self.allocations = 0
        """How often memory was allocated: constant once the network is warm."""

    def buffer(self, call: int, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array of this shape and dtype that belongs to buffer `name` of call number `call`."""
        view = self._views.get((call, name, shape, dtype))
        return self._cut(call, name, shape, dtype) if view is None else view

    def _cut(self, call: int, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        dtype_object = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype_object.itemsize
        memory = self._memory.get((call, name))
        if memory is None or memory.size < size:
            memory = np.empty(size, np.uint8)
            self.allocations += 1
            self._memory[call, name] = memory
            self._views = {key: view for key, view in self._views.items() if key[:2] != (call, name)}
        view = memory[:size].view(dtype_object).reshape(shape)
        self._views[call, name, shape, dtype] = view
        return view

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(memory.size for memory in self._memory.values())
