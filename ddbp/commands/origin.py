"""How a run was started, and how to start it again: for commands that do."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddbp import settings
from ddbp.comm.rank_process import tied
from ddbp.files import read_text, reason
from ddbp.observers.replay_command import runs_again
from ddbp.report.run import is_run
from layers.errors import message

from . import launch

_SHOWN = 60
_PROCESS: dict[str, Any] = {
    "python": list,
    "folder": str,
    "trainer": int,
    "shards": int | None,
    "changes": dict,
}
"""What a configuration says of the process of a run."""


def configuration(owner: str, run: Path) -> dict[str, Any]:
    """Return the configuration of a run, whose `process` says how it was started.

    Raises
    ------
    ValueError
        There is none, or it was no script, or that is not there any more.
    """
    path = run / "config.json"
    if not is_run(run):
        must, fix = "RUN must be a run folder", "Pass the run_dir= of a trainer."
        raise ValueError(message(owner, must, f"{run}, which is none", fix))
    try:
        found: dict[str, Any] = json.loads(read_text(path))
        process = found["process"]
        arguments = process["python"]
        # A run of before had no changes.
        process.setdefault("changes", {})
        wrong = [name for name, kind in _PROCESS.items() if not isinstance(process[name], kind)]
        if wrong or not all(isinstance(each, str) for each in arguments):
            raise ValueError(f"other kinds of {', '.join(wrong or ['python'])}")
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        must = f"{path} must say how the run was started"
        got = f"{type(error).__name__}: {reason(error)}"
        fix = "Train with this version in a new folder."
        raise ValueError(message(owner, must, got, fix)) from error
    if not runs_again(arguments):
        must = "the run must have been that of a script or a module"
        fix = "Save it to a file, and start that, on several ranks by ddbp launch."
        got = shlex.join(arguments) or "one that was typed in"
        raise ValueError(message(owner, must, f"{got[:_SHOWN]}…" if got[_SHOWN:] else got, fix))
    if not os.path.isdir(process["folder"]):
        must, fix = "the folder that the script was started in must be there", "Make it again."
        raise ValueError(message(owner, must, process["folder"], fix))
    script = Path(process["folder"], arguments[0])
    if arguments[0].endswith(".py") and not os.path.isfile(script):
        must, fix = "the script of the run must be there", "Put it back."
        raise ValueError(message(owner, must, script, fix))
    return found


def start(
    process: Mapping[str, Any], ranks: int, environment: Mapping[str, str], *, quiet: bool = False
) -> int:
    """Run the process of a run again, on so many ranks, with more in its environment; return its
    exit status. If it is to be quiet, it reads nothing, and what it
    prints is left out.
    """
    environ = launch.environment(**{settings.SHARDS: str(process["shards"])}, **environment)
    arguments = process["python"]
    command = [sys.executable, *arguments]
    if ranks > 1:
        command = launch.command(launch.find_mpiexec(), ranks, arguments)
    else:
        environ[settings.MPI] = "0"
    nothing = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        tied(command),
        env=environ,
        cwd=process["folder"],
        stdin=nothing,
        stdout=nothing,
        check=False,
    )
    return done.returncode


def fix(process: Mapping[str, Any], changes: Mapping[str, Any], run_dir: Path | None) -> str:
    """Return what the environment must say for the trainer of a run to have other options, those
    that it had already among them.
    """
    asked = {
        "trainer": process["trainer"],
        "run_dir": None if run_dir is None else str(run_dir.absolute()),
        "changes": {**process["changes"], **changes},
    }
    return json.dumps(asked)
