"""What outlives the ranks of a job: the newest state that they have put by, in memory that their
launcher holds.
"""

import mmap
import os

import numpy as np

from layers.types import Array

# Words of the head: how many states have been kept, whether any may be; then of each place.
_COUNT, _ALLOWED, _PLACES = range(3)
# Words of a place: the step and the loop that the state is of; where its text begins, and bytes.
_STEP, _LOOP, _TEXT, _LENGTH = range(4)
_OF_PLACE = 4
_APART = 1 << 40
"""Bytes from one place to the next in the file, of which only what is written takes memory."""


class Kept:
    """Two places for states in a file: one is whole while the other is written.

    Parameters
    ----------
    descriptor
        Of the file.
    head
        Words (`WORDS`,) that all processes share.
    start
        Where the places begin in the file, at a page.
    """

    WORDS = _PLACES + 2 * _OF_PLACE
    ROOM = 2 * _APART

    def __init__(self, descriptor: int, head: memoryview, start: int) -> None:
        self._descriptor = descriptor
        self._head = head
        self._start = start
        self._maps: dict[int, mmap.mmap] = {}

    @property
    def allowed(self) -> bool:
        """Whether states are to be kept."""
        return bool(self._head[_ALLOWED])

    @allowed.setter
    def allowed(self, value: bool) -> None:
        self._head[_ALLOWED] = value

    @property
    def count(self) -> int:
        """How many states have been kept so far; the newest is the last."""
        return int(self._head[_COUNT])

    @property
    def step(self) -> int:
        """The step of the newest state, -1 if there is none."""
        return self._word(_STEP) if self.count else -1

    @property
    def loop(self) -> int:
        """The loop of the script that the newest state is of, 0 if there is none."""
        return self._word(_LOOP) if self.count else 0

    def _word(self, which: int) -> int:
        return int(self._head[_PLACES + _OF_PLACE * (self.count % 2) + which])

    def reserve(self, size: int) -> None:
        """Take memory for the next state, of so many bytes; keep none any more if there is too
        little.
        """
        try:
            os.posix_fallocate(self._descriptor, self._offset(self.count + 1), size)
        except OSError:
            self.allowed = False

    def next(self, size: int) -> Array:
        """Return so many bytes (size,) for the next state, which have been reserved."""
        return self._mapped(self.count + 1, size)

    def publish(self, step: int, loop: int, text: int, length: int) -> None:
        """Have the next state be the newest, whose text begins there."""
        number = self.count + 1
        first = _PLACES + _OF_PLACE * (number % 2)
        for word, value in enumerate((step, loop, text, length)):
            self._head[first + word] = value
        self._head[_COUNT] = number

    def newest(self) -> tuple[int, Array, bytes]:
        """Return the number of the newest state, its bytes, which may be overwritten once there are
        more, and its text.
        """
        while True:
            number = self.count
            start, length = self._word(_TEXT), self._word(_LENGTH)
            if number == self.count:
                memory = self._mapped(number, start + length)
                text = memory[start:].tobytes()
                if number == self.count:
                    return number, memory, text

    def _offset(self, number: int) -> int:
        return self._start + _APART * (number % 2)

    def _mapped(self, number: int, size: int) -> Array:
        place = number % 2
        if place not in self._maps or len(self._maps[place]) < size:
            # Of one that was smaller there may be arrays still, so it is left to them.
            self._maps[place] = mmap.mmap(self._descriptor, size, offset=self._offset(number))
        return np.frombuffer(self._maps[place], np.uint8, size)
