"""Errors that say what must hold, told in a line, and not as a traceback."""

from collections.abc import Callable

from ddbp import settings, terminal
from ddbp.comm.current import communicator

_REFUSAL = "; got "
"""What stands in the message of whoever refuses something; in those of mistakes of ours it does
not, and they keep their traceback.
"""


def told_in_a_line(act: Callable[[], None]) -> int:
    """Return the exit status of an act: 1, and the error in a line, if it refuses what it is given.

    Of several ranks each tells its own, and all of them end.
    """
    try:
        act()
    except (ImportError, OSError, TypeError, ValueError) as error:
        line = terminal.plain(error)
        if _REFUSAL not in line:
            raise
        if settings.launched():
            comm = communicator()
            if not comm.leads:
                line = f"[rank {comm.rank} of {comm.size}] {line}"
        terminal.say(line)
        return 1
    return 0
