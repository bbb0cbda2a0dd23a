"""Memory that is given back in the reverse of the order in which it was taken."""

import weakref
from typing import Any

from layers.kernels.machine import CACHE_LINE
from layers.types import Array

from .memory import room


class Stack:
    """Memory for passes over segments, which lie in each other: what one takes lies above what
    those around it hold, and is free again when it is over.

    Attributes
    ----------
    memory
        The memory. It grows between passes, to what the largest so far has needed.
    top
        How much of it is taken, in bytes.
    need
        How much has ever been taken at once.
    """

    __slots__ = ("_tape", "memory", "need", "top")

    def __init__(self) -> None:
        self.memory: Array = room(0)
        self.top = 0
        self.need = 0
        self._tape: Any = None

    def begin(self, tape: Any) -> int:
        """Return what is taken; nothing, where the last that took any was another tape, the calls
        of which are over. Those of segments know themselves where they begin.
        """
        if not tape.is_segment and (self._tape is None or self._tape() is not tape):
            self._tape = weakref.ref(tape)
            self.top = 0
        return self.top

    def take(self, size: int) -> Array | None:
        """Return so many bytes, None where there is no room yet: then they must be found elsewhere,
        and are counted all the same.
        """
        start = self.top
        self.top += -(-size // CACHE_LINE) * CACHE_LINE
        self.need = max(self.need, self.top)
        return self.memory[start : start + size] if self.top <= self.memory.size else None

    def give_back(self, top: int) -> bool:
        """Give back all above; return whether memory had to be allocated, which is when nothing is
        taken that has not found room.
        """
        self.top = top
        if top or self.need <= self.memory.size:
            return False
        self.memory = room(self.need)
        return True
