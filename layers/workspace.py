"""Buffers that are reused from step to step."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .types import Array, Integers

if TYPE_CHECKING:
    from .layer import Layer


class Workspace:
    """Buffers keyed by (call, name); after the second step of a static network nothing is allocated.

    A buffer that is asked for again with another shape is cut from the same memory if that is large enough (a smaller
    last batch), and grown otherwise. The contents of a buffer are undefined when it is handed out.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[int, str], Array] = {}
        self._current: list[dict[str, Array]] = []
        self._bounds: dict[int, Integers] = {}
        self.known_shards: tuple[Integers | None, int, int] = (None, 1, 0)
        """Bounds of shards that a tape has checked, their number and their rows: the very array need not be checked again."""
        self._trainable: dict[Layer, bool] = {}
        self.allocations = 0
        """How often memory was allocated: constant once the network is warm."""

    def current(self, call: int) -> dict[str, Array]:
        """Return the buffers of call number `call` as they were last handed out, by name."""
        while len(self._current) <= call:
            self._current.append({})
        return self._current[call]

    def cut(self, call: int, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return buffer `name` of a call in a shape and dtype that it did not have last time."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = self._memory.get((call, name))
        if memory is None or memory.size < size:
            memory = self._memory[call, name] = np.empty(size, np.uint8)
            self.allocations += 1
        view: Array = memory[:size].view(dtype).reshape(shape)
        self._current[call][name] = view
        return view

    def one_shard(self, rows: int) -> Integers:
        """Return the bounds (0, rows)."""
        bounds = self._bounds.get(rows)
        if bounds is None:
            bounds = self._bounds[rows] = np.array((0, rows), np.int64)
        return bounds

    def is_trainable(self, layer: "Layer") -> bool:
        """Return whether a layer has parameters of its own; looked up once."""
        known = self._trainable.get(layer)
        if known is None:
            known = self._trainable[layer] = bool(layer.own_parameters())
        return known

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(memory.size for memory in self._memory.values())
