"""Runs jobs and says what came of them."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddbp.commands.launch import find_mpiexec
from ddbp.observers.watchdog import state_of

from . import training
from .damage import cut_power
from .inject import Marks
from .plan import SAVED_BY, TIMEOUT, Fault, Job

SAVED = 75
LIMIT = 180.0
"""Seconds that a job may take from one fault or start to the next one, or hangs."""
_LOOK = 0.02
_LOST = "ddbp.comm.base.CommunicationError"
_SAID = {
    "eio": "the folder of checkpoints must take what is written",
    "enospc": "the folder of checkpoints must take what is written",
    "other": "the same on all ranks|ranks must|must be the same|different",
    "damage": "is taken",
    "full": "must have room|No space left",
}
"""What must be said of faults that are no plain deaths."""


@dataclass
class Outcome:
    """What came of a job.

    Attributes
    ----------
    verdict
        "same bits", or what is wrong: "WRONG", "HANG", "LOST CHECKPOINT", "ERROR", "UNCLEAR".
    happened, missed
        The faults that have happened, and those that have not, as nothing was there that they could
        happen to.
    starts
        How often processes were started.
    seconds
        How long it took.
    detail
        What is known where it went wrong.
    """

    verdict: str = ""
    happened: list[Fault] = field(default_factory=list)
    missed: list[Fault] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    detail: str = ""


class WrongError(Exception):
    """A job has come to a bad end: verdict and details."""


class Runner:
    """Runs jobs in a folder.

    Parameters
    ----------
    folder
        Where their folders are; those that come to a good end are removed.
    limit
        Seconds from one fault or start to the next, after which a job hangs.
    """

    def __init__(self, folder: Path, limit: float = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._expected: dict[tuple[int, str], dict[str, Any]] = {}
        self._number = 0

    def expected(self, epochs: int, way: str = "") -> dict[str, Any]:
        """Return what an undisturbed run of so many epochs writes, on one rank."""
        if (epochs, way) not in self._expected:
            job = Job("alone", 1, (), way=way)
            last = Fault("none", "nowhere", 0, job.steps_per_epoch * (epochs - 3))
            job = job._replace(faults=(last,))
            marks = self._place(job)
            marks.set(0, "void")
            status = _reaped(_forked(marks), self.limit, marks)
            if status:
                log = (marks.place / "log").read_text(errors="replace")
                raise RuntimeError(f"the undisturbed run ended with the status {status}: {log}")
            self._expected[epochs, way] = json.loads((marks.place / "result.json").read_text())
            shutil.rmtree(marks.place)
        return self._expected[epochs, way]

    def disk_calls(self, ranks: int) -> list[int]:
        """Return how many calls change the disk in a checkpoint, at most, of each rank."""
        if ranks == 1:
            return [max(self.expected(5)["disk"][1:])]
        marks = self._place(Job("restart", ranks, ()))
        launch = _Launch(marks)
        status = launch.end(self.limit)
        if status:
            raise RuntimeError(f"the undisturbed run ended with the status {status}")
        names = ["result", *(f"calls-{rank}" for rank in range(1, ranks))]
        found = [json.loads((marks.place / f"{name}.json").read_text()) for name in names]
        shutil.rmtree(marks.place)
        return [max(each["disk"][1:]) for each in found]

    def _place(self, job: Job) -> Marks:
        self._number += 1
        place = self.folder / f"job-{self._number:04d}"
        place.mkdir(parents=True)
        (place / "job").write_text(str(job))
        return Marks(place, job)

    def run(self, job: Job) -> Outcome:
        """Run a job to its end, again and again if need be."""
        expected = self.expected(training.epochs(job), job.way)
        marks = self._place(job)
        outcome = Outcome()
        began = time.monotonic()
        try:
            self._run_to_end(marks, outcome)
            self._compare(marks, expected)
            outcome.verdict = "same bits"
        except (WrongError, OSError, ValueError, subprocess.SubprocessError) as wrong:
            known = isinstance(wrong, WrongError)
            outcome.verdict, outcome.detail = wrong.args if known else ("ERROR", repr(wrong))
            with suppress(OSError):
                log = (marks.place / "log").read_text(errors="replace")
                outcome.detail += f"\n{log[-3000:]}"
        outcome.seconds = time.monotonic() - began
        for number, fault in enumerate(job.faults):
            path = marks.path(number)
            came = path.exists() and path.read_text() != "void"
            (outcome.happened if came else outcome.missed).append(fault)
        if outcome.verdict == "same bits":
            shutil.rmtree(marks.place, ignore_errors=True)
        return outcome

    def _run_to_end(self, marks: Marks, outcome: Outcome) -> None:
        """Start the job until it has come to its end."""
        rng = random.Random(str(marks.job))
        for _ in range(3 * len(marks.job.faults) + 3):
            outcome.starts += 1
            before = marks.next()
            space = Space(marks, before)
            if marks.job.mode == "alone":
                pid = _forked(marks)
                status = _reaped(pid, self.limit, marks)
            else:
                status = _Launch(marks, space.prefix, full=space.little).end(self.limit)
            space.free()
            if status is None:
                raise WrongError("HANG", f"nothing came after {self.limit:.0f} s")
            self._require_kept(marks)
            if status == 0:
                return
            happened = _since(marks, before)
            kinds = [each.kind for each in happened]
            if not happened:
                raise WrongError("ERROR", f"status {status} without a fault")
            if "power" in kinds:
                cut_power(marks.place / "disk", rng)
            asked = any(each in SAVED_BY for each in kinds)
            if status == SAVED and not asked:
                raise WrongError("ERROR", "it was saved, and nobody had asked for that")
        raise WrongError("ERROR", "it does not get further")

    def _require_kept(self, marks: Marks) -> None:
        """Find checkpoints that were made and are not taken."""
        made: dict[int, None] = {}
        with suppress(FileNotFoundError):
            for line in (marks.place / "ledger").read_text().splitlines():
                word, step = line.split()
                if word == "made":
                    made[int(step)] = None
                elif word == "damaged":
                    made.pop(int(step), None)
                elif made and int(step) < max(made):
                    got = f"{step} was taken, and there had been {max(made)}"
                    raise WrongError("LOST CHECKPOINT", got)
                elif not made and int(step):
                    made[int(step)] = None

    def _compare(self, marks: Marks, expected: dict[str, Any]) -> None:
        place = marks.place
        try:
            found = json.loads((place / "result.json").read_text())
        except (OSError, ValueError) as error:
            raise WrongError("ERROR", f"status 0 without a result: {error}") from error
        for name in ("sha256", "history"):
            if found[name] != expected[name]:
                raise WrongError("WRONG", f"{name}: {found[name]} instead of {expected[name]}")
        lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        timeless = [{k: v for k, v in each.items() if "second" not in k} for each in records]
        if timeless != expected["history"]:
            raise WrongError("WRONG", f"metrics.jsonl: {timeless} instead of {expected['history']}")
        log = (place / "log").read_text(errors="replace")
        for number, fault in enumerate(marks.job.faults):
            path = marks.path(number)
            if not path.exists():
                continue
            said = _SAID.get(fault.kind)
            if said and path.read_text() != "void" and not re.search(said, log):
                raise WrongError("UNCLEAR", f"nothing was said of {fault}")


def _since(marks: Marks, before: tuple[int, Fault] | None) -> list[Fault]:
    """Return the faults that have happened since one was the next."""
    if before is None:
        return []
    first, after = before[0], marks.next()
    return list(marks.job.faults[first : None if after is None else after[0]])


def _forked(marks: Marks) -> int:
    """Have a child of this process, which has all libraries, do the job alone; return its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        log = os.open(marks.place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        marks.launched_by(os.getpid())
        training.RANK = 0
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        begun, fault = training.start(marks.place)
        result = training.train(begun, fault)
        (marks.place / "result.json").write_text(json.dumps(result))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _reaped(pid: int, limit: float, marks: Marks) -> int | None:
    """Return the status of a child when it has ended, None if it hangs."""

    def poll() -> int | None:
        found, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if found else None

    status = _awaited(poll, limit, marks)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return status


def _awaited(poll: Callable[[], int | None], limit: float, marks: Marks) -> int | None:
    """Return what `poll` tells, having what was stopped go on in its time."""
    woken: set[int] = set()
    next_one, until = marks.next(), time.monotonic() + limit
    stops = [n for n, each in enumerate(marks.job.faults) if each.kind == "stop"]
    while (status := poll()) is None:
        if next_one != (now := marks.next()):
            next_one, until = now, time.monotonic() + limit
        if time.monotonic() > until:
            return None
        for number in stops:
            if number in woken or not marks.path(number).exists():
                continue
            words = marks.path(number).read_text().split()
            if not words or words[0] == "void":
                continue
            age, pid = time.time() - marks.path(number).stat().st_mtime, int(words[0])
            # The mark comes before the stop.
            if age * 1000 >= marks.job.faults[number].amount and state_of(pid) in ("T", ""):
                woken.add(number)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        time.sleep(_LOOK)
    return status


class Space:
    """What there is of memory and disk for a start, little of it if that is what happens to it.

    Parameters
    ----------
    marks
        The job.
    fault
        What comes next.

    Attributes
    ----------
    prefix
        What the command begins with.
    little
        Whether there is little.
    """

    def __init__(self, marks: Marks, fault: tuple[int, Fault] | None) -> None:
        self.prefix: list[str] = []
        self.little = fault is not None and fault[1].kind == "full"
        self._mounted: Path | None = None
        if fault is None or fault[1].kind != "full":
            return
        if os.geteuid():
            marks.set(fault[0], "void")
            return
        marks.set(fault[0], "full")
        if fault[1].place == "/dev/shm":
            mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
            self.prefix = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
            return
        # The folder is moved to a disk that has room for half of a checkpoint.
        run = marks.place / "run"
        run.mkdir(exist_ok=True)
        small = marks.place / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", small], check=True)
        shutil.copytree(run, small, dirs_exist_ok=True)
        taken = sum(os.statvfs(small)[i] * sign for i, sign in ((2, 1), (3, -1))) * 4096
        options = f"remount,size={taken + 16384}"
        subprocess.run(["mount", "-o", options, small], check=True)
        run.rename(marks.place / "aside")
        run.mkdir()
        subprocess.run(["mount", "--move", small, run], check=True)
        self._mounted = run

    def free(self) -> None:
        """Have as much as there was before."""
        if self._mounted is None:
            return
        run, aside = self._mounted, self._mounted.with_name("aside")
        shutil.rmtree(aside)
        shutil.copytree(run, aside)
        subprocess.run(["umount", run], check=True)
        run.rmdir()
        aside.rename(run)
        run.with_name("small").rmdir()


class _Launch:
    """`ddbp launch` of a job.

    Parameters
    ----------
    marks
        The job.
    prefix
        What the command begins with.
    full
        Whether a restart would be in vain.
    """

    def __init__(self, marks: Marks, prefix: Sequence[str] = (), *, full: bool = False) -> None:
        job = marks.job
        self._marks = marks
        restarts = 1 if full else len(job.faults) + 1
        options = ["-n", str(job.ranks), "--max-restarts", str(restarts)]
        options += ["--survive"] if job.mode == "survive" else []
        freezes = any(
            each.kind == "freeze" or (each.kind == "link" and each.amount > 1000 * TIMEOUT)
            for each in job.faults
        )
        bench = Path(__file__).parents[1]
        paths = [str(bench), str(bench.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DDBP_TIMEOUT": str(TIMEOUT) if freezes else "100",
            "DDBP_RESUME": "1",
        }
        command = [*prefix, sys.executable, "-m", "ddbp", "launch", *options, training.__file__]
        if job.mode == "hosts":
            script = bench.parents[1] / "tests" / "mpi" / "programs" / "namespaces.sh"
            hosts = ["unshare", "--net", "--uts", "--mount", "sh", str(script), find_mpiexec()]
            command = [*hosts, str(marks.place), sys.executable, training.__file__]
            environment |= {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}
        # Of the launcher before this one.
        marks.launcher_path.unlink(missing_ok=True)
        with (marks.place / "log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, str(marks.place)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        marks.launched_by(self._process.pid)

    def end(self, limit: float) -> int | None:
        """Return its exit status when it and all ranks have ended, None if one of them hangs."""
        status = _awaited(self._poll, limit, self._marks)
        gone = time.monotonic() + 30
        while status is not None and (left := self._left()) and time.monotonic() < gone:
            time.sleep(_LOOK)
        if status is None or left:
            for pid in self._left():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            return None
        return status

    def _poll(self) -> int | None:
        """Return its exit status if it has ended; one that waits for a lost host, whose ranks have
        said so and ended, is ended.
        """
        place = self._marks.place
        if (
            self._marks.job.mode == "hosts"
            and _LOST in (place / "log").read_text(errors="replace")
            and time.time() - (place / "log").stat().st_mtime > 2 * TIMEOUT
        ):
            for pid in self._left():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.kill()
            (place / "log").write_text("")
        return self._process.poll()

    def _left(self) -> list[int]:
        """Return the processes of its session, but for itself."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == self._process.pid:
                    found.append(int(stat.parent.name))
        return [pid for pid in found if pid != self._process.pid]
