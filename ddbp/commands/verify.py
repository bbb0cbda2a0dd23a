"""`ddbp verify`: the user's own script on several numbers of ranks, compared step by step and to
the last bit.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ddbp import settings, written
from ddbp.comm.rank_process import tied
from ddbp.job import temporary
from ddbp.observers.step_log import CHANGE
from ddbp.terminal import console
from layers.errors import message

from . import launch, program

DESCRIPTION = """Run a script or a module on several numbers of ranks, with the same number of
shards, and compare losses, metrics and digests of all parameters and layer states step by step and
rank by rank. The first number of ranks runs twice, which shows whether the script repeats itself at
all. Trainers without a number of shards get 8, or more for more ranks. The exit status is 0 if
all runs are equal to the last bit."""

_HINTS = {
    "loss": (
        "Where the loss differs first, the data or a forward pass depend on the ranks: draw random"
        " numbers for the whole batch, with one seed on all ranks; no layer may mix samples. Or a"
        " number is computed from this rank's part of the batch: len(), .array.mean() and the like,"
        " where batch.samples or .mean() is meant."
    ),
    "parameter": (
        "Where a parameter differs and the loss does not, a gradient is not kept per shard, or the"
        " script changed it."
    ),
    "state": (
        "Where a state differs, change it only in the function that is passed to call.on_gathered."
    ),
    "metric": (
        "Where a metric differs and no parameter does, the data or the metric depend on the ranks."
    ),
    "things": "The number of ranks, or the time that passes, must not decide what a script does.",
    "again": (
        "The script does not repeat itself: look for seeds, clocks, and orders of files or sets."
    ),
}
# Seconds that a launcher gets to end its ranks before they are killed.
_GRACE = 5.0
_LINES = 100
_RANKS = re.compile(r"\d{1,6}", re.ASCII)
_RECORDS = "trainer*-rank*.jsonl"

Event = dict[str, Any]
_NOTHING: Event = {"event": "nothing more", "values": {}}


@dataclass
class Run:
    """A run of the script: on how many ranks, how long it took, and what each rank recorded, by
    number of trainer and rank.
    """

    ranks: int
    seconds: float
    events: dict[tuple[int, int], list[Event]]

    @property
    def steps(self) -> int:
        """Number of steps of all trainers."""
        return sum(
            event["event"].startswith("step")
            for (_, rank), events in self.events.items()
            if rank == 0
            for event in events
        )

    def digest(self) -> str:
        """Return a digest of the last values of all trainers."""
        last = [
            events[-1]["values"]
            for (_, rank), events in sorted(self.events.items())
            if rank == 0 and events
        ]
        return hashlib.sha256(json.dumps(last).encode()).hexdigest()[:12]


class RunError(Exception):
    """A run that did not come to its end."""


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status: 0 equal, 1 different or failed, 2 wrong usage."""
    options = _options(arguments)
    try:
        return _verify(launch.find_mpiexec(), options, console())
    except OSError as error:
        # There is no launcher, or no room for what is recorded.
        must, fix = "there must be a folder to record to", "Make room, or name one by --keep."
        got = f"{error.filename or ''}: {error.strerror}".removeprefix(": ")
        said = error if error.errno is None else message("ddbp verify", must, got, fix)
        print(said, file=sys.stderr)
        return 1


def _verify(mpiexec: str, options: argparse.Namespace, console: Any) -> int:
    """Run the script on all numbers of ranks and print what differs; return the exit status."""
    with temporary.folder("verify") as place:
        runs: list[Run] = []
        verdicts: list[list[str]] = []
        for number, ranks in enumerate([options.ranks[0], *options.ranks]):
            folder = (options.keep or place).resolve() / f"run{number}-{ranks}-ranks"
            try:
                with console.status(f"{ranks} {_ranks(ranks)} …"):
                    runs.append(_run(mpiexec, ranks, options, folder))
            except RunError as failure:
                print(failure, file=sys.stderr)
                return 1
            verdicts.append(differences(runs[0], runs[-1]))
    console.print(_table(runs, verdicts))
    hints = dict.fromkeys(lines[-1] for lines in verdicts if lines)
    for line in [*(line for lines in verdicts for line in lines[:-1]), *hints]:
        console.print(line, soft_wrap=True)
    return 1 if any(verdicts) else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ddbp verify", description=DESCRIPTION)
    parser.add_argument(
        "-n",
        "--ranks",
        type=_numbers,
        default=[1, 2, 3, 4],
        metavar="1,2,3",
        help="numbers of ranks (1,2,3,4)",
    )
    parser.add_argument(
        "--steps",
        type=written.integer,
        metavar="K",
        help="end the training of each trainer after K steps",
    )
    parser.add_argument(
        "--timeout",
        type=written.real,
        default=3600,
        metavar="SECONDS",
        help="longest time of a run (%(default)g)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep records and output of all runs in a folder",
    )
    program.add_arguments(parser)
    options = program.parse(parser, arguments)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps must be at least 1; got {options.steps}")
    if not options.timeout > 0:
        parser.error(f"--timeout must be positive; got {options.timeout:g}")
    options.program = program.arguments_of_python(parser, options)
    return options


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(_RANKS.fullmatch(part.strip()) and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be numbers of ranks with commas, such as 1,2,3; got {text!r}"
        )
    return list(dict.fromkeys(map(int, parts)))


# ---- one run


def _run(mpiexec: str, ranks: int, options: argparse.Namespace, folder: Path) -> Run:
    """Run the script and read what its ranks recorded, or raise `RunError` with its output."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_RECORDS):
        old.unlink()
    extra = {settings.VERIFY: str(folder), settings.RANKS: str(max(options.ranks))}
    if options.steps is not None:
        extra[settings.VERIFY_STEPS] = str(options.steps)
    command = launch.command(mpiexec, ranks, options.program)
    log = folder / "output.txt"
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            tied(command),
            env=launch.environment(**extra),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(options.timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds = time.monotonic() - started
    where = f"ddbp verify: the script must end well on {ranks} {_ranks(ranks)}"
    events = _read(folder)
    if status is None:
        last = next(
            (f"after {event['event']}" for recorded in events.values() for event in recorded[-1:]),
            "before the first step",
        )
        fix = "Raise --timeout, or take fewer steps with --steps."
        raise RunError(
            f"{_tail(log)}{where}; got no end within {options.timeout:g} s, {last}: it was killed."
            f" {fix}"
        )
    if status:
        raise RunError(
            f"{_tail(log)}{where}; got status {status}, after the output above. Mend the script"
            " first."
        )
    result = Run(ranks, seconds, events)
    if not result.steps:
        fix = "Train with ddbp.Trainer: by fit, step or train_step."
        raise RunError(
            f"{_tail(log)}ddbp verify: the script must take a step of training; got none on {ranks}"
            f" {_ranks(ranks)}. {fix}"
        )
    return result


def _end(process: subprocess.Popen[Any]) -> None:
    """End what still runs of a launcher and its ranks."""
    if process.poll() is None:
        # The launcher is asked first: it knows of processes that are in no group of ours.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(folder: Path) -> dict[tuple[int, int], list[Event]]:
    events = {}
    for path in sorted(folder.glob(_RECORDS)):
        trainer, rank = path.stem.removeprefix("trainer").split("-rank")
        # The last line of a process that was killed may be cut off.
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        events[int(trainer), int(rank)] = [json.loads(line) for line in lines]
    return events


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    cut = [f"… {len(lines) - _LINES} lines above"] if len(lines) > _LINES else []
    return "".join(f"{line}\n" for line in [*cut, *lines[-_LINES:]])


# ---- comparison


def differences(reference: Run, other: Run) -> list[str]:
    """Return lines that say where a run's ranks first differ from its rank 0, or else where that
    differs from the reference.

    The last of them says what may be the reason.
    """
    name = f"{other.ranks} {_ranks(other.ranks)}"
    base = f"{reference.ranks} {_ranks(reference.ranks)}"
    again = other.ranks == reference.ranks
    for trainer in sorted({trainer for trainer, _ in (*reference.events, *other.events)}):
        which = (
            f"trainer {trainer + 1}, " if max(trainer for trainer, _ in reference.events) else ""
        )
        theirs, ours = (run.events.get((trainer, 0), []) for run in (reference, other))
        for rank in range(1, other.ranks):
            mine = other.events.get((trainer, rank), [])
            if lines := _first_difference(
                f"rank {rank} of {other.ranks}", f"rank 0 of {other.ranks}", which, mine, ours
            ):
                return lines
        if lines := _first_difference(
            f"{name} again" if again else name, base, which, ours, theirs
        ):
            return [*lines[:-1], _HINTS["again"]] if again else lines
    return []


def _first_difference(
    name: str, base: str, which: str, ours: list[Event], theirs: list[Event]
) -> list[str]:
    """Return lines on the first event that two lists do not share, none if they are equal."""
    known: list[dict[str, str]] = [{}, {}]
    for mine, other in zip_longest(ours, theirs, fillvalue=_NOTHING):
        pair: list[Event] = [mine, other]
        if pair[0] == pair[1]:
            known[0].update(pair[0]["values"])
            known[1].update(pair[1]["values"])
            continue
        labels = [event["event"] for event in pair]
        changes = [number for number in (0, 1) if labels[number].startswith(CHANGE)]
        if labels[0] != labels[1] and not changes:
            return [
                f"{name} and {base} do different things: {which}{labels[0]}, and {labels[1]}",
                _HINTS["things"],
            ]
        if len(changes) == 1:
            # The other has changed nothing, so what it had before still holds.
            pair[1 - changes[0]] = {"values": known[1 - changes[0]]}
        label = labels[changes[0]] if changes else labels[0]
        keys = pair[changes[0]]["values"] if changes else {**pair[1]["values"], **pair[0]["values"]}
        values = [event["values"] for event in pair]
        unequal = [key for key in keys if values[0].get(key) != values[1].get(key)]
        count = f"{len(unequal)} of {len(keys)} values"
        lines = [f"{name} and {base} differ first in {which}{label}, in {count}:"]
        for key in dict.fromkeys(
            unequal[:1] + [key for key in unequal if key.startswith("parameter ")][:1]
        ):
            lines += [
                f"  {key}",
                f"    {name}: {values[0].get(key)}",
                f"    {base}: {values[1].get(key)}",
            ]
        return [*lines, _HINTS.get(unequal[0].split()[0], _HINTS["metric"])]
    return []


def _table(runs: Sequence[Run], verdicts: Sequence[list[str]]) -> Table:
    table = Table("ranks", "steps", "final digest", "seconds", "verdict", box=SIMPLE_HEAD)
    for number, (one, lines) in enumerate(zip(runs, verdicts, strict=True)):
        verdict = Text("equal", "green") if number else Text("reference")
        if lines:
            verdict = Text("different", "red")
        table.add_row(str(one.ranks), str(one.steps), one.digest(), f"{one.seconds:.1f}", verdict)
    return table


def _ranks(number: int) -> str:
    return "rank" if number == 1 else "ranks"
