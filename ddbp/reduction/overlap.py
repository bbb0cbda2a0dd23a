"""Overlap: what is complete of the gradients is on its way to other hosts while backward computes
the rest.
"""

import numpy as np

from ddbp.comm.base import Communicator
from layers import Parameter, TapeHook
from layers.kernels import sync
from layers.types import Integers

from .buckets import Buckets, counts_of
from .exchange import Exchange

_NAMES = 6
"""Parameters that an error names at most."""


class Overlap(TapeHook):
    """Starts the exchange of a bucket when all ranks of this host have its gradients; told of each
    parameter when it is ready.

    Ranks may come to buckets in any order. Each counts the exchanges that its gradients of a bucket
    are complete for in a cell of its own, as ranks do when they meet; but nobody waits: what not
    all have counted is looked at again with the next parameter, and in the end `Exchange.run`
    starts it.
    """

    def __init__(self, buckets: Buckets, comm: Communicator, exchange: Exchange) -> None:
        self._comm = comm
        self._exchange = exchange
        self._buckets = buckets
        segments = buckets.segments()
        self._names = [(name, numbers) for name, _, numbers in segments]
        self._of_parameter = {id(parameter): numbers for _, parameter, numbers in segments}
        numbers = [number for _, _, of_parameter in segments for number in of_parameter]
        self._parameters = np.bincount(np.array(numbers, np.int64), minlength=len(buckets)).tolist()
        topology = comm.topology
        self._mine = comm.rank - topology.first
        self._members = np.arange(topology.last - topology.first)
        self._counts: Integers = comm.host_array(counts_of(len(buckets), comm), np.int64)
        self._attempt = 0
        self._pending: list[int] = []
        self._complete: list[int] = []

    def begin(self, attempt: int) -> None:
        """Begin an exchange; no gradient is complete yet."""
        self._attempt = attempt
        self._pending = list(self._parameters)
        self._complete = []
        self._exchange.begin(attempt)
        self._comm.progress_hook = self.progress

    def on_parameter_ready(self, parameter: Parameter) -> None:
        """Learn that the gradients of a parameter are complete on this rank."""
        numbers = self._of_parameter.get(id(parameter))
        if numbers is None:
            return
        # If backward has not reached it though it is used, that makes it zero.
        parameter.store.complete()
        for number in numbers:
            self._pending[number] -= 1
            if not self._pending[number]:
                self._complete.append(number)
        self.progress()

    def complete(self) -> None:
        """Learn that all gradients are complete on this rank, those of parameters that it has not
        used, too.
        """
        self._complete += [number for number, missing in enumerate(self._pending) if missing > 0]
        self._pending = []
        self.progress()

    def progress(self) -> None:
        """Start what all ranks of this host have completed, and let messages that are on their way
        get on.
        """
        waiting = []
        for number in self._complete:
            if sync.meet(self._counts[number], self._members, self._mine, self._attempt, 0):
                self._exchange.start(number)
            else:
                waiting.append(number)
        self._complete = waiting
        self._exchange.progress()

    def end(self) -> None:
        """Stop, before `Exchange.run` completes the exchange."""
        self._complete = []
        self._comm.progress_hook = None

    def drop(self) -> None:
        """Forget an exchange whose backward pass has failed."""
        self.end()
        self._exchange.drop()

    def awaited(self, attempt: int) -> str:
        """Return which parameters' gradients have not come, as far as that is known, and from which
        ranks.
        """
        topology, hosts = self._comm.topology, self._comm.hosts.tolist()
        missing = []
        for rank in range(topology.first, topology.last):
            counts = self._counts[:, rank - topology.first, 0]
            if rank != self._comm.rank and attempt == self._attempt:
                missing.append(
                    (f"rank {rank}", set(np.flatnonzero(counts < self._attempt).tolist()))
                )
        for host, numbers in self._exchange.awaited():
            first, last = hosts[host], hosts[host + 1] - 1
            missing.append(
                (f"rank {first}" if first == last else f"ranks {first} to {last}", numbers)
            )
        return "; ".join(
            f"{self._named(numbers)} of {ranks}" for ranks, numbers in missing if numbers
        )

    def _named(self, buckets: set[int]) -> str:
        names = [name for name, numbers in self._names if not buckets.isdisjoint(numbers)]
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        return ", ".join(names[:_NAMES]) + more
