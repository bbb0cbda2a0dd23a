"""Runs in Weights & Biases."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layers.checks import one_of

from .logger import Logger, text

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer


class WeightsAndBiases(Logger):
    """Send a run to Weights & Biases.

    Parameters
    ----------
    project
        The project that the run belongs to.
    mode
        "online"; or "offline", which writes to the run folder what `wandb sync` sends later.
    every_steps
        Updates from one loss to the next.

    Notes
    -----
    A trainer with it needs wandb: `pip install "ddbp[wandb]"`.
    """

    package, extra = "wandb", "wandb"

    def __init__(
        self, project: str = "ddbp", *, mode: str = "online", every_steps: int = 10
    ) -> None:
        super().__init__(every_steps=every_steps)
        self.project = text("WeightsAndBiases", "project", project, 'project="ddbp".')
        fix = 'mode="offline" needs no account.'
        self.mode = one_of("WeightsAndBiases", "mode", mode, ("online", "offline"), fix)
        self._run: Any = None

    def begin(self, trainer: "Trainer", run: str, resumed: bool) -> None:
        import wandb

        folder = None if trainer.run_dir is None else str(trainer.run_dir)
        self._run = wandb.init(
            project=self.project,
            id=run,
            name=run,
            dir=folder,
            mode=self.mode,
            resume="allow",
            config=self.configuration(trainer),
        )

    def send(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def end(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
