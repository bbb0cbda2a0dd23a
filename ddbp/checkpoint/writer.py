"""Writing checkpoints: each rank writes what it holds, and rank 0 has the whole appear."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.snapshot import Pieces, Snapshot
from layers.errors import message
from layers.types import Array

from . import folder, part
from .part import Piece

_LOOK = 0.01
"""Seconds between looks for what other ranks have written."""
_PATIENCE = 600.0
"""Seconds that rank 0 waits for that at most."""


class Writer:
    """Writes checkpoints to a folder that all ranks see, in a thread unless asked otherwise.

    Methods are collective, but for `require_no_error`.

    A checkpoint is made under a name that begins with a dot. Each rank writes its part there and
    then a file that says what is in it; when all have, rank 0 writes state.json, and has the folder
    published. All of that is on the disk before it goes on.

    Parameters
    ----------
    path
        The folder of all checkpoints.
    comm
        The ranks.
    writers
        How many of them write, the first ones; 1 has rank 0 write all.
    publish
        Gives a finished folder the name of its checkpoint; called with both on rank 0, perhaps in a
        thread.
    """

    def __init__(
        self,
        path: Path,
        comm: Communicator,
        writers: int,
        publish: Callable[[Path, Path], None] = folder.replace,
    ) -> None:
        self._path = path
        self._comm = comm
        self._writers = writers
        self._publish = publish
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._image: part.Image | None = None
        self._given_up = threading.Event()
        # The rank that this was when the last one was begun, and its folder.
        self._begun: tuple[int, Path] | None = None

    def regroup(self, writers: int) -> None:
        """Go on with other ranks, so many of which write. What is being written is given up where
        the part of a rank is missing that was killed.
        """
        self._given_up.set()
        self._given_up = threading.Event()
        self._writers = writers
        if self._begun is not None and self._comm.rank == 0 < self._begun[0]:
            # The rank is gone that would have had it appear.
            shutil.rmtree(self._begun[1], ignore_errors=True)
        self._begun = None

    def write(
        self,
        step: int,
        facts: Mapping[str, Any],
        snapshot: Snapshot,
        *,
        background: bool,
        skip: bool = False,
    ) -> bool:
        """Write a checkpoint of a snapshot that is not collected; return whether it is, or will be.

        With `skip` none is written while a rank is still at work on the one before; else that is
        waited for.
        """
        if skip and self._any(self._thread is not None and self._thread.is_alive()):
            return False
        self.wait()
        new = self._path / f".{folder.step_name(step)}.new"
        self._given_up = threading.Event()
        if self._comm.rank == 0:
            self._attempt(_make, new)
        if self._comm.rank < self._writers:
            self._attempt(self._copy, snapshot.arrays)
        # Nobody writes to it before it is there.
        self._agree()
        if self._comm.rank < self._writers:
            arrays = {
                name: {
                    "shape": list(each.shape),
                    "dtype": each.dtype.str,
                    "spread": isinstance(each, Pieces),
                }
                for name, each in snapshot.arrays.items()
            }
            stated = {**facts, "values": snapshot.values}
            self._begun = self._comm.rank, new
            work = self._comm.rank, self._writers, self._given_up, new, step, stated, arrays
            self._thread = threading.Thread(target=self._work, args=work, daemon=True)
            self._thread.start()
        if not background:
            self.wait()
        return True

    def wait(self) -> None:
        """Return when what was begun is on the disk.

        Raises
        ------
        OSError
            It could not be written, on this rank or on another one.
        """
        # In meetings, where it is seen when a rank is killed or fails whose part would never come.
        while self._any(self._thread is not None and self._thread.is_alive()):
            if self._any(self._error is not None):
                self._given_up.set()
            time.sleep(_LOOK)
        self._thread = None
        self._agree()

    def require_no_error(self) -> None:
        """Raise what the thread of this rank has met, if anything, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _attempt(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError as error:
            fix = "Make room or choose another folder; training has gone on, and checkpoints stay."
            must = "the folder of checkpoints must take what is written"
            got = f"{error.filename or self._path}: {error.strerror}"
            self._error = OSError(message("Checkpoints", must, got, fix))
        except Exception as error:
            self._error = error

    def _any(self, here: bool) -> bool:
        return bool(self._comm.all_gather(np.array([here], np.int64)).any())

    def _agree(self) -> None:
        """Raise on all ranks what one has met."""
        if not self._any(self._error is not None):
            return
        self.require_no_error()
        must, fix = "every rank must write its part", "Its error says more."
        raise OSError(message("Checkpoints", must, "an error on another rank", fix))

    def _copy(self, arrays: Mapping[str, Array | Pieces]) -> None:
        """Copy the pieces that this rank writes, to the memory of the last ones if they fit."""
        mine = []
        for name, entry in arrays.items():
            if isinstance(entry, Pieces):
                parts = entry.parts
            else:
                parts = [(0, entry.reshape(-1))] if self._comm.rank == 0 and entry.size else []
            mine += [(name, start, piece) for start, piece in parts]
        if self._image is None or not self._image.take(mine):
            self._image = None
            self._image = part.Image(mine)

    def _work(
        self, rank: int, writers: int, given_up: threading.Event, new: Path, *what: Any
    ) -> None:
        self._attempt(self._write_part, rank, writers, given_up, new, *what)
        if given_up.is_set():
            self._error = None

    def _write_part(
        self,
        rank: int,
        writers: int,
        given_up: threading.Event,
        new: Path,
        step: int,
        facts: dict[str, Any],
        arrays: dict[str, Any],
    ) -> None:
        assert self._image is not None
        name = f"part-{rank:04d}-of-{writers:04d}.safetensors"
        places = self._image.write(new / name)
        folder.write_text(new / f"places-{rank:04d}.json", json.dumps(places))
        if rank:
            return
        pieces: dict[str, list[Piece]] = {name: [] for name in arrays}
        for other in range(writers):
            path = new / f"places-{other:04d}.json"
            found = _awaited(path, given_up)
            if found is None:
                shutil.rmtree(new, ignore_errors=True)
                return
            for name, piece in json.loads(found):
                pieces[name].append(Piece(*piece))
            path.unlink()
        entries = {
            name: {**entry, "pieces": sorted(pieces[name])} for name, entry in arrays.items()
        }
        stated = {"format": folder.FORMAT, "step": step, **facts, "arrays": entries}
        folder.write_text(new / folder.STATE, folder.manifest_text(stated))
        self._publish(new, self._path / folder.step_name(step))


def _make(path: Path) -> None:
    """Make an empty folder in place of whatever has been left unfinished beside it."""
    folder.tidy(path.parent)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _awaited(path: Path, given_up: threading.Event) -> str | None:
    """Return the text of a file that another rank writes, None if it is given up."""
    until = time.monotonic() + _PATIENCE
    while not path.exists():
        if given_up.is_set():
            return None
        if time.monotonic() > until:
            raise OSError(None, f"no rank has written it for {_PATIENCE:.0f} s", str(path))
        time.sleep(_LOOK)
    return path.read_text()


def sees_the_same(path: Path, comm: Communicator) -> bool:
    """Return whether all ranks see one folder there, which is made; collective."""
    sign = path / ".ranks-see-this"
    error: OSError | None = None
    if comm.rank == 0:
        try:
            folder.make(path)
            sign.touch()
        except OSError as found:
            error = found
    comm.all_gather(np.zeros(1, np.int64))
    seen = comm.all_gather(np.array([sign.exists()], np.int64))
    if comm.rank == 0:
        sign.unlink(missing_ok=True)
    if error is not None:
        must, fix = "the folder of checkpoints must be writable", "Choose another one."
        got = f"{path}: {error.strerror}"
        raise OSError(message("Checkpoints", must, got, fix)) from error
    return bool(seen.all())
