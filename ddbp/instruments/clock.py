"""Where the time of a step goes."""

from time import perf_counter

from ddbp.comm.base import Communicator

PHASES = ("forward", "backward", "waiting", "reduction", "optimizer", "data")


class StepClock:
    """Divides the seconds of a step among its phases, without those that measuring takes.

    Parameters
    ----------
    comm
        The ranks, who know how long this one has waited for others.

    Attributes
    ----------
    seconds
        Of each of `PHASES`, since `begin`.
    """

    def __init__(self, comm: Communicator) -> None:
        self._comm = comm
        self._at = 0.0
        self._paused = 0.0
        self._waited = 0.0
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def begin(self, at: float) -> None:
        """Begin a step, whose data were asked for at the given time."""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._at = at
        self._waited = self._comm.waited

    def mark(self, phase: str) -> None:
        """Count the time since the last mark as that of a phase, and what others were waited for
        in it as waiting.
        """
        now, waited = perf_counter(), self._comm.waited
        waiting = waited - self._waited
        self.seconds[phase] += now - self._at - waiting
        self.seconds["waiting"] += waiting
        self._at, self._waited = now, waited

    def pause(self) -> None:
        """Count no time until `go_on`."""
        self._paused = perf_counter()

    def go_on(self) -> None:
        """Count time again."""
        self._at += perf_counter() - self._paused
