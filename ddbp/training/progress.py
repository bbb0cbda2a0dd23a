"""What rank 0 shows: one live line on a terminal, plain lines elsewhere."""

import time
from typing import TYPE_CHECKING, Any

from ddbp import terminal

from .callbacks import Callback, Record

if TYPE_CHECKING:
    from .trainer import Trainer


def summary(record: Record) -> str:
    """Return the line that describes an epoch."""
    numbers = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in record.items()
        if name.endswith(("loss", "accuracy"))
    ]
    return (
        f"epoch {record['epoch']}: {', '.join(numbers)}, {record['samples_per_second']:,.0f}"
        " samples/s"
    )


class Progress(Callback):
    """Epoch, loss, samples per second and time left, on the terminal of rank 0."""

    def __init__(self) -> None:
        self._live: Any = None
        self._task: Any = None
        self._last = ""
        self._shown = 0.0
        self._pending = 0

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
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
            return
        self._pending += 1
        now = time.monotonic()
        if now - self._shown > 0.1:
            self._live.update(
                self._task, advance=self._pending, description=f"{self._last}loss {loss:.4f}"
            )
            self._shown = now
            self._pending = 0

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
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
