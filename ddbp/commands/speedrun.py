"""`ddbp speedrun`: how fast this machine reaches a fixed target, and entries of other machines once
more.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddbp import settings, written
from ddbp.comm.cores import available_cores
from ddbp.comm.rank_process import tied
from ddbp.job import temporary
from ddbp.speedrun import entry
from ddbp.speedrun.entry import Entry
from ddbp.speedrun.tasks import SHARDS, TASKS, Task
from ddbp.terminal import json_line, plain, say
from ddbp.training.script import output_file
from layers.errors import message

from . import launch

_OWNER = "ddbp speedrun"
DESCRIPTION = """Train a fixed task until its target is reached, and write an entry for the list of
docs/speedrun.md: the time, the machine and the digest of the parameters. With --verify, run an
entry once more and compare all bits. The exit status is 1 if the target was not reached, or the
bits are others."""


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    tasks = "\n".join(f"  {task.name:12}{task.title}" for task in TASKS.values())
    parser = argparse.ArgumentParser(
        prog=_OWNER,
        description=DESCRIPTION,
        epilog=f"tasks:\n{tasks}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", nargs="?", choices=[*TASKS], help="which one")
    parser.add_argument(
        "--verify", type=Path, metavar="FILE", help="run the entry in this file once more"
    )
    most = min(SHARDS, available_cores())
    parser.add_argument(
        "-n",
        "--ranks",
        type=written.integer,
        default=most,
        help=f"number of ranks, up to {SHARDS} (%(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="choose a number of the recipe; --set help names them",
    )
    parser.add_argument("--by", default="", metavar="WORDS", help="who you are, for the list")
    parser.add_argument("--out", type=output_file, metavar="FILE", help="write the entry there")
    parser.add_argument("--quiet", action="store_true", help="print the entry alone")
    options = parser.parse_args(arguments)
    if (options.task is None) is (options.verify is None):
        parser.error("there must be a TASK, or an entry to --verify")
    if not 1 <= options.ranks <= SHARDS:
        parser.error(f"--ranks must be from 1 to {SHARDS}; got {options.ranks}")
    if not (options.by.isprintable() and len(options.by) <= 200):
        parser.error("--by must be up to 200 letters in one line")
    try:
        if options.verify is not None:
            if options.set:
                parser.error("--set goes with a TASK; --verify takes the numbers of the entry")
            return _verify(entry.read(options.verify), options)
        task = TASKS[options.task]
        if options.set == ["help"]:
            _say_numbers(task)
            return 0
        return _enter(task, task.numbers(_numbers(options.set)), options)
    except (OSError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 2


def _say_numbers(task: Task) -> None:
    for name, choice in task.choices.items():
        print(f"{name}={choice.usual:g}  from {choice.least:g} to {choice.most:g}")


def _numbers(given: Sequence[str]) -> dict[str, Any]:
    """Return what --set says."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = json.loads(value)
        except (RecursionError, ValueError) as error:
            must, fix = "--set must be NAME=NUMBER", "Write --set epochs=10."
            raise ValueError(message(_OWNER, must, repr(text), fix)) from error
    return found


def _enter(task: Task, numbers: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Run a task, and write and print the entry."""
    found = _race(task, numbers, options)
    if not found["reached"]:
        last = found["epochs"][-1][task.metric]
        must = f"{task.metric} must come to {task.target:g}"
        fix = "Choose more epochs, or other numbers: --set help names them."
        got = f"{last:g} after {len(found['epochs'])} epochs"
        print(message(_OWNER, must, got, fix), file=sys.stderr)
        return 1
    made = entry.made(task, options.by, numbers, found)
    print(json_line(made._asdict()), flush=True)
    if options.out is not None:
        made.write(options.out)
    if not options.quiet:
        say(f"{task.name}: {_in_words(made)}")
    return 0


def _verify(given: Entry, options: argparse.Namespace) -> int:
    """Run an entry once more, and say what differs."""
    task = TASKS[given.task]
    found = _race(task, given.numbers, options)
    again = entry.made(task, options.by, given.numbers, found)
    different = entry.differences(given, again)
    print(f"entry: {plain(_in_words(given))}")
    print(f"here:  {plain(_in_words(again))}")
    for line in different:
        print(f"differs: {plain(line)}")
    if not different:
        print(f"the same bits: data, {len(again.epochs)} epochs, parameters {again.sha256[:16]}")
    if options.out is not None:
        again.write(options.out)
    return int(bool(different))


def _in_words(of: Entry) -> str:
    ranks = f"{of.ranks} rank{'s' * (of.ranks > 1)}"
    cpu = of.environment.get("cpu", "a processor")
    return (
        f"{of.seconds:.1f} s, {of.samples_per_second:,.0f} samples/s, {len(of.epochs)} epochs on"
        f" {ranks} of {cpu}, parameters {of.sha256[:16]}"
    )


def _race(task: Task, numbers: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Run a task on ranks of its own, and return what came of it."""
    with temporary.folder("speedrun") as place:
        path = place / "race.json"
        request = {"task": task.name, "numbers": dict(numbers), "quiet": options.quiet}
        path.write_text(json.dumps(request))
        arguments = ["-m", "ddbp.speedrun.race", str(path)]
        environ = launch.environment(**{settings.SHARDS: str(SHARDS)})
        command = [sys.executable, *arguments]
        if options.ranks > 1:
            command = launch.command(launch.find_mpiexec(), options.ranks, arguments)
        else:
            environ[settings.MPI] = "0"
        done = subprocess.run(tied(command), env=environ, stdout=sys.stderr, check=False)
        found: dict[str, Any] = json.loads(path.read_text())
        if done.returncode or "sha256" not in found:
            must, fix = "the run must come to its end", "Look above for its errors."
            got = f"exit status {done.returncode}"
            raise ValueError(message(_OWNER, must, got, fix))
        return found
