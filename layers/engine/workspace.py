"""Buffers that are reused from step to step."""

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.errors import message
from layers.kernels.machine import CACHE_LINE, POOLED_BYTES
from layers.types import Array

from .memory import room
from .parameter import Parameter
from .shard_bounds import ShardBounds
from .stack import Stack

if TYPE_CHECKING:
    from .call import Call
    from .layer import Layer
    from .tape import Tape


class Workspace:
    """Buffers keyed by (call, name); after the second step of a static network nothing is
    allocated.

    A buffer that is asked for again with another shape is cut from the same memory if that is large
    enough (a smaller last batch), and grown otherwise. The contents of a buffer are undefined when
    it is handed out.
    """

    turn: int = 0
    """How many tapes have recorded."""
    pooled_from: int = POOLED_BYTES
    """Of so many bytes on, what backward asks for comes from the pool."""

    def __init__(self) -> None:
        self._memory: dict[tuple[int, str], Array] = {}
        self._current: list[dict[str | tuple[str, str], Array]] = []
        self._transient: list[Any] = []
        self._scratch: dict[tuple[Any, tuple[int | tuple[int, ...], ...]], list[Array]] = {}
        self._shared: Array = np.empty(0, np.uint8)
        self.shards = ShardBounds(None)
        """Those of the last tape: the very array need not be checked again."""
        self._trained: dict[Layer, list[Parameter]] = {}
        self.owner: object = None
        self.freezes = Parameter.freezes
        """For whom the last tape was, and how often parameters had been frozen then."""
        self.replay: Any = None
        """What decides which steps are replayed."""
        self.stack = Stack()
        """Where passes over segments have their buffers."""
        self.segments: list[Workspace] = []
        """Small memory of backward passes over segments, by how deep they lie in each other."""
        self.allocations = 0
        """How often memory was allocated: constant once the network is warm."""

    def begin_turn(self, tape: "Tape") -> None:
        """Have a tape use the buffers from now on, and no other that has."""
        self.turn += 1
        tape.turn = self.turn

    def require_held_by(self, tape: "Tape") -> None:
        """Refuse the backward pass of a tape that has no calls any more, or whose buffers another
        one has used since.
        """
        if not tape.released and tape.turn in (0, self.turn):
            return
        must, got = "the tape must still hold its calls", "a released tape"
        fix = "Propagate before Trainer.update, which is the end of a step."
        if not tape.released:
            got = "one whose memory another tape with its workspace has used since"
            fix = "Propagate before the next one records, or give each a Workspace of its own."
        raise ValueError(message("Value.backward", must, got, fix))

    def current(self, call: int) -> dict[str | tuple[str, str], Array]:
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
        return self._hand_out(memory[:size], call, name, shape, dtype)

    def _hand_out(
        self, memory: Array, call: int, name: str, shape: tuple[int, ...], dtype: Any
    ) -> Array:
        """Return memory as a buffer of a call, and know it by its name."""
        view: Array = memory.view(dtype).reshape(shape)
        buffers = self._current[call]
        buffers[name] = view
        if len(shape) > 2 and shape[-1]:
            buffers[name, "rows"] = view.reshape(-1, shape[-1])
        return view

    def copy(self, array: Array, call: int, name: str, number: int) -> Array:
        """Return a copy of an array: a new one if it is small, else in a buffer of a call, of this
        name and number.
        """
        if array.nbytes < POOLED_BYTES or array.dtype.hasobject:
            return array.copy()
        name = f"{name} {number}"
        held = self.current(call).get(name)
        if held is None or held.shape != array.shape or held.dtype != array.dtype:
            held = self.cut(call, name, array.shape, array.dtype)
        held[...] = array
        return held

    def pooled(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array whose memory is used again once nobody refers to the array: the last one
        freed is still in the caches.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        # Arrays of the pool are views of their memory, to which views of them refer, too.
        pool, found, smallest = self._transient, -1, 0
        for index in range(len(pool) - 1, -1, -1):
            here = pool[index].base.size
            if here < size or (found >= 0 and here >= smallest):
                continue
            # Without others there are the list's reference, or the view's, and the argument's.
            if sys.getrefcount(pool[index]) <= 2 and sys.getrefcount(pool[index].base) <= 2:
                found, smallest = index, here
                if here == size:
                    break
        if found < 0:
            pool.append(room(size).view(dtype).reshape(shape))
            self.allocations += 1
        else:
            pool.append(pool.pop(found))
            if pool[-1].shape != shape or pool[-1].dtype != dtype:
                pool[-1] = pool[-1].base[:size].view(dtype).reshape(shape)
        result: Array = pool[-1]
        return result

    def is_pooled(self, array: Array) -> bool:
        """Return whether an array lies in memory that is used again once nobody refers to it."""
        return any(array.base is each.base for each in self._transient)

    def lasting(self, call: "Call", index: int, dx: Array) -> Array:
        """Return a gradient, of input `index` of a call, in memory that nothing overwrites before
        it has been used.
        """
        return dx

    def scratch(self, dtype: Any, shapes: tuple[int | tuple[int, ...], ...]) -> list[Array]:
        """Return arrays of so many elements, or shapes, that any call may use until it returns; all
        calls share the memory.
        """
        key = (np.dtype(dtype), shapes)
        known = self._scratch.get(key)
        if known is None:
            sizes = [np.prod(shape, dtype=np.int64) * key[0].itemsize for shape in shapes]
            lines = [-(-size // CACHE_LINE) for size in sizes]
            starts = (CACHE_LINE * np.cumsum([0, *lines])).tolist()
            if self._shared.size < starts[-1]:
                self._shared = room(starts[-1])
                self._scratch = {}
                self.allocations += 1
            parts = [
                self._shared[start : start + size]
                for start, size in zip(starts, sizes, strict=False)
            ]
            known = [
                part.view(dtype).reshape(shape) for part, shape in zip(parts, shapes, strict=True)
            ]
            self._scratch[key] = known
        return known

    def begin(self, owner: object) -> None:
        """Learn for which owner of gradients the next tape is: see `Parameter.trains_for`."""
        self._trained = {}
        self.owner = owner
        self.freezes = Parameter.freezes

    def trained(self, layer: "Layer") -> "list[Parameter]":
        """Return the parameters of a layer's own that are trained; looked up once."""
        known = self._trained.get(layer)
        if known is None:
            known = [each for each in layer.own_parameters() if each.trains_for(self.owner)]
            self._trained[layer] = known
        return known

    def of_calls(self) -> dict[int, list[Array]]:
        """Return the memory of the buffers of each call, by its number."""
        result: dict[int, list[Array]] = {}
        for (call, _), memory in self._memory.items():
            result.setdefault(call, []).append(memory)
        return result

    def spoil(self, but: Sequence[Array] = ()) -> None:
        """Overwrite all memory with NaN, so that a layer which reads what it has not written is
        found out; `but` that of some arrays.
        """
        for memory in self._all():
            if not any(np.may_share_memory(memory, kept) for kept in but):
                memory.fill(0xFF)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(memory.size for memory in self._all())

    def _all(self) -> list[Array]:
        own = [self._shared, *self._memory.values(), *(array.base for array in self._transient)]
        within = [memory for each in self.segments for memory in each._memory.values()]
        return [*own, self.stack.memory, *within]
