"""Errors that say what must hold, told in a line, and not as a traceback."""

import sys
from collections.abc import Callable

from ddbp import settings, terminal
from ddbp.comm.current import communicator

GOT = "; got "
"""What stands in the message of whoever refuses something; in those of mistakes of ours it does
not, and they keep their traceback.
"""
ANEW = (
    "Make the trainer alike, or begin a new run from the parameters, in a folder of its own: `ddbp"
    " checkpoint export RUN` writes model.safetensors, and load_parameters(model,"
    ' "model.safetensors"), before the trainer is made, or --parameters model.safetensors reads it.'
)
"""What helps where a state cannot go on in another trainer."""


def told_in_a_line(act: Callable[[], None], words: Callable[[str], str] = str) -> int:
    """Return the exit status of an act: 1, and the error in a line, if it refuses what it is given.

    Of several ranks each tells its own, and all of them end. `words` makes the line of the message.
    """
    try:
        act()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        line = terminal.plain(error)
        # What kinds of RuntimeError say may be true of one rank alone.
        special = isinstance(error, RuntimeError) and type(error) is not RuntimeError
        if GOT not in line or special:
            raise
        line = words(line)
        if settings.launched():
            comm = communicator()
            if not comm.leads:
                line = f"[rank {comm.rank} of {comm.size}] {line}"
        terminal.say(line)
        return 1
    return 0


def start(main: Callable[[], None]) -> None:
    """Run a script's `main`. What refuses a flag, data or a model, with a message that says what
    must hold, ends the script with that line on standard error and status 1; other errors keep
    their traceback.

    Parameters
    ----------
    main
        What the script does.
    """
    if status := told_in_a_line(main):
        sys.exit(status)
