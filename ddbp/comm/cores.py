"""The cores of this machine, and which rank runs on which of them.

A processor is here what the system schedules on, which may be one of several hardware threads of a
core. These share its units for multiplication: two ranks on one core are hardly faster than one.
"""

import math
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple


def usable_processors() -> list[int]:
    """Return the processors that this process may use, none if the system does not say so."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


class Core(NamedTuple):
    """A core: the number of the memory that it is near to (a NUMA node), and its processors."""

    node: int
    processors: tuple[int, ...]


def usable_cores(
    processors: Collection[int] | None = None, system: Path = Path("/sys/devices/system")
) -> list[Core]:
    """Return the cores that this process may use, or those of some processors, by their nodes.
    Where the system does not say which processors are one core, each is (Linux does).
    """
    allowed = usable_processors() if processors is None else processors
    found = set()
    for processor in allowed:
        folder = system / "cpu" / f"cpu{processor}"
        nodes = (int(path.name[4:]) for path in folder.glob("node[0-9]*"))
        siblings = _listed(folder / "topology" / "core_cpus_list") | {processor}
        core = tuple(sorted(siblings.intersection(allowed)))
        found.add(Core(min(nodes, default=0), core))
    return sorted(found)


def _listed(path: Path) -> set[int]:
    """Return the numbers of a file such as `0-3,8`, none if there is none."""
    numbers: set[int] = set()
    with suppress(OSError, ValueError):
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def available_cores() -> int:
    """Return the number of cores that this process may use, and has the time for."""
    cores = len(usable_cores()) or os.cpu_count() or 1
    return max(1, int(min(cores, core_quota()[1])))


def places(ranks: int, cores: Sequence[Core]) -> list[tuple[int, ...]]:
    """Return the processors that each of so many ranks of one machine should run on.

    Neighbours are near to the same memory, and as many ranks to one memory as to another. Each rank
    has a core; a processor if there are too few cores, and any, (), if there are too few of those.
    Ranks that leave half of the cores to others may run on any that is near to their memory.
    """
    if ranks > len(cores):
        cores = [Core(core.node, (each,)) for core in cores for each in core.processors]
    if ranks > len(cores):
        return [()] * ranks
    chosen = [cores[rank * len(cores) // ranks] for rank in range(ranks)]
    if 2 * ranks > len(cores):
        return [core.processors for core in chosen]
    near = [[each.processors for each in cores if each.node == core.node] for core in chosen]
    return [tuple(chain.from_iterable(each)) for each in near]


def bind(process: int, processors: tuple[int, ...]) -> None:
    """Have a process, 0 for this one, of one thread still, run on these processors alone, unless
    they are none: what it writes to first lies in memory that is near to them.
    """
    # It may have ended, and the processors may have been taken away.
    with suppress(OSError):
        if processors:
            os.sched_setaffinity(process, processors)


def core_quota(
    files: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> tuple[str, float]:
    """Return which control group limits the time of the cores that this process may use the most,
    and to how many of them; "" and inf if none is known to (Linux, control groups of version 2).
    """
    limiting, quota = "", math.inf
    with suppress(OSError, ValueError):
        named = (line.rpartition("::")[2] for line in own.read_text().splitlines() if "::" in line)
        group = files / next(named, "").lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(files):
                break
            with suppress(OSError, ValueError):
                most, period = (folder / "cpu.max").read_text().split()
                if int(most) / int(period) < quota:
                    limiting, quota = str(folder), int(most) / int(period)
    return limiting, quota
