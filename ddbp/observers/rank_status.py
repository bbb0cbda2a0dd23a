"""Places: each rank keeps in a small file where it is, so that `ddbp launch` can tell when a rank
dies without a word.

A place is a few words of mapped memory: the kernel keeps them when the process is killed, and
writing one takes no system call.
"""

import atexit
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddbp import settings
from ddbp.comm.abort import BEFORE_ABORT

# Words of a place: the process, without which nothing else holds; what it does, in which step of
# which trainer; and, by its id, the layer whose turn it is, or 0.
_PID, WHAT, STEP, TRAINER, LAYER = range(5)
_WORDS = 8

_PHRASES = (
    "before the first step",
    "in forward of step {step}",
    "in backward of step {step}",
    "after backward of step {step}",
    "in the gradient exchange of step {step}",
    "in the update of step {step}",
    "in publishing the parameters of step {step}",
    "after step {step}",
    "in an evaluation",
    "at an exception",
    "at its end",
)
(
    START,
    FORWARD,
    BACKWARD,
    GRADIENTS,
    EXCHANGE,
    UPDATE,
    PUBLISHING,
    AFTER,
    EVALUATION,
    EXCEPTION,
    END,
) = range(len(_PHRASES))
_OF_LAYERS = (FORWARD, BACKWARD, EVALUATION)

_HERE: list["Place"] = []
"""That of this process."""


class Place:
    """Where this rank is, in a file of a folder, and the names of its layers in another.

    Attributes
    ----------
    words
        What the file holds.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        with _file(folder, rank).open("w+b") as file:
            file.truncate(8 * _WORDS)
            self.words = memoryview(mmap.mmap(file.fileno(), 8 * _WORDS)).cast("q")
        self._names = _names(folder, rank)
        self._names.touch()
        self._trainers = 0
        self.words[_PID] = os.getpid()
        atexit.register(self.end)

    def begin(self, names: Mapping[int, str]) -> int:
        """Come to the beginning of a trainer, whose layers have these names by their ids; return
        its number.
        """
        self._trainers += 1
        with self._names.open("a", encoding="utf-8") as file:
            file.writelines(
                f"{self._trainers} {number} {' '.join(name.split())}\n"
                for number, name in names.items()
            )
        self.words[WHAT] = START
        return self._trainers

    def end(self, what: int = END) -> None:
        """Come to the end, or to an exception, which says more than a place."""
        self.words[WHAT] = what


def here(rank: int) -> Place | None:
    """Return the place of this process if `ddbp launch` asks for it and its folder can be written
    to.
    """
    folder = settings.status_folder()
    if folder is not None and not _HERE:
        try:
            _HERE.append(Place(folder, rank))
        except OSError:
            # It is on another host.
            return None
        BEFORE_ABORT.append(lambda: _HERE[0].end(EXCEPTION))
    return _HERE[0] if _HERE else None


@dataclass(frozen=True)
class Found:
    """What a rank has left of its place: process, what it did, and that in words."""

    pid: int
    what: int
    where: str


def read(folder: Path, rank: int) -> Found | None:
    """Return the place of a rank, None if it has none yet."""
    try:
        words = memoryview(_file(folder, rank).read_bytes()).cast("q")
    except FileNotFoundError:
        return None
    if len(words) < _WORDS or not words[_PID]:
        return None
    where = _PHRASES[words[WHAT]].format(step=words[STEP])
    if words[WHAT] in _OF_LAYERS and words[LAYER]:
        where += f", at {_name(_names(folder, rank), words[TRAINER], words[LAYER])}"
    return Found(words[_PID], words[WHAT], where)


def _name(path: Path, trainer: int, layer: int) -> str:
    start = f"{trainer} {layer} "
    named = (
        line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(start)
    )
    return next(named, f"{start}a layer outside of the model").removeprefix(start)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}"


def _names(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.layers"
