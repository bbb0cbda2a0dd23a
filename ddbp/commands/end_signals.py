"""Signals that end a command which has started others: the first has those end, which may save
before; a second one ends them at once.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from ddbp.comm.abort import SAVED

GRACE = 25.0
"""Seconds that ranks get to end, which may save, before they are killed."""
ENDING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PASSED_ON = [signal.Signals[name] for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class Stopped(BaseException):
    """A signal has come that is to end the run."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def handled(kill: Callable[[], None], pids: Callable[[], Sequence[int]] = tuple) -> Iterator[None]:
    """Return a context in which the first signal raises Stopped, and a second one calls `kill`;
    SIGUSR1 and SIGUSR2 are passed on to the processes that `pids` tells.
    """
    # Under nohup, say, one of them is ignored already.
    previous = {number: signal.getsignal(number) for number in (*ENDING, *PASSED_ON)}
    numbers = [number for number, handler in previous.items() if handler != signal.SIG_IGN]
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        if len(stopped) == 1:
            raise Stopped(number)
        kill()

    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    try:
        for number in numbers:
            signal.signal(number, stop if number in ENDING else pass_on)
        yield
    finally:
        for number in numbers:
            signal.signal(number, previous[number])


def said(number: int, *, saved: bool) -> int:
    """Say that a signal has ended the run, which may have been saved; return the exit status."""
    text = f"ended by {signal.Signals(number).name}{', saved' if saved else ''}"
    print(f"ddbp launch: {text}", file=sys.stderr)
    return SAVED if saved else 128 + number
