"""Samples that cannot be read: refused by their place, or, where told so, left out and counted."""

from collections.abc import Sequence
from typing import NamedTuple

from ddbp.terminal import plain
from layers.errors import message

_MOST = 200
"""So many letters of a file's content stand in a message."""


class Skipped(NamedTuple):
    """A sample that has been left out.

    Attributes
    ----------
    place
        Its file, and the line or row in it.
    reason
        What is wrong with it.
    """

    place: str
    reason: str


class BadSamples:
    """What becomes of samples that cannot be read: the first is an error, unless they are to be
    left out.

    Parameters
    ----------
    owner
        Who refuses.
    skip
        Whether they are left out, and collected in `skipped`.
    """

    def __init__(self, owner: str, skip: bool) -> None:
        self.owner = owner
        self.skip = skip
        self.skipped: list[Skipped] = []

    def found(self, must: str, place: str, reason: object, fix: str) -> None:
        """Refuse a sample, or note that it is left out."""
        text = shown(reason)
        if not self.skip:
            fix = f"{fix} skip_bad=True leaves it out."
            raise ValueError(message(self.owner, must, f"{plain(place)}: {text}", fix))
        self.skipped.append(Skipped(plain(place), text))

    def require_some(self, left: int, what: str) -> None:
        """Refuse it if nothing is left."""
        if left:
            return
        must, got = f"there must be {what}", "none"
        if self.skipped:
            first = self.skipped[0]
            got = f"{len(self.skipped)} bad ones, first {first.place}: {first.reason}"
        raise ValueError(message(self.owner, must, got, "Check the path and the format."))


def shown(text: object) -> str:
    """Return a text of anybody's making as a message may have it: one line, not too long."""
    result = plain(" ".join(str(text).split()))
    return result if len(result) <= _MOST else f"{result[:_MOST]}…"


def listed(names: Sequence[object], most: int = 5) -> str:
    """Return names in words, the first few of many."""
    some = ", ".join(shown(name) for name in names[:most])
    return some if len(names) <= most else f"{some} and {len(names) - most} more"
