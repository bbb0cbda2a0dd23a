"""Outputs of calls that somebody may still read, where calls keep in 16 bits what they need."""

import sys

from .call import Call
from .value import Value


class LiveOutputs:
    """The large outputs of calls on a tape that have not been let go of.

    The memory of an output is used again when nothing refers to its array: not a call that has
    saved it, nor its value. The tape refers to all values, so it has those let go of their arrays
    that nobody else can see: only the call that gave a value refers to it, and those that took it.
    """

    __slots__ = ("_uses", "_values")

    def __init__(self) -> None:
        self._values: list[Value] = []
        self._uses: dict[int, int] = {}

    def add(self, call: Call) -> None:
        """Know the outputs of a call, and what it has taken."""
        uses = self._uses
        for x in call.inputs:
            if id(x) in uses:
                uses[id(x)] += 1
        output = call.output
        values = (output,) if isinstance(output, Value) else output.values
        values[0].words = call.words
        for value in values:
            if value.array.nbytes >= call.tape.workspace.pooled_from:
                self._values.append(value)
                uses[id(value)] = 0

    def sweep(self) -> None:
        """Have all that nobody can see let go of their arrays."""
        values = self._values
        for index in range(len(values) - 1, -1, -1):
            # References are those of the list, of the argument, of the call that gave it, and of
            # those that took it.
            if sys.getrefcount(values[index]) <= 3 + self._uses[id(values[index])]:
                value = values.pop(index)
                del self._uses[id(value)]
                value.let_go()
