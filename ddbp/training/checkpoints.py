"""The callback that writes checkpoints, and how a trainer goes on from one."""

import math
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.checkpoint.writer import Writer, sees_the_same
from ddbp.snapshot import Snapshot
from layers.checks import positive, positive_int
from layers.errors import message

from .callbacks import Callback, Record
from .monitors import Monitor

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "Checkpoints"
_FOLDER = "checkpoints"
"""The folder of checkpoints in a run folder."""


class Checkpoints(Callback):
    """Write all that training has changed to a folder, whole or not at all, while training goes on.

    A checkpoint is a folder `step-000000100` of safetensors files, one of each rank, and of
    `state.json`, which has the digests of all arrays. `Trainer(resume=…)` goes on from the newest
    that is whole, on any number of ranks.

    Parameters
    ----------
    every_steps
        Updates from one checkpoint to the next.
    every_seconds
        Seconds from one to the next, by the clock of rank 0.
    every_epochs
        Epochs from one to the next; each, if no other interval is given.
    keep_last
        How many of the last ones stay.
    keep_best
        A number of the records and how many checkpoints with the best values of it stay beside
        them: ("validation_loss", 1). One is written whenever there is a better value.
    path
        The folder; `checkpoints` in the run folder unless given.
    background
        Whether a thread writes while training goes on; it writes what there was at the step.
    busy
        What is done about a checkpoint while the one before is not written yet: "wait" or "skip".

    Notes
    -----
    Where ranks do not see one folder, on hosts without a common file system, rank 0 writes all.
    """

    def __init__(
        self,
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        every_epochs: int | None = None,
        keep_last: int = 3,
        keep_best: tuple[str, int] | None = None,
        path: str | Path | None = None,
        background: bool = True,
        busy: str = "wait",
    ) -> None:
        self.every_steps = every_steps and positive_int(_OWNER, "every_steps", every_steps)
        self.every_seconds = every_seconds and positive(
            _OWNER, "every_seconds", every_seconds, "600 is usual.", finite=True
        )
        if every_epochs is None and every_steps is None and every_seconds is None:
            every_epochs = 1
        self.every_epochs = every_epochs and positive_int(_OWNER, "every_epochs", every_epochs)
        self.keep_last = positive_int(_OWNER, "keep_last", keep_last, "1 is the least.")
        if busy not in ("wait", "skip"):
            fix = 'busy="skip" leaves out one that would have to wait.'
            raise ValueError(message(_OWNER, 'busy must be "wait" or "skip"', repr(busy), fix))
        self.background = background
        self.busy = busy
        self.path = None if path is None else Path(path).absolute()
        self._keep_best = _best(keep_best)
        self._best: dict[int, float] = {}
