"""The job of `ddbp launch --survive`: its ranks are processes of the launcher itself, which lets
those that are left go on when one is killed, and starts another in its place; or all of them anew,
to go on from the state that they have kept, when none is left.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ddbp import settings
from ddbp.comm import shared_memory
from ddbp.comm.abort import ABORTED, LOST, SAVED
from ddbp.comm.cores import bind, places, usable_cores
from ddbp.comm.members import Members
from ddbp.comm.rank_process import tied
from ddbp.job.deaths import Memory, cause, stack
from ddbp.job.signals import put_off
from ddbp.observers import rank_status

from . import end_signals

_NEWCOMERS = 1000
"""So many processes may replace others in the life of a job."""
_IN_VAIN = 3
"""After so many newcomers in a row that ended before they were let in, no more are started."""
_LOOK = 0.1
"""Seconds between looks at processes, where the system does not tell when they end."""


class Job:
    """Ranks that survive each other.

    Parameters
    ----------
    command, environment
        What a rank runs.
    folder
        Where ranks keep their status.
    ranks
        How many there are at the beginning.
    replaces
        Whether those that are killed are replaced.

    Attributes
    ----------
    dead
        The slots of ranks that were killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        ranks: int,
        *,
        replaces: bool,
    ) -> None:
        self._command = tied(command)
        self._environment = environment
        self._folder = folder
        self._replaces = replaces
        self._slots = ranks + _NEWCOMERS
        self._members = Members.create(ranks, self._slots)
        self._ranks = ranks
        self._memory = Memory()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._pids: list[int] = []
        # Of each slot.
        cores = usable_cores() if settings.binds(environment) else []
        self._places = dict(enumerate(places(ranks, cores)))
        self._poll = select.poll()
        self._in_vain = 0
        self._status = 0
        self._over = False
        self._members.kept.allowed = replaces
        # The step at which ranks have been started anew last.
        self._taken_over = -1
        self.dead: list[int] = []

    def run(self) -> int:
        """Return the exit status: that of a rank which has ended with another one than 0, 128 and
        the number of the signal if none was left, or of one that has come to this process.
        """
        with end_signals.handled(lambda: self._send(signal.SIGKILL), self._running):
            try:
                for slot in range(self._ranks):
                    self._start(slot)
                while self._children:
                    self._look()
                    if not self._children:
                        self._take_over()
                return self._status or self._unnoticed()
            except end_signals.Stopped as stopped:
                return end_signals.said(stopped.number, saved=self._stop() == SAVED)
            finally:
                self._end_all()
                self._clean_up()

    @property
    def step(self) -> int:
        """The step that the ranks have come to, -1 if they came to none."""
        found = (rank_status.read(self._folder, slot) for slot in range(len(self._pids)))
        return max((each.step for each in found if each is not None), default=-1)

    def _start(self, slot: int) -> None:
        descriptor = self._members.descriptor
        told = f"{descriptor} {self._slots} {slot}"
        with put_off(*end_signals.ENDING):
            process = subprocess.Popen(
                self._command,
                # Only one of them can read.
                stdin=None if slot == 0 else subprocess.DEVNULL,
                env={**self._environment, settings.SURVIVE: told},
                pass_fds=[descriptor],
                # What a terminal sends to the launcher is passed on once.
                start_new_session=True,
            )
            self._children[slot] = process
            self._pids.append(process.pid)
        self._members.register(slot, process.pid)
        bind(process.pid, self._places[slot])
        if hasattr(os, "pidfd_open"):
            self._poll.register(os.pidfd_open(process.pid), select.POLLIN)

    def _look(self) -> None:
        """Wait until a rank ends, and see to it."""
        for descriptor, _ in self._poll.poll(1000 * _LOOK):
            self._poll.unregister(descriptor)
            os.close(descriptor)
        for slot, process in list(self._children.items()):
            if slot in self._children and process.poll() is not None:
                del self._children[slot]
                self._see_to(slot, process.returncode)
        if not any(map(self._members.joined, self._children)):
            # Newcomers have nobody to join.
            self._end_all()

    def _see_to(self, slot: int, status: int) -> None:
        members = self._members
        if self._over:
            return
        if members.left(slot):
            self._status = self._status or status
        elif status < 0:
            self._survive(slot, signal.Signals(-status))
        elif members.joined(slot):
            if status == 0:
                self._say(slot, "left without coming to the end of the script, as by os._exit")
            if status == LOST:
                self._say(slot, "cannot go on without those that were killed, and so can none")
                status = ABORTED
            else:
                self._over = True
            self._status = self._status or status or ABORTED
            self._end_all()
        else:
            self._say(slot, "has failed before it was let in")
            self._replace(slot)

    def _survive(self, slot: int, number: signal.Signals) -> None:
        """Say that a rank was killed, and replace it if others go on."""
        members = self._members
        ended = [other for other in members.newest if members.left(other)]
        left = [other for other in members.newest if other in self._children and other not in ended]
        if members.joined(slot):
            self.dead.append(slot)
            self._in_vain = 0
        where = rank_status.read(self._folder, slot)
        place = where.where if where else rank_status.BEFORE_TRAINER
        goes = "1 goes on" if len(left) == 1 else f"{len(left) or 'none'} go on"
        without_it = ended and not left and slot not in members.newest
        if without_it:
            goes = f"{len(ended)} {'has' if len(ended) == 1 else 'have'} come to the end without it"
        ends = left and place == rank_status.BEFORE_TRAINER and members.joined(slot)
        if ends:
            goes = "the job ends, as others can go on without one only once there is a trainer"
        how = (where.killed if where else "") or cause(number, self._memory)
        self._say(slot, f"died {place}: {how}; {goes}")
        for line in stack(where.fault if where else ""):
            print(f"ddbp launch: {line}", file=sys.stderr, flush=True)
        if ends:
            self._status = self._status or ABORTED
            self._end_all()
        elif left:
            self._replace(slot)
        elif not without_it and members.joined(slot):
            self._status = self._status or 128 + number

    def _replace(self, slot: int) -> None:
        """Start a newcomer in the place of a process that has ended."""
        new = len(self._pids)
        self._in_vain += not self._members.joined(slot)
        if not self._replaces or new == self._slots or self._in_vain == _IN_VAIN:
            return
        self._places[new] = self._places[slot]
        self._members.take(new)
        self._start(new)
        self._say(new, f"is to replace rank {slot}")

    def _take_over(self) -> None:
        """Start all ranks anew, to go on from the state that those before have kept, if all of them
        were killed, or cannot go on without others that were. They must have come further since the
        last time.
        """
        members, first = self._members, len(self._pids)
        slots = range(first, first + self._ranks)
        kept = members.kept.step
        finished = any(members.joined(slot) and members.left(slot) for slot in range(first))
        if self._over or finished or kept <= self._taken_over or slots.stop > self._slots:
            return
        self._taken_over, self._status = kept, 0
        self._places |= {slot: self._places[slot - first] for slot in slots}
        members.succeed(slots)
        # Other trainers of the script than the one whose state is kept have checkpoints at best.
        self._environment = {**self._environment, settings.RESUME: "1"}
        names = ", ".join(map(str, slots))
        said = f"none is left: ranks {names} take over, from the {kept} steps that are in memory"
        print(f"ddbp launch: {said}", file=sys.stderr, flush=True)
        for slot in slots:
            self._start(slot)

    def _unnoticed(self) -> int:
        """Return the status of a job whose ranks have come to their end, but for some that were
        killed, unnoticed by the others, in the midst of what comes after their last meeting.
        """
        members = self._members
        lost = [slot for slot in members.newest if not members.left(slot)]
        for slot in lost:
            self._say(slot, "died after its last meeting: what it was to do at the end is missing")
        return ABORTED if lost else 0

    def _say(self, slot: int, text: str) -> None:
        line = f"ddbp launch: rank {slot} (process {self._pids[slot]}) {text}"
        print(line, file=sys.stderr, flush=True)

    def _running(self) -> list[int]:
        """Return the processes of ranks: those who wait to be let in listen to no signals."""
        joined = self._members.joined
        return [process.pid for slot, process in self._children.items() if joined(slot)]

    def _send(self, number: int) -> None:
        for process in self._children.values():
            process.send_signal(number)

    def _end_all(self) -> None:
        """Kill all processes that are left, and have nothing more to do with them."""
        self._send(signal.SIGKILL)
        while self._children:
            self._children.popitem()[1].wait()

    def _stop(self) -> int:
        """Have all ranks end, which may save; return their exit status."""
        self._send(signal.SIGTERM)
        statuses = []
        for process in self._children.values():
            try:
                statuses.append(process.wait(end_signals.GRACE))
            except subprocess.TimeoutExpired:
                self._send(signal.SIGKILL)
        return SAVED if SAVED in statuses else 0

    def _clean_up(self) -> None:
        for pid in self._pids:
            shared_memory.remove_files_of(pid)
        os.close(self._members.descriptor)
