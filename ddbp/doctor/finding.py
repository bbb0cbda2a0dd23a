"""A finding: what the doctor says of a run."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ddbp.files import read_text, reason
from ddbp.observers import replay_command
from ddbp.snapshot import Entry
from ddbp.terminal import json_line
from layers.errors import message

FILE = "findings.jsonl"
"""The file of a run folder with a line for each finding."""
PAGE = "docs/doctor.md"
"""Where each rule has a paragraph."""


Changes = Mapping[str, float | int | str | bool | None]
"""Options by the names that they have in `Trainer`, `fit` and optimizers, and their new values;
`dropout`, the most that layers drop; and `schedule`, None for a constant rate.
"""


def sentence(changes: Changes) -> str:
    """Return in words what options to set."""
    if "schedule" in changes:
        return "Leave the schedule out: the learning rate that it was made with, all the time."
    return f"Set {', '.join(f'{name}={value!r}' for name, value in changes.items())}."


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, why, and what to try.

    Attributes
    ----------
    rule
        The name of the rule, and of its paragraph in the docs.
    step
        How many updates there had been.
    evidence
        What was seen, in a sentence with its numbers.
    cause
        Why that is wrong, in a sentence.
    remedy
        The one change to try first.
    layer
        The layer or parameter it is about, "" for the run.
    numbers
        The numbers of the evidence, by name.
    changes
        The remedy as options of `Trainer`, `fit` or the optimizer, by name; none where no option
        cures it.
    proven
        Whether steps with the changes came to a lower loss than without; None if none were tried.
    """

    rule: str
    step: int
    evidence: str
    cause: str
    remedy: str
    layer: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)
    proven: bool | None = None

    def __str__(self) -> str:
        where = f" at {self.layer}" if self.layer else ""
        return (
            f"{self.rule}{where}, step {self.step}: {self.evidence}. {self.cause} Try this:"
            f" {self.remedy} ({PAGE}#{self.rule})"
        )

    def replay(self, run_folder: Path | None) -> str:
        """Return a line with the command that shows the last step before it once more, "" if there
        is none.
        """
        return replay_command.in_words(run_folder, max(self.step - 1, 0))

    def line(self) -> str:
        """Return the finding as a line of JSON."""
        return json_line(asdict(self)) + "\n"


def _is_finding(entry: Any) -> bool:
    """Return whether an object of JSON is a finding."""
    if type(entry) is not dict or not {*_TEXTS, "step"} <= entry.keys() <= {*_ALL}:
        return False
    numbers, changes = entry.get("numbers", {}), entry.get("changes", {})
    return (
        all(type(entry.get(name, "")) is str for name in (*_TEXTS, "layer"))
        and type(entry["step"]) is int
        and type(numbers) is dict
        and all(type(number) in (int, float) for number in numbers.values())
        and entry.get("proven") in (None, True, False)
        and type(changes) is dict
        and all(type(value) in _VALUES for value in changes.values())
    )


_VALUES = (float, int, str, bool, type(None))
_TEXTS = ("rule", "evidence", "cause", "remedy")
_ALL = [each.name for each in fields(Finding)]
ENTRY = Entry("a finding", _is_finding)
"""What a finding in a state, or in a line of JSON, must be."""


def read(run_folder: str | os.PathLike[str]) -> list[Finding]:
    """Return the findings in a run folder, none if it has no file of them.

    Raises
    ------
    ValueError
        A line is none of a finding.
    """
    found, damage = found_in(run_folder)
    if damage:
        raise ValueError(damage)
    return found


def found_in(run_folder: str | os.PathLike[str]) -> tuple[list[Finding], str]:
    """Return the findings in a run folder, and what is wrong with the first line that is none, ""
    if all are.
    """
    path = Path(run_folder) / FILE
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        must, fix = f"{path} must be readable", "Remove it, or train again."
        return [], message("doctor", must, reason(error), fix)
    found, damage = [], ""
    for number, line in enumerate(lines, 1):
        try:
            entry = _with_nan(json.loads(line))
            if not ENTRY.holds(entry):
                raise ValueError(f"not {ENTRY.kind}")
            found.append(Finding(**entry))
        except (RecursionError, ValueError) as error:
            must, fix = f"line {number} of {path} must be a finding", "Remove it, or train again."
            damage = damage or message("doctor", must, error, fix)
    return found, damage


def _with_nan(entry: Any) -> Any:
    """Return an entry with NaN for those of its numbers that JSON could not hold."""
    numbers = entry.get("numbers") if type(entry) is dict else None
    if type(numbers) is not dict:
        return entry
    known = {name: math.nan if each is None else each for name, each in numbers.items()}
    return entry | {"numbers": known}


def to_fix(findings: Sequence[Finding]) -> Finding | None:
    """Return the finding to begin with, of those of a run in time: the last one that options cure,
    as what is found later is nearer to the cause; else the last one, None if there is none.
    """
    curable = [each for each in findings if each.changes]
    return next(reversed(curable or [*findings]), None)


def append(run_folder: Path, found: Finding) -> None:
    """Write a finding to a run folder, on a line of its own even if the last one is torn."""
    with (run_folder / FILE).open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        torn = file.read() not in (b"", b"\n")
        file.write(b"\n" * torn + found.line().encode())
