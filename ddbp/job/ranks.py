"""Ranks that are processes of this one: what they print is passed on at once, and they end with it,
with the first of them that fails, and when it is interrupted.
"""

import codecs
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddbp import files, settings, terminal
from ddbp.comm import shared_memory
from ddbp.comm.abort import SAVED
from ddbp.comm.cores import bind, places, usable_cores
from ddbp.comm.members import Members
from ddbp.comm.rank_process import tied
from ddbp.observers import rank_status
from layers.errors import message

from .deaths import Memory, cause, stack
from .signals import put_off

_GRACE = 25.0
"""Seconds that ranks get to save when the job is interrupted."""
_LOOK = 0.05
"""Seconds between looks at processes."""
_PIECE = 1 << 16
_MUST = "all ranks must come to the end"


class RankError(RuntimeError):
    """A rank that `Trainer.fit(ranks=…)` has started has failed, and the job has ended.

    Attributes
    ----------
    rank
        Which one.
    kind
        The name of the class of its exception, "" if it was killed or has left.
    trace
        Its traceback.
    """

    def __init__(self, text: str, rank: int, kind: str = "", trace: str = "") -> None:
        super().__init__(f"{text}\n\n{trace}".rstrip())
        self.rank = rank
        self.kind = kind
        self.trace = trace


def note_error(folder: Path, rank: int, error: BaseException) -> None:
    """Write the exception of a rank to the folder of its job, where the process finds it that has
    started it.
    """
    found = {
        "time": time.monotonic(),
        "kind": type(error).__name__,
        "text": str(error),
        "trace": "".join(traceback.format_exception(error)),
    }
    with files.whole(folder / f"error-{rank}.json") as place:
        place.write_text(json.dumps(found), encoding="utf-8")


class Job:
    """Ranks that run a command; it ends when one fails.

    Parameters
    ----------
    owner
        Who says what has happened.
    command
        What each rank runs.
    folder
        Where they keep their status, and their exceptions.
    ranks
        How many there are.
    hear
        Called with each line that rank 0 tells of how far training is.

    Attributes
    ----------
    saved
        Whether ranks have saved what they had when they were asked to end.
    """

    def __init__(
        self,
        owner: str,
        command: Sequence[str],
        folder: Path,
        ranks: int,
        hear: Callable[[str], None],
    ) -> None:
        self._owner = owner
        self._folder = folder
        self._ranks = ranks
        self._hear = hear
        self._command = tied(command)
        self._members = Members.create(ranks, ranks)
        self._memory = Memory()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._streams = selectors.DefaultSelector()
        self.saved = False

    def run(self) -> None:
        """Return when all ranks have come to their end.

        Raises
        ------
        RankError
            One has failed.
        KeyboardInterrupt
            This process was interrupted; the ranks that could have saved what they had.
        """
        try:
            self._start()
            while self._running:
                self._pass_on(_LOOK)
                self._look()
            self._drain()
        except Exception:
            raise
        except BaseException:
            self._stop()
            raise
        finally:
            self._end()

    def _start(self) -> None:
        pipes = [os.pipe() for _ in range(3)]
        readers, (printed, said, told) = ([pipe[end] for pipe in pipes] for end in (0, 1))
        environ = settings.environment_of_job(**{settings.STATUS: str(self._folder)})
        environ[settings.PROGRESS] = str(told)
        try:
            self._read(readers)
            cores = places(self._ranks, usable_cores() if settings.binds(environ) else [])
            descriptor = self._members.descriptor
            for rank, processors in enumerate(cores):
                with put_off(signal.SIGINT):
                    process = subprocess.Popen(
                        self._command,
                        stdin=subprocess.DEVNULL,
                        stdout=printed,
                        stderr=said,
                        pass_fds=[descriptor, told],
                        env={**environ, settings.JOB: f"{descriptor} {self._ranks} {rank}"},
                        # What interrupts this process is passed on once.
                        start_new_session=True,
                    )
                    self._processes[rank] = self._running[rank] = process
                self._members.register(rank, process.pid)
                bind(process.pid, processors)
        finally:
            for descriptor in (printed, said, told):
                os.close(descriptor)

    # What they say

    def _read(self, readers: Sequence[int]) -> None:
        """Have what comes from descriptors passed on: to standard output and error as it is now,
        which in a notebook is that of the cell, and line by line to who hears of progress.
        """
        rest = [""]

        def hear(text: str) -> None:
            *lines, rest[0] = (rest[0] + text).split("\n")
            for line in lines:
                self._hear(line)

        for reader, take in zip(readers, (_write_out, terminal.write, hear), strict=True):
            os.set_blocking(reader, False)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._streams.register(reader, selectors.EVENT_READ, (decoder, take))

    def _pass_on(self, seconds: float) -> bool:
        """Pass on what has come, for which this waits so long; return whether there was any."""
        if not self._streams.get_map():
            time.sleep(seconds)
        found = self._streams.select(seconds)
        for key, _ in found:
            decoder, take = key.data
            try:
                piece = os.read(key.fd, _PIECE)
            except BlockingIOError:
                continue
            if text := decoder.decode(piece, final=not piece):
                take(text)
            if not piece:
                self._streams.unregister(key.fd)
                os.close(key.fd)
        return bool(found)

    def _drain(self) -> None:
        """Pass on what is left: processes that ranks have started may hold the other ends."""
        while self._streams.get_map() and self._pass_on(0):
            pass

    # How they end

    def _look(self) -> None:
        """See which processes have ended, and raise if one has failed."""
        statuses = self._ended()
        self.saved |= SAVED in statuses.values()
        if any(status not in (0, SAVED) for status in statuses.values()):
            # Whoever has failed as another was killed may have been looked at after that one.
            statuses |= self._ended()
            self._kill()
            self._drain()
            raise self._error(statuses)

    def _ended(self) -> dict[int, int]:
        """Return the statuses of processes that have ended since this was asked last."""
        ended = [rank for rank, each in self._running.items() if each.poll() is not None]
        return {rank: self._running.pop(rank).returncode for rank in ended}

    def _error(self, statuses: dict[int, int]) -> RankError:
        """Return what is to be said of ranks that have ended with these statuses."""
        for rank, status in statuses.items():
            if status < 0:
                # Others may have seen that, and failed for it.
                found = rank_status.read(self._folder, rank)
                where = found.where if found else rank_status.BEFORE_TRAINER
                how = (found.killed if found else "") or cause(-status, self._memory)
                got = f"rank {rank} of {self._ranks}, which died {where}: {how}"
                lines = "\n".join(stack(found.fault if found else ""))
                return RankError(self._said(got, "Checkpoints are kept."), rank, trace=lines)
        errors = [(noted["time"], rank, noted) for rank, noted in self._noted()]
        if errors:
            _, rank, noted = min(errors, key=lambda each: each[:2])
            kind, text = noted["kind"], noted["text"]
            got = f"{kind} on rank {rank} of {self._ranks}: {text}".rstrip(".: ")
            said = self._said(got, "See the traceback of the rank below.")
            return RankError(said, rank, kind, noted["trace"])
        rank, status = next((rank, status) for rank, status in statuses.items() if status)
        found = rank_status.read(self._folder, rank)
        stalled = bool(found and found.stalled)
        how = "which stalled" if stalled else f"which left with status {status}"
        got = f"rank {rank} of {self._ranks}, {how}"
        return RankError(self._said(got, "See above what it has said."), rank)

    def _said(self, got: str, fix: str) -> str:
        return message(self._owner, _MUST, got, fix)

    def _noted(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the exceptions that ranks have noted."""
        found = []
        for rank in range(self._ranks):
            with suppress(OSError):
                text = files.read_text(self._folder / f"error-{rank}.json")
                found.append((rank, json.loads(text)))
        return found

    def _stop(self) -> None:
        """Have all ranks end, which may save."""
        self._send(signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while self._running and time.monotonic() < until:
            self._pass_on(_LOOK)
            for rank, process in [*self._running.items()]:
                if process.poll() is not None:
                    self.saved |= process.returncode == SAVED
                    del self._running[rank]
        self._drain()

    def _send(self, number: int) -> None:
        for process in self._running.values():
            process.send_signal(number)

    def _kill(self) -> None:
        self._send(signal.SIGKILL)
        while self._running:
            self._running.popitem()[1].wait()

    def _end(self) -> None:
        self._kill()
        for process in self._processes.values():
            shared_memory.remove_files_of(process.pid)
        for key in [*self._streams.get_map().values()]:
            self._streams.unregister(key.fd)
            os.close(key.fd)
        self._streams.close()
        os.close(self._members.descriptor)


def _write_out(text: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()
