"""`ddbp replay`: a step of a run once more, bit for bit, with every instrument."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ddbp import settings, written
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.files import read_text, reason
from ddbp.terminal import console, json_line, plain
from ddbp.training import replay
from layers.errors import message

from . import origin

DESCRIPTION = """Run a step of a run once more: its script, from the last checkpoint before the
step, on any number of ranks, with the same bits. Shows what the instruments measure, layer by
layer, and which samples the step is of; the run folder stays as it is. Steps count from 0, as in
errors and timelines. The exit status is 1 if the step fails, or the parameters after it are not
those that StepDigests has recorded."""
_OWNER = "ddbp replay"
_COLUMNS = {
    "layers": {
        "activation_norm": "output",
        "activation_zeros": "zeros",
        "activation_saturated": "saturated",
        "activation_gradient_norm": "gradient of it",
    },
    "parameters": {
        "parameter_norm": "norm",
        "gradient_norm": "gradient",
        "update_norm": "update",
        "update_ratio": "update / norm",
    },
}
_MOST_RANKS = 2**16
_SHOWN = 32
"""So many samples of a rank are named."""


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog=_OWNER, description=DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run folder")
    whole = written.integer
    parser.add_argument("--step", type=whole, required=True, metavar="N", help="the step, from 0")
    parser.add_argument(
        "-n", "--ranks", type=whole, default=1, help="number of ranks (%(default)s)"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="show this layer, or what it is made of, alone, with its arrays, sample by sample",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help="keep numbers and the arrays of --layer there"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.step < 0:
        parser.error(f"--step must be at least 0; got {options.step}")
    if not 1 <= options.ranks <= _MOST_RANKS:
        parser.error(f"--ranks must be from 1 to {_MOST_RANKS}; got {options.ranks}")
    try:
        return _replay(options, console())
    except (OSError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 2


def _replay(options: argparse.Namespace, console: Any) -> int:
    process = origin.configuration(_OWNER, options.run)["process"]
    _require_within(options.run, options.step)
    checkpoint = before(options.run, options.step)
    if options.save is not None:
        _make(options.save)
    with tempfile.TemporaryDirectory(prefix="ddbp-replay-") as name:
        place = Path(name)
        request = {
            "trainer": process["trainer"],
            "step": options.step,
            "checkpoint": None if checkpoint is None else str(checkpoint.path.absolute()),
            "layer": options.layer,
        }
        (place / replay.REQUEST).write_text(json.dumps(request))
        environment = {settings.REPLAY: name}
        if process["changes"]:
            environment[settings.FIX] = origin.fix(process, {}, None)
        where = (
            "its beginning" if checkpoint is None else f"the checkpoint of step {checkpoint.step}"
        )
        print(f"replays from {where}", file=sys.stderr, flush=True)
        # What the script prints is not what was asked for.
        status = origin.start(process, options.ranks, environment, quiet=True)
        ranks = [
            json.loads(path.read_text())
            for rank in range(options.ranks)
            if (path := (place / replay.of_rank(rank)).with_suffix(".json")).is_file()
        ]
        if options.save is not None:
            _save(place, options.save)
        arrays = _arrays(place, options.ranks)
        result = place / replay.RESULT
        found = json.loads(result.read_text()) if result.is_file() else {}
    for number, rank in enumerate(ranks):
        if rank["error"]:
            said = f"rank {number}, samples {_listed(rank['samples'])}: {rank['error']}"
            console.print(plain(said), soft_wrap=True)
    if not found:
        if not any(rank["error"] for rank in ranks):
            must, fix = f"the run must come to step {options.step}", "Look above for its errors."
            got = f"its end before, with status {status}"
            raise ValueError(message(_OWNER, must, got, fix))
        return 1
    expected = replay.recorded_digest(options.run, options.step)
    found |= {name: [rank[name] for rank in ranks] for name in ("samples", "left_out")}
    found["recorded_sha256"] = expected
    if options.json:
        print(json_line(found))
    else:
        _show(found, arrays, options.layer, console)
    return 0 if expected in (None, found["sha256"]) else 1


def _require_within(run: Path, step: int) -> None:
    """Refuse a step that lies beyond the end that the run had, or is to have."""
    try:
        steps = json.loads(read_text(run / "status.json"))["steps"]
    except (KeyError, OSError, RecursionError, TypeError, ValueError):
        return
    if type(steps) is int and 0 < steps <= step:
        must, fix = f"--step must be below {steps}, the steps of the run", "Steps count from 0."
        raise ValueError(message(_OWNER, must, step, fix))


def before(run: Path, step: int) -> Checkpoint | None:
    """Return the last whole checkpoint of a run that is not behind a step, if there is one."""
    for path in reversed(folder.found(folder.within(run))):
        try:
            checkpoint = Checkpoint(path)
            if checkpoint.step <= step:
                checkpoint.require_whole()
                return checkpoint
        except DamagedError as error:
            print(plain(f"{error} It is passed over."), file=sys.stderr)
    return None


def _make(target: Path) -> None:
    """Make the folder of --save."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        must, fix = "--save must be a folder that can be written", "Name another."
        raise ValueError(message(_OWNER, must, f"{target}: {reason(error)}", fix)) from error


def _save(place: Path, target: Path) -> None:
    for path in place.glob("*"):
        if path.is_file() and path.name != replay.REQUEST:
            shutil.copy(path, target)


def _arrays(place: Path, ranks: int) -> dict[str, list[Any]]:
    """Return the arrays of a layer, by name, of all ranks."""
    result: dict[str, list[Any]] = {}
    for rank in range(ranks):
        path = (place / replay.of_rank(rank)).with_suffix(".npz")
        if path.is_file():
            with np.load(path) as arrays:
                for name, array in arrays.items():
                    result.setdefault(name, []).append(array)
    return result


def _show(
    found: Mapping[str, Any], arrays: Mapping[str, list[Any]], layer: str | None, console: Any
) -> None:
    def say(text: str) -> None:
        console.print(plain(text), soft_wrap=True)

    # JSON has no other word for it.
    loss = np.nan if found["loss"] is None else found["loss"]
    ranks = "alone" if found["ranks"] == 1 else f"on {found['ranks']} ranks"
    say(
        f"step {found['step']}, {ranks}, {found['shards']} shards, epoch"
        f" {found['epoch'] + 1}: loss {loss!r}, learning rate {found['rate']:g}"
    )
    recorded = found["recorded_sha256"]
    same = "not recorded, see StepDigests" if recorded is None else "NOT the recorded ones"
    if recorded == found["sha256"]:
        same = "those of the run, to the last bit"
    say(f"parameters after it: {found['sha256'][:16]}, {same}")
    for rank, samples in enumerate(found["samples"]):
        say(f"samples of rank {rank}: {_listed(samples)}")
    for kind, columns in _COLUMNS.items():
        rows = [
            (name, [found["quantities"].get(each, {}) for each in columns], number)
            for number, name in enumerate(found[kind])
            if layer is None or name == layer or name.startswith(f"{layer}.")
        ]
        table = Table(box=SIMPLE_HEAD)
        table.add_column(kind.removesuffix("s"))
        for title in columns.values():
            table.add_column(title, justify="right")
        for name, values, number in rows:
            table.add_row(plain(name), *(_number(each, number) for each in values))
        if rows:
            console.print(table)
    for name, parts in arrays.items():
        shapes = ", ".join(str(part.shape) for part in parts)
        norms = [
            float(np.linalg.norm(np.asarray(row, np.float64).reshape(-1)))
            for part in parts
            for row in part[:_SHOWN]
            if part.dtype.kind == "f"
        ]
        shown = " ".join(f"{norm:.3g}" for norm in norms[:_SHOWN])
        say(f"{name} {shapes}; norms by sample: {shown}")
    if layer is not None and not arrays:
        say(f"{layer} is not called in this step")
    if left_out := sum(found["left_out"]):
        say(f"and {left_out} more arrays, for which there is no room: name a smaller --layer")


def _number(values: Any, number: int) -> str:
    value = values[number] if values else None
    return "" if value is None or np.isnan(value) else f"{value:.4g}"


def _listed(samples: Sequence[int]) -> str:
    shown = " ".join(map(str, samples[:_SHOWN]))
    more = len(samples) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "none"
