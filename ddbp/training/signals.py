"""Signals that ask a run to save and end: what a scheduler sends before it takes the machine."""

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.abort import SAVED
from ddbp.observers.observer import Request

if TYPE_CHECKING:
    from .checkpoints import Checkpoints
    from .trainer import Trainer

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class RunSaved(SystemExit):
    """Raised where a run was asked to end by a signal, when its checkpoint is on the disk."""

    def __init__(self) -> None:
        super().__init__(SAVED)


class Signals:
    """A context in which SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 ask all ranks to save and end, if
    there are checkpoints; a second one does what it would have done without, and so does the first,
    at the end, if nothing has come of it.

    Parameters
    ----------
    trainer
        Whom a signal asks.
    checkpoints
        What writes checkpoints.
    """

    def __init__(self, trainer: "Trainer", checkpoints: Sequence["Checkpoints"]) -> None:
        self._trainer = trainer
        self._checkpoints = checkpoints
        self._before: dict[int, Any] = {}
        self._asked: int | None = None

    def __enter__(self) -> None:
        self._asked = None
        # Python calls handlers in the main thread only.
        if not self._checkpoints or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._release()
        reducer = self._trainer._update.reducer
        waits = self._asked is not None and reducer.request & Request.STOP
        reducer.request &= ~Request.STOP
        if waits and kind in (None, GeneratorExit):
            assert self._asked is not None
            signal.raise_signal(self._asked)

    def asked(self) -> bool:
        """Return whether a rank was asked to end and none has done so; collective."""
        if not self._checkpoints:
            return False
        request = int(self._trainer._update.reducer.request) & Request.STOP
        return bool(self._trainer.comm.all_gather(np.array([request])).any())

    def save(self) -> None:
        """Write a checkpoint, and end; collective.

        Raises
        ------
        RunSaved
            It is on the disk.
        """
        for each in self._checkpoints:
            each.write(self._trainer)
            each.wait()
        self._trainer._update.reducer.request &= ~Request.STOP
        raise RunSaved

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._release()
        self._asked = number
        self._trainer.request(Request.STOP)

    def _release(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
