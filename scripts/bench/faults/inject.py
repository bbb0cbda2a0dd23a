"""What happens to a rank, done by the rank itself at the place that a job names.

Each fault leaves a mark in the folder of the job before it happens, and so happens once.
"""

import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddbp import Callback, Trainer
from ddbp.checkpoint import folder
from ddbp.comm.base import Communicator
from ddbp.observers.observer import StepPhase
from layers import TapeHook

from .plan import Fault, Job

_PHASES = {
    StepPhase.EXCHANGE: "reduction",
    StepPhase.UPDATE: "update",
    StepPhase.PUBLISH: "publish",
}
_PATIENCE = 0.5
"""Seconds that a step takes in which ranks are missing that are to be replaced."""
_NOTED = 60.0
"""Seconds in which whoever starts a launcher notes which process that is."""
_SIGNALS = {"term": signal.SIGTERM, "usr1": signal.SIGUSR1, "int": signal.SIGINT}


class Marks:
    """What has happened of a job so far, in its folder.

    Parameters
    ----------
    place
        The folder of the job, which all its processes see.
    job
        What is to happen.
    """

    def __init__(self, place: Path, job: Job) -> None:
        self.place = place
        self.job = job

    def path(self, number: int) -> Path:
        """Return the file that says that a fault has happened."""
        return self.place / f"fault-{number}"

    def next(self) -> tuple[int, Fault] | None:
        """Return the first fault that has not happened, with its number."""
        for number, fault in enumerate(self.job.faults):
            if not self.path(number).exists():
                return number, fault
        return None

    def set(self, number: int, *words: object) -> bool:
        """Note that a fault happens; return whether it had not yet."""
        try:
            descriptor = os.open(self.path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.write(descriptor, " ".join(map(str, words)).encode())
        os.close(descriptor)
        return True

    @property
    def launcher_path(self) -> Path:
        """The file that says which process has started the others."""
        return self.place / "launcher"

    def launched_by(self, pid: int) -> None:
        """Note which process has started the others."""
        self.launcher_path.write_text(f"{pid}\n")

    def launcher(self) -> int:
        """Return the process that has started the others, once that has been noted."""
        end, text = time.monotonic() + _NOTED, ""
        while not text.endswith("\n") and time.monotonic() < end:
            with suppress(FileNotFoundError):
                text = self.launcher_path.read_text()
            time.sleep(0.001)
        return int(text)

    def say(self, *words: object) -> None:
        """Add a line to what is known of checkpoints: made, damaged, taken."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.place / "ledger", flags)
        os.write(descriptor, f"{' '.join(map(str, words))}\n".encode())
        os.close(descriptor)


_TIMERS: list[ctypes.c_void_p] = []
"""Those of this process's deaths to come."""


def die_after(nanoseconds: int) -> None:
    """Have the system send this process SIGKILL, whatever it does then."""
    libc = ctypes.CDLL(None, use_errno=True)
    event = (ctypes.c_int * 16)(0, 0, signal.SIGKILL, 0)
    timer = ctypes.c_void_p()
    if libc.timer_create(1, event, ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    seconds, rest = divmod(max(1, nanoseconds), 10**9)
    libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, seconds, rest), None)
    _TIMERS.append(timer)


def outlive(marks: Marks) -> None:
    """Take back the deaths of this process that have not come, as it has come to its end before:
    they have not happened.
    """
    while _TIMERS:
        ctypes.CDLL(None).timer_delete(_TIMERS.pop())
        for number, fault in enumerate(marks.job.faults):
            path = marks.path(number)
            own = path.exists() and path.read_text().split()[:1] == [str(os.getpid())]
            if own and fault.kind == "kill":
                path.write_text("void")


def cut_link(milliseconds: int) -> None:
    """Cut the link between the hosts for so long, or for ever."""
    change = ["ip", "link", "set", "first"]
    subprocess.run([*change, "down"], check=True)
    if milliseconds:
        heal = f"sleep {milliseconds / 1000}; {' '.join(change)} up"
        subprocess.Popen(["sh", "-c", heal], start_new_session=True)


def log_of(place: Path) -> Callable[..., Any]:
    """Return what makes a call that changes the disk and notes it, for `power.cut`."""

    def log(function: Callable[..., Any], name: str, path: Any, *arguments: Any, **options: Any):
        there = Path(path).exists()
        if there and name == "mkdir":
            return function(*arguments, **options)
        words = ["write" if there and name == "open" else name, str(path)]
        if name == "rmtree" and there:
            # What the disk still has when the power fails can come back.
            words.append(str(place / f"removed-{os.getpid()}-{time.monotonic_ns()}"))
            result = os.rename(path, words[-1])
        else:
            words += map(str, arguments[1:2]) if name in ("rename", "replace") else []
            result = function(*arguments, **options)
        with (place / "disk").open("a") as file:
            file.write("\t".join(words) + "\n")
        return result

    return log


class Disk:
    """Sees all calls that change the folder of checkpoints.

    Parameters
    ----------
    run
        The run folder.
    called
        Told of the step of the checkpoint that is written and the number of the call in it, before
        it is made.
    log
        What makes the calls, if they are to be undone as when the power fails.

    Attributes
    ----------
    calls
        How many there were before the first checkpoint, and in each.
    """

    def __init__(
        self, run: Path, called: Callable[[int, int], None], log: Callable[..., Any] | None
    ) -> None:
        self._run = str(run)
        self._outside = str(run.parent)
        self._called = called
        self._log = log
        self._step = -1
        self.calls = [0]
        for name in ("fsync", "write", "ftruncate"):
            self._wrap(os, name, self._descriptor_path)
        self._wrap(os, "open", lambda path, flags, *_, **more: path if flags & os.O_CREAT else None)
        for name in ("rename", "replace", "mkdir", "unlink"):
            self._wrap(Path, name, lambda path, *_, **more: path)
        self._wrap(Path, "open", lambda path, mode="r", **more: path if mode[0] == "w" else None)
        self._wrap(shutil, "rmtree", lambda path, **more: path)

    @staticmethod
    def _descriptor_path(descriptor: int, *more: Any) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def _concerns(self, path: str) -> bool:
        if path in (self._run, self._outside):
            return True
        return path.startswith(f"{self._run}/{folder.IN_RUN}")

    def _wrap(self, owner: Any, name: str, path_of: Callable[..., Any]) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            path = path_of(*arguments, **options)
            if path is None or not self._concerns(str(path)):
                return function(*arguments, **options)
            if match := re.search(r"\.step-(\d+)\.new", str(path)):
                self._step = int(match[1])
                # Rank 0 makes the folder, the others begin with their part.
                begins = name == "mkdir" or (name == "open" and Path(path).name[:5] == "part-")
                if begins and self.calls[-1] != 1:
                    self.calls.append(0)
            self.calls[-1] += 1
            self._called(self._step, self.calls[-1])
            if self._log is not None:
                return self._log(function, name, path, *arguments, **options)
            return function(*arguments, **options)

        setattr(owner, name, call)


class Disturber(Callback, TapeHook):
    """Has the faults of a job happen to this rank.

    Parameters
    ----------
    marks
        The job, and what has happened.
    comm
        The ranks.
    """

    def __init__(self, marks: Marks, comm: Communicator) -> None:
        self._marks = marks
        self._comm = comm
        self._now: tuple[int, Fault] | None = None
        self._step = 0
        kept = folder.replace

        def replace(new: Path, path: Path) -> None:
            kept(new, path)
            marks.say("made", int(path.name.removeprefix("step-")))

        folder.replace = replace
        powers = any(each.kind == "power" for each in marks.job.faults)
        self.disk = Disk(
            marks.place / "run", self._on_disk, log_of(marks.place) if powers else None
        )

    def __repr__(self) -> str:
        return "Disturber()"

    def begin(self) -> None:
        """Look for what comes next."""
        self._now = self._marks.next()

    # Where faults come.

    def on_step_begin(self, trainer: Trainer, step: int) -> None:
        self._step = step
        self.begin()
        self._at("data")

    def on_forward_begin(self, call: Any) -> None:
        if self._now is not None and not call.index and call.tape.training:
            self._at("forward")

    def on_backward_pass_begin(self, tape: Any) -> None:
        self._at("backward")

    def on_phase(self, trainer: Trainer, phase: StepPhase) -> None:
        self._at(_PHASES[phase])

    def on_step_end(self, trainer: Trainer, step: int, loss: float) -> None:
        self._at("after")

    def on_evaluation_begin(self, trainer: Trainer) -> None:
        self._at("evaluation")

    def on_epoch_end(self, trainer: Trainer, record: Any) -> None:
        self._at("epoch")

    def _at(self, place: str) -> None:
        if self._now is None:
            return
        number, fault = self._now
        comm = self._comm
        if comm.newcomer or self._step < fault.step:
            return
        least = min(self._marks.job.ranks, 3 if fault.kind == "two" else 2)
        if comm.survives and comm.size < least and place == "data":
            if comm.leads:
                time.sleep(_PATIENCE)
            self._now = None
        elif fault.place in (place, "step") and fault.rank % comm.size == comm.rank:
            self._now = None
            self._happen(number, fault)

    def _happen(self, number: int, fault: Fault) -> None:
        pid, comm = os.getpid(), self._comm
        if not self._marks.set(number, pid, self._step, comm.size):
            return
        if fault.kind == "kill":
            die_after(fault.amount)
        elif fault.kind in ("two", "all"):
            next_one = (comm.rank + 1) % comm.size
            for rank in range(comm.size) if fault.kind == "all" else [next_one]:
                if rank != comm.rank:
                    path = self._marks.place / f"pid-{comm.slots[rank]}"
                    os.kill(int(path.read_text()), signal.SIGKILL)
            die_after(fault.amount)
        elif fault.kind in ("stop", "freeze"):
            os.kill(pid, signal.SIGSTOP)
        elif fault.kind == "link":
            cut_link(fault.amount)
        elif fault.kind == "clock":
            self._jump(fault.amount)
        elif fault.kind in _SIGNALS:
            os.kill(pid, _SIGNALS[fault.kind])
        else:
            launcher = self._marks.launcher()
            kind = fault.kind.removesuffix("-launcher")
            os.kill(launcher, _SIGNALS.get(kind, signal.SIGKILL))

    def _jump(self, seconds: int) -> None:
        """Set this process's clock, not that of timers."""
        real = time.time
        time.time = lambda: real() + seconds  # type: ignore[assignment]

    # What happens to the disk.

    def _on_disk(self, step: int, number: int) -> None:
        if self._now is None:
            return
        which, fault = self._now
        if fault.place != "disk" or step < fault.step or number <= fault.amount:
            return
        comm = self._comm
        if fault.rank % comm.size != comm.rank or not self._marks.set(
            which, os.getpid(), step, comm.size
        ):
            return
        self._now = None
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "power":
            # All end at once.
            os.kill(self._marks.launcher(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, fault.kind.upper())
        raise OSError(code, os.strerror(code))
