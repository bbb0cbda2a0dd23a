"""Buffers that are reused from step to step."""

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .memory import LINE, room
from .types import Array, Integers

if TYPE_CHECKING:
    from .layer import Layer


TRANSIENT_BYTES = 256 * 1024
"""From this size on gradients of activations share memory: they would push each other out of the processor's caches."""


class Workspace:
    """Buffers keyed by (call, name); after the second step of a static network nothing is allocated.

    A buffer that is asked for again with another shape is cut from the same memory if that is large enough (a smaller
    last batch), and grown otherwise. The contents of a buffer are undefined when it is handed out.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[int, str], Array] = {}
        self._current: list[dict[str, Array]] = []
        self._transient: list[Array] = []
        self._scratch: dict[tuple[Any, tuple[int, ...]], list[Array]] = {}
        self._shared: Array = np.empty(0, np.uint8)
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
            memory = self._memory[call, name] = room(size)
            self.allocations += 1
        view: Array = memory[:size].view(dtype).reshape(shape)
        self._current[call][name] = view
        return view

    def transient(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array whose memory is used again once nobody refers to the array: the last one freed is still in the caches."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        pool = self._transient
        # Views refer to the array that owns their memory; without any there are the list's reference and the argument's.
        free = [index for index in range(len(pool)) if pool[index].size >= size and sys.getrefcount(pool[index]) <= 2]
        if free:
            # Of the smallest that will do, the last one used.
            memory = pool.pop(min(reversed(free), key=lambda index: pool[index].size))
        else:
            memory = room(size)
            self.allocations += 1
        pool.append(memory)
        view: Array = memory[:size].view(dtype).reshape(shape)
        return view

    def scratch(self, dtype: Any, sizes: tuple[int, ...]) -> list[Array]:
        """Return arrays of so many elements that any call may use until it returns; all calls share the memory."""
        key = (np.dtype(dtype), sizes)
        known = self._scratch.get(key)
        if known is None:
            starts = np.cumsum([0, *(-(-size * key[0].itemsize // LINE) * LINE for size in sizes)]).tolist()
            if self._shared.size < starts[-1]:
                self._shared = room(starts[-1])
                self._scratch = {}
                self.allocations += 1
            parts = [self._shared[start : start + size * key[0].itemsize] for start, size in zip(starts, sizes, strict=False)]
            known = self._scratch[key] = [part.view(dtype) for part in parts]
        return known

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

    def spoil(self) -> None:
        """Overwrite all memory with NaN, so that a layer which reads what it has not written is found out."""
        for memory in (self._shared, *self._memory.values(), *self._transient):
            memory.fill(0xFF)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._shared.size + sum(memory.size for memory in (*self._memory.values(), *self._transient))
