"""What `ddbp verify` compares: losses, metrics and digests of parameters, written by every rank
while a script trains.
"""

import atexit
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddbp import settings
from ddbp.comm.base import Communicator
from ddbp.reduction.shards import ShardPlan
from layers import Module, Parameter, State
from layers.engine.parameter import unique_parameters
from layers.engine.state import unique_states
from layers.errors import message
from layers.types import Array

from .observer import StepHook, StepPhase, TrainingOver

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

CHANGE = "a change from outside"
"""How an event begins that says which values changed since the last one, though no step was
taken.
"""

_TRAINERS: list[Path] = []
"""The file of each trainer of this process, so that they can be told apart by number."""


class StepLog(StepHook):
    """Writes a line of JSON per step and evaluation, {"event": …, "values": {name: text}}; equal
    texts mean equal bits.

    Each rank writes a file of its own, which needs no communication and so cannot hang.

    Parameters
    ----------
    folder
        Where the files of all ranks and trainers go.
    model
        Whose parameters and states are recorded.
    rank
        The number of this rank.
    limit
        Steps after which training is over; None for no limit.
    """

    def __init__(self, folder: Path, model: Module, rank: int, limit: int | None) -> None:
        self._named: list[tuple[str, str, Parameter | State]] = [
            *(("parameter", name, parameter) for name, parameter in unique_parameters(model)),
            *(("state", name, state) for name, state in unique_states(model)),
        ]
        self._limit = limit
        self._steps = 0
        self._evaluations = 0
        path = folder / f"trainer{len(_TRAINERS)}-rank{rank}.jsonl"
        _TRAINERS.append(path)
        # A line at a time reaches the file, whatever happens to the process later.
        self._file = path.open("w", buffering=1)
        self._known: dict[str, str] = {}
        self._write("the start", self._digests())
        # Not run when an exception ends all ranks: the file of a run that failed has no end.
        atexit.register(self._end)

    @property
    def _over(self) -> bool:
        return self._limit is not None and self._steps >= self._limit

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        if self._over:
            raise TrainingOver

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        """Write which parameters and states are not what the last event has left."""
        if phase is not StepPhase.EXCHANGE:
            return
        now = self._digests()
        changed = {name: text for name, text in now.items() if self._known.get(name) != text}
        if changed:
            self._write(f"{CHANGE} before step {self._steps + 1}", changed)

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        self._steps += 1
        self._write(f"step {self._steps}", {"loss": _exact(loss), **self._digests()})
        # An epoch that ends here is the last one.
        trainer.stop = trainer.stop or self._over

    def on_evaluation_end(self, trainer: "Trainer", values: Mapping[str, float]) -> None:
        self._evaluations += 1
        self._write(
            f"evaluation {self._evaluations}",
            {name: _exact(value) for name, value in values.items()},
        )

    def _end(self) -> None:
        self._write("the end", self._digests())
        self._file.close()

    def _write(self, event: str, values: Mapping[str, str]) -> None:
        self._known.update(values)
        try:
            self._file.write(json.dumps({"event": event, "values": values}) + "\n")
        except OSError as error:
            must, fix = "the records of a run must have room", "Free some, or pass --keep FOLDER."
            got = f"{self._file.name}: {error.strerror}"
            raise OSError(message("ddbp verify", must, got, fix)) from error

    def _digests(self) -> dict[str, str]:
        return {f"{kind} {name}": digest(array.value) for kind, name, array in self._named}


def digest(array: Array) -> str:
    """Return a checksum of the bytes of an array, and its sum, by which people see how far two of
    them are apart.
    """
    checksum = zlib.crc32(np.ascontiguousarray(array).data)
    total = array.sum(dtype=np.result_type(array.dtype, np.float64))
    return f"{checksum:08x}, sum {total.item()!r}"


def _exact(value: float) -> str:
    return f"{value!r} ({float(value).hex()})"


def start(model: Module, plan: ShardPlan, comm: Communicator) -> StepLog | None:
    """Return the log of a trainer if `ddbp verify` runs this script, as environment variables say.

    Raises
    ------
    ValueError
        The script chooses fewer shards than the largest number of ranks that it is to be verified
        on.
    """
    folder = settings.verify_folder()
    if folder is None:
        return None
    least = settings.ranks() or 1
    if plan.shards < least:
        fix = f"Pass shards={least} or more, leave it out, or verify fewer ranks."
        raise ValueError(
            message(
                "Trainer",
                f"shards must be at least {least}, to be verified on {least} ranks",
                plan.shards,
                fix,
            )
        )
    return StepLog(folder, model, comm.rank, settings.verify_steps())
