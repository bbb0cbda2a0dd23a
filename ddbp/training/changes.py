"""Which changes of parameters, that a script makes between its loops, a state has already."""

from collections.abc import Iterator
from contextlib import contextmanager

from ddbp.snapshot import State


class Changes:
    """Counts the changes that a script makes between its loops, as `modify_parameters` tells of
    them, and knows which of them are in the state that was loaded: a script that is run again comes
    to them once more.

    Those within a loop, over `Trainer.steps` too, are part of its steps, and so are those beside
    steps that are in no loop.

    Attributes
    ----------
    count
        How many there were since the last run.
    """

    def __init__(self) -> None:
        self.count = 0
        # How many runs the script had come to in the state that was loaded, and changes since.
        self._there = -1, 0
        self._within = 0

    def known(self, state: State, runs: int) -> None:
        """Know those that are in the state of a stream, of so many runs."""
        self._there = runs, state.get("changes", 0)

    def begin_anew(self) -> None:
        """Count from here, as a script goes on with a state that it has loaded itself."""
        self.count = self._there[1]
        self._there = -1, 0

    def is_known(self, runs: int) -> bool:
        """Come to a change after so many runs, outside of them; return whether it is in the state
        that was loaded.
        """
        if self._within:
            return False
        self.count += 1
        return (runs, self.count) <= self._there

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Return a context for a loop over steps."""
        self._within += 1
        try:
            yield
        finally:
            self._within -= 1

    def note_step(self) -> None:
        """Note a step on a batch that is of no run."""
        if not self._within:
            self.count = 0
            self._there = -1, 0
