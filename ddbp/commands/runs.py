"""The runs in a folder, newest first: `ddbp runs [FOLDER]`."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddbp.files import place
from ddbp.report import sections
from ddbp.report.figures import text
from ddbp.report.run import Run, found, instant
from ddbp.terminal import console, json_line, plain
from layers.errors import message

_COLOURS = {
    "finished": "green",
    "running": "cyan",
    "failed": "red",
    **dict.fromkeys(("saved", "interrupted", "cut short"), "yellow"),
}


def run(arguments: Sequence[str]) -> int:
    """Print the table; return the exit status: 1 if there is no run."""
    parser = argparse.ArgumentParser(prog="ddbp runs", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each run")
    options = parser.parse_args(arguments)
    base = place(options.folder)
    runs = [Run.read(path, whole=False) for path in found(base)]
    if not runs:
        must = f"{options.folder} must hold the folder of a run"
        fix = "Name another folder: ddbp runs FOLDER."
        got = "none" if os.path.isdir(options.folder) else "no folder"
        print(plain(message("ddbp runs", must, got, fix)), file=sys.stderr)
        return 1
    runs.sort(key=_started, reverse=True)
    if options.json:
        for each in runs:
            print(json_line(_facts(each, base)))
        return 0
    _print_table(runs, base)
    return 0


def _started(run: Run) -> float:
    started = instant(run.facts.get("started"))
    return -run.silent if math.isnan(started) else started


def _name(run: Run, base: Path) -> str:
    name = run.path.relative_to(base).as_posix()
    return run.path.name if name == "." else name


def _metric(run: Run) -> tuple[str, float]:
    """Return the last metric of the last record, of validation if there was one."""
    names = run.metrics or ["loss"]
    return names[-1], run.last(names[-1])


def _facts(run: Run, base: Path) -> dict[str, Any]:
    return {
        "run": _name(run, base),
        "status": run.status,
        "epoch": run.records[-1].get("epoch") if run.records else 0,
        **{name: run.last(name) for name in run.metrics},
        "seconds": round(run.seconds, 1),
        "parameters_sha256": run.digest or None,
    }


def _print_table(runs: Sequence[Run], base: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("run", "status", header_style="bold", box=None)
    for heading in ("epoch", "loss", "metric", "time"):
        table.add_column(heading, justify="right")
    table.add_column("digest")
    for each in runs:
        name, value = _metric(each)
        short = name.removeprefix("validation_")
        epoch = each.records[-1].get("epoch") if each.records else 0
        epochs = each.facts.get("epochs", each.configuration.get("epochs", "?"))
        cells = (
            _name(each, base),
            each.status,
            f"{epoch}/{epochs}",
            text(each.last("loss")),
            f"{short} {text(value)}",
            sections.duration(each.seconds),
            each.digest[:12],
        )
        styles = ("", _COLOURS.get(each.status, ""), *[""] * 5)
        table.add_row(*(Text(plain(c), style=s) for c, s in zip(cells, styles, strict=True)))
    # Whoever reads it through a pipe gets whole lines.
    console(width=None if sys.stdout.isatty() else 1000).print(table)
