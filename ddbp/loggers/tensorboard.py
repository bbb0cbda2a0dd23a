"""Event files for TensorBoard."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddbp.training.paths import path_of
from layers.errors import message

from .logger import Logger

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer


class TensorBoard(Logger):
    """Write event files for TensorBoard: `tensorboard --logdir runs` shows them.

    Parameters
    ----------
    path
        Their folder; `tensorboard` in the run folder unless given.
    every_steps
        Updates from one loss to the next.

    Notes
    -----
    A trainer with it needs tensorboardX: `pip install "ddbp[tensorboard]"`.
    """

    package, extra = "tensorboardX", "tensorboard"

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, every_steps: int = 10
    ) -> None:
        super().__init__(every_steps=every_steps)
        self.path = None if path is None else path_of("TensorBoard", "path", path)
        self._writer: Any = None

    def on_attach(self, trainer: "Trainer") -> None:
        super().on_attach(trainer)
        if self.path is None and trainer.run_dir is None:
            fix = "Pass run_dir= to Trainer, or path= here."
            raise ValueError(message("TensorBoard", "event files must have a folder", None, fix))

    def begin(self, trainer: "Trainer", run: str, resumed: bool) -> None:
        from tensorboardX import SummaryWriter

        assert trainer.run_dir is not None or self.path is not None
        folder = self.path or (trainer.run_dir and trainer.run_dir / "tensorboard")
        # What was written of steps that come again is not shown.
        again = trainer.step_count + 1 if resumed else None
        self._writer = SummaryWriter(str(folder), purge_step=again)
        if not resumed:
            lines = [f"    {name}: {fact}" for name, fact in self.configuration(trainer).items()]
            self._writer.add_text("configuration", "\n".join(lines))

    def send(self, values: Mapping[str, float], step: int) -> None:
        for name, number in values.items():
            self._writer.add_scalar(name, number, step)

    def end(self, failed: bool) -> None:
        self._writer.close()
