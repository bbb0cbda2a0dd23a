"""What rank 0 shows: one live line on a terminal or in a notebook, plain lines elsewhere, as in the
log of a batch system; or what it has another process show that has started it.
"""

import json
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from ddbp import settings, terminal

from .callbacks import Callback, Record
from .precision import slower, without_amx

if TYPE_CHECKING:
    from .trainer import Trainer


_INTERVAL = 60.0
"""Seconds after which there is a line of an epoch that goes on."""
_LIVE_INTERVAL = 0.1
"""Seconds from one state of a live line to the next."""


def summary(record: Record) -> str:
    """Return the line that describes an epoch."""
    numbers = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if name.endswith(("loss", "accuracy"))
    ]
    waited = record.get("data_seconds", 0.0) / max(record["seconds"], 1e-9)
    return (
        f"epoch {record['epoch']}: {', '.join(numbers)}, {record['samples_per_second']:,.0f}"
        " samples/s" + (f", {waited:.0%} of the time waiting for data" if waited >= 0.05 else "")
    )


class Display(Protocol):
    """What shows how far a fit is."""

    def begin(self, steps: int, done: int) -> None:
        """Begin with a fit of so many steps, some of which are done."""

    def step(self, epoch: int, step: int, loss: float, done: int) -> None:
        """Show a step, with which so many of the fit are done."""

    def epoch(self, record: Record) -> None:
        """Show the record of an epoch."""

    def end(self) -> None:
        """Come to the end of the fit, or to an error."""


class _Lines:
    """A line for each epoch, and one in each minute of an epoch that goes on."""

    def begin(self, steps: int, done: int) -> None:
        self._shown = time.monotonic()

    def step(self, epoch: int, step: int, loss: float, done: int) -> None:
        now = time.monotonic()
        if now - self._shown >= _INTERVAL:
            self._shown = now
            terminal.say(f"epoch {epoch}: step {step}, loss {loss:.4f}")

    def epoch(self, record: Record) -> None:
        self._shown = time.monotonic()
        terminal.say(summary(record))

    def end(self) -> None:
        pass


class _Bar:
    """A line for each epoch on a terminal, and below them a bar."""

    def begin(self, steps: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._live: Any = Bar(*columns, console=terminal.console(errors=True), transient=True)
        self._live.start()
        self._task = self._live.add_task("first step", total=steps, completed=done)
        self._shown = time.monotonic()

    def step(self, epoch: int, step: int, loss: float, done: int) -> None:
        now = time.monotonic()
        if now - self._shown > _LIVE_INTERVAL:
            self._live.update(self._task, completed=done, description=f"loss {loss:.4f}")
            self._shown = now

    def epoch(self, record: Record) -> None:
        self._live.console.print(summary(record))

    def end(self) -> None:
        self._live.stop()


class _Line:
    """A line for each epoch in the cell of a notebook, the last of which is written over again and
    again while an epoch goes on.
    """

    def begin(self, steps: int, done: int) -> None:
        self._steps = steps
        self._done = done
        self._began = self._shown = time.monotonic()
        self._first = done
        self._width = 0

    def step(self, epoch: int, step: int, loss: float, done: int) -> None:
        now = time.monotonic()
        if now - self._shown > 2 * _LIVE_INTERVAL:
            self._shown = now
            left = (now - self._began) / max(1, done - self._first) * (self._steps - done)
            of = f"step {done} of {self._steps}"
            self._write(f"epoch {epoch}: {of}, loss {loss:.4f}, {left:.0f} s left")

    def epoch(self, record: Record) -> None:
        self._write(f"{summary(record)}\n")

    def end(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        if text or self._width:
            terminal.write(f"\r{text.rstrip():{self._width}}{text[len(text.rstrip()) :]}")
        self._width = 0 if text.endswith("\n") else len(text)


class _Told:
    """What another process is to show: a line of JSON for each call of its display.

    Parameters
    ----------
    descriptor
        Where it reads.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = 0.0

    def begin(self, steps: int, done: int) -> None:
        self._tell("begin", steps, done)

    def step(self, epoch: int, step: int, loss: float, done: int) -> None:
        now = time.monotonic()
        if now - self._shown > _LIVE_INTERVAL:
            self._shown = now
            self._tell("step", epoch, step, loss, done)

    def epoch(self, record: Record) -> None:
        numbers = {name: each for name, each in record.items() if isinstance(each, int | float)}
        self._tell("epoch", numbers)

    def end(self) -> None:
        self._tell("end")

    def _tell(self, name: str, *arguments: Any) -> None:
        # Whoever was to show it may have ended.
        with suppress(OSError):
            os.write(self._descriptor, f"{json.dumps([name, *arguments])}\n".encode())


class Hearing:
    """Shows here what a `_Told` of another process has told."""

    def __init__(self) -> None:
        self._display: Display | None = None

    def hear(self, line: str) -> None:
        """Show what a line tells."""
        name, *arguments = json.loads(line)
        if name == "begin":
            self._display = display()
        if self._display is not None and name in ("begin", "step", "epoch", "end"):
            getattr(self._display, name)(*arguments)
        if name == "end":
            self._display = None

    def end(self) -> None:
        """Come to the end, if the other process has not."""
        if self._display is not None:
            self._display.end()
            self._display = None


def display() -> Display:
    """Return what shows how far a fit is where this process writes to."""
    if (told := settings.progress()) is not None:
        return _Told(told)
    if terminal.is_live():
        return _Bar()
    notebook = type(sys.stderr).__module__.startswith("ipykernel.")
    return _Line() if notebook else _Lines()


class Progress(Callback):
    """Shows epoch, loss, samples per second and time left on rank 0."""

    def __init__(self) -> None:
        self._display: Display | None = None
        self._fit = 0, 0

    def on_attach(self, trainer: "Trainer") -> None:
        """Say where a precision takes longer than it could, or than float32."""
        for about in (without_amx, slower) if trainer.comm.leads else ():
            if text := about(trainer.options.precision):
                terminal.say(text)

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        done = len(trainer.history) * steps_per_epoch
        self._fit = epochs * steps_per_epoch, trainer.step_count - done
        self._of(trainer)

    def _of(self, trainer: "Trainer") -> Display | None:
        """Return what shows a fit on this rank, None on others than the one that leads now."""
        if not (trainer.comm.leads and trainer._fit.running):
            return None
        if self._display is None:
            steps, before = self._fit
            self._display = display()
            self._display.begin(steps, trainer.step_count - before)
        return self._display

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if (shown := self._of(trainer)) is not None:
            shown.step(trainer.epoch + 1, step, loss, step - self._fit[1])

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        if (shown := self._of(trainer)) is not None:
            shown.epoch(record)

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        if self._display is not None:
            self._display.end()
            self._display = None

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        self.on_fit_end(trainer, [])
