"""Signals that end a command which has started others: the first has those end, which may save
before; a second one ends them at once.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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


Held = Callable[[], AbstractContextManager[None]]


@contextmanager
def handled(kill: Callable[[], None], pids: Callable[[], Sequence[int]] = tuple) -> Iterator[Held]:
    """Return a context in which the first signal raises Stopped, and a second one calls `kill`;
    SIGUSR1 and SIGUSR2 are passed on to the processes that `pids` tells.

    It gives what returns a context in which Stopped is put off to its end: to start a process, and
    to take note of it.
    """
    # Under nohup, say, one of them is ignored already.
    previous = {number: signal.getsignal(number) for number in (*ENDING, *PASSED_ON)}
    numbers = [number for number, handler in previous.items() if handler != signal.SIG_IGN]
    stopped: list[int] = []
    holding = False

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        if len(stopped) > 1:
            kill()
        elif not holding:
            raise Stopped(number)

    @contextmanager
    def held() -> Iterator[None]:
        nonlocal holding
        holding = True
        try:
            yield
        finally:
            holding = False
        if stopped:
            raise Stopped(stopped[0])

    def pass_on(number: int, frame: FrameType | None) -> None:
        for pid in pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    try:
        for number in numbers:
            signal.signal(number, stop if number in ENDING else pass_on)
        yield held
    finally:
        for number in numbers:
            signal.signal(number, previous[number])


def said(number: int, *, saved: bool) -> int:
    """Say that a signal has ended the run, which may have been saved; return the exit status."""
    text = f"ended by {signal.Signals(number).name}{', saved' if saved else ''}"
    print(f"ddbp launch: {text}", file=sys.stderr)
    return SAVED if saved else 128 + number
