"""A finding: what the doctor says of a run."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from layers.errors import message
from layers.kernels.cache_folder import opened

FILE = "findings.jsonl"
"""The file of a run folder with a line for each finding."""
PAGE = "docs/doctor.md"
"""Where each rule has a paragraph."""


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
    """

    rule: str
    step: int
    evidence: str
    cause: str
    remedy: str
    layer: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f" at {self.layer}" if self.layer else ""
        return (
            f"{self.rule}{where}, step {self.step}: {self.evidence}. {self.cause} Try this:"
            f" {self.remedy} ({PAGE}#{self.rule})"
        )

    def line(self) -> str:
        """Return the finding as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read(run_folder: str | os.PathLike[str]) -> list[Finding]:
    """Return the findings in a run folder, none if it has no file of them.

    Raises
    ------
    ValueError
        A line is none of a finding.
    """
    path = Path(run_folder) / FILE
    if not path.exists():
        return []
    with opened(path, links=True) as file:
        lines = file.readall().decode(errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Finding(**json.loads(line)))
        except (RecursionError, TypeError, ValueError) as error:
            must, fix = f"line {number} of {path} must be a finding", "Remove it, or train again."
            raise ValueError(message("doctor", must, error, fix)) from error
    return found
