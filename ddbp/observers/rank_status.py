"""The status of each rank, kept in a small file, so that `ddbp launch` can tell where a rank was
that died without a word.

A status is a few words of mapped memory: the kernel keeps them when the process is killed, and
writing one takes no system call.
"""

import atexit
import faulthandler
import mmap
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ddbp import settings
from ddbp.comm.abort import BEFORE_ABORT, STARTED
from ddbp.comm.base import Communicator
from ddbp.comm.deadlines import KILLS, WHERE
from layers.kernels.cache_folder import opened

from .observer import StepPhase

# Words of a status: the process, without which nothing else holds; what it does, in which step of
# which trainer; by its id, the layer whose turn it is, or 0; whether it was found to stall; and 1
# and the slot of the rank that killed it, or 0.
_PID, PHASE, STEP, TRAINER, LAYER, _STALLED, _KILLER = range(7)
_WORDS = 8

_PHRASES = {
    StepPhase.START: "before the first step",
    StepPhase.FORWARD: "in forward of step {step}",
    StepPhase.BACKWARD: "in backward of step {step}",
    StepPhase.GRADIENTS: "after backward of step {step}",
    StepPhase.EXCHANGE: "in the gradient exchange of step {step}",
    StepPhase.UPDATE: "in the update of step {step}",
    StepPhase.PUBLISH: "in publishing the parameters of step {step}",
    StepPhase.AFTER: "after step {step}",
    StepPhase.EVALUATION: "in an evaluation",
    StepPhase.EXCEPTION: "at an exception",
    StepPhase.END: "at its end",
}
BEFORE_TRAINER = "before its trainer"
_OF_LAYERS = (StepPhase.FORWARD, StepPhase.BACKWARD, StepPhase.EVALUATION)

_OWN: list["RankStatus"] = []
"""That of this process."""


class RankStatus:
    """What this rank does, in a file of a folder, and the names of its layers in another.

    Attributes
    ----------
    words
        What the file holds.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        with _file(folder, rank).open("w+b") as file:
            # Written: on a full disk, storing to a page that is not there ends the process.
            file.write(bytes(8 * _WORDS))
            file.flush()
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
        # Without names, on a full disk, a layer is one outside of the model.
        with suppress(OSError), self._names.open("a", encoding="utf-8") as file:
            file.writelines(
                f"{self._trainers} {number} {' '.join(name.split())}\n"
                for number, name in names.items()
            )
        self.words[PHASE] = StepPhase.START
        self.words[TRAINER] = self._trainers
        return self._trainers

    def end(self, phase: StepPhase = StepPhase.END) -> None:
        """Come to the end, or to an exception, which says more than a status."""
        self.words[PHASE] = phase


def own_status(rank: int) -> RankStatus | None:
    """Return the status of this process if `ddbp launch` asks for it and its folder can be written
    to.
    """
    folder = settings.status_folder()
    if folder is not None and not _OWN and not settings.is_started_by_a_rank():
        try:
            _OWN.append(RankStatus(folder, rank))
        except OSError:
            # It is on another host.
            return None
        _tell_of_faults(_faults(folder, rank))
        BEFORE_ABORT.append(lambda: _OWN[0].end(StepPhase.EXCEPTION))
        WHERE.append(lambda rank: found.where if (found := read(folder, rank)) else "")
    return _OWN[0] if _OWN else None


def _tell_of_faults(path: Path | None) -> None:
    """Have the interpreter write to a file, or to standard error, at which line it was when a
    signal ends it.
    """
    if not faulthandler.is_enabled():
        # There may be no room, or no standard error.
        with suppress(OSError, RuntimeError, AttributeError):
            faulthandler.enable(path.open("w", encoding="utf-8") if path else sys.stderr)


def own_words() -> tuple[int, ...]:
    """Return what the status of this process says, nothing if it has none."""
    return tuple(_OWN[0].words) if _OWN else ()


def mark_stalled(slot: int) -> None:
    """Note in the status of a rank, if it has one, that it has been found to stall."""
    _note(slot, _STALLED, 1)


def mark_killed(slot: int, killer: int) -> None:
    """Note in the status of a rank, if it has one, that of a slot kills it."""
    _note(slot, _KILLER, 1 + killer)


KILLS.append(mark_killed)


def _note(slot: int, word: int, value: int) -> None:
    folder = settings.status_folder()
    if folder is not None:
        with suppress(OSError), _file(folder, slot).open("r+b") as file:
            file.seek(8 * word)
            file.write(value.to_bytes(8, sys.byteorder))


def _start(comm: Communicator) -> None:
    if own_status(comm.slot) is None and comm.size > 1:
        _tell_of_faults(None)


STARTED.append(_start)


def _forget() -> None:
    """Leave the status to the parent, in a forked child."""
    for status in _OWN:
        atexit.unregister(status.end)
    _OWN.clear()
    BEFORE_ABORT.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@dataclass(frozen=True)
class LastStatus:
    """What a rank has left of its status: process, phase, that in words, the step, whether it has
    been found to stall, by which rank it was killed and why, if it was, and the Python stack at the
    signal that ended it, if it could tell.
    """

    pid: int
    phase: StepPhase
    where: str
    step: int
    stalled: bool
    killed: str
    fault: str


def read(folder: Path, rank: int) -> LastStatus | None:
    """Return the status of a rank, None if it has none yet."""
    try:
        with opened(_file(folder, rank)) as file:
            content = file.read(8 * _WORDS)
    except OSError:
        return None
    if len(content) < 8 * _WORDS:
        return None
    words = memoryview(content).cast("q")
    if words[_PID] <= 0 or words[PHASE] not in _PHRASES:
        return None
    phase = StepPhase(words[PHASE])
    where = _PHRASES[phase].format(step=words[STEP])
    if phase is StepPhase.START and not words[TRAINER]:
        where = BEFORE_TRAINER
    if phase in _OF_LAYERS and words[LAYER]:
        where += f", at {_name(_names(folder, rank), words[TRAINER], words[LAYER])}"
    try:
        with opened(_faults(folder, rank)) as file:
            fault = file.readall().decode("utf-8", errors="replace")
    except OSError:
        fault = ""
    stalled, killer, killed = bool(words[_STALLED]), words[_KILLER] - 1, ""
    if killer >= 0:
        who = "its watchdog" if killer == rank else f"rank {killer}"
        why = "came no further" if stalled else f"did not come within {settings.TIMEOUT}"
        killed = f"killed by {who}, as it {why}"
    return LastStatus(words[_PID], phase, where, words[STEP], stalled, killed, fault)


def _name(path: Path, trainer: int, layer: int) -> str:
    start = f"{trainer} {layer} "
    try:
        with opened(path) as file:
            text = file.readall().decode("utf-8", errors="replace")
    except OSError:
        text = ""
    named = (line for line in text.splitlines() if line.startswith(start))
    return next(named, f"{start}a layer outside of the model").removeprefix(start)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}"


def _faults(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.fault"


def _names(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.layers"
