"""Runs in trackio."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .logger import Logger, text

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer


class Trackio(Logger):
    """Keep a run in trackio's database on this machine: `trackio show` opens its page.

    Parameters
    ----------
    project
        The project that the run belongs to.
    every_steps
        Updates from one loss to the next.

    Notes
    -----
    A trainer with it needs trackio: `pip install "ddbp[trackio]"`.
    """

    package, extra = "trackio", "trackio"

    def __init__(self, project: str = "ddbp", *, every_steps: int = 10) -> None:
        super().__init__(every_steps=every_steps)
        self.project = text("Trackio", "project", project, 'project="ddbp".')

    def begin(self, trainer: "Trainer", run: str, resumed: bool) -> None:
        import trackio

        trackio.init(
            project=self.project,
            name=run,
            resume="allow",
            config=self.configuration(trainer),
        )

    def send(self, values: Mapping[str, float], step: int) -> None:
        import trackio

        trackio.log(dict(values), step=step)

    def end(self, failed: bool) -> None:
        import trackio

        trackio.finish()
