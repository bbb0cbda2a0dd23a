"""Communication between ranks: one process alone, or MPI. The only file that imports mpi4py, and only when launched under MPI.

Every wait polls, yields the core to other ranks, and ends: with the messages, with an error that names the ranks that left or
did not come, or after `DDBP_TIMEOUT` seconds.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from layers.errors import message
from layers.types import Array

_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK", "MPI_LOCALNRANKS")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_TAG_HEADER, _TAG_PART, _TAG_LEFT, _TAG_WAITING = 1, 2, 3, 4

# A wait first polls, then gives its core away at every look, then sleeps between looks: oversubscribed ranks must run for the
# message to come at all.
_POLLS, _YIELDS, _SLEEP = 200, 2000, 50e-6
# Seconds after which a rank that waits tells the others so; then those who do not come can be named.
_NOTICE = 0.5


class CommunicationError(RuntimeError):
    """Ranks do not agree, or one did not come."""


class Communicator(Protocol):
    """What training needs of the ranks. All methods are collective: every rank calls them in the same order."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    def exchange(
        self, header: Array, sends: Sequence[tuple[int, Array]], receives: Sequence[tuple[int, Array]], doing: str
    ) -> Array:
        """Send arrays to ranks and fill arrays from ranks; return the headers (size, …) of all ranks, own included."""

    def publish(self, values: Array, bounds: Array, doing: str) -> None:
        """Give every rank's slice values[bounds[rank]:bounds[rank + 1]] to all."""

    def all_gather(self, array: Array) -> Array:
        """Return the arrays of all ranks, of one shape, stacked (size, …)."""

    def broadcast(self, array: Array) -> None:
        """Overwrite the array with that of rank 0."""

    def leader_first(self) -> Any:
        """Return a context whose body the first rank of each host runs before the others do."""

    def describe(self) -> dict[str, Any]:
        """Return facts for a bug report."""


class SerialCommunicator:
    """One process, no MPI."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def exchange(
        self, header: Array, sends: Sequence[tuple[int, Array]], receives: Sequence[tuple[int, Array]], doing: str
    ) -> Array:
        return header[np.newaxis]

    def publish(self, values: Array, bounds: Array, doing: str) -> None:
        pass

    def all_gather(self, array: Array) -> Array:
        return np.array(array)[np.newaxis]

    def broadcast(self, array: Array) -> None:
        pass

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        yield

    def describe(self) -> dict[str, Any]:
        return {"mpi": "not used: not launched by mpirun, mpiexec or srun", "ranks": 1, "hosts": [socket.gethostname()]}


class MPICommunicator:
    """The ranks of MPI_COMM_WORLD, over plain MPI."""

    def __init__(self) -> None:
        try:
            import mpi4py

            # Not at import: a library that finds the launcher of another may end the process; better asked for its name first.
            mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            fix = 'Install one with pip install "ddbp[mpich]", or load your site\'s module.'
            raise CommunicationError(message("ddbp", "a run under mpirun needs an MPI library", error, fix)) from error
        self._mpi = MPI
        library = MPI.Get_library_version().splitlines()[0].strip("\x00")
        if "OMPI_COMM_WORLD_SIZE" in os.environ and "Open MPI" not in library:
            raise _strangers(f"mpirun of Open MPI, library {library}")
        if not MPI.Is_initialized():
            MPI.Init_thread()
        self._world = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._world.rank, self._world.size
        expected = next((int(os.environ[name]) for name in _SIZES if name in os.environ), self.size)
        if expected != self.size:
            raise _strangers(f"{self.size} of {expected} ranks, library {library}")
        self._local = self._world.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        self.local_rank, self.local_size = self._local.rank, self._local.size
        self._timeout = _time_limit()
        self._left = False
        # Ranks call in the same order, so the number of a call says where a rank is.
        self._calls = self._noticed = 0
        self._notices: list[Array] = []
        self._left_at: dict[int, int] = {}
        self._waiting_at: dict[int, int] = {}

    def exchange(
        self, header: Array, sends: Sequence[tuple[int, Array]], receives: Sequence[tuple[int, Array]], doing: str
    ) -> Array:
        headers = np.empty((self.size, *header.shape), header.dtype)
        headers[self.rank] = header
        others = [rank for rank in range(self.size) if rank != self.rank]
        sources = others + [rank for rank, _ in receives]
        requests = [self._world.Irecv(headers[rank], rank, _TAG_HEADER) for rank in others]
        requests += [self._world.Irecv(array, rank, _TAG_PART) for rank, array in receives]
        requests += [self._world.Isend(header, rank, _TAG_HEADER) for rank in others]
        requests += [self._world.Isend(array, rank, _TAG_PART) for rank, array in sends]
        self._wait(requests, doing, sources)
        return headers

    def publish(self, values: Array, bounds: Array, doing: str) -> None:
        counts = np.diff(bounds)
        specification = [values, (counts, bounds[:-1]), self._mpi._typedict[values.dtype.char]]
        self._wait([self._world.Iallgatherv(self._mpi.IN_PLACE, specification)], doing)

    def all_gather(self, array: Array) -> Array:
        array = np.ascontiguousarray(array)
        result = np.empty((self.size, *array.shape), array.dtype)
        self._wait([self._world.Iallgather(array, result)], "gathering from all ranks")
        return result

    def broadcast(self, array: Array) -> None:
        self._wait([self._world.Ibcast(array, root=0)], "broadcasting from rank 0")

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        if self.local_rank == 0:
            yield
            self._wait([self._local.Ibarrier()], "letting the other ranks of this host go on")
        else:
            # A spinning barrier would take the core on which rank 0 compiles.
            self._wait(
                [self._local.Ibarrier()], "waiting for the first rank of this host to compile the kernels", polls=0, sleep=5e-3
            )
            yield

    def describe(self) -> dict[str, Any]:
        names = self.all_gather(np.frombuffer(socket.gethostname().encode().ljust(64)[:64], np.uint8))
        hosts = [bytes(name).decode().strip() for name in names]
        library = self._mpi.Get_library_version().splitlines()[0].strip("\x00")
        return {"mpi": library, "ranks": self.size, "hosts": sorted(set(hosts))}

    def _wait(
        self, requests: list[Any], doing: str, sources: Sequence[int] = (), *, polls: int = _POLLS, sleep: float = _SLEEP
    ) -> None:
        self._calls += 1
        test = self._mpi.Request.Testall
        looks = 0
        started = checked = 0.0
        while not test(requests):
            looks += 1
            if looks <= polls:
                continue
            if looks <= polls + _YIELDS and sleep == _SLEEP:
                _yield_core()
                continue
            time.sleep(sleep)
            now = time.monotonic()
            started = started or now
            if now - checked > 0.05:
                checked = now
                self._look_for_the_missing(requests, doing, sources, now - started)

    def _look_for_the_missing(self, requests: list[Any], doing: str, sources: Sequence[int], waited: float) -> None:
        """Raise if a rank left before this call, or time is up."""
        if self._left:
            return
        self._read_notices()
        missing = sorted(rank for rank, calls in self._left_at.items() if calls < self._calls)
        if missing:
            fix = "Look above for its error; every rank must take the same number of steps and evaluations."
            raise CommunicationError(
                message(f"rank {self.rank}", f"all ranks must take part in {doing}", f"rank {_listed(missing)} ended", fix)
            )
        if waited > min(_NOTICE, self._timeout / 4) and self._noticed < self._calls:
            self._noticed = self._calls
            self._tell(_TAG_WAITING)
        if waited > self._timeout:
            late = {source for source, request in zip(sources, requests, strict=False) if not request.Test()}
            late = late or {rank for rank in range(self.size) if self._waiting_at.get(rank, 0) < self._calls} - {self.rank}
            who = f"nothing from rank {_listed(sorted(late))}" if late else "no answer"
            fix = "A rank may hang or be in another step; DDBP_TIMEOUT sets the limit in seconds."
            raise CommunicationError(
                message(f"rank {self.rank}", f"all ranks must take part in {doing}", f"{who} for {waited:.0f} s", fix)
            )

    def _tell(self, tag: int) -> None:
        """Send the number of this call to all other ranks, and do not wait until they read it."""
        self._notices.append(np.array([self._calls], np.int64))
        for rank in range(self.size):
            if rank != self.rank:
                self._world.Isend(self._notices[-1], rank, tag).Free()

    def _read_notices(self) -> None:
        status, calls = self._mpi.Status(), np.empty(1, np.int64)
        for tag, known in ((_TAG_LEFT, self._left_at), (_TAG_WAITING, self._waiting_at)):
            while self._world.Iprobe(self._mpi.ANY_SOURCE, tag, status):
                self._world.Recv(calls, status.source, tag)
                known[status.source] = int(calls[0])

    def leave(self) -> None:
        """Tell the other ranks that this one ends, and wait for them (MPI ends only when all do)."""
        self._left = True
        self._tell(_TAG_LEFT)
        self._wait([self._world.Ibarrier()], "ending", polls=0, sleep=1e-3)

    def abort(self, status: int) -> None:
        """End all ranks at once."""
        self._world.Abort(status)


def _strangers(got: str) -> CommunicationError:
    fix = 'Start with "ddbp launch", which finds the right one, or with the mpirun of that library.'
    return CommunicationError(message("ddbp", "mpirun and the MPI library must belong together", got, fix))


def _time_limit() -> float:
    text = os.environ.get("DDBP_TIMEOUT", "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        fix = "Unset it for 300 seconds; inf waits for ever."
        raise ValueError(message("ddbp", "DDBP_TIMEOUT must be a positive number of seconds", repr(text), fix))
    return seconds


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _yield_core() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


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
            from .failure import abort_all_ranks_on_exceptions

            mpi = MPICommunicator()
            abort_all_ranks_on_exceptions(mpi)
            _CURRENT.append(mpi)
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
    """Raise on every rank, naming what differs where, unless all ranks state the same facts."""
    # Where an object lies in memory is no fact: the default repr of functions and classes states it.
    texts = gather_texts(comm, json.dumps({name: re.sub(r" at 0x\w+", "", str(fact)) for name, fact in facts.items()}))
    expected = json.loads(texts[0])
    for rank, text in enumerate(texts):
        stated = json.loads(text)
        for name in {**expected, **stated}:
            if expected.get(name) != stated.get(name):
                got = f"{stated.get(name)!r} on rank {rank}, {expected.get(name)!r} on rank 0"
                raise CommunicationError(message("ddbp", f"all ranks must have the same {name}", got, fix))
