"""Faults and the jobs that meet them, as text that can be run again, and drawn from a seed.

A job is `MODE RANKS [waits] [WAY]: FAULT; FAULT; …`, as in `restart 2: kill forward rank=1 step=7;
damage flip`. Its faults come one after the other: each waits for those before it.
"""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

BATCHES = 5
"""Of an epoch."""
CHECKPOINT_EVERY = 3
WAITING = 40
"""Steps that a run of ranks that survive has for each fault to wait until the dead are replaced."""

PHASES = ("data", "forward", "backward", "reduction", "update", "publish", "after")
"""Places in a step, in their order."""
PLACES = (*PHASES, "evaluation", "epoch", "start")

_LONGEST = {
    "data": 100_000,
    "forward": 300_000,
    "backward": 300_000,
    "reduction": 200_000,
    "update": 100_000,
    "publish": 60_000,
    "after": 60_000,
    "evaluation": 300_000,
    "epoch": 300_000,
}
"""Nanoseconds after the beginning of a place in which a rank dies."""
_START = {"alone": 60e6, "restart": 1200e6, "survive": 1200e6, "hosts": 1200e6}
"""Nanoseconds after its beginning in which a process dies that is starting."""

DAMAGES = ("cut", "flip", "swap", "future", "cut-state", "flip-state", "missing")


_APART = {"batch_size": 12, "shards": None}
"""Of workers, who need two samples each of the last batch of 68."""
WAYS: dict[str, dict[str, Any]] = {
    "top-k": {"compression": "top-k:0.05"},
    "power-sgd": {"compression": "power-sgd:2"},
    "sign": {"compression": "sign"},
    "int8": {"compression": "int8"},
    "local-sgd": {"exchange": "LocalSGD(workers=4, every=2)", **_APART},
    "diloco": {"exchange": "DiLoCo(workers=4, every=4, fragments=2, bits=8)", **_APART},
    "dfa": {"rule": "direct_feedback_alignment"},
    "meprop": {"rule": "MeProp(0.25)"},
    "memory": {"memory": "22 kB"},
    "network": {"network": "auto"},
}
"""Options of trainers, by the names that they have in jobs."""


def ways_of(mode: str) -> list[str]:
    """Return the ways that go with a mode: workers that train apart need ranks that stay."""
    return [
        name for name, options in WAYS.items() if mode != "survive" or "exchange" not in options
    ]


class Fault(NamedTuple):
    """Something that happens to a rank.

    Attributes
    ----------
    kind
        What: see `MEANING`.
    place
        Where in a step, or what kind of damage.
    rank
        To which rank, of those that there are then.
    step
        In which step, or the first later one; of "disk" places the step of the checkpoint, or a
        later one.
    amount
        Nanoseconds after the beginning of the place; of "disk" places how many calls succeed
        before; of "stop" and "link" milliseconds; of "clock" seconds.
    """

    kind: str
    place: str
    rank: int = 0
    step: int = 0
    amount: int = 0

    def __str__(self) -> str:
        numbers = (f"{name}={getattr(self, name)}" for name in ("rank", "step", "amount"))
        return " ".join([self.kind, self.place, *(each for each in numbers if each[-2:] != "=0")])

    @classmethod
    def of(cls, text: str) -> "Fault":
        """Return the fault that a text is of."""
        kind, place, *numbers = text.split()
        return cls(kind, place, **{a: int(b) for a, b in (each.split("=") for each in numbers)})

    @property
    def name(self) -> str:
        """What a table calls it."""
        return MEANING[self.kind].format(place=self.place)


MEANING = {
    "kill": "SIGKILL, {place}",
    "two": "SIGKILL of two ranks at once, {place}",
    "all": "SIGKILL of all ranks at once, {place}",
    "launcher": "SIGKILL of the launcher, {place}",
    "stop": "SIGSTOP, then SIGCONT, {place}",
    "freeze": "SIGSTOP for ever, {place}",
    "term": "SIGTERM to a rank, {place}",
    "usr1": "SIGUSR1 to a rank, {place}",
    "int": "SIGINT to a rank, {place}",
    "term-launcher": "SIGTERM to the launcher, {place}",
    "usr1-launcher": "SIGUSR1 to the launcher, {place}",
    "eio": "EIO, {place}",
    "enospc": "ENOSPC, {place}",
    "power": "power cut, {place}",
    "damage": "damaged checkpoint: {place}",
    "clock": "clock jump, {place}",
    "other": "other {place} on one rank",
    "full": "full {place}",
    "link": "link between hosts cut, {place}",
}
"""What each kind is, in words."""

MISSED = "did not happen"
"""What a table says of faults that have found nothing to happen to."""
ENDING = ("two", "all", "launcher", "freeze", "eio", "enospc", "power")
"""Kinds that end all processes of a run, beside those of `SAVED_BY`; kills do without `survive`."""
SAVED_BY = ("term", "usr1", "int", "term-launcher", "usr1-launcher")
"""Kinds after which a run leaves with the status 75."""
ON_DISK = ("eio", "enospc", "power")
"""Kinds that happen to the disk, beside kills with the place "disk"."""


class Job(NamedTuple):
    """A run and what happens to it.

    Attributes
    ----------
    mode
        "alone", "restart", "survive", or "hosts": two network namespaces.
    ranks
        How many ranks it begins with.
    faults
        In their order.
    waits
        Whether training waits for checkpoints, which are else written in the background.
    way
        Which options the trainer has beside, a name of `WAYS`, if any.
    """

    mode: str
    ranks: int
    faults: tuple[Fault, ...]
    waits: bool = False
    way: str = ""

    def __str__(self) -> str:
        head = [self.mode, str(self.ranks), *["waits"] * self.waits, *[self.way] * bool(self.way)]
        return f"{' '.join(head)}: {'; '.join(map(str, self.faults))}"

    @property
    def options(self) -> dict[str, Any]:
        """Those of the trainer that its way stands for."""
        return WAYS.get(self.way, {})

    @property
    def steps_per_epoch(self) -> int:
        """Of its trainer, at least: workers that train apart take one in two batches."""
        return BATCHES // 2 if "exchange" in self.options else BATCHES

    @classmethod
    def of(cls, text: str) -> "Job":
        """Return the job that a text is of."""
        head, _, rest = text.partition(":")
        mode, ranks, *more = head.split()
        faults = map(Fault.of, filter(str.strip, rest.split(";")))
        way = next((word for word in more if word in WAYS), "")
        return cls(mode, int(ranks), tuple(faults), "waits" in more, way)


KINDS = {
    "alone": {"kill": 30, "power": 14, "eio": 5, "enospc": 5, "damage": 14, "clock": 2, "stop": 2}
    | dict.fromkeys(("term", "usr1", "int"), 2),
    "restart": {"kill": 34, "two": 5, "all": 3, "launcher": 8, "stop": 10, "power": 6, "eio": 3}
    | {"enospc": 3, "damage": 12, "clock": 3, "other": 4, "freeze": 1, "full": 4}
    | dict.fromkeys(("term", "usr1", "int", "term-launcher", "usr1-launcher"), 2),
    "survive": {"kill": 60, "two": 8, "all": 3, "stop": 10, "launcher": 2, "freeze": 2, "clock": 2}
    | {"damage": 3, "term": 2, "usr1-launcher": 2},
    "hosts": {"link": 8, "kill": 2, "cut": 1},
}
"""How often each kind comes in a mode, relative to the others."""


RANKS = {"alone": (1,), "restart": (2, 2, 3, 4), "survive": (3, 4), "hosts": (3,)}
"""Of which numbers of ranks is drawn."""
TIMEOUT = 10
"""Seconds that ranks wait for others in jobs with faults for which that is too long."""
AT_START = ("damage", "other", "full")
"""Kinds that come when processes start."""


class Schedule:
    """Draws jobs.

    Parameters
    ----------
    seed
        All that is drawn follows from it.
    disk
        How many calls change the disk in a checkpoint, by mode and ranks and rank; these are gone
        through in turn.
    only
        The kinds that are drawn; all unless given.
    ways
        The ways that are drawn, of those that go with a mode; none unless given.
    """

    def __init__(
        self,
        seed: int,
        disk: dict[tuple[int, int], int],
        only: tuple[str, ...] = (),
        ways: tuple[str, ...] = (),
    ) -> None:
        self._rng = random.Random(seed)
        self._only = only
        self._ways = ways
        self._disk = {key: self._in_turn(number) for key, number in disk.items()}

    def _in_turn(self, number: int) -> Iterator[int]:
        while True:
            order = list(range(number))
            self._rng.shuffle(order)
            yield from order

    def job(self, mode: str, faults: int) -> Job:
        """Return a job of so many faults."""
        rng = self._rng
        ranks = rng.choice(RANKS[mode])
        weights = {
            kind: weight
            for kind, weight in KINDS[mode].items()
            if not self._only or kind in self._only
        }
        drawn: list[Fault] = []
        step = 0
        while len(drawn) < faults and weights:
            kind = rng.choices([*weights], [*weights.values()])[0]
            step += rng.randint(2, 5)
            if kind == "damage":
                # There must be checkpoints.
                step += CHECKPOINT_EVERY
            new = self._fault(kind, mode, ranks, step)
            if (new.kind in AT_START or new.place == "start") and not (
                drawn
                and self._ends(drawn[-1], mode)
                and (new.kind != "full" or drawn[-1].kind in ("launcher", *SAVED_BY))
            ):
                # What comes at a start needs one.
                ending = "launcher" if mode == "survive" else "kill"
                # The whole job is started anew with little memory or disk.
                ending = "launcher" if new.kind == "full" else ending
                drawn.append(self._fault(ending, mode, ranks, step))
                if drawn[-1].place == "start":
                    drawn.pop()
                    continue
            drawn.append(new)
        waits, ways = rng.random() < 0.5, [each for each in ways_of(mode) if each in self._ways]
        return Job(mode, ranks, tuple(drawn), waits, rng.choice(ways) if ways else "")

    def _ends(self, fault: Fault, mode: str) -> bool:
        """Return whether a fault ends all processes of a run."""
        if fault.kind == "link":
            return fault.amount > 1000 * TIMEOUT
        if mode == "survive":
            # Where all ranks are killed others take over, and nothing starts anew.
            return fault.kind in ("launcher", *SAVED_BY)
        return fault.kind in ("kill", *ENDING, *SAVED_BY)

    def _fault(self, kind: str, mode: str, ranks: int, step: int) -> Fault:
        rng = self._rng
        rank = rng.randrange(ranks)
        if kind == "damage":
            return Fault(kind, rng.choice(DAMAGES), 0, 0, rng.randrange(1 << 30))
        if kind == "other":
            return Fault(kind, rng.choice(("data", "model", "code")), rank or 1, 0)
        if kind == "full":
            return Fault(kind, rng.choice(("/dev/shm", "disk")))
        if kind in ("link", "cut"):
            # One of the first host has it happen.
            amount = rng.randint(100, 3000) if kind == "link" else 1500 * TIMEOUT
            return Fault("link", rng.choice(PHASES), rng.randrange(2), step, amount)
        if kind in ON_DISK or (kind == "kill" and mode != "hosts" and rng.random() < 0.3):
            # In a survive run it is not known who has which rank then.
            call = next(self._disk[ranks, rank])
            return Fault(kind, "disk", rank, step, call)
        if kind in ("stop", "freeze"):
            amount = rng.randint(50, 500) if kind == "stop" else 0
            return Fault(kind, rng.choice(PHASES), rank, step, amount)
        if kind == "clock":
            return Fault(kind, "step", rank, step, rng.choice((-1, 1)) * 10 ** rng.randint(1, 8))
        if kind in SAVED_BY:
            return Fault(kind, rng.choice(PHASES), rank, step)
        if kind == "kill" and rng.random() < 0.15:
            return Fault(kind, "start", rank, 0, int(rng.random() * _START[mode]))
        place = rng.choice([*_LONGEST])
        return Fault(kind, place, rank, step, rng.randrange(_LONGEST[place]))
