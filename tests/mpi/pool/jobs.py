"""Live MPI jobs that run programs one after the other: a job starts Python and MPI, imports and
loads kernels once.

A program that fails on one of several ranks ends its job, since the others may wait for ever; the
next program begins a new one. Programs that kill ranks, or that need a process of their own, are no
case for a pool.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

RANK = Path(__file__).with_name("rank.py")
# Seconds that ranks have to start, and to end.
START, END = 600.0, 30.0
# Ranks that live at the same time, each with the memory of a process; those of the layouts that
# many tests share are 25.
MOST = 32
# Read when a trainer is made, all others when a job starts.
OF_TRAINERS = ("DDBP_BUCKET", "DDBP_WHOLE_HOSTS")


class Answer(NamedTuple):
    """What the ranks of a job have said of a program: whether one failed, and what they printed,
    rank by rank.
    """

    failed: bool
    out: str
    err: str


class Job:
    """A running job: `command` starts so many ranks of the script that comes after it."""

    def __init__(self, command: Sequence[object], ranks: int, environment: dict[str, str]) -> None:
        self.ranks = ranks
        self._folder = tempfile.TemporaryDirectory(prefix="pool-")
        self._log = Path(self._folder.name, "log")
        self._connections: dict[int, tuple[socket.socket, Any]] = {}
        path = str(Path(self._folder.name, "socket"))
        with socket.socket(socket.AF_UNIX) as door, self._log.open("wb") as log:
            door.bind(path)
            door.listen(ranks)
            door.settimeout(START)
            self._process = subprocess.Popen(
                [*map(str, command), str(RANK), path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            try:
                for _ in range(ranks):
                    connection, _ = door.accept()
                    connection.settimeout(START)
                    lines = connection.makefile("rw")
                    self._connections[int(lines.readline())] = connection, lines
            except (TimeoutError, ValueError):
                said = self.log()
                self.kill()
                raise RuntimeError(f"ranks did not start\n{said}") from None

    def run(
        self, program: Path, arguments: Sequence[str], environment: dict[str, str], timeout: float
    ) -> Answer:
        """Run a program on all ranks; raise TimeoutError after so many seconds."""
        deadline = time.monotonic() + timeout
        request = {"program": str(program), "arguments": arguments, "environment": environment}
        for _, lines in self._connections.values():
            print(json.dumps(request), file=lines, flush=True)
        said: dict[int, dict[str, Any]] = {}
        waiting = {connection: rank for rank, (connection, _) in self._connections.items()}
        while waiting and not any(answer["failed"] for answer in said.values()):
            ready, _, _ = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(
                    f"{program.name} on {self.ranks} ranks ran past its limit of {timeout:g} s;"
                    f" ranks {sorted(waiting.values())} still run"
                )
            for connection in ready:
                rank = waiting.pop(connection)
                line = self._connections[rank][1].readline()
                said[rank] = json.loads(line or json.dumps(self._ended(rank)))
        answers = [said[rank] for rank in sorted(said)]
        return Answer(
            any(answer["failed"] for answer in answers),
            "".join(answer["out"] for answer in answers),
            "".join(answer["err"] for answer in answers),
        )

    def _ended(self, rank: int) -> dict[str, object]:
        return {"failed": True, "out": "", "err": f"rank {rank} has ended\n{self.log()}"}

    def log(self) -> str:
        """Return what launcher and ranks have printed outside of programs."""
        return self._log.read_text(errors="replace")

    def leave(self) -> None:
        """Let the ranks end by themselves; `end` waits for them."""
        for connection, lines in self._connections.values():
            with suppress(OSError):
                lines.close()
            connection.close()

    def end(self) -> None:
        """Wait for the end of the ranks, but not for ever."""
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self.kill()
        self._folder.cleanup()

    def kill(self) -> None:
        """End launcher and ranks at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.leave()
        self._folder.cleanup()


class Pool:
    """One job for each layout: a number of ranks, and the environment that they start in.

    `launcher` gives the command that starts so many ranks of a script in an environment;
    `environment` what a process gets.
    """

    def __init__(
        self,
        launcher: Callable[[int, dict[str, str]], Sequence[object]],
        environment: Callable[[dict[str, str]], dict[str, str]],
    ) -> None:
        self._launcher, self._environment = launcher, environment
        # The last one used comes last.
        self._jobs: dict[tuple[object, ...], Job] = {}

    def run(
        self,
        ranks: int,
        program: Path,
        arguments: Sequence[object],
        environment: dict[str, str],
        timeout: float,
    ) -> Answer:
        """Run a program on ranks, or without MPI on 0 of them."""
        of_trainers = {name: text for name, text in environment.items() if name in OF_TRAINERS}
        at_start = {name: text for name, text in environment.items() if name not in OF_TRAINERS}
        layout = (ranks, *sorted(at_start.items()))
        job = self._jobs.pop(layout, None) or self._start(ranks, at_start)
        try:
            answer = job.run(program, [*map(str, arguments)], of_trainers, timeout)
        except BaseException:
            job.kill()
            raise
        if answer.failed and ranks > 1:
            job.kill()
        else:
            self._jobs[layout] = job
        return answer

    def _start(self, ranks: int, environment: dict[str, str]) -> Job:
        while self._jobs and sum(job.ranks for job in self._jobs.values()) + ranks > MOST:
            oldest = self._jobs.pop(next(iter(self._jobs)))
            oldest.leave()
            oldest.end()
        command = self._launcher(ranks, environment) if ranks else [sys.executable]
        return Job(command, max(1, ranks), self._environment(environment))

    def end(self) -> None:
        """End all jobs."""
        for job in self._jobs.values():
            job.leave()
        for job in self._jobs.values():
            job.end()
        self._jobs = {}
