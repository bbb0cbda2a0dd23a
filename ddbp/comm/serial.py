"""One process alone, without MPI."""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from layers.engine.memory import zeros
from layers.types import Array

from .base import Flight, Task
from .host_barrier import Row
from .topology import Links


class SerialCommunicator:
    """One process, no MPI."""

    def __init__(self) -> None:
        self.rank, self.size, self.hosts = 0, 1, np.array([0, 1])
        self.links = Links(self.hosts, 0)
        self.meanwhile: Callable[[], None] | None = None

    def announce(self, needs: Mapping[str, int]) -> None:
        pass

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return zeros(shape, dtype)

    def gather(self, task: Task, row: Row, same: int = 0) -> bool:
        return True

    def meet(self, task: Task) -> None:
        pass

    def swap(
        self, task: Task, sends: Sequence[tuple[int, Array]], receives: Sequence[tuple[int, Array]]
    ) -> None:
        pass

    def flight(self, parts: int) -> Flight:
        raise NotImplementedError("one process has no messages")

    def all_gather(self, array: Array) -> Array:
        return np.array(array)[np.newaxis]

    def broadcast(self, array: Array) -> None:
        pass

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        yield

    def describe(self) -> dict[str, Any]:
        return {
            "mpi": "not used: not launched by mpirun, mpiexec or srun",
            "ranks": 1,
            "hosts": [socket.gethostname()],
        }
