"""A run as its folder tells it, however much of it is there."""

import json
import math
import os
import socket
import time
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.comm import processes
from ddbp.files import place, read_text, reason
from ddbp.instruments.recording import Recording
from layers.errors import message
from layers.kernels.cache_folder import opened
from layers.types import Array

PARTS = ("config.json", "metrics.jsonl", "status.json")
"""A folder with one of these is that of a run."""

_OF_THE_SYSTEM = ("dev", "proc", "sys")
"""No runs are searched for there."""

_OF_A_RUN = ("checkpoints", "instruments")
"""Folders of a run that hold no others."""

_SILENT = 120.0
"""After so many seconds without a word a run on another host is taken to have ended."""


@dataclass
class Run:
    """What the folder of a run holds.

    Attributes
    ----------
    path, name
        The folder, and what the run is called.
    configuration
        What `config.json` says.
    facts
        What `status.json` says.
    records
        A record per epoch, from `metrics.jsonl`.
    steps
        Columns of `steps.jsonl` by name, each (n,), NaN where a line has no such number.
    findings
        What is wrong with the run, from `findings.jsonl`.
    notes
        What was done about numbers that were not finite.
    recording
        What instruments have recorded, if anything.
    samples
        The arrays of `samples.npz`.
    problems
        What could not be read, a sentence each.
    """

    path: Path
    name: str
    configuration: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, Array] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    recording: Recording | None = None
    samples: dict[str, Array] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, whole: bool = True) -> "Run":
        """Return the run of a folder; with the arrays of instruments and samples if it is wanted
        `whole`.

        Raises
        ------
        ValueError
            It is no folder of a run.
        """
        folder = place(path)
        if not is_run(folder):
            must = f"{folder} must be the folder of a run"
            got = f"one without {', '.join(PARTS)}" if os.path.isdir(folder) else "no folder"
            fix = "Pass what run_dir= of a trainer was; `ddbp runs` lists them."
            raise ValueError(message("ddbp.report", must, got, fix))
        run = cls(folder, folder.name)
        run.configuration = run._object("config.json", "without it there are no options")
        run.facts = run._object("status.json", "it is of a version that wrote none")
        run.records = run._lines("metrics.jsonl")
        run.steps = _columns(run._lines("steps.jsonl"))
        run.findings = run._lines("findings.jsonl")
        run.notes = run._lines("nonfinite.jsonl")
        if whole:
            run.samples = run._arrays("samples.npz")
            run._read_recording()
        if not (run.records or run.steps):
            run.problems.append(
                "There are no records: no epoch has ended, or the run was cut short."
            )
        return run

    @property
    def status(self) -> str:
        """How the run is or has ended: running, finished, failed, saved, interrupted, cut short, or
        unknown.
        """
        said = self.facts.get("status")
        if said in ("finished", "failed", "saved", "interrupted"):
            return str(said)
        if said != "running":
            return "finished" if (self.path / "model.safetensors").exists() else "unknown"
        if self.facts.get("host") == socket.gethostname():
            lives = processes.lives(self.facts.get("process"), self.facts.get("born"))
            return "running" if lives else "cut short"
        return "running" if self.silent < _SILENT else "cut short"

    @property
    def silent(self) -> float:
        """Seconds since the run has written anything."""
        times = []
        for name in ("status.json", "steps.jsonl", "metrics.jsonl"):
            try:
                times.append((self.path / name).stat().st_mtime)
            except OSError:
                continue
        return max(0.0, time.time() - max(times, default=0.0))

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken so far; NaN where that is not known."""
        started, ended = (instant(self.facts.get(name)) for name in ("started", "ended"))
        if math.isnan(ended) and self.status == "running":
            ended = time.time()
        elif math.isnan(ended):
            ended = instant(self.facts.get("written"))
        if math.isnan(started):
            return math.fsum(number(record.get("seconds")) for record in self.records) or math.nan
        return ended - started

    @property
    def digest(self) -> str:
        """The digest of the parameters at the end, nothing where there is none."""
        return str(self.facts.get("parameters_sha256", ""))

    def last(self, name: str) -> float:
        """Return a number of the last record, NaN if it has none."""
        return number(self.records[-1].get(name)) if self.records else math.nan

    @property
    def metrics(self) -> list[str]:
        """The names of losses and metrics in the records."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return [name for name in names if name == "loss" or name.startswith("validation_")]

    def _read_recording(self) -> None:
        try:
            self.recording = Recording.read(self.path)
        except FileNotFoundError:
            return
        except ValueError as error:
            self.problems.append(str(error))

    def _arrays(self, name: str) -> dict[str, Array]:
        """Return the arrays of a file of NumPy's, none where there is none."""
        try:
            with (
                opened(self.path / name, links=True) as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                return {key: arrays[key] for key in arrays.files}
        except FileNotFoundError:
            return {}
        except (
            ArithmeticError,
            AttributeError,
            EOFError,
            LookupError,
            MemoryError,
            OSError,
            RecursionError,
            TypeError,
            ValueError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            self.problems.append(f"{name} cannot be read: {reason(error)}.")
            return {}

    def _text(self, name: str) -> str | None:
        """Return the text of a file, None where there is none."""
        try:
            return read_text(self.path / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problems.append(f"{name} cannot be read: {reason(error)}.")
            return None

    def _object(self, name: str, missing: str) -> dict[str, Any]:
        text = self._text(name)
        if text is None:
            if not any(problem.startswith(name) for problem in self.problems):
                self.problems.append(f"{name} is not there: {missing}.")
            return {}
        found = _parsed(text)
        if found is None:
            self.problems.append(f"{name} is damaged or cut off.")
        return found or {}

    def _lines(self, name: str) -> list[dict[str, Any]]:
        lines = (self._text(name) or "").splitlines()
        parsed = [_parsed(line) for line in lines]
        whole = [line for line in parsed if line is not None]
        if len(whole) < len(lines):
            bad = len(lines) - len(whole)
            self.problems.append(f"{name}: {bad} of {len(lines)} lines are damaged or cut off.")
        return whole


def is_run(path: Path) -> bool:
    """Return whether a folder is that of a run."""
    try:
        return any((path / name).exists() for name in PARTS)
    except OSError:
        return False


def found(folder: Path) -> list[Path]:
    """Return the run folders in a folder and those within it, runs too, and itself if it is one.
    Links are not followed, and hidden folders not searched.
    """
    paths = []
    for path, within, files in os.walk(folder):
        asked_for = path == os.fspath(folder) and is_run(folder)
        # Much else has a config.json.
        if asked_for or any(name in files for name in PARTS[1:]):
            paths.append(Path(path))
            within[:] = [name for name in within if name not in _OF_A_RUN]
        within[:] = sorted(name for name in within if name[0] != ".")
        if path == os.sep:
            within[:] = [name for name in within if name not in _OF_THE_SYSTEM]
    return paths


def number(value: Any) -> float:
    """Return a number of a file as a float, NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def instant(text: Any) -> float:
    """Return a point in time of a file in seconds since 1970, NaN for what is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (OverflowError, TypeError, ValueError, OSError):
        return math.nan


def _parsed(text: str) -> dict[str, Any] | None:
    """Return the object that a text of JSON is, None for anything else."""
    try:
        found = json.loads(text)
    except (RecursionError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _columns(lines: Iterable[dict[str, Any]]) -> dict[str, Array]:
    """Return the numbers of lines by name, in the order of their steps; of a step the last line."""
    of_steps = {number(line.get("step")): line for line in lines}
    steps = sorted(step for step in of_steps if math.isfinite(step))
    names = dict.fromkeys(name for step in steps for name in of_steps[step])
    return {
        name: np.array([number(of_steps[step].get(name)) for step in steps], np.float64)
        for name in names
    }
