"""The ranks of one host without MPI. Those that `ddbp launch --survive` has started go on when some
are killed, and let in others that replace them; those that `Trainer.fit(ranks=…)` has started end
together.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ddbp import settings, terminal
from layers.types import Array

from . import shared_memory
from .abort import LOST, STARTED, abort_all_ranks_on_exceptions
from .base import (
    CollectiveKind,
    CommunicationError,
    OneHost,
    RankLost,
    Ranks,
)
from .deadlines import KILLS, Deadline
from .host_barrier import HostBarrier, compile_kernels
from .host_ranks import HostRanks
from .kept import Kept
from .members import HostNotices, Members, meeting_of, position
from .topology import Topology

_KNOCK = 1.0
"""Seconds between two times that a newcomer knocks."""
_NEWCOMER_LOOK = 1e-3
"""Seconds between looks of a process that waits to be let in."""


class HostCommunicator(OneHost, HostRanks):
    """The ranks of a job on one host that survives deaths.

    Parameters
    ----------
    descriptor, slots, slot
        The file that the job shares, the number of its slots, and that of this process.
    """

    survives = True

    def __init__(self, descriptor: int, slots: int, slot: int) -> None:
        # Processes that this one starts are no ranks.
        os.set_inheritable(descriptor, False)
        self.slot = slot
        self.progress_hook: Callable[[], None] | None = None
        self._members = members = Members(descriptor, slots, slot)
        self._host_barrier = HostBarrier(lambda shape, dtype: members.cells, slot, slots)
        self._notices = HostNotices(members, slot)
        self._deadline = Deadline(self._notices, 0, [slot], survives=self.survives)
        group = members.joined(slot)
        self.newcomer = not group
        self.takes_over = group > 1
        self._form(group, members.of(group) if group else [slot], 0)
        abort_all_ranks_on_exceptions(self, lost=LOST)
        for tell in STARTED:
            tell(self)
        self._compile()

    def _compile(self) -> None:
        """Compile the kernels of a meeting, whoever is lost meanwhile."""
        while True:
            try:
                with self.leader_first():
                    compile_kernels()
                return
            except RankLost:
                self.regroup()

    def _form(self, group: int, slots: list[int], meeting: int) -> None:
        """Become a rank of a group whose members have met so often."""
        self.group = group
        self.slots = slots
        self.rank = slots.index(self.slot)
        self.size = len(slots)
        self.hosts = np.array([0, self.size])
        self.topology = Topology(self.hosts, self.rank)
        self.of_host: Ranks = self
        self._host_barrier.form(slots, self.rank, position(group, meeting))
        self._notices.form(slots)
        self._deadline.form(self.rank, slots)

    @property
    def leads(self) -> bool:
        return self.rank == 0 and not self.newcomer

    @property
    def kept(self) -> Kept | None:
        return self._members.kept

    # Memory

    def plan_memory(self, needs: Mapping[str, int]) -> None:
        self._demand = shared_memory.MemoryPlan(needs, {})

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return shared_memory.allocate(shape, dtype, self.rank, self.size, self)

    def from_first(self, text: Array) -> None:
        """Overwrite text with that of rank 0."""
        text[...] = self.all_gather(text)[0]

    def error_of_any(self, error: OSError | None) -> int:
        """Return the number of the first error, 0 if no rank has one."""
        codes = self.all_gather(np.array([0 if error is None else error.errno or -1]))
        return int(codes[codes != 0][0]) if codes.any() else 0

    def refusal(self, code: int) -> CommunicationError:
        """Return the error for memory that cannot be had, given the error number."""
        return self._demand.refusal(code)

    # Meetings

    def broadcast(self, array: Array) -> None:
        shared = self.host_array(array.shape, array.dtype)
        if self.rank == 0:
            shared[...] = array
        self.host_barrier((CollectiveKind.BROADCAST, 0))
        if self.rank:
            array[...] = shared

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        with self._in_turn(first=self.rank == 0):
            yield

    # Members

    def _dead(self) -> list[int]:
        return self._dead_of(self._late)

    def _dead_of(self, late: Callable[[], list[int]]) -> list[int]:
        dead = self._members.dead([self.slots[rank] for rank in late()])
        # Only now: where a process has come to that is dead is final.
        return [rank for rank in late() if self.slots[rank] in dead]

    def _fence(self, ranks: list[int]) -> None:
        names = ", ".join(map(str, ranks))
        fix = f"{settings.TIMEOUT} sets the limit in seconds"
        terminal.say(
            f"[rank {self.rank} of {self.size}] kills rank {names}, which does not come; {fix}"
        )
        slots = [self.slots[rank] for rank in ranks]
        for slot in slots:
            for tell in KILLS:
                tell(slot, self.slot)
        self._members.kill(slots)

    def regroup(self) -> list[int]:
        before = self.slots
        self._assemble(self._members.declare(self.group), self._meeting + 1)
        return sorted({*before} - {*self.slots})

    @property
    def _meeting(self) -> int:
        """Which meeting this rank has come to."""
        return meeting_of(self._host_barrier.meetings)

    def _assemble(self, group: int, meeting: int) -> None:
        """Meet with all members of a new group for the first time; of a newer one, if members die
        before they come. All of them go on from there, or none.
        """
        last = self.group
        while True:
            try:
                self._assemble_once(group, self._members.of(group), meeting)
                return
            except RankLost:
                group = self._members.declare(last)

    def _assemble_once(self, group: int, slots: list[int], meeting: int) -> None:
        members = self._members
        self._form(group, slots, meeting)

        def missing() -> list[int]:
            return [slots.index(slot) for slot in members.assembled(slots, group, meeting)]

        members.come(position(group, meeting))
        self._deadline.until(
            lambda: not missing(),
            (CollectiveKind.REGROUP, group),
            late=missing,
            dead=lambda: self._dead_of(missing),
            fence=self._fence,
        )

    def knocking(self, what: str) -> bool:
        return self._members.knocking(what)

    def admit(self, what: str) -> list[int]:
        before, members = self.slots, self._members
        meeting = self._meeting + 1
        if self.rank == 0:
            members.invite(self.group, meeting, what)
        self.host_barrier((CollectiveKind.REGROUP, self.group))
        if members.invited_at(meeting):
            # Who is to be let in is, as nobody who is left can have missed this meeting.
            self.group += 1
            self._assemble(self.group, meeting + 1)
        return sorted({*self.slots} - {*before})

    def knock(self, what: str, missed: Callable[[], bool] = bool) -> list[int]:
        members, alone = self._members, self._meeting
        knocked = 0.0
        while True:
            if members.deserted():
                members.withdraw()
                raise SystemExit(0)
            if missed() and members.decline():
                return []
            if time.monotonic() - knocked > _KNOCK:
                # Again and again: the members may be elsewhere yet.
                members.knock(what)
                knocked = time.monotonic()
            invitation = members.invitation()
            if invitation is not None:
                group, slots, meeting = invitation
                try:
                    self._assemble_once(group, slots, meeting + 1)
                    break
                except RankLost:
                    # The members see to that, and may not let this process in yet.
                    self._form(0, [self.slot], alone)
            time.sleep(_NEWCOMER_LOOK)
        members.accept()
        self.newcomer = False
        return [slot for slot in members.together() if slot in self.slots]

    # The job

    def describe(self) -> dict[str, Any]:
        return {
            "mpi": "not used: launched by ddbp launch --survive",
            "ranks": self.size,
            "hosts": [socket.gethostname()],
            "ranks that share memory": [self.size],
        }

    def leave(self) -> None:
        """Tell the other ranks that this one ends, and wait for them, but not for dead ones."""
        self._deadline.leave()
        members = self._members
        if not self.newcomer:
            self._deadline.until(
                lambda: len(members.ended(self.slots)) + len(members.dead(self.slots)) == self.size,
                (CollectiveKind.END, 0),
                asleep=1e-3,
            )

    def abort(self, status: int) -> None:
        """End all ranks at once: the launcher does, when it sees that this one has ended."""
        self._members.end(abort=True)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)


class JobCommunicator(HostCommunicator):
    """The ranks of a job on one host that ends when one of them does."""

    survives = False

    @property
    def kept(self) -> None:
        return None

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "mpi": "not used: started by Trainer.fit(ranks=…)"}
