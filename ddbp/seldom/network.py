"""The network between hosts: what it is measured to be, what exchanges take on it, and which one is
enough.

With H hosts, n parameters, latency α and β bytes a second from each host, a batch takes
c + m α + b / β: c seconds of passes and update, m messages one after the other and b bytes that
each host sends, both over the batches from one exchange to the next.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ddbp.comm.base import CollectiveKind, Communicator
from layers.kernels.rounded_sums import BLOCK_8
from layers.types import Array

_SMALL, _LARGE = 64, 2**22
"""Bytes of the smallest and of the largest message."""
_LONG = 0.05
"""No larger message is tried than one that takes so many seconds more than the smallest."""
_ROUNDS = 5
ENOUGH = 0.2
"""An exchange is seldom enough if messages take no more of the time."""

_MEAN = "outer_rate=1.0, outer_momentum=0.0"
"""With these DiLoCo goes on from the mean of the workers. The momentum of its paper, 0.9, is for
runs a hundred times as long as those that are usual here.
"""


class Network(NamedTuple):
    """A network between hosts.

    Attributes
    ----------
    hosts
        H.
    latency
        α: seconds until a small message is there.
    bandwidth
        β: bytes that each host sends in a second.
    """

    hosts: int
    latency: float
    bandwidth: float

    def seconds(self, messages: float, sent: float) -> float:
        """Return how long so many messages one after the other take, of so many bytes in all."""
        return messages * self.latency + sent / self.bandwidth

    def __str__(self) -> str:
        megabits = 8e-6 * self.bandwidth
        return f"{self.hosts} hosts, {1e3 * self.latency:.3g} ms, {megabits:.3g} Mbit/s"


@dataclass(frozen=True)
class Way:
    """A way to exchange what is learned.

    Attributes
    ----------
    options
        Those of `Trainer` that it is chosen by.
    messages, sent
        m and b of a batch.
    """

    options: Mapping[str, Any]
    messages: float
    sent: float

    @property
    def arguments(self) -> str:
        """The options as they are written."""
        return ", ".join(
            f"{name}={value if name == 'exchange' else json.dumps(value)}"
            for name, value in self.options.items()
        )


def measured(comm: Communicator) -> Network | None:
    """Return what the network between hosts is at present, None if there is one host; collective.

    All hosts send each other messages at once, as in an exchange, in several rounds, of each of
    which the slowest rank counts. The latency is the median, as a message waits for busy hosts,
    too; the bandwidth is that of the fastest rounds, as what disturbs one only makes it longer.
    """
    hosts = len(comm.hosts) - 1
    if hosts == 1:
        return None
    small = _seconds(comm, _SMALL)
    size, longer = _SMALL, 0.0
    while size < _LARGE and longer < _LONG:
        size *= 16
        longer = min(_seconds(comm, size)) - min(small)
    # What a host sends: its ranks share its messages to the ranks of the other hosts.
    strangers = comm.size - np.diff(comm.hosts)[comm.topology.own]
    sent = float((size - _SMALL) * strangers)
    found = np.array([median(small), sent / max(longer, 1e-9)])
    latencies, bandwidths = comm.all_gather(found).T
    return Network(hosts, float(latencies.max()), float(bandwidths.min()))


def _seconds(comm: Communicator, size: int) -> list[float]:
    """Return how long messages of so many bytes between all hosts take in each round."""
    topology = comm.topology
    sends: list[tuple[int, Array]] = [(rank, np.zeros(size, np.uint8)) for rank in topology.send_to]
    receives: list[tuple[int, Array]] = [
        (rank, np.zeros(size, np.uint8)) for rank, _ in topology.receive_from
    ]
    meeting, times = (CollectiveKind.GATHER, 0), []
    for _ in range(_ROUNDS):
        comm.all_gather(np.zeros(1))
        with comm.joint(meeting, []):
            begun = time.perf_counter()
            comm.sendrecv(meeting, sends, receives)
            times.append(time.perf_counter() - begun)
    slowest: list[float] = comm.all_gather(np.array(times)).max(axis=0).tolist()
    return slowest


def ways(shapes: Sequence[tuple[int, ...]], hosts: int, workers: int) -> list[Way]:
    """Return ways to exchange a model with parameters of these shapes, from the one that changes
    nothing of what is learned to those that change most.

    Parameters
    ----------
    shapes
        Those of all parameters, which are float32.
    hosts, workers
        H, and W: workers, or shards whose gradients are compressed.
    """
    n = sum(map(math.prod, shapes))
    others = hosts - 1
    share = n * others / hosts
    # Of each worker its message goes from its host to each other one.
    message = workers * others / hosts
    thin = sum(
        min(2 * (shape[0] + math.prod(shape[1:])), math.prod(shape))
        if len(shape) > 1
        else math.prod(shape)
        for shape in shapes
    )
    coded = message * n * (1 + 4 / BLOCK_8)
    return [
        Way({}, 3, 8 * share),
        Way({"wire": "bfloat16"}, 3, 6 * share),
        Way({"compression": "power-sgd:2", "shards": workers}, 3, 4 * thin * message),
        Way({"compression": "top-k:0.01", "shards": workers}, 2, 0.08 * n * message),
        *(
            Way(
                {"exchange": f"LocalSGD(workers={workers}, every={every})"},
                4 / every,
                8 * share / every,
            )
            for every in (4, 16)
        ),
        *(
            Way(
                {"exchange": f"DiLoCo(workers={workers}, every={every}, {_MEAN}, bits=8)"},
                3 / every,
                coded / every,
            )
            for every in (32, 64, 128, 256, 500)
        ),
    ]


def recommended(found: Network, of: Sequence[Way], compute: float) -> Way:
    """Return the first way whose messages take no more than a fifth of the time of a batch, of
    which passes and update take so many seconds; the fastest if there is none.
    """

    def spent(way: Way) -> float:
        return found.seconds(way.messages, way.sent)

    enough = (way for way in of if spent(way) <= ENOUGH * (compute + spent(way)))
    return next(enough, min(of, key=spent))
