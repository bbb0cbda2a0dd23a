"""A checkpoint on disk: its folder, what state.json says of it, and how it is read."""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from ddbp import files
from ddbp.snapshot import Snapshot, StoredArray
from layers.errors import message
from layers.kernels.cache_folder import opened
from layers.types import Array

from . import part
from .part import Piece

FORMAT = 1
"""The version of the layout of a checkpoint's folder."""
IN_RUN = "checkpoints"
"""The folder of checkpoints in that of a run."""
ASIDE = "set-aside"
"""The folder, in that of checkpoints, of those that a run has left behind: see `set_aside`."""
STATE = "state.json"
"""The file that is written last; a folder without it is no checkpoint."""

_LARGEST_STATE = 1 << 28
"""Bytes of a state.json, which is read as a whole."""
_LONGEST_TYPE = 16
_READERS = 8
"""Threads that compare digests, at most."""
_NAME = re.compile(r"(?P<old>\.)?(?P<name>step-(?P<step>\d{1,12}))(?(old)\.old)", re.ASCII)
_PART = re.compile(r"part-\d+-of-\d+\.safetensors", re.ASCII)
_DTYPES = {"f", "i", "u", "b"}


class DamagedError(ValueError):
    """A checkpoint is not whole, or not as it was written."""


class ArrayEntry(NamedTuple):
    """What state.json says of an array.

    Attributes
    ----------
    shape, dtype
        Of the array.
    spread
        Whether ranks held pieces of it.
    pieces
        Where its elements lie, in their order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spread: bool
    pieces: list[Piece]


def step_name(step: int) -> str:
    """Return the name of the folder of a step's checkpoint."""
    return f"step-{step:09d}"


def found(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, whole or not, oldest first; also one that has made way
    for another one of its step, as long as that has not come.
    """
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [
        path
        for match, path in sorted(named, key=lambda each: int(each[0]["step"]))
        if path.is_dir()
        and not path.is_symlink()
        and not (match["old"] and (folder / match["name"]).exists())
    ]


def step_of(path: Path) -> int:
    """Return the step in the name of one of the checkpoints that are `found`."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match["step"])


def within(path: Path) -> Path:
    """Return the folder of checkpoints in that of a run; what is none has its own."""
    beneath = path / IN_RUN
    return beneath if beneath.is_dir() else path


def manifest_text(facts: Mapping[str, Any]) -> str:
    """Return the text of a state.json with these facts and its own digest."""
    return json.dumps({**facts, "sha256": _digest(facts)}, indent=1) + "\n"


def manifest_facts(raw: bytes) -> tuple[dict[str, Any], Any, str]:
    """Return the facts in a text that `manifest_text` has made, the digest that it states, and the
    one that they have.

    Raises
    ------
    ValueError, RecursionError
        It is no such text.
    """
    facts = json.loads(raw, object_pairs_hook=_once)
    if not isinstance(facts, dict):
        raise ValueError("no object of JSON")
    stated = facts.pop("sha256", None)
    return facts, stated, _digest(facts)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, none of whose names may occur twice: readers would differ."""
    facts = dict(pairs)
    if len(facts) < len(pairs):
        raise ValueError("an object of JSON with a name twice")
    return facts


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Checkpoint:
    """A checkpoint that is read from its folder; opening it reads state.json alone.

    Parameters
    ----------
    path
        The folder.

    Attributes
    ----------
    facts
        What state.json says: versions, time, and what follows.
    step
        How many updates there had been.
    values
        The part of the snapshot that is no arrays.
    arrays
        What it says of each array, by name.

    Raises
    ------
    DamagedError
        There is no such checkpoint, or its state.json is damaged or of a later version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            with opened(self.path / STATE) as file:
                if os.fstat(file.fileno()).st_size > _LARGEST_STATE:
                    raise ValueError(f"more than {_LARGEST_STATE} bytes")
                facts, stated, found = manifest_facts(file.readall())
        except OSError as error:
            raise self._damaged(f"{STATE} must be there", error.strerror) from error
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{STATE} must be whole", error) from error
        if facts.get("format") != FORMAT:
            fix = "Read it with the ddbp that has written it."
            must = f"{self.path} must be of format {FORMAT}"
            raise DamagedError(message("checkpoint", must, facts.get("format"), fix))
        if stated != found:
            raise self._damaged(f"{STATE} must have its digest {stated}", found)
        self.facts: dict[str, Any] = facts
        try:
            self.values: dict[str, Any] = dict(facts["values"])
            self.arrays = {name: self._entry(name, each) for name, each in facts["arrays"].items()}
            self.step = int(facts["step"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, DamagedError):
                raise
            raise self._damaged(f"{STATE} must describe arrays and values", error) from error

    def _damaged(self, must: str, got: object) -> DamagedError:
        fix = "It was cut off or changed; go on from the one before."
        return DamagedError(message("checkpoint", f"{self.path}: {must}", got, fix))

    def _entry(self, name: str, entry: Mapping[str, Any]) -> ArrayEntry:
        """Return what state.json says of an array, which may be of anybody's making."""
        if not (isinstance(entry["dtype"], str) and len(entry["dtype"]) < _LONGEST_TYPE):
            raise self._damaged(f"{name} must have a type", entry["dtype"])
        dtype = np.dtype(entry["dtype"])
        shape = tuple(entry["shape"])
        pieces = [Piece(*piece) for piece in entry["pieces"]]
        numbers = [*shape, *(number for each in pieces for number in (*each[:2], each.offset))]
        if any(type(number) is not int or number >= 2**60 for number in numbers) or len(shape) > 32:
            raise self._damaged(f"shape and places of {name} must be integers", entry["shape"])
        covered = 0
        for piece in pieces:
            if piece.start != covered or piece.stop <= piece.start or piece.offset < 0:
                raise self._damaged(f"the pieces of {name} must follow each other", piece)
            if not _PART.fullmatch(piece.file):
                raise self._damaged("arrays must lie in its own files", repr(piece.file))
            covered = piece.stop
        if covered != math.prod(shape) or dtype.kind not in _DTYPES:
            raise self._damaged(f"{name} must be {shape} {dtype}", f"{covered} elements")
        return ArrayEntry(shape, dtype, bool(entry["spread"]), pieces)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Return elements (stop - start,) of an array, flattened; no others are read."""
        entry = self.arrays[name]
        parts = []
        for piece in entry.pieces:
            first, last = max(start, piece.start), min(stop, piece.stop)
            if first < last:
                offset = piece.offset + (first - piece.start) * entry.dtype.itemsize
                parts.append(part.read(self.path / piece.file, offset, last - first, entry.dtype))
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, entry.dtype), *parts])

    def snapshot(self) -> Snapshot:
        """Return the snapshot. Of arrays that were spread over ranks each reads what it uses."""
        stored = {name: _OnDisk(self, name) for name in self.arrays}
        arrays: dict[str, Any] = {
            name: stored[name] if entry.spread else np.asarray(stored[name])
            for name, entry in self.arrays.items()
        }
        return Snapshot(arrays, self.values)

    def damages(self) -> list[str]:
        """Return what is wrong with its arrays, each piece compared with its digest."""
        pieces = [
            (name, piece, entry.dtype.itemsize)
            for name, entry in self.arrays.items()
            for piece in entry.pieces
        ]

        def damage(each: tuple[str, Piece, int]) -> str | None:
            name, piece, size = each
            place = f"{name}[{piece.start}:{piece.stop}] in {piece.file}"
            try:
                path = self.path / piece.file
                same = part.sha256(path, piece.offset, (piece.stop - piece.start) * size)
            except OSError as error:
                return f"{place}: {error.strerror}"
            return None if same == piece.sha256 else f"{place}: other bytes than were written"

        # A digest takes one thread: the longest first, and some wait for the disk meanwhile.
        order = sorted(range(len(pieces)), key=lambda i: pieces[i][1].start - pieces[i][1].stop)
        with ThreadPoolExecutor(min(_READERS, 2 * (os.cpu_count() or 1))) as pool:
            found = pool.map(damage, [pieces[i] for i in order])
            by_place = dict(zip(order, found, strict=True))
        return [text for i in range(len(pieces)) if (text := by_place[i])]

    def require_whole(self) -> None:
        """Refuse a checkpoint that is damaged.

        Raises
        ------
        DamagedError
            It names the array.
        """
        if damages := self.damages():
            more = f" ({len(damages)} damaged pieces in all)" if damages[1:] else ""
            raise self._damaged("its arrays must be as they were written", damages[0] + more)


class _OnDisk(StoredArray):
    """An array of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        entry = checkpoint.arrays[name]
        super().__init__(entry.shape, entry.dtype, str(entry.pieces))
        self._checkpoint = checkpoint
        self._name = name

    def read(self, start: int, stop: int) -> Array:
        return self._checkpoint.read(self._name, start, stop)


def newest_whole(folder: Path) -> Iterator[Checkpoint | DamagedError]:
    """Yield what is wrong with checkpoints, from the newest on, and the first one that is whole.
    A run may write there, and remove some, meanwhile.
    """
    seen = set[Path]()
    while paths := [path for path in found(folder) if path not in seen]:
        path = paths[-1]
        seen.add(path)
        try:
            checkpoint = Checkpoint(path)
            checkpoint.require_whole()
        except DamagedError as error:
            if path.exists():
                yield error
        else:
            yield checkpoint
            return


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole, and is on the disk then."""
    with files.whole(path, durable=True) as place:
        place.write_text(text, encoding="utf-8")


def write_arrays(
    path: Path, arrays: Mapping[str, Array], facts: dict[str, str] | None = None
) -> None:
    """Write arrays by name, and facts about them, to a safetensors file that appears whole, and is
    on the disk then.

    Raises
    ------
    OSError
        It cannot be written; nothing is left of it.
    """
    try:
        with files.whole(path, durable=True) as place:
            safetensors.numpy.save_file(dict(arrays), place, facts)
    except (OSError, safetensors.SafetensorError) as error:
        raise files.unwritable("ddbp", path, error) from error


def make(path: Path) -> None:
    """Make a folder, and those that it lies in, unless they are there; the disk keeps them."""
    path.mkdir(parents=True, exist_ok=True)
    for parent in path.parents:
        # One that may not be read was not made here.
        with suppress(PermissionError):
            _settle(parent)


def replace(new: Path, path: Path) -> None:
    """Give a finished folder its name; one that has it makes way."""
    _settle(new)
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    _settle(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Give back its name to a checkpoint that made way for another one, which did not come; nobody
    may write there.
    """
    for old in path.glob(".step-*.old"):
        name = path / old.name[1:-4]
        if not name.exists():
            old.rename(name)


def tidy(path: Path) -> None:
    """Remove what a run has left that was killed while it wrote or removed a checkpoint; nobody may
    write there.
    """
    for left in path.glob(".step-*"):
        # One that made way for another one, which did not come, is the newest, see `recover`.
        only = left.suffix == ".old" and not (path / left.stem[1:]).exists()
        if left.suffix in (".new", ".old", ".gone") and not only:
            shutil.rmtree(left, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a checkpoint: half of one is never seen."""
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Move one of the checkpoints that are `found` to where none is; return where it is then."""
    place, name = path.parent / ASIDE, step_name(step_of(path))
    place.mkdir(exist_ok=True)
    new, number = place / name, 1
    while new.exists():
        number += 1
        new = place / f"{name}-{number}"
    path.rename(new)
    _settle(place)
    return new


def _settle(path: Path) -> None:
    """Have the disk keep the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
