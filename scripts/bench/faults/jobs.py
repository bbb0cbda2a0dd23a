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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import training
from .damage import cut_power
from .inject import Marks
from .plan import SAVED_BY, Fault, Job

SAVED = 75
LIMIT = 240.0
"""Seconds that a job may take between two faults, or hangs."""
_LOOK = 0.01
_SAID = {
    "eio": "the folder of checkpoints must take what is written",
    "enospc": "the folder of checkpoints must take what is written",
    "other": "the same on all ranks|ranks must|must be the same|different",
    "damage": "is taken",
}
"""What must be said of faults that are no plain deaths."""


@dataclass
class Outcome:
    """What came of a job.

    Attributes
    ----------
    verdict
        "same bits", or what is wrong: "WRONG", "HANG", "LOST CHECKPOINT", "ERROR", "UNCLEAR".
    happened
        The faults that have happened.
    starts
        How often processes were started.
    seconds
        How long it took.
    detail
        What is known where it went wrong.
    """

    verdict: str = ""
    happened: list[Fault] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    detail: str = ""


class Wrong(Exception):
    """A job has come to a bad end: verdict and details."""


class Runner:
    """Runs jobs in a folder.

    Parameters
    ----------
    folder
        Where their folders are; those that come to a good end are removed.
    limit
        Seconds after which a job hangs.
    """

    def __init__(self, folder: Path, limit: float = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._expected: dict[int, dict[str, Any]] = {}
        self._number = 0

    def expected(self, epochs: int) -> dict[str, Any]:
        """Return what an undisturbed run of so many epochs writes, on one rank."""
        if epochs not in self._expected:
            job = Job("alone", 1, (Fault("none", "nowhere", 0, 5 * (epochs - 3)),))
            marks = self._place(job)
            marks.set(0, "void")
            status = _reaped(_forked(marks), time.monotonic() + self.limit, marks)
            if status:
                raise RuntimeError(f"the undisturbed run ended with the status {status}")
            self._expected[epochs] = json.loads((marks.place / "result.json").read_text())
            shutil.rmtree(marks.place)
        return self._expected[epochs]

    def disk_calls(self, ranks: int) -> list[int]:
        """Return how many calls change the disk in a checkpoint, the least of all, of each rank."""
        if ranks == 1:
            return [_least(self.expected(5)["disk"])]
        marks = self._place(Job("restart", ranks, ()))
        launch = _Launch(marks)
        status = launch.end(time.monotonic() + self.limit)
        if status:
            raise RuntimeError(f"the undisturbed run ended with the status {status}")
        others = [
            json.loads((marks.place / f"calls-{r}.json").read_text()) for r in range(1, ranks)
        ]
        own = json.loads((marks.place / "result.json").read_text())["disk"]
        shutil.rmtree(marks.place)
        return [_least(each) for each in (own, *others)]

    def _place(self, job: Job) -> Marks:
        self._number += 1
        place = self.folder / f"job-{self._number:04d}"
        place.mkdir(parents=True)
        (place / "job").write_text(str(job))
        return Marks(place, job)

    def run(self, job: Job) -> Outcome:
        """Run a job to its end, again and again if need be."""
        expected = self.expected(training.epochs(job))
        marks = self._place(job)
        outcome = Outcome()
        began = time.monotonic()
        try:
            self._run_to_end(marks, outcome)
            self._compare(marks, expected)
            outcome.verdict = "same bits"
        except Wrong as wrong:
            outcome.verdict, outcome.detail = wrong.args
            with suppress(OSError):
                log = (marks.place / "log").read_text(errors="replace")
                outcome.detail += f"\n{log[-3000:]}"
        outcome.seconds = time.monotonic() - began
        for number, fault in enumerate(job.faults):
            path = marks.path(number)
            if path.exists() and path.read_text() != "void":
                outcome.happened.append(fault)
        if outcome.verdict == "same bits":
            shutil.rmtree(marks.place, ignore_errors=True)
        return outcome

    def _run_to_end(self, marks: Marks, outcome: Outcome) -> None:
        """Start the job until it has come to its end."""
        rng = random.Random(str(marks.job))
        for _ in range(3 * len(marks.job.faults) + 3):
            outcome.starts += 1
            until = time.monotonic() + self.limit
            before = marks.next()
            if marks.job.mode == "alone":
                pid = _forked(marks)
                status = _reaped(pid, until, marks)
            else:
                status = _Launch(marks).end(until)
            if status is None:
                raise Wrong("HANG", f"it had not ended after {self.limit:.0f} s")
            self._require_kept(marks)
            if status == 0:
                return
            happened = _since(marks, before)
            kinds = [each.kind for each in happened]
            if not happened:
                raise Wrong("ERROR", f"status {status} without a fault")
            if "power" in kinds:
                cut_power(marks.place / "disk", rng)
            asked = any(each in SAVED_BY for each in kinds)
            if status == SAVED and not asked:
                raise Wrong("ERROR", "it was saved, and nobody had asked for that")
        raise Wrong("ERROR", "it does not get further")

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
                    raise Wrong("LOST CHECKPOINT", got)
                elif not made and int(step):
                    made[int(step)] = None

    def _compare(self, marks: Marks, expected: dict[str, Any]) -> None:
        place = marks.place
        try:
            found = json.loads((place / "result.json").read_text())
        except (OSError, ValueError) as error:
            raise Wrong("ERROR", f"status 0 without a result: {error}") from error
        for name in ("sha256", "history"):
            if found[name] != expected[name]:
                raise Wrong("WRONG", f"{name}: {found[name]} instead of {expected[name]}")
        lines = (place / "run" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        timeless = [{k: v for k, v in each.items() if "second" not in k} for each in records]
        if timeless != expected["history"]:
            raise Wrong("WRONG", f"metrics.jsonl: {timeless} instead of {expected['history']}")
        left = [path.name for path in (place / "run" / "checkpoints").glob(".*")]
        del left
        log = (place / "log").read_text(errors="replace")
        for number, fault in enumerate(marks.job.faults):
            path = marks.path(number)
            if not path.exists():
                continue
            said = _SAID.get(fault.kind)
            if said and path.read_text() != "void" and not re.search(said, log):
                raise Wrong("UNCLEAR", f"nothing was said of {fault}")


def _since(marks: Marks, before: tuple[int, Fault] | None) -> list[Fault]:
    """Return the faults that have happened since one was the next."""
    if before is None:
        return []
    first, after = before[0], marks.next()
    return list(marks.job.faults[first : None if after is None else after[0]])


def _least(calls: dict[str, int]) -> int:
    """Return the least number of calls in a checkpoint; what comes before the first is not one."""
    return min(number for step, number in calls.items() if int(step) >= 0)


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
        (marks.place / "launcher").write_text(str(os.getpid()))
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


def _reaped(pid: int, until: float, marks: Marks) -> int | None:
    """Return the status of a child when it has ended, None if it hangs."""

    def poll() -> int | None:
        found, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if found else None

    status = _awaited(poll, until, marks)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return status


def _awaited(poll: Callable[[], int | None], until: float, marks: Marks) -> int | None:
    """Return what `poll` tells, having what was stopped go on in its time."""
    woken: set[int] = set()
    stops = [n for n, each in enumerate(marks.job.faults) if each.kind == "stop"]
    while (status := poll()) is None:
        if time.monotonic() > until:
            return None
        for number in stops:
            if number in woken or not marks.path(number).exists():
                continue
            words = marks.path(number).read_text().split()
            if not words or words[0] == "void":
                continue
            age = time.time() - marks.path(number).stat().st_mtime
            if age * 1000 >= marks.job.faults[number].amount:
                woken.add(number)
                with suppress(ProcessLookupError):
                    os.kill(int(words[0]), signal.SIGCONT)
        time.sleep(_LOOK)
    return status


class _Launch:
    """`ddbp launch` of a job.

    Parameters
    ----------
    marks
        The job.
    """

    def __init__(self, marks: Marks) -> None:
        job = marks.job
        self._marks = marks
        options = ["-n", str(job.ranks), "--max-restarts", str(len(job.faults) + 1)]
        options += ["--survive"] if job.mode == "survive" else []
        freezes = any(each.kind == "freeze" for each in job.faults)
        bench = Path(__file__).parents[1]
        paths = [str(bench), str(bench.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DDBP_TIMEOUT": "10" if freezes else "100",
            "DDBP_RESUME": "1",
        }
        command = [sys.executable, "-m", "ddbp", "launch", *options, training.__file__]
        with (marks.place / "log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, str(marks.place)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        (marks.place / "launcher").write_text(str(self._process.pid))

    def end(self, until: float) -> int | None:
        """Return its exit status when it and all ranks have ended, None if one of them hangs."""
        status = _awaited(self._process.poll, until, self._marks)
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

    def _left(self) -> list[int]:
        """Return the processes of its session, but for itself."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == self._process.pid:
                    found.append(int(stat.parent.name))
        return [pid for pid in found if pid != self._process.pid]
