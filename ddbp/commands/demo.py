"""From nothing to a trained, evaluated and reported model in a minute: `ddbp demo`.

It trains a network on handwritten digits, on two ranks where there are two cores and an MPI
launcher, evaluates the bundle, and says what to try next. Each step is a command that it shows.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ddbp import settings
from ddbp.comm.cores import available_cores
from ddbp.comm.rank_process import tied
from ddbp.terminal import plain
from layers.errors import message

from . import launch
from .bundles import NAME

_TRAIN = ("train", "images", "--data", "digits", "--model", "cnn", "--epochs", "12")
_RANKS = 2


def run(arguments: Sequence[str]) -> int:
    """Run the demo; return the exit status of the step that fails, 0 if none does."""
    parser = argparse.ArgumentParser(prog="ddbp demo", description=__doc__)
    parser.add_argument(
        "--run-dir", type=Path, metavar="FOLDER", help="of the run (runs/demo and a number)"
    )
    options = parser.parse_args(arguments)
    if settings.launched():
        must, fix = "ddbp demo starts the ranks itself", "Leave the launcher out."
        print(message("ddbp demo", must, "a rank of a launcher", fix), file=sys.stderr)
        return 1
    folder = options.run_dir or _new_folder()
    began = time.monotonic()
    ranks = _ranks()
    alone = "one rank: for two, give it two cores and an MPI (pip install 'ddbp[mpich]')"
    print(
        f"Training a network to read handwritten digits, on {'two ranks' if ranks > 1 else alone}."
    )
    print(
        "The first run on a machine compiles the kernels, which takes a minute more.\n", flush=True
    )
    started = ["launch", "-n", str(ranks), "-m", "ddbp"] if ranks > 1 else []
    with TemporaryDirectory(prefix="ddbp-demo-") as temporary:
        found = {}
        for name, command in (
            ("train", [*started, *_TRAIN, "--run-dir", str(folder)]),
            ("evaluate", ["evaluate", str(folder / NAME), "--data", "digits"]),
        ):
            file = Path(temporary, name)
            print(f"$ ddbp {shlex.join(command)}", flush=True)
            status = _run([*command, "--json", str(file)])
            if status:
                return status
            found[name] = json.loads(file.read_text())
            print(flush=True)
    print(_summary(found, folder, time.monotonic() - began))
    return 0


def _ranks() -> int:
    """Return how many ranks there can be."""
    try:
        launch.find_mpiexec()
    except FileNotFoundError:
        return 1
    return _RANKS if available_cores() >= _RANKS else 1


def _run(arguments: list[str]) -> int:
    """Return the exit status of a command of ddbp, which shows all but its last line."""
    command = [sys.executable, "-m", "ddbp", *arguments]
    done = subprocess.run(tied(command), stdout=subprocess.DEVNULL, check=False)
    return done.returncode


def _new_folder() -> Path:
    number = 1
    while os.path.lexists(folder := Path("runs", f"demo-{number}")):
        number += 1
    return folder


def _summary(found: dict[str, Any], folder: Path, seconds: float) -> str:
    trained, evaluated = found["train"], found["evaluate"]
    accuracy = evaluated["metrics"]["accuracy"]
    right = f"{100 * accuracy:.1f} % of {evaluated['samples']} digits that it has not seen"
    where = plain(folder)
    return f"""Done in {seconds:.0f} seconds: the network reads {right}.
Its parameters have the digest {trained["parameters_sha256"][:16]}…, on any number of ranks up to
eight, to the last bit.

  the report   {where}/report.html, for any browser
  the model    {where}/{NAME}

What to try next:

{_next(where)}"""


def _next(folder: str) -> str:
    """Return commands to try, and what they do."""
    commands = {
        f"ddbp doctor {folder}": "what a doctor says of the run",
        f"ddbp export {folder} --onnx digits.onnx": "the model for other tools",
        "ddbp train images --data FOLDER": "your own images, a sub-folder for each class",
        "ddbp train table --data FILE.csv --target COLUMN": "your own table",
        "ddbp train text --data FILE.txt": "a language model of your own text",
    }
    width = max(map(len, commands))
    return "\n".join(f"  {command:{width}}   {what}" for command, what in commands.items())
