"""One process alone, without MPI."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from layers.engine.memory import zeros
from layers.types import Array, Integers

from .base import Collective, FixedRanks, OneHost, Ranks
from .host_barrier import SharedRow
from .topology import Topology


class SerialCommunicator(OneHost, FixedRanks):
    """One process, no MPI."""

    def __init__(self) -> None:
        self.rank = 0
        self.size = 1
        self.hosts = np.array([0, 1])
        self.topology = Topology(self.hosts, 0)
        self.of_host: Ranks = self
        self._signs: Integers = np.zeros(8, np.int64)
        self.progress_hook: Callable[[], None] | None = None

    waiting = None
    waited = 0.0

    def signs(self) -> dict[int, Integers]:
        return {0: self._signs}

    def plan_memory(self, needs: Mapping[str, int]) -> None:
        pass

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return zeros(shape, dtype)

    def gather(self, collective: Collective, row: SharedRow, same: int = 0) -> bool:
        return True

    def host_barrier(self, collective: Collective) -> None:
        pass

    def joint(
        self, collective: Collective, results: Sequence[Array]
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def all_gather(self, array: Array) -> Array:
        return np.array(array)[np.newaxis]

    def broadcast(self, array: Array) -> None:
        pass

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        yield

    def abort(self, status: int) -> None:
        os._exit(status)

    def describe(self) -> dict[str, Any]:
        return {
            "mpi": "not used: not launched by mpirun, mpiexec or srun",
            "ranks": 1,
            "hosts": [socket.gethostname()],
        }
