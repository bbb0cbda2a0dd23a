"""A short time limit that counts for ranks which are stopped alone: on a busy machine one that is
well may be off its core for as long.
"""

from collections.abc import Callable
from typing import Any

from ddbp.comm.deadlines import Deadline
from ddbp.comm.host_barrier import process_of
from ddbp.observers.watchdog import state_of

_LOOK = Deadline._look_for_the_missing


def look_for_the_missing(
    deadline: Any,
    collective: Any,
    late: Callable[[], list[int]],
    dead: Any,
    fence: Any,
    waited: float,
) -> None:
    """Look as a rank of `HostCommunicator` does, whose time is up for who is stopped only."""
    cells = deadline._notices._members.cells
    missing = [process_of(cells[deadline._slots[rank]])[0] for rank in late()]
    stopped = [pid for pid in missing if pid and state_of(pid) == "T"]
    _LOOK(deadline, collective, late, dead, fence, waited if stopped == missing else 0.0)


def give_up_only_who_is_stopped() -> None:
    """Have all ranks of this process look so."""
    Deadline._look_for_the_missing = look_for_the_missing  # type: ignore[method-assign]
