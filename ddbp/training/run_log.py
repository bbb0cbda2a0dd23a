"""What rank 0 writes of a run while it goes on, for those who watch it: `steps.jsonl` and
`status.json` in the run folder.
"""

import json
import math
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddbp import files
from ddbp.comm import processes
from ddbp.terminal import json_text
from layers.kernels.cache_folder import opened

from .signals import RunSaved

if TYPE_CHECKING:
    from .trainer import Trainer

_STATUS = "status.json"
_PER_OCTAVE = 9
"""Of steps 2^k to 2^(k + 1) so many binary digits are told apart: 512 lines, all steps before."""
_LINE = '{"step": %d, "loss": %r, "low": %r, "high": %r, "learning_rate": %r, "time": %.3f}\n'
"""As `json_line` would write it, in a tenth of the time."""
_INTERVAL = 1.0
"""Seconds from one writing to the next."""


def is_noted(step: int) -> bool:
    """Return whether a step ends a line of `steps.jsonl`, of which there are 512 for each doubling
    of the steps.
    """
    return not step & ((1 << max(0, step.bit_length() - 1 - _PER_OCTAVE)) - 1)


def status(folder: Path) -> str | None:
    """Return what `status.json` in a run folder says of its run, None if there is none."""
    try:
        with opened(folder / _STATUS) as file:
            facts = json.load(file)
    except (OSError, RecursionError, ValueError):
        return None
    return str(facts.get("status")) if isinstance(facts, dict) else None


def keep_steps(path: Path, steps: range) -> None:
    """Have a file of lines of JSON hold those of these steps only: the others come again."""
    kept: list[bytes] = []
    with suppress(OSError), opened(path) as file:
        lines = file.readall().splitlines(keepends=True) if steps else []
        kept = [line for line in lines if _step_of(line) in steps]
    with suppress(OSError), files.whole(path) as place:
        place.write_bytes(b"".join(kept))


class RunLog:
    """Writes a line for each step to `steps.jsonl`, of later ones for every second, fourth, …, and
    to `status.json` how far the run is and how it ended. What cannot be written is left out.

    Parameters
    ----------
    folder
        That of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._status: dict[str, Any] = {}
        self._lines: list[str] = []
        self._written = -math.inf
        self._steps_per_epoch = 0
        self._begin_line()

    def _begin_line(self) -> None:
        self._losses = 0
        self._total = 0.0
        self._low = math.inf
        self._high = -math.inf

    def begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        """Begin with a fit, or go on with it."""
        self._steps_per_epoch = steps_per_epoch
        before = trainer.epoch - len(trainer.history)
        self._status = {"status": "running", "started": _now(), "epochs": before + epochs}
        self._expect(trainer)
        self._start(trainer)

    def _expect(self, trainer: "Trainer") -> None:
        """Note how far the run is, and how many steps it will have."""
        left = self._status["epochs"] - trainer.epoch
        steps = trainer.step_count + left * self._steps_per_epoch
        self._status |= {"epoch": trainer.epoch, "step": trainer.step_count, "steps": steps}

    def _start(self, trainer: "Trainer") -> None:
        process = os.getpid()
        born = processes.start_of(process)
        self._status |= {"host": socket.gethostname(), "process": process, "born": born}
        self._lines.clear()
        self._begin_line()
        if trainer.comm.leads:
            keep_steps(self._path, range(1, trainer.step_count + 1))
            self._write_status()

    def follow(self, trainer: "Trainer") -> None:
        """Go on with other ranks, perhaps on this one."""
        if self._status:
            self._start(trainer)

    @property
    def _path(self) -> Path:
        return self._folder / "steps.jsonl"

    def note_step(self, trainer: "Trainer", step: int, loss: float) -> None:
        """Note a step and its loss."""
        if not (self._status and trainer.comm.leads):
            return
        self._status["step"] = step
        self._losses += 1
        self._total += loss
        self._low = min(self._low, loss)
        self._high = max(self._high, loss)
        if not is_noted(step):
            return
        numbers = (self._total / self._losses, self._low, self._high, trainer.optimizer.rate)
        line = _LINE % (step, *map(float, numbers), time.time())
        self._begin_line()
        for number in ("nan", "-inf", "inf"):
            line = line.replace(number, "null")
        self._lines.append(line)
        if time.monotonic() - self._written > _INTERVAL:
            self._flush()

    def flush(self) -> None:
        """Write the lines of all steps so far: a state that is being taken has them."""
        if self._lines:
            self._flush()

    def _flush(self) -> None:
        self._written = time.monotonic()
        with suppress(OSError):
            with self._path.open("a") as file:
                file.writelines(self._lines)
            self._lines.clear()
        self._write_status()

    def note_epoch(self, trainer: "Trainer") -> None:
        """Note that an epoch is over."""
        if self._status and trainer.comm.leads:
            self._expect(trainer)
            if time.monotonic() - self._written > _INTERVAL:
                self._flush()

    def end(self, trainer: "Trainer", error: BaseException | None = None) -> None:
        """Come to the end of the fit, or to what ends it early."""
        if self._status and trainer.comm.leads:
            if error is None:
                self._status["status"] = "finished"
                self._status["parameters_sha256"] = trainer.parameters_sha256()
            elif isinstance(error, Exception):
                self._status["status"] = "failed"
                self._status["error"] = f"{type(error).__name__}: {error}"
            else:
                saved = isinstance(error, RunSaved)
                self._status["status"] = "saved" if saved else "interrupted"
            self._status |= {"step": trainer.step_count, "ended": _now()}
            self._flush()
        self._status = {}

    def _write_status(self) -> None:
        self._status["written"] = _now()
        with suppress(OSError), files.whole(self._folder / _STATUS) as place:
            place.write_text(json_text(self._status, indent=2) + "\n")


def _step_of(line: bytes) -> int:
    """Return the step of a line, -1 of one that is not whole."""
    try:
        step = json.loads(line)["step"]
    except (LookupError, RecursionError, TypeError, ValueError):
        return -1
    return step if type(step) is int and line.endswith(b"\n") else -1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
