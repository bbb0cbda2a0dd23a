"""What ranks must have in common while they train, compared to the last bit, and what each of them
knows of its machine.
"""

import hashlib
import json
import os
import socket
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.agreement import gather_texts, named_ranks
from ddbp.comm.base import Communicator
from ddbp.comm.cores import core_quota, usable_processors
from ddbp.comm.packages import versions
from ddbp.optim.groups import option_names
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction.replicate import named_arrays
from layers import State
from layers.types import Array

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

_OF_DATA, _OF_BATCH = 1 << 18, 1 << 22
"""Bytes of an array, of a data set or of a batch, that are looked at: a millisecond, about."""
_SECONDS = 10.0
"""For so long a rank must have run before its share of the time without a core is known."""

Facts = dict[str, str]
"""What ranks compare, by name, in words or as digests."""


@dataclass(frozen=True)
class Difference:
    """The first thing, by name, that some ranks have otherwise than most.

    Attributes
    ----------
    name
        What it is.
    here, there
        What most ranks have, and what the others have.
    most, others
        Which ranks those are, in words.
    tied
        Whether as many have the one as the other.
    """

    name: str
    here: str
    there: str
    most: str
    others: str
    tied: bool

    @property
    def doubt(self) -> str:
        """What to add in words if it is not known who is right."""
        return " (which of them is right is not known)" if self.tied else ""


@dataclass(frozen=True)
class OfRanks:
    """What is known of the ranks.

    Attributes
    ----------
    hosts
        The name of the host of each.
    shards
        How many shards each has.
    cores
        The cores that each may use; none where that is not known.
    quota
        The control group that limits the time of each the most, and to how many cores.
    without_core
        In which share of its time each was ready to run, and had no core; NaN if not known.
    copies, data, versions
        What differs of parameters, states and rates; of the data; of packages and the script's
        modules.
    flipped
        Which bit has flipped, in words, "" for none.
    """

    hosts: Sequence[str] = ()
    shards: Sequence[int] = ()
    cores: Sequence[Sequence[int]] = ()
    quota: Sequence[tuple[str, float]] = ()
    without_core: Sequence[float] = ()
    copies: Difference | None = None
    data: Difference | None = None
    versions: Difference | None = None
    flipped: str = ""

    def named(self, ranks: Sequence[int]) -> str:
        """Return ranks in words, with their hosts if there are several."""
        return named_ranks(ranks, self.hosts)


@dataclass
class RankWatch:
    """What this rank compares with the others.

    Attributes
    ----------
    given
        The digests of the global batch that a script has given for the step that goes on.
    """

    given: Facts = field(default_factory=dict)
    _versions: Facts = field(default_factory=dict)
    _since: tuple[float, float] = (0.0, 0.0)

    def begin(self) -> None:
        """Begin with a run."""
        self._since = time.monotonic(), _waited_for_core()

    def note_given(self, trainer: "Trainer") -> None:
        """Note the global batch that a script has given, if there is one."""
        if trainer.comm.size > 1:
            self.given = trainer._stream.given_digests(_OF_BATCH)

    def compared(self, trainer: "Trainer") -> OfRanks:
        """Return what is known of the ranks; collective."""
        comm, checksums = trainer.comm, trainer.optimizer.checksums
        alone = comm.size == 1
        copies = _Copies(trainer)
        data: Facts = {}
        if not alone:
            given = {f"the batch's {name}": text for name, text in self.given.items()}
            data = _data(trainer) | given
            self._versions = self._versions or versions(loaded=True) | _modules()
        own = {
            "host": socket.gethostname(),
            "cores": usable_processors(),
            "quota": core_quota(),
            "without_core": self._without_core(),
            "flipped": "" if checksums is None else checksums.flipped,
            "copies": "" if alone else copies.own_digest(),
            "share": copies.share(),
            "data": _digest(json.dumps(data).encode()),
            "versions": _digest(json.dumps(self._versions).encode()),
        }
        told = [json.loads(text) for text in gather_texts(comm, json.dumps(own))]
        of = {name: [each[name] for each in told] for name in own}
        shares = np.add.reduceat(np.array(of["share"], np.uint64), comm.hosts[:-1])
        alike = len({*of["copies"]}) == 1 and len({*shares.tolist()}) == 1
        facts: dict[str, Facts] = {} if alike else {"copies": copies.facts()}
        held = {"data": data, "versions": self._versions}
        facts |= {name: each for name, each in held.items() if len({*of[name]}) > 1}
        hosts = of["host"]
        plan = trainer._plan
        found = OfRanks(
            hosts,
            [last - first for first, last in map(plan.owned, range(plan.ranks))],
            of["cores"],
            [(group, quota) for group, quota in of["quota"]],
            of["without_core"],
            flipped=next(filter(None, of["flipped"]), ""),
            **_differences(comm, facts, hosts),
        )
        self.given = {}
        if checksums is not None:
            checksums.flipped = ""
        return found

    def _without_core(self) -> float:
        """Return in which share of its time since it was asked last this rank was ready to run, and
        had no core; NaN if not known.
        """
        before, now = self._since, (time.monotonic(), _waited_for_core())
        seconds, waited = (b - a for a, b in zip(before, now, strict=True))
        if seconds < _SECONDS or not now[1] > 0:
            return float("nan")
        self._since = now
        return waited / seconds


class _Copies:
    """What ranks, or hosts, hold copies of: parameters, states, and what updates go by."""

    def __init__(self, trainer: "Trainer") -> None:
        self._comm = trainer.comm
        self._arrays = named_arrays(trainer.model)
        self._rates = {
            f"{name} of the optimizer{f' of group {i}' * (i > 0)}": repr(value)
            for i, member in enumerate(trainer.optimizer.members)
            for name, value in _numbers(member).items()
        }

    def own_digest(self) -> str:
        """Return the digest of what each rank has of its own."""
        states = {n: _digest(a.value) for n, a in self._arrays.items() if isinstance(a, State)}
        return _digest(json.dumps(states | self._rates).encode())

    def share(self) -> int:
        """Return a number, of which the sum over the ranks of a host tells its parameters; 0 if
        there is one host.
        """
        comm = self._comm
        if len(comm.hosts) == 2:
            return 0
        first, last = comm.topology.first, comm.topology.last
        mine = [*self._arrays.items()][comm.rank - first :: last - first]
        named = ((n, a.value) for n, a in mine if not isinstance(a, State))
        return sum(int(_digest(n.encode() + bytes(_bytes(a))), 16) for n, a in named) % 2**64

    def facts(self) -> Facts:
        """Return all of it by name."""
        return {name: _digest(each.value) for name, each in self._arrays.items()} | self._rates


def _numbers(optimizer: Optimizer) -> dict[str, float]:
    """Return what the next update goes by: the rate, and the options that are numbers."""
    rate = optimizer.factor * float(optimizer.schedule.rate(optimizer.steps))
    named: dict[str, float] = {"the rate": rate, "the step": optimizer.steps}
    for name in option_names(optimizer):
        value = getattr(optimizer, name, None)
        if isinstance(value, int | float):
            named[name] = value
    return named


def _differences(
    comm: Communicator, facts: Mapping[str, Facts], hosts: Sequence[str]
) -> dict[str, Any]:
    """Return the first difference of each kind of facts; collective if there are any."""
    if not facts:
        return {}
    told = [json.loads(text) for text in gather_texts(comm, json.dumps(facts))]
    return {kind: difference([each[kind] for each in told], hosts) for kind in facts}


def difference(told: Sequence[Facts], hosts: Sequence[str]) -> Difference | None:
    """Return the first fact, by its name, that ranks who have it state differently, None if there
    is none.
    """
    for name in dict.fromkeys(name for facts in told for name in facts):
        stated = {rank: facts[name] for rank, facts in enumerate(told) if name in facts}
        counts = Counter(stated.values())
        if len(counts) > 1:
            # Of two that are as frequent the one that is stated first.
            (here, most), *_ = counts.most_common()
            others = [rank for rank, fact in stated.items() if fact != here]
            same = [rank for rank, fact in stated.items() if fact == here]
            return Difference(
                name,
                here,
                stated[others[0]],
                named_ranks(same, hosts),
                named_ranks(others, hosts),
                2 * most == len(stated),
            )
    return None


def _data(trainer: "Trainer") -> Facts:
    """Return digests of samples of the data that a run goes on with."""
    stream = trainer._stream
    sets = {"training": stream.data, "validation": trainer._fit.validation}
    return {
        f"the {kind} data's {name}": text
        for kind, data in sets.items()
        if data is not None and stream.running
        for name, text in data.digests(_OF_DATA).items()
    }


def _modules() -> Facts:
    """Return digests of the files of the modules that are neither of Python nor installed."""
    folders = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    installed = tuple(folder + os.sep for folder in folders)
    found = {}
    for name, module in [*sys.modules.items()]:
        path = getattr(module, "__file__", None)
        if type(path) is not str or not path.endswith(".py") or name == "__main__":
            continue
        if not path.startswith(installed):
            with suppress(OSError), open(path, "rb", buffering=0) as file:
                found[f"the module {name}"] = _digest(file.readall())
    return found


def _waited_for_core() -> float:
    """Return the seconds for which this process was ready to run so far, and had no core; 0 if the
    system does not count them (Linux does).
    """
    try:
        return int(Path(f"/proc/{os.getpid()}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, LookupError, ValueError):
        return 0.0


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _digest(content: Array | bytes) -> str:
    """Return a digest of 64 bits."""
    held = _bytes(content) if isinstance(content, np.ndarray) else content
    return hashlib.blake2b(held, digest_size=8).hexdigest()
