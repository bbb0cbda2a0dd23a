"""Signals that ask a run to save and end: what a scheduler sends before it takes the machine."""

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from ddbp.observers.observer import Request

if TYPE_CHECKING:
    from .trainer import Trainer

SAVED = 75
"""The exit status of a run that was asked to end, and can go on from its checkpoint: EX_TEMPFAIL of
sysexits.h.
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class RunSaved(SystemExit):
    """Raised where a run was asked to end by a signal, when its checkpoint is on the disk."""

    def __init__(self) -> None:
        super().__init__(SAVED)


class Signals:
    """A context in which SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 ask all ranks to stop; a second one
    does what it would have done without.

    Parameters
    ----------
    trainer
        Whom a signal asks.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        # Python calls handlers in the main thread only.
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)

    def __exit__(self, *error: object) -> None:
        self._release()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._release()
        self._trainer.request(Request.STOP)

    def _release(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
