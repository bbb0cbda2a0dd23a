"""A timeline: what ranks did when, on one clock, in the format of Chrome's and Perfetto's viewers.

The format: "Trace Event Format", Google, 2016, complete events ("X") and metadata ("M").
"""

import json
import time
from collections.abc import Iterator, Sequence
from enum import IntEnum, auto
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from ddbp import files
from ddbp.comm.agreement import gather_texts, gather_uneven
from ddbp.comm.base import Communicator
from layers.types import Array, Integers

_ROUNDS = 33
"""How often ranks meet to compare their clocks: one meeting that nobody is late to is enough."""


class Category(IntEnum):
    """What an interval is one of."""

    STEP = 0
    PHASE = auto()
    FORWARD = auto()
    BACKWARD = auto()
    WAIT = auto()


class Timeline:
    """Intervals of this rank, in memory that is taken once.

    Parameters
    ----------
    most
        How many intervals there is room for; further ones are counted, and left out.
    """

    def __init__(self, most: int) -> None:
        # Category, name, begin and end of each.
        self._intervals: Integers = np.zeros((most, 4), np.int64)
        self._count = 0
        self.names: list[str] = []
        self.left_out = 0

    def name(self, name: str) -> int:
        """Return a number that stands for a new name."""
        self.names.append(name)
        return len(self.names) - 1

    def add(self, category: Category, name: int, begin: int, end: int) -> None:
        """Keep an interval, by `time.monotonic_ns()`; the name of a step is its number."""
        if self._count == len(self._intervals):
            self.left_out += 1
            return
        self._intervals[self._count] = category, name, begin, end
        self._count += 1

    @property
    def intervals(self) -> Integers:
        """What was kept (n, 4): category, name, begin and end."""
        return self._intervals[: self._count]

    def gathered(self, comm: Communicator) -> "list[OfRank]":
        """Return what all ranks have kept, on the clock of rank 0; collective."""
        offsets, error = clock_offsets(comm)
        texts = gather_texts(comm, json.dumps([self.names, self.left_out]))
        result = []
        for rank, intervals in enumerate(gather_uneven(comm, self.intervals)):
            names, left_out = json.loads(texts[rank])
            intervals = intervals - np.array([0, 0, offsets[rank], offsets[rank]])
            result.append(OfRank(intervals, names, left_out, int(offsets[rank]), error))
        return result


class OfRank(NamedTuple):
    """What a rank has kept.

    Attributes
    ----------
    intervals
        Category, name, begin and end of each (n, 4), in nanoseconds of rank 0's clock.
    names
        What the numbers of names stand for.
    left_out
        How many intervals there was no room for.
    offset, error
        Nanoseconds that were taken off its clock, and by how much that may be wrong.
    """

    intervals: Integers
    names: Sequence[str]
    left_out: int
    offset: int
    error: int


def clock_offsets(comm: Communicator) -> tuple[Integers, int]:
    """Return how many nanoseconds the clock of each rank is ahead of rank 0's (R,), and how far off
    that may be; collective.

    Ranks of one host have one clock. Those of several hosts look at theirs when they come to a
    meeting of all and when they leave it, again and again.
    """
    looks = np.zeros((2, _ROUNDS), np.int64)
    for number in range(_ROUNDS):
        looks[0, number] = time.monotonic_ns()
        comm.all_gather(looks[:, number])
        looks[1, number] = time.monotonic_ns()
    return offsets_of(comm.all_gather(looks), comm.hosts)


def offsets_of(looks: Array, hosts: Integers) -> tuple[Integers, int]:
    """Return how far the clock of each rank is ahead of rank 0's (R,), and the most by which one of
    these may be wrong.

    Nobody leaves a meeting before all have come to it: so what a host's clock has shown when its
    last rank came is ahead of what that of rank 0 showed when the first one left there by no more
    than the offset, and the other way round. Each meeting bounds it from both sides.

    Parameters
    ----------
    looks
        What their clocks showed when they came to each of several meetings, and when they left it
        (R, 2, meetings).
    hosts
        Bounds (H + 1,) of the groups of ranks that have one clock.
    """
    came = np.maximum.reduceat(looks[:, 0], hosts[:-1])
    left = np.minimum.reduceat(looks[:, 1], hosts[:-1])
    least = (came - left[0]).max(axis=1)
    most = (left - came[0]).min(axis=1)
    # One clock is not off.
    least[0] = most[0] = 0
    return np.repeat((least + most) // 2, np.diff(hosts)), int((most - least + 1).max() // 2)


def events(ranks: Sequence[OfRank]) -> Iterator[dict[str, object]]:
    """Yield the events of the file, times in microseconds since the first interval of any rank."""
    begins = [rank.intervals[:, 2].min() for rank in ranks if len(rank.intervals)]
    start = int(min(begins, default=0))
    for number, rank in enumerate(ranks):
        common = {"pid": number, "tid": 0}
        yield {"ph": "M", "name": "process_name", "args": {"name": f"rank {number}"}, **common}
        yield {"ph": "M", "name": "process_sort_index", "args": {"sort_index": number}, **common}
        # What begins together nests: the longer one is the outer one.
        order = np.lexsort((-rank.intervals[:, 3], rank.intervals[:, 2]))
        for category, name, begin, end in rank.intervals[order].tolist():
            kind = Category(category)
            yield {
                "ph": "X",
                "name": f"step {name}" if kind is Category.STEP else rank.names[name],
                "cat": kind.name.lower(),
                "ts": (begin - start) / 1000,
                "dur": (end - begin) / 1000,
                **common,
            }


def write(path: Path, ranks: Sequence[OfRank]) -> None:
    """Write the file, whole or not at all."""
    facts = {
        "intervals_left_out": [rank.left_out for rank in ranks],
        "clock_offsets_ns": [rank.offset for rank in ranks],
        "clock_error_ns": max((rank.error for rank in ranks), default=0),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as place, place.open("w") as file:
        _write(file, ranks, facts)


def _write(file: TextIO, ranks: Sequence[OfRank], facts: dict[str, object]) -> None:
    file.write('{"displayTimeUnit": "ms", "otherData": ' + json.dumps(facts))
    file.write(', "traceEvents": [')
    separator = "\n"
    for event in events(ranks):
        file.write(separator + json.dumps(event))
        separator = ",\n"
    file.write("\n]}\n")
