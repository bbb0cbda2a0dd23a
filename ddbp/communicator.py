"""Communication between ranks: one process alone, or MPI."""

import json
import os
import re
import socket
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np

from layers.errors import message
from layers.memory import zeros
from layers.types import Array, Integers

from .board import Row

_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK", "MPI_LOCALNRANKS")
# The most characters of a fact that an error quotes; of longer ones it shows where they begin to differ.
_EXCERPT = 80


class CommunicationError(RuntimeError):
    """Ranks do not agree, or one did not come."""


Task = tuple[int, int]
"""What ranks meet for: a kind, and which of that kind."""

_TASKS = (
    "gathering from all ranks",
    "the gradient exchange of step {}",
    "publishing the parameters of step {}",
    "gathering statistics of the batch, number {}",
    "broadcasting from rank 0",
    "letting one rank of each host go first",
    "ending",
)
GATHERING, EXCHANGE, PUBLISHING, STATISTICS, BROADCAST, LEADER_FIRST, ENDING = range(len(_TASKS))


def described(task: Task) -> str:
    """Return what ranks meet for, in words."""
    kind, number = task
    return _TASKS[kind].format(number)


class Communicator(Protocol):
    """What training needs of the ranks. All methods are collective: every rank calls them in the same order.

    Attributes
    ----------
    rank, size
        The number of this rank, and how many there are. The ranks of a host follow each other.
    hosts
        Bounds (H + 1,) of the groups of ranks that share memory.
    links
        Who of them talks to whom between hosts.
    meanwhile
        What this rank does again and again while it waits for ranks of its host, if anything.
    """

    rank: int
    size: int
    hosts: Integers
    links: "Links"
    meanwhile: Callable[[], None] | None

    def announce(self, needs: Mapping[str, int]) -> None:
        """Learn what `host_array` will be asked for next, bytes by purpose, so that a refusal can state all of it."""

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return zeroed memory that the ranks of this host share.

        Raises
        ------
        CommunicationError
            There is too little of it.
        """

    def gather(self, task: Task, row: Row, same: int = 0) -> bool:
        """Complete row.all, the numbers of all ranks; return whether the task and the first `same` numbers are the same.

        The ranks of a host have then met: each sees what the others wrote before to memory that they share.

        Raises
        ------
        CommunicationError
            A rank is at another kind of task, has left, or does not come.
        """

    def meet(self, task: Task) -> None:
        """Wait for the ranks of this host."""

    def swap(self, task: Task, sends: Sequence[tuple[int, Array]], receives: Sequence[tuple[int, Array]]) -> None:
        """Send arrays to ranks of other hosts, and fill arrays from them."""

    def flight(self, parts: int) -> "Flight":
        """Return what carries messages of so many parts to other hosts while this rank does something else."""

    def all_gather(self, array: Array) -> Array:
        """Return the arrays of all ranks, of one shape, stacked (size, …)."""

    def broadcast(self, array: Array) -> None:
        """Overwrite the array with that of rank 0."""

    def leader_first(self) -> Any:
        """Return a context whose body the first rank of each host runs before the others do."""

    def describe(self) -> dict[str, Any]:
        """Return facts for a bug report."""


class Flight(Protocol):
    """Messages between hosts that are on their way while a rank does something else; those of a part may be sent at any time.

    Nothing here is collective, but each message must be expected by the rank that it is for, under the same number and part.
    """

    def begin(self, number: int) -> None:
        """Begin anew; the number tells messages from those of other flights. The one before must be over, or dropped."""

    def expect(self, part: int, receives: Sequence[tuple[int, Array]]) -> None:
        """Have arrays filled from other ranks."""

    def send(self, part: int, sends: Sequence[tuple[int, Array]]) -> None:
        """Send arrays, which must stay as they are."""

    def poke(self) -> None:
        """Let messages get on: MPI libraries may do nothing about them unless they are called."""

    def wait(self, task: Task) -> None:
        """Return when all has been sent and received."""

    def missing(self) -> list[tuple[int, int]]:
        """Return (rank, part) of the messages that have not come."""

    def drop(self) -> None:
        """Forget what has been begun; arrays that were to be filled may still be."""


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

    def swap(self, task: Task, sends: Sequence[tuple[int, Array]], receives: Sequence[tuple[int, Array]]) -> None:
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
        return {"mpi": "not used: not launched by mpirun, mpiexec or srun", "ranks": 1, "hosts": [socket.gethostname()]}


class Links:
    """Who talks to whom between hosts, as one rank sees it: of each host one rank serves a given stranger, and all share that work.

    Parameters
    ----------
    hosts, rank
        Bounds (H + 1,) of the ranks of each host, and this rank.

    Attributes
    ----------
    own, first, last
        The number of this rank's host, its first rank and the end of its ranks.
    sources
        (rank, host): of each other host the rank that this one receives from.
    served
        The ranks of other hosts that this one sends to.
    """

    def __init__(self, hosts: Integers, rank: int) -> None:
        self._bounds: list[int] = hosts.tolist()
        self.own = self._host_of(rank)
        self.first, self.last = self._bounds[self.own : self.own + 2]
        self.sources = [(self._serving(host, rank), host) for host in range(len(hosts) - 1) if host != self.own]
        strangers = [other for other in range(self._bounds[-1]) if not self.first <= other < self.last]
        self.served = [other for other in strangers if self._serving(self.own, other) == rank]

    def _host_of(self, rank: int) -> int:
        return bisect_right(self._bounds, rank) - 1

    def _serving(self, host: int, stranger: int) -> int:
        """Return the rank of a host that serves a stranger: the one with about the same place among those of its host."""
        home = self._host_of(stranger)
        first, last = self._bounds[host : host + 2]
        home_first, home_last = self._bounds[home : home + 2]
        return first + (stranger - home_first) * (last - first) // (home_last - home_first)


def launched_under_mpi() -> bool:
    """Return whether an MPI launcher started this process (`DDBP_MPI=0` or `1` overrides)."""
    chosen = os.environ.get("DDBP_MPI")
    if chosen in ("0", "1"):
        return chosen == "1"
    slurm = "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    return slurm or any(name in os.environ for name in _LAUNCHED)


_CURRENT: list[Communicator] = []


def communicator() -> Communicator:
    """Return the communicator of this process, made at the first call: MPI if an MPI launcher started it, else serial."""
    if not _CURRENT:
        if launched_under_mpi():
            from .communicator_mpi import MPICommunicator

            _CURRENT.append(MPICommunicator())
        else:
            _CURRENT.append(SerialCommunicator())
    return _CURRENT[0]


def gather_texts(comm: Communicator, text: str) -> list[str]:
    """Return the texts of all ranks."""
    raw = np.frombuffer(text.encode(), np.uint8)
    sizes = comm.all_gather(np.array([raw.size], np.int64))[:, 0]
    padded = np.zeros(int(sizes.max(initial=0)), np.uint8)
    padded[: raw.size] = raw
    return [bytes(row[:size]).decode() for row, size in zip(comm.all_gather(padded), sizes, strict=True)]


def require_agreement(comm: Communicator, facts: dict[str, Any], fix: str) -> None:
    """Raise on every rank, naming what differs where, unless all ranks state the same facts, of which lists have many parts."""
    stated = {name: [*map(_stated, fact)] if isinstance(fact, list) else _stated(fact) for name, fact in facts.items()}
    texts = gather_texts(comm, json.dumps(stated))
    expected = json.loads(texts[0])
    for rank, text in enumerate(texts):
        other = json.loads(text)
        for name in {**expected, **other}:
            if expected.get(name) != other.get(name):
                got = _difference(other.get(name), expected.get(name), rank)
                raise CommunicationError(message("ddbp", f"all ranks must have the same {name}", got, fix))


def _stated(fact: Any) -> str:
    """Return a fact in words; where an object lies in memory is none, though the default repr of functions and classes says so."""
    return re.sub(r" at 0x\w+", "", str(fact))


def _difference(there: Any, here: Any, rank: int) -> str:
    """Return how the fact of a rank differs from that of rank 0: of parts their numbers, and the first that differs."""
    if not (isinstance(there, list) and isinstance(here, list)):
        first, second = _excerpts(there, here)
        return f"{first} on rank {rank}, {second} on rank 0"
    counts = f"{len(there)} on rank {rank}, {len(here)} on rank 0; " if len(there) != len(here) else ""
    one, other = next(pair for pair in zip_longest(there, here, fillvalue="none") if pair[0] != pair[1])
    return f"{counts}the first that differs: {one} on rank {rank}, {other} on rank 0"


def _excerpts(there: Any, here: Any) -> list[str]:
    """Return two facts as they are if they are short, else what stands around their first difference."""
    if not (isinstance(there, str) and isinstance(here, str)) or max(len(there), len(here)) <= _EXCERPT:
        return [repr(there), repr(here)]
    differs = next((i for i, (one, other) in enumerate(zip(there, here, strict=False)) if one != other), min(len(there), len(here)))
    start = max(0, differs - _EXCERPT // 2)
    parts = [(text, text[start : start + _EXCERPT]) for text in (there, here)]
    return [f"{'…' * (start > 0)}{part!r}{'…' * (start + len(part) < len(text))}" for text, part in parts]
