"""What rank 0 shows: one live line on a terminal, plain lines elsewhere, as in the log of a batch
system.
"""

import time
from typing import TYPE_CHECKING, Any

from ddbp import terminal

from .callbacks import Callback, Record
from .precision import slower, without_amx

if TYPE_CHECKING:
    from .trainer import Trainer


_INTERVAL = 60.0
"""Seconds after which there is a line of an epoch that goes on."""


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


class Progress(Callback):
    """Epoch, loss, samples per second and time left, on the terminal of rank 0; elsewhere a line
    per epoch, and one in each minute of an epoch that goes on.
    """

    def __init__(self) -> None:
        self._live: Any = None
        self._task: Any = None
        self._last = ""
        self._shown = 0.0
        self._pending = 0

    def on_attach(self, trainer: "Trainer") -> None:
        """Say where a precision takes longer than it could, or than float32."""
        for about in (without_amx, slower) if trainer.comm.leads else ():
            if text := about(trainer.options.precision):
                terminal.say(text)

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        self._shown = time.monotonic()
        if not trainer.comm.leads or not terminal.is_live():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._live = Bar(*columns, console=Console(stderr=True), transient=True)
        self._live.start()
        self._task = self._live.add_task(
            "first step",
            total=epochs * steps_per_epoch,
            completed=len(trainer.history) * steps_per_epoch,
        )

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self._live is None:
            self._say_where(trainer, step, loss)
            return
        self._pending += 1
        now = time.monotonic()
        if now - self._shown > 0.1:
            self._live.update(
                self._task, advance=self._pending, description=f"{self._last}loss {loss:.4f}"
            )
            self._shown = now
            self._pending = 0

    def _say_where(self, trainer: "Trainer", step: int, loss: float) -> None:
        """Write a line, unless there was one in the last minute."""
        now = time.monotonic()
        if trainer.comm.leads and trainer._fit.running and now - self._shown >= _INTERVAL:
            self._shown = now
            terminal.say(f"epoch {trainer.epoch + 1}: step {step}, loss {loss:.4f}")

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        self._shown = time.monotonic()
        if not trainer.comm.leads:
            return
        if self._live is not None:
            self._live.console.print(summary(record))
        else:
            terminal.say(summary(record))

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
