"""Entries: what a run of a task came to, on which machine, as JSON that others can reproduce."""

import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ddbp.files import read_text, reason, whole
from ddbp.terminal import json_text
from ddbp.training.environment import environment
from layers.errors import message

from .tasks import TASKS, Task

VERSION = 1
"""Of what an entry holds."""
_OWNER = "ddbp speedrun"
_MOST_BYTES = 2**20
_MOST_LETTERS = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", re.ASCII)
_METRICS = ("loss", "validation_loss", "validation_accuracy", "validation_bits_per_character")


class Entry(NamedTuple):
    """An entry.

    Attributes
    ----------
    task
        The name of the task.
    by
        Who has run it, in their words.
    numbers
        All numbers of the recipe.
    ranks, seconds, samples_per_second, steps
        How many ranks have taken part, how long until the target was reached, at which speed and in
        how many updates.
    epochs
        Loss and metrics of each epoch.
    data
        Digests of the data, by name.
    sha256
        The digest of all parameters at the end.
    environment
        The machine and the versions of packages.
    date
        When it was, in UTC.
    version
        Of the format.
    """

    task: str
    by: str
    numbers: dict[str, Any]
    ranks: int
    seconds: float
    samples_per_second: float
    steps: int
    epochs: list[dict[str, float]]
    data: dict[str, str]
    sha256: str
    environment: dict[str, str]
    date: str
    version: int = VERSION

    @property
    def value(self) -> float:
        """What the task counts, at the end."""
        metric = TASKS[self.task].metric
        return self.epochs[-1].get(metric, self.samples_per_second)

    def write(self, path: Path) -> None:
        """Write the entry to a file, whole or not at all.

        Raises
        ------
        ValueError
            The file cannot be written.
        """
        try:
            with whole(path) as place:
                place.write_text(json_text(self._asdict(), indent=2) + "\n")
        except OSError as error:
            must, fix = "--out must be a file that can be written", "Name another."
            raise ValueError(message(_OWNER, must, f"{path}: {reason(error)}", fix)) from error


def made(task: Task, by: str, numbers: Mapping[str, Any], found: Mapping[str, Any]) -> Entry:
    """Return the entry of a run here and now."""
    facts = {name: str(fact) for name, fact in environment().items()}
    # Where Python lies is nobody's business.
    facts["python"] = facts["python"].partition(" ")[0]
    kept = ("ranks", "seconds", "samples_per_second", "steps", "epochs", "data", "sha256")
    date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return Entry(
        task=task.name,
        by=by,
        numbers=dict(numbers),
        environment=facts,
        date=date,
        **{name: found[name] for name in kept},
    )


def read(path: Path) -> Entry:
    """Return the entry in a file of anybody's making.

    Raises
    ------
    ValueError
        It is no whole entry of a task of this version, and what is wrong.
    """
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"a file of more than {_MOST_BYTES} bytes")
        given = json.loads(read_text(path), parse_constant=_not_finite)
        return _checked(given)
    except (OSError, RecursionError, ValueError) as error:
        must = "FILE must be an entry of a speedrun"
        fix = "Pass what `ddbp speedrun TASK --out FILE` has written."
        got = f"{path}: {reason(error)}".rstrip(".")
        raise ValueError(message(_OWNER, must, got, fix)) from error


def _not_finite(text: str) -> float:
    raise ValueError(f"the number {text}")


def _checked(given: Any) -> Entry:
    """Return an entry, every part of which has been looked at."""
    if type(given) is not dict:
        raise ValueError("no object of JSON")
    if (version := given.get("version")) != VERSION:
        raise ValueError(f"version {_short(version)}, where this ddbp knows {VERSION}")
    names = Entry._fields
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"no {missing[0]}")
    if more := [name for name in given if name not in names]:
        raise ValueError(f"{_short(more[0])}, which entries do not have")
    task = TASKS.get(given["task"]) if isinstance(given["task"], str) else None
    if task is None:
        raise ValueError(f"the task {_short(given['task'])}; tasks are {', '.join(TASKS)}")
    if type(given["numbers"]) is not dict or given["numbers"].keys() != task.choices.keys():
        raise ValueError(f"numbers other than {', '.join(task.choices)}")
    given["numbers"] = task.numbers(given["numbers"])
    for name in ("ranks", "steps"):
        _require(type(given[name]) is int and 1 <= given[name] < 2**31, name, given[name])
    for name in ("seconds", "samples_per_second"):
        _require(_is_number(given[name]) and 0 < given[name] < 1e12, name, given[name])
    for name, texts in (("data", given["data"]), ("environment", given["environment"])):
        known = type(texts) is dict and 0 < len(texts) <= 64
        _require(known and all(map(_is_text, [*texts, *texts.values()])), name, texts)
    epochs = given["epochs"]
    known = type(epochs) is list and 0 < len(epochs) <= given["numbers"]["epochs"]
    _require(known and all(map(_is_record, epochs)), "epochs", epochs)
    for name, pattern in (("sha256", _DIGEST), ("date", _DATE)):
        text = given[name]
        _require(isinstance(text, str) and pattern.fullmatch(text), name, text)
    _require(_is_text(given["by"]), "by", given["by"])
    entry = Entry(**given)
    if task.target is not None and not task.reached(entry.epochs[-1].get(task.metric, math.nan)):
        raise ValueError(f"{task.metric} {entry.value:g}, which is not the target")
    return entry


def _require(holds: Any, name: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{name} {_short(value)}")


def _short(value: Any) -> str:
    """Return anything in few letters that do nothing to a terminal."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= _MOST_LETTERS and text.isprintable()


def _is_record(record: Any) -> bool:
    return (
        type(record) is dict
        and "loss" in record
        and all(name in _METRICS and _is_number(value) for name, value in record.items())
    )


def differences(entry: Entry, again: Entry) -> list[str]:
    """Return what differs between an entry and a second run of it, in words; nothing if the second
    one has the same bits.
    """
    lines = []
    for name, digest in entry.data.items():
        if (here := again.data.get(name)) != digest:
            lines.append(f"the data: {name} is {here} here, {digest} in the entry")
    if lines:
        # All that follows differs, too.
        return [*lines, *_others(entry, again)]
    for number, (record, other) in enumerate(zip(entry.epochs, again.epochs, strict=False), 1):
        lines += [
            f"epoch {number}: {name} is {other.get(name)}, not {value}"
            for name, value in record.items()
            if value != other.get(name)
        ]
        if lines:
            break
    if len(entry.epochs) != len(again.epochs):
        lines.append(f"epochs: {len(again.epochs)}, not {len(entry.epochs)}")
    if entry.steps != again.steps:
        lines.append(f"updates: {again.steps}, not {entry.steps}")
    if entry.sha256 != again.sha256:
        lines.append(f"parameters: {again.sha256[:16]}, not {entry.sha256[:16]}")
    return [*lines, *_others(entry, again)] if lines else []


def _others(entry: Entry, again: Entry) -> list[str]:
    """Return what else is known to be different, and may be why."""
    there, here = entry.environment, again.environment
    return [
        f"{name} is {here.get(name, 'not there')} here, {there.get(name, 'not there')} in the entry"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]
