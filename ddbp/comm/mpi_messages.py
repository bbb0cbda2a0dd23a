"""Messages of MPI: their tags, what a message can hold, and those that are on their way."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from layers.types import Array

from .base import Collective

LARGEST = 2**30
"""Elements of a message: libraries before MPI 4 count them by a C int."""
# So many tags for each number at least, whatever the parts of its messages: messages of different
# numbers have different tags.
_LEAST_PARTS = 1024


class MessageTag(IntEnum):
    """Tells messages apart that two ranks send each other."""

    HEAD = 1
    REST = 2
    LEFT = 3
    WAITING = 4
    PART = 5
    COMPILING = 6
    PENDING = 16
    """Pending messages take all tags from here on."""


class MPIPendingMessages:
    """See `PendingMessages`; `wait` is called with requests, the collective and the ranks that the
    first of the requests receive from, `count` with what is sent.
    """

    def __init__(
        self,
        mpi: Any,
        world: Any,
        parts: int,
        wait: Callable[[list[Any], Collective, Sequence[int]], None],
        count: Callable[[Sequence[tuple[int, Array]]], None],
    ) -> None:
        self._world = world
        self._parts = max(parts, _LEAST_PARTS)
        self._wait = wait
        self._count = count
        # Open MPI tells it of this communicator only.
        self._numbers = (
            int(mpi.COMM_WORLD.Get_attr(mpi.TAG_UB)) + 1 - MessageTag.PENDING
        ) // self._parts
        self._dropped: list[Any] = []
        self.begin(0)

    def begin(self, number: int) -> None:
        self._tag = MessageTag.PENDING + number % self._numbers * self._parts
        self._receives: list[tuple[int, int, Any]] = []
        self._requests: list[Any] = []
        self._looked = 0

    def expect(self, part: int, receives: Sequence[tuple[int, Array]]) -> None:
        arrays = [
            (rank, fragment) for rank, array in receives for fragment in cut(array) if fragment.size
        ]
        requests = [
            (rank, part, self._world.Irecv(fragment, rank, self._tag + part))
            for rank, fragment in arrays
        ]
        self._receives += requests
        self._requests += [request for _, _, request in requests]

    def send(self, part: int, sends: Sequence[tuple[int, Array]]) -> None:
        fragments = [
            (rank, fragment) for rank, array in sends for fragment in cut(array) if fragment.size
        ]
        self._requests += [
            self._world.Isend(fragment, rank, self._tag + part) for rank, fragment in fragments
        ]
        self._count(sends)

    def progress(self) -> None:
        # One that is not over is enough to look at: MPI sees to all of them.
        while self._looked < len(self._requests) and self._requests[self._looked].Test():
            self._looked += 1

    def wait(self, collective: Collective) -> None:
        self._wait(self._requests, collective, [rank for rank, _, _ in self._receives])

    def missing(self) -> list[tuple[int, int]]:
        return [(rank, part) for rank, part, request in self._receives if not request.Test()]

    def drop(self) -> None:
        for _, _, request in self._receives:
            if not request.Test():
                request.Cancel()
        # MPI may still write to their arrays, which they keep.
        self._dropped += self._requests
        self.begin(0)


def cut(array: Array) -> list[Array]:
    """Return an array, whose memory has no gaps, in parts that a message can hold."""
    if array.size <= LARGEST:
        return [array]
    flat = array.reshape(-1)
    return [flat[start : start + LARGEST] for start in range(0, flat.size, LARGEST)]
