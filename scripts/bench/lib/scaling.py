"""The equations of the model of scale: how long a training step takes on so many ranks of so many
hosts.

Seconds, bytes and bytes per second throughout. Nothing here measures; `scaling_model.py` does. A
network is described as by Hockney, "The communication challenge for MPP", Parallel Computing 20(3),
1994: a message of m bytes takes α + m/B; and by the processor's overhead o for each message, as in
the LogP model (Culler et al., PPoPP 1993).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from ddbp.reduction.shards import cut, dyadic

WORD = 4
"""Bytes of a float32."""
HEAD = 512
"""Bytes of each rank's row in the message with which hosts begin a step."""
ADAM = 6
"""Arrays of the parameters' size that Adam reads and writes: parameters and two moments."""


@dataclass(frozen=True)
class Network:
    """What connects hosts: latency α, bandwidth B of a host in each direction, and the processor's
    overhead o for a message.
    """

    name: str
    latency: float
    bandwidth: float
    overhead: float
    source: str = ""


@dataclass(frozen=True)
class Machine:
    """A host's facts.

    Attributes
    ----------
    cores
        How many.
    meeting
        Seconds of a meeting of two ranks that come at the same time.
    peer
        Seconds more for each further rank, as its flag and its row come from another core's cache.
    switch
        Ranks of a core -> seconds more of a meeting or exchange, as the late one must be given the
        core first; {1: 0} if measured for no more.
    stream
        Bytes per second that all cores together read and write in memory.
    reduction
        Bytes of shard gradients on a host -> bytes per second at which all cores together sum them:
        caches serve small ones faster.
    """

    cores: int
    meeting: float
    peer: float
    switch: Mapping[float, float]
    stream: float
    reduction: Mapping[float, float]


@dataclass(frozen=True)
class Work:
    """A network that is trained.

    Attributes
    ----------
    parameters
        Their number, n.
    compute
        Samples on a rank -> seconds forward and backward, while the other cores are as busy.
    update, overhead
        Seconds in which a core updates all parameters; those of them that do not depend on how many
        they are.
    alone
        Samples -> seconds of a step of one rank alone on the machine.
    skew
        Mean waiting time of two ranks for each other as a part of the computation.
    """

    parameters: int
    compute: Mapping[float, float]
    update: float
    overhead: float
    alone: Mapping[float, float]
    skew: float


@dataclass(frozen=True)
class Placement:
    """N ranks on H hosts alike; `machines` is less than that only if a machine plays several
    hosts.
    """

    ranks: int
    hosts: int
    machines: int

    @property
    def local(self) -> int:
        """Ranks of a host, r."""
        return self.ranks // self.hosts

    def crowd(self, cores: int) -> float:
        """Return how many ranks share a core, at least 1."""
        return max(1.0, self.ranks / self.machines / cores)

    def together(self, cores: int) -> int:
        """Return how many ranks run at the same time."""
        return min(self.ranks, self.machines * cores)


def between(x: float, table: Mapping[float, float]) -> float:
    """Return the value at x, on straight lines between the entries; beyond them, that of the
    nearest.
    """
    keys = sorted(table)
    i = bisect_left(keys, x)
    if i == 0:
        return table[keys[0]]
    if i == len(keys):
        return table[keys[-1]]
    low, high = keys[i - 1], keys[i]
    part = (x - low) / (high - low)
    return (1 - part) * table[low] + part * table[high]


def batch_seconds(samples: float, table: Mapping[float, float]) -> float:
    """Return the seconds of a pass over so many samples; beyond the measured sizes in proportion to
    the largest.
    """
    largest = max(table)
    return between(samples, table) * max(1.0, samples / largest)


def largest_pieces(ranks: int, hosts: int) -> int:
    """Return of how many partial sums of the fixed tree the shards of a host consist at most, one
    shard per rank.
    """
    return max(len(dyadic(first, last)) for first, last in pairwise(cut(ranks, hosts).tolist()))


def late(skew: float, ranks: int) -> float:
    """Return by how much the last of so many ranks comes later than the mean, over the computation.

    If delays are independent and exponentially distributed with mean θ, the last of N comes H_N θ
    after an undisturbed rank, H_N = 1 + 1/2 + … + 1/N; two ranks then wait θ/2 on average, so θ = 2
    skew, and the lateness is (H_N - 1) θ.
    """
    harmonic = (
        math.fsum(1 / k for k in range(1, ranks + 1))
        if ranks < 1000
        else math.log(ranks) + 0.5772156649 + 0.5 / ranks
    )
    return 2 * skew * (harmonic - 1)


def meeting(machine: Machine, place: Placement) -> float:
    """Return the seconds of a meeting of the ranks of a host."""
    if place.local == 1:
        return 0.0
    crowd = place.crowd(machine.cores)
    return crowd * (machine.meeting + (place.local - 2) * machine.peer) + between(
        crowd, machine.switch
    )


def sendrecv(network: Network, machine: Machine, place: Placement, message: float) -> float:
    """Return the seconds in which each rank exchanges a message of so many bytes with one rank of
    every other host.

    α + (H - 1)(o + s m/B), as the s ranks of a host share its link. If one machine plays all hosts,
    its cores are the link: everything takes as many times longer as ranks share a core, and each
    exchange waits for ranks to be given theirs.
    """
    others = place.hosts - 1
    if not others:
        return 0.0
    if place.machines < place.hosts:
        crowd = place.crowd(machine.cores)
        one = network.overhead + message / network.bandwidth
        return crowd * (network.latency + others * one) + between(crowd, machine.switch)
    return network.latency + others * (network.overhead + place.local * message / network.bandwidth)


def messages(parameters: int, place: Placement) -> tuple[float, float, float]:
    """Return the bytes that a rank exchanges with one of another host: heads, partial sums of its
    slice, new parameters.
    """
    pieces = largest_pieces(place.ranks, place.hosts)
    slice_of_one = WORD * parameters / place.ranks
    return HEAD * place.local, pieces * slice_of_one, slice_of_one


def step(
    work: Work, machine: Machine, network: Network, place: Placement, samples: float
) -> dict[str, float]:
    """Return the seconds of the parts of a step on a global batch; their sum is the step.

    compute: forward and backward on the rank's part of the batch. skew: waiting for the last rank.
    meet: the two meetings of a host's ranks. reduce: r n gradients of a host are read and summed,
    and written if they are sent. update: n/N parameters on a rank. network: between hosts, the
    heads (r rows), partial sums (P n/N numbers) and new parameters (n/N).
    """
    if place.ranks == 1:
        return {"compute": batch_seconds(samples, work.alone)}
    n, ranks, hosts, local = work.parameters, place.ranks, place.hosts, place.local
    crowd = place.crowd(machine.cores)
    compute = crowd * batch_seconds(samples / ranks, work.compute)
    gradients = float(WORD * n * local)
    # A host of few ranks keeps few cores busy.
    busy = min(local, machine.cores) / machine.cores if place.machines == hosts else 1.0
    playing = hosts / place.machines
    pieces = largest_pieces(ranks, hosts)
    summed = gradients + (2 * WORD * n * pieces if hosts > 1 else 0)
    rate = between(gradients * playing, machine.reduction) * busy
    share = (work.update - work.overhead) / ranks
    update = crowd * work.overhead + max(
        crowd * share, ADAM * WORD * n / hosts * playing / machine.stream if busy == 1 else 0.0
    )
    return {
        "compute": compute,
        "skew": compute * late(work.skew, place.together(machine.cores)),
        "meet": 2 * meeting(machine, place),
        "reduce": playing * summed / rate,
        "update": update,
        "network": sum(sendrecv(network, machine, place, size) for size in messages(n, place)),
    }


@dataclass(frozen=True)
class Exchange:
    """A way to exchange what is learned, other than gradients as they are in each step.

    Attributes
    ----------
    every
        Batches from one exchange to the next, E; workers train apart if there are several.
    shards
        S: shards whose gradients are compressed, or workers.
    messages, sent
        Messages one after the other, and bytes that a host sends, both of a batch.
    write, read
        Seconds in which a core writes and keeps the message of a shard, and adds one up, for each
        parameter.
    """

    every: int
    shards: int
    messages: float
    sent: float
    write: float = 0.0
    read: float = 0.0


def step_by(
    exchange: Exchange,
    work: Work,
    machine: Machine,
    network: Network,
    place: Placement,
    samples: float,
) -> dict[str, float]:
    """Return the seconds of the parts of a batch where hosts exchange in another way; their sum is
    the batch.

    compress: a rank writes the messages of its S/N shards, and adds up what all S say of n/r
    parameters, as each host updates all of them. Where workers train apart each updates all of its
    parameters by each batch, and what is done in an exchange counts for its E batches. Delays of
    these add up to E times their mean and, being independent, to √E times their deviation.
    """
    parts = step(work, machine, network, place, samples)
    every, shards, crowd = exchange.every, exchange.shards, place.crowd(machine.cores)
    overhead = exchange.messages * (place.hosts - 1) * network.overhead
    sent = exchange.messages * network.latency + overhead + exchange.sent / network.bandwidth
    parts["network"] = sent if place.hosts > 1 else 0.0
    written = exchange.write * shards / place.ranks
    read = exchange.read * shards / place.local
    parts["compress"] = crowd * work.parameters * (written + read) / every
    if every > 1:
        for name in ("meet", "reduce", "update"):
            parts[name] = parts.get(name, 0.0) / every
        parts["update"] += crowd * work.update * shards / place.ranks
        parts["skew"] = parts.get("skew", 0.0) / math.sqrt(every)
    return parts


def efficiency(
    work: Work,
    machine: Machine,
    network: Network,
    place: Placement,
    samples: float,
    *,
    weak: bool,
    exchange: Exchange | None = None,
) -> float:
    """Return the throughput of N ranks over N times that of one.

    weak: every rank has so many samples, as the one has; else they are the global batch, which the
    ranks divide.
    """
    one, batch = Placement(1, 1, 1), samples * place.ranks if weak else samples
    alone = sum(step(work, machine, network, one, samples).values())
    where = work, machine, network, place, batch
    together = sum((step_by(exchange, *where) if exchange else step(*where)).values())
    return alone / together if weak else alone / (place.ranks * together)


def ring(parameters: float, hosts: int, bandwidth: float) -> float:
    """Return the seconds of a bandwidth-optimal all-reduce of float32 between hosts: 2 (H - 1)/H n
    w / B.

    Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J.
    Parallel Distrib. Comput. 69(2), 2009.
    """
    return 2 * (hosts - 1) / hosts * WORD * parameters / bandwidth


def bounds(compute: float, communication: float) -> tuple[float, float]:
    """Return the efficiencies without any overlap of communication with backward, and with all of
    it that two thirds allow.

    Backward is about two thirds of the computation; what is longer remains.
    """
    return compute / (compute + communication), compute / (
        compute + max(0.0, communication - 2 / 3 * compute)
    )


def line(times: Mapping[float, float]) -> tuple[float, float]:
    """Return latency and bandwidth of the line α + m/B nearest to bytes -> seconds, relative errors
    squared.
    """
    # Of x = (α, 1/B) minimise Σ (x₀ u + x₁ v - 1)², u = 1/t, v = m/t: two normal equations.
    points = [(1 / t, m / t) for m, t in times.items()]
    uu, uv, vv = (math.fsum(p[i] * p[j] for p in points) for i, j in ((0, 0), (0, 1), (1, 1)))
    u, v = (math.fsum(p[i] for p in points) for i in (0, 1))
    determinant = uu * vv - uv * uv
    return (u * vv - v * uv) / determinant, determinant / (uu * v - uv * u)


def bigger(machine: Machine, cores: int) -> Machine:
    """Return a host of other size whose cores each have the meetings, caches and memory bandwidth
    of this one's.
    """
    factor = cores / machine.cores
    rates = {factor * size: factor * rate for size, rate in machine.reduction.items()}
    return replace(machine, cores=cores, stream=factor * machine.stream, reduction=rates)


def state(parameters: int, ranks: int, *, shared: bool) -> dict[str, int]:
    """Return the bytes that parameters, gradients and Adam's two moments take on a host, one shard
    per rank.

    shared: parameters and moments exist once for all ranks of the host, as ours; else every rank
    has all, as DDP's.
    """
    array, copies = WORD * parameters, 1 if shared else ranks
    return {
        "parameters": copies * array,
        "gradients": ranks * array,
        "optimizer": 2 * copies * array,
    }
