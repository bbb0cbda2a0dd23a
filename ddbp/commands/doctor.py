"""`ddbp doctor`: what was found in a run, and the run once more with the change that cures it."""

import argparse
import ast
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

from ddbp import settings
from ddbp.doctor import finding
from ddbp.doctor.finding import Finding
from ddbp.files import place, read_text
from ddbp.report.run import is_run
from ddbp.terminal import plain
from layers.errors import message

from . import origin

DESCRIPTION = """Print what the doctor has found in a run. With --fix, print the change that the
last finding proposes which an option cures, the deepest such cause that was found, and start the
run again with it: the same command in the same folder on as many ranks, in a new run folder beside
RUN. The script may be any: its trainer takes the options from the command, whatever the script
says."""
_OWNER = "ddbp doctor"


def run(arguments: Sequence[str]) -> int:
    """Print the findings of a run folder; return 0 if there are none, else 1; or the exit status of
    the run that is started.
    """
    parser = argparse.ArgumentParser(prog=_OWNER, description=DESCRIPTION)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--fix", action="store_true", help="start it again with the change")
    parser.add_argument("--print", action="store_true", help="with --fix: only print the change")
    options = parser.parse_args(arguments)
    if options.print and not options.fix:
        parser.error("--print goes with --fix")
    folder = options.run
    try:
        if not is_run(folder):
            must, fix = "RUN must be a run folder", "Pass the run_dir= of the trainer."
            raise ValueError(message(_OWNER, must, f"{folder}, which is none", fix))
        findings = finding.read(folder)
        if options.fix:
            return _fix(folder, findings, start=not options.print)
    except (OSError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 1
    for each in findings:
        print(plain(each))
        if again := each.replay(folder):
            print(plain(again))
    if not findings:
        what = "nothing was found" if _was_watched(folder) else "no doctor was asked for"
        print(plain(f"{folder}: {what}."))
    return int(bool(findings))


def _was_watched(folder: Path) -> bool:
    """Return whether the run had a doctor, as far as its configuration says."""
    try:
        callbacks = json.loads(read_text(folder / "config.json")).get("callbacks") or ()
    except (AttributeError, OSError, RecursionError, ValueError):
        return False
    return isinstance(callbacks, list) and "Doctor" in callbacks


def _fix(folder: Path, findings: Sequence[Finding], *, start: bool) -> int:
    """Print what a finding proposes, and start the run with that if it is wanted; return the exit
    status.
    """
    found = finding.to_fix(findings)
    if found is None:
        must, fix = f"{folder} must have a finding", "Nothing was found that wants mending."
        if not _was_watched(folder):
            fix = "Train with doctor=True (--doctor)."
        raise ValueError(message(_OWNER, must, "none", fix))
    if not found.changes:
        must, got = "an option must cure what was found", f"{found.rule}, which none does"
        raise ValueError(message(_OWNER, must, got, found.remedy))
    configuration = origin.configuration(_OWNER, folder)
    _require_this_version(configuration)
    print(plain(found))
    for name, value in found.changes.items():
        print(plain(f"- {name}={_before(configuration, name)}"))
        print(plain(f"+ {name}={value!r}"), flush=True)
    if not start:
        return 0
    process, ranks = configuration["process"], int(configuration.get("ranks", 1))
    if shards := found.changes.get("shards"):
        ranks = min(ranks, int(shards))
    fixed = _beside(folder)
    said = f"{ranks} {'ranks' if ranks > 1 else 'rank'}, in {fixed}"
    print(plain(said), file=sys.stderr, flush=True)
    asked = origin.fix(process, found.changes, fixed)
    try:
        status = origin.start(process, ranks, {settings.FIX: asked})
    finally:
        # If nothing was written there.
        with suppress(OSError):
            fixed.rmdir()
    if not status:
        both = shlex.join(map(str, (folder, fixed)))
        print(plain(f"Compare them: ddbp report {both}"), file=sys.stderr)
    return status


def _require_this_version(configuration: Mapping[str, Any]) -> None:
    environment, here = configuration.get("environment"), metadata.version("ddbp")
    there = environment.get("ddbp") if isinstance(environment, dict) else None
    if there != here:
        must, fix = f"the run must be of ddbp {here}", "Train once more, or install that version."
        raise ValueError(message(_OWNER, must, there or "one without a version", fix))


def _beside(folder: Path) -> Path:
    """Make a new folder beside that of a run, and return it."""
    base = place(folder)
    name = re.sub(r"-fixed(-\d+)?$", "", base.name)
    for number in count(1):
        new = base.with_name(f"{name}-fixed" + (f"-{number}" if number > 1 else ""))
        try:
            new.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            must = f"there must be room for a folder beside {base}"
            fix = "Copy the run folder to where you may write."
            raise OSError(message(_OWNER, must, error.strerror, fix)) from error
        return new
    raise AssertionError


def _before(configuration: Mapping[str, Any], name: str) -> str:
    """Return the value of an option in the configuration of a run, in words; "?" if it is not
    known.
    """
    changed = configuration["process"]["changes"]
    if name in changed:
        return repr(changed[name])
    if name in configuration:
        return repr(configuration[name])
    if name == "dropout":
        found = re.findall(r"Dropout(?:2d)?\(([\d.e-]+)\)", str(configuration.get("model")))
        return max(found, key=float, default="?")
    if name == "class_weight":
        return "?"
    try:
        call: Any = ast.parse(str(configuration.get("optimizer")), mode="eval").body
        if name == "schedule":
            return ast.unparse(call.args[0])
        if name != "learning_rate":
            return next(ast.unparse(each.value) for each in call.keywords if each.arg == name)
        # The first argument of the optimizer, and of schedules in one another.
        while isinstance(call, ast.Call):
            call = call.args[0]
        return ast.unparse(call)
    except (IndexError, RecursionError, StopIteration, SyntaxError, ValueError):
        return "?"
