"""The watchdog: a thread of each rank that notices when training comes no further, says where the
ranks of this host are, and ends them.

A rank answers for itself: the thread sees whether the rank that it belongs to gets on, waits for
others, or hangs. Of a rank whose threads run no more (it is stopped, waits for a disk, or a library
never returns) those who wait for it notice that its pulse stands still. A rank that is slow has a
pulse and gets on; it is told of, and left alone.
"""

import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ddbp import settings, terminal
from ddbp.comm.abort import STALLED, STARTED, insist
from ddbp.comm.base import Communicator, described
from ddbp.comm.deadlines import GIVES_UP, WHERE
from ddbp.comm.processes import Processes, start_of
from layers.types import Integers

from . import rank_status
from .slow_rank import SlowRank
from .stacks import Stacks

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

# Words of a rank's signs: a number that grows while its threads run, its process, the descriptor of
# its stacks there, the thread of its watchdog, whether it has raised an alarm, and whether it has
# told where it is.
_PULSE, _PID, _STACKS, _THREAD, _ALARM, _TOLD = range(6)

_LOOK = 1.0
"""Seconds between two looks, at most."""
_LOOKS = 8
"""Looks within a time limit, at least."""
_LEAST = 60.0
"""Seconds of a step that nobody minds, however fast steps are."""
_TIMES = 20
"""A step may take so many times the longest of the last pauses."""
_PAUSES = 32
_FIRST = 3
"""Batches of a trainer that may take long."""
_ANSWER = 3.0
"""Seconds that the ranks of a host get to tell where they are."""

_NEVER = float("inf")
_ENDED = ("", "Z", "X")
"""States of processes that run no more."""
_ASIDE = (
    "ddbp.checkpoint",
    "ddbp.training.evaluation",
    "ddbp.training.run_folder",
    "layers.kernels.cache",
    "numba.core.dispatcher",
)
"""Modules whose work may take as long as others wait for it: what writes, evaluates, compiles."""


class Watchdog:
    """Watches the trainers of a process.

    A step is what ddbp does between the batch and new parameters. Its time limit is learned, or
    that which is given; what a script does besides has a limit only if one is given. The beginning,
    evaluations, checkpoints and compilation may take `settings.timeout()` at least: so long others
    wait for them.

    Time counts while this process runs: a job that is suspended and goes on later has not hung.

    Parameters
    ----------
    comm
        The ranks.
    limit
        Seconds without progress, None to learn them.
    """

    def __init__(self, comm: Communicator, limit: float | None) -> None:
        self._comm = comm
        self._limit = limit
        self._look = min(_LOOK, (limit or _LEAST) / _LOOKS)
        self._trainers: list[weakref.ref[Trainer]] = []
        self._parts = set[CodeType]()
        self._thread_of_trainer = threading.get_ident()
        self._pauses = deque[float](maxlen=_PAUSES)
        self._slow = SlowRank()
        self._stacks = Stacks()
        self._over = threading.Event()
        self._telling = threading.Lock()
        self._told = False
        self._progress: Hashable = None
        self._idle = 0.0
        self._in_step = True
        self._looked = time.monotonic()
        # Of other slots of the host: the last pulse, and since when it is that.
        self._pulses: dict[int, int] = {}
        self._quiet: dict[int, float] = {}
        self._processes = Processes()

    def start(self) -> None:
        """Begin to watch."""
        self._over.clear()
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="ddbp watchdog", daemon=True)
        self._thread.start()
        # A rank that is stopped before its first look is to be found, too.
        self._show()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        self._thread.join()
        self._stacks.disarm()

    def watch(self, trainer: "Trainer", parts: Iterable[Callable[..., Any]]) -> None:
        """Watch a trainer, too; the functions `parts` are what its steps consist of."""
        self._trainers = [each for each in self._trainers if each() is not None]
        self._trainers.append(weakref.ref(trainer))
        self._parts.update(part.__code__ for part in parts)
        self._thread_of_trainer = threading.get_ident()

    def tell_of_all(self) -> bool:
        """Have the ranks of this host tell where they are, and tell it of those that cannot.

        Return whether this rank is the first of those that have raised an alarm, who speaks for
        them.
        """
        signs = self._comm.signs()
        signs[self._comm.slot][_ALARM] = 1
        self._tell()
        silent = self._silent_for_long(signs)
        speaks = self._comm.slot == min(slot for slot, words in signs.items() if words[_ALARM])
        if speaks:
            for slot in silent:
                self._say_of(slot, signs[slot])
                signs[slot][_TOLD] = 1
        elif silent:
            # Let it.
            self._silent_for_long(signs)
        if self._comm.survives:
            signs[self._comm.slot][_ALARM] = 0
        return speaks

    # Looks

    def _show(self) -> None:
        """Show the ranks of this host that threads run here, and where to read of them."""
        own = self._comm.signs()[self._comm.slot]
        own[_PULSE] += 1
        own[_PID] = os.getpid()
        own[_STACKS] = self._stacks.descriptor
        own[_THREAD] = self._thread.ident or 0

    def _run(self) -> None:
        try:
            while not self._over.wait(self._look):
                self._look_once()
        except Exception:
            # The run is worth more than its watchdog.
            self._say(f"has no watchdog any more:\n{traceback.format_exc()}")

    def _look_once(self) -> None:
        now = time.monotonic()
        passed = min(now - self._looked, 2 * self._look)
        self._looked = now
        self._show()
        signs = self._comm.signs()
        self._stacks.arm(self._limit_of_others(stopped=False))
        if self._comm.leads and (trainer := self._newest()) is not None:
            self._slow.look(trainer, now)
        self._count(passed)
        if any(words[_ALARM] for words in signs.values()):
            self._tell()
        else:
            self._told = False
            signs[self._comm.slot][_TOLD] = 0
        if self._comm.waiting is not None:
            if stuck := self._stuck(signs, passed):
                self._end(stuck)
            return
        self._pulses.clear()
        # A newcomer waits to be let in, for as long as that takes.
        if self._idle > self._own_limit() and not self._comm.newcomer:
            self._end([self._comm.slot])

    def _count(self, passed: float) -> None:
        """Count for how long there has been no progress, and learn from that when there is."""
        progress = self._state()
        if progress == self._progress and self._comm.waiting is None:
            self._idle += passed
            self._in_step &= self._place() == "step"
            return
        if self._in_step and self._idle:
            self._pauses.append(self._idle)
        self._progress = progress
        self._idle = 0.0
        self._in_step = True

    def _state(self) -> Hashable:
        """Return what changes whenever the rank gets on, as far as that can be seen."""
        trainers = [trainer for each in self._trainers if (trainer := each()) is not None]
        steps = tuple((each.step_count, each._update.batches) for each in trainers)
        return steps, rank_status.own_words()

    def _place(self) -> str:
        """Return what the thread that trains is at: "step", "aside" for what may take long, or
        nothing of both.
        """
        frame = self._frame()
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(_ASIDE):
                return "aside"
            if frame.f_code in self._parts:
                return "step"
            frame = frame.f_back
        return ""

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._thread_of_trainer)

    def _newest(self) -> "Trainer | None":
        return self._trainers[-1]() if self._trainers else None

    # Limits

    def _learned(self) -> float:
        return max(_LEAST, _TIMES * max(self._pauses, default=0.0))

    def _own_limit(self) -> float:
        """Return the seconds without progress that this rank has where it is."""
        place, trainer = self._place(), self._newest()
        limit = self._limit
        if limit is None:
            limit = self._learned() if place == "step" else _NEVER
        # What comes first loads and compiles.
        begins = trainer is None or trainer._update.batches < _FIRST
        return max(limit, settings.timeout()) if begins or place == "aside" else limit

    def _limit_of_others(self, *, stopped: bool) -> float:
        """Return the seconds that a rank may have no pulse; one that is not stopped may be at
        something that lets no thread run.
        """
        if self._limit is not None:
            return self._limit
        return self._learned() if stopped else max(self._learned(), settings.timeout())

    def _stuck(self, signs: dict[int, Integers], passed: float) -> list[int]:
        """Return the slots of the ranks of this host whose threads have not run for too long while
        this rank waits.
        """
        found = []
        for slot, words in signs.items():
            pulse, pid = int(words[_PULSE]), int(words[_PID])
            if slot == self._comm.slot or pulse == 0:
                continue
            same = pulse == self._pulses.get(slot)
            self._pulses[slot] = pulse
            self._quiet[slot] = self._quiet[slot] + passed if same else 0.0
            self._processes.follow(pid, pid, start_of(pid) or 0)
            if self._quiet[slot] > self._limit_of_others(stopped=True):
                state = state_of(pid)
                limit = self._limit_of_others(stopped=state == "T")
                # Those that have ended are another matter, and so is one that a debugger holds.
                if state not in (*_ENDED, "t") and self._quiet[slot] > limit:
                    found.append(slot)
        return found

    # Alarms

    def _end(self, stalled: list[int]) -> None:
        """Tell where all ranks are, and end them, or those that have stalled if others go on
        without them.
        """
        signs = self._comm.signs()
        speaks = self.tell_of_all()
        for slot in stalled:
            rank_status.mark_stalled(slot)
        if self._comm.survives:
            # Who does not speak looks again.
            self._pulses.clear()
            for slot in stalled if speaks or self._comm.slot in stalled else ():
                self._kill(slot, int(signs[slot][_PID]))
            return
        self._say(f"ends all ranks; {settings.STALL_TIMEOUT} sets the limit in seconds")
        insist()
        self._comm.abort(STALLED)

    def _kill(self, slot: int, pid: int) -> None:
        """Kill a rank, unless another one has done so."""
        if state_of(pid) in _ENDED:
            return
        self._say(f"kills rank {self._rank_of(slot)}")
        rank_status.mark_killed(slot, self._comm.slot)
        if slot == self._comm.slot:
            os.kill(pid, signal.SIGKILL)
        self._processes.kill(pid)

    def _tell(self) -> None:
        """Tell where this rank is, once."""
        with self._telling:
            if self._told:
                return
            self._told = True
        waiting = self._comm.waiting
        if waiting is not None:
            text = f"waits in {described(waiting)}"
        else:
            stalls = self._idle > self._own_limit()
            since = f"gets no further since {self._idle:.0f} s, " if stalls else "is "
            text = since + self._where()
        self._say(f"{text}\n{self._stacks.of_threads(self._thread.ident or 0)}")
        self._comm.signs()[self._comm.slot][_TOLD] = 1

    def _where(self) -> str:
        """Return where this rank is: what its status says, else what its stack does."""
        told = [text for tell in WHERE if (text := tell(self._comm.slot))]
        if told:
            return told[0]
        trainer = self._newest()
        if trainer is None:
            return rank_status.BEFORE_TRAINER
        if self._place() != "step":
            return f"outside of steps, after {trainer.step_count}"
        names = {id(layer): name for name, layer in trainer.model.named_layers()}
        frame = self._frame()
        while frame is not None:
            layer = frame.f_locals.get("self")
            if id(layer) in names:
                return f"in step {trainer.step_count}, at {names[id(layer)]}: {layer!r}"
            frame = frame.f_back
        return f"in step {trainer.step_count}"

    def _silent(self, signs: dict[int, Integers]) -> list[int]:
        """Return the slots of the ranks of the host that have not told where they are, of those
        that still run.
        """
        return [
            slot
            for slot, words in signs.items()
            if not words[_TOLD] and words[_PID] and state_of(int(words[_PID])) not in _ENDED
        ]

    def _silent_for_long(self, signs: dict[int, Integers]) -> list[int]:
        """Return those that are silent for as long as they get to tell, while this rank's pulse
        goes on.
        """
        end = time.monotonic() + max(_ANSWER, 3 * self._look)
        while (silent := self._silent(signs)) and time.monotonic() < end:
            self._show()
            time.sleep(0.05)
        return silent

    def _rank_of(self, slot: int) -> int:
        # Ranks may be numbered anew at any time.
        slots = self._comm.slots
        return slots.index(slot) if slot in slots else slot

    def _say_of(self, slot: int, words: Integers) -> None:
        """Tell of a rank that does not tell itself."""
        pid = int(words[_PID])
        state = "is stopped, as by SIGSTOP" if state_of(pid) == "T" else "does not answer"
        where = "".join(f", {text}" for tell in WHERE if (text := tell(slot)))
        stack = self._stacks.of_process(pid, int(words[_STACKS]), int(words[_THREAD]))
        who = f"rank {self._rank_of(slot)} (process {pid})"
        self._say(f"{who} {state}{where}{stack and chr(10)}{stack}")

    def _say(self, text: str) -> None:
        start = f"[rank {self._comm.rank} of {self._comm.size}]"
        # One write, so that the lines of several ranks do not mix.
        terminal.write("".join(f"{start} {line}\n" for line in text.splitlines()))


def state_of(pid: int) -> str:
    """Return the letter of a process's state in /proc, "" if it has ended or nobody knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


_OWN: list[Watchdog] = []
"""That of this process."""


def _start(comm: Communicator) -> None:
    """Watch this rank; a process alone only if it has a limit."""
    limit = settings.stall_timeout()
    if _OWN or (comm.size == 1 and limit is None and not comm.survives):
        return
    _OWN.append(Watchdog(comm, limit))
    _OWN[0].start()
    GIVES_UP.append(_give_up)


STARTED.append(_start)


def _give_up() -> None:
    _OWN[0].tell_of_all()


def _forget() -> None:
    """Watch nothing in a forked child."""
    _OWN.clear()
    GIVES_UP.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def watch(trainer: "Trainer", parts: Iterable[Callable[..., Any]]) -> None:
    """Have the watchdog of this process, if there is one, watch a trainer."""
    for each in _OWN:
        each.watch(trainer, parts)
