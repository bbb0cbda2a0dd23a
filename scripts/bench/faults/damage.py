"""What disks and hands do to checkpoints: damage to one that is whole, and what is left of them
when the power fails.
"""

import json
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

from ddbp.checkpoint import folder


def damage(checkpoints: Path, kind: str, number: int) -> int | None:
    """Damage the newest checkpoint if there is one before it; return its step, else None."""
    found = folder.found(checkpoints)
    if len(found) < 2:
        return None
    newest, before = found[-1], found[-2]
    rng = random.Random(number)
    part = rng.choice(sorted(newest.glob("part-*")))
    if kind == "cut":
        os.truncate(part, rng.randrange(part.stat().st_size))
    elif kind == "flip":
        _flip(part, rng, _data_start(part))
    elif kind == "swap":
        # A file of another step under the right name.
        other = rng.choice(sorted(before.glob("part-*")))
        if part.name != other.name:
            _flip(part, rng, _data_start(part))
        else:
            shutil.copyfile(other, part)
    elif kind == "missing":
        part.unlink()
    else:
        state = newest / folder.STATE
        if kind == "future":
            facts = json.loads(state.read_text()) | {"format": folder.FORMAT + 1}
            state.write_text(json.dumps(facts))
        elif kind == "cut-state":
            os.truncate(state, rng.randrange(state.stat().st_size))
        else:
            _flip(state, rng, 0)
    return int(newest.name.removeprefix("step-"))


def _data_start(part: Path) -> int:
    with part.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _flip(path: Path, rng: random.Random, start: int) -> None:
    """Flip a bit of a file, from a place on."""
    with path.open("r+b") as file:
        at = rng.randrange(start, path.stat().st_size)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))


def cut_power(log: Path, rng: random.Random) -> int:
    """Undo what a disk need not have kept of the calls in a log, a part of which is drawn; return
    how many there were of these.

    A file has what it had at its last fsync, and perhaps some more; a name is what it was at the
    last fsync of its folder, or at any later moment.
    """
    if not log.exists():
        return 0
    calls = [line.split("\t") for line in log.read_text().splitlines()]
    log.unlink()
    unsettled: list[list[str]] = []
    loose: dict[str, None] = {}
    for name, path, *other in calls:
        if name == "fsync":
            loose.pop(path, None)
            unsettled = [each for each in unsettled if str(Path(each[1]).parent) != path]
        elif name in ("write", "ftruncate"):
            loose[path] = None
        else:
            if name == "open":
                loose[path] = None
            if name in ("rename", "replace") and path in loose:
                loose[other[0]] = loose.pop(path)
            unsettled.append([name, path, *other])
    undone = 0
    for path in loose:
        with suppress(FileNotFoundError):
            os.truncate(path, rng.randint(0, os.stat(path).st_size))
            undone += 1
    for call in reversed(unsettled[rng.randint(0, len(unsettled)) :]):
        undone += _undo(*call)
    return undone


def _undo(name: str, path: str, other: str = "") -> bool:
    try:
        if name in ("rename", "replace"):
            os.rename(other, path)
        elif name == "rmtree":
            if not other:
                return False
            os.rename(other, path)
        elif name == "mkdir":
            shutil.rmtree(path)
        elif name == "open":
            os.unlink(path)
        else:
            return False
    except OSError:
        return False
    return True
