"""The state of training in memory that outlives the ranks: those that replace them, when none is
left, go on from there.
"""

import json
import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.base import CollectiveKind
from ddbp.comm.kept import Kept
from ddbp.snapshot import Pieces, Snapshot
from layers.types import Array

if TYPE_CHECKING:
    from .trainer import Trainer

_SHARE = 0.01
"""So much of the time may go into keeping states."""


class Keeper:
    """Puts the state of a trainer by, as often as that takes a hundredth of the time.

    Parameters
    ----------
    trainer
        The trainer.
    kept
        Where to.
    """

    def __init__(self, trainer: "Trainer", kept: Kept) -> None:
        self._trainer = trainer
        self.kept = kept
        self._due = 0.0

    def is_due(self) -> bool:
        """Return whether a state is to be kept."""
        return time.monotonic() >= self._due and self.kept.allowed

    def keep(self) -> None:
        """Put the state by, between two steps; collective."""
        began = time.monotonic()
        trainer, kept, comm = self._trainer, self.kept, self._trainer.comm
        state = trainer.state(collected=False)
        sizes = [np.dtype(a.dtype).itemsize * int(np.prod(a.shape)) for a in state.arrays.values()]
        *starts, end = accumulate((-(-size // 64) * 64 for size in sizes), initial=0)
        table = [
            (name, array.shape, np.dtype(array.dtype).str, start)
            for (name, array), start in zip(state.arrays.items(), starts, strict=True)
        ]
        text = json.dumps({"arrays": table, "values": state.values}).encode()
        if comm.leads:
            kept.reserve(end + len(text))
        comm.host_barrier((CollectiveKind.GATHER, 0))
        if kept.allowed:
            memory = kept.next(end + len(text) if comm.leads else end)
            for (_, _, dtype, start), array in zip(table, state.arrays.values(), strict=True):
                _write(memory[start:], dtype, array, whole=comm.leads)
            memory[end : end + len(text)] = np.frombuffer(text, np.uint8)[: len(memory) - end]
            comm.host_barrier((CollectiveKind.GATHER, 0))
            if comm.leads:
                kept.publish(trainer.step_count, trainer._stream.runs, end, len(text))
        ended = time.monotonic()
        self._due = ended + (ended - began) / _SHARE

    def newest(self) -> tuple[int, Snapshot]:
        """Return the number of the newest state that has been kept, and the state, whose arrays
        may be overwritten once there are more.
        """
        number, memory, text = self.kept.newest()
        stated = json.loads(text)
        arrays = {
            name: memory[start : start + np.dtype(dtype).itemsize * int(np.prod(shape))]
            .view(dtype)
            .reshape(shape)
            for name, shape, dtype, start in stated["arrays"]
        }
        return number, Snapshot(arrays, stated["values"])


def _write(memory: Array, dtype: str, array: Any, *, whole: bool) -> None:
    """Write what this rank has of an array to memory that begins with that."""
    everything = [(0, array.reshape(-1))] if whole and not isinstance(array, Pieces) else []
    for first, piece in getattr(array, "parts", everything):
        start = first * piece.itemsize
        memory[start : start + piece.nbytes].view(dtype)[:] = piece
