"""A run that goes on, seen from wherever its folder is: `ddbp watch RUN`."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddbp import written
from ddbp.report.figures import text
from ddbp.report.run import Run, instant, number
from ddbp.report.sections import duration
from ddbp.terminal import console, plain
from layers.types import Array

_BLOCKS = "▁▂▃▄▅▆▇█"
_LAST = 5
"""So many epochs are shown."""


def run(arguments: Sequence[str]) -> int:
    """Show the run until it ends; return the exit status: 1 if it ended early."""
    parser = argparse.ArgumentParser(prog="ddbp watch", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="the folder of a run (run_dir=)")
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, help="seconds between looks (%(default)s)"
    )
    parser.add_argument("--once", action="store_true", help="look once, and end")
    options = parser.parse_args(arguments)
    try:
        seen = Run.read(options.run, whole=False)
        if sys.stdout.isatty():
            seen = _show(seen, options.interval, options.once)
        else:
            seen = _tell(seen, options.interval, options.once)
    except (OSError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 1
    return int(seen.status in ("failed", "saved", "interrupted", "cut short"))


def _seconds(given: str) -> float:
    try:
        seconds = written.real(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be in (0, 3600]; got {given!r}")
    return seconds


def _tell(seen: Run, interval: float, once: bool) -> Run:
    """Print a line for each change."""
    last = ""
    while True:
        line = plain(summary(seen))
        if line != last:
            print(line, flush=True)
            last = line
        if once or seen.status != "running":
            return seen
        time.sleep(interval)
        seen = Run.read(seen.path, whole=False)


def summary(run: Run) -> str:
    """Return in a line how far a run is."""
    step, steps, left = progress(run)
    parts = [run.status, f"step {step}" + (f" of {steps}" if steps else "")]
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in latest(run).items()]
    if run.status == "running" and left:
        parts.append(f"{left} left")
    parts += [f"finding: {finding.get('rule')}" for finding in run.findings[-1:]]
    if "error" in run.facts:
        parts.append(str(run.facts["error"]))
    return ", ".join(parts)


def progress(run: Run) -> tuple[int, int, str]:
    """Return the step that a run has come to, how many it will have, 0 if that is not known, and
    the time that is left.
    """
    counts = [number(run.facts.get(name)) for name in ("step", "steps")]
    step, steps = (int(each) if each >= 0 and each < 2**53 else 0 for each in counts)
    taken, times = (run.steps.get(name, np.zeros(0)) for name in ("step", "time"))
    if len(taken):
        step = max(step, int(taken[-1]))
    left = ""
    if steps > step and len(taken) == len(times):
        # The speed of the last tenth, of those since it has gone on from a checkpoint.
        here = times >= instant(run.facts.get("started"))
        here |= not here.any()
        taken, times = (each[here][-max(2, len(taken) // 10) :] for each in (taken, times))
        done, seconds = (float(each[-1] - each[0]) if len(each) else 0.0 for each in (taken, times))
        if done > 0 and seconds > 0:
            left = duration((steps - step) * seconds / done)
    return step, steps, left


def latest(run: Run) -> dict[str, str]:
    """Return the newest losses and metrics."""
    losses = run.steps.get("loss")
    newest = float(losses[-1]) if losses is not None and len(losses) else run.last("loss")
    metrics = {name: text(run.last(name)) for name in run.metrics if name != "loss"}
    return {"loss": text(newest), **metrics}


def sparkline(values: Array, width: int = 60) -> str:
    """Return numbers as a line of blocks, spaces where they are not finite."""
    parts = np.array_split(values, min(width, len(values))) if len(values) else []
    known = [part[np.isfinite(part)] for part in parts]
    means = [float(part.mean()) if part.size else np.nan for part in known]
    finite = [mean for mean in means if np.isfinite(mean)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    top = len(_BLOCKS) - 1
    return "".join(
        _BLOCKS[round((mean - low) / span * top)] if np.isfinite(mean) else " " for mean in means
    )


def _show(seen: Run, interval: float, once: bool) -> Run:
    """Show the run on a terminal."""
    from rich.live import Live

    with Live(_screen(seen), console=console(), auto_refresh=False) as live:
        while not once and seen.status == "running":
            time.sleep(interval)
            seen = Run.read(seen.path, whole=False)
            live.update(_screen(seen), refresh=True)
    return seen


def _screen(run: Run) -> Any:
    """Return what a terminal shows of a run."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    step, steps, left = progress(run)
    parts: list[Any] = []
    if steps:
        bar = Table.grid(expand=True)
        bar.add_row(ProgressBar(total=steps, completed=min(step, steps)))
        parts.append(bar)
    facts = {"step": f"{step} of {steps}" if steps else str(step), **latest(run)}
    facts["time"] = duration(run.seconds)
    if left and run.status == "running":
        facts["left"] = left
    if run.status == "running" and run.silent > 10:
        facts["silent for"] = duration(run.silent)
    words = "   ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
    parts.append(Text(plain(words)))
    if "loss" in run.steps:
        parts.append(Text(f"loss {sparkline(run.steps['loss'])}"))
    if run.records:
        names = ["epoch", *run.metrics, "samples_per_second"]
        table = Table(*(plain(name.replace("_", " ")) for name in names), box=None)
        for record in run.records[-_LAST:]:
            table.add_row(*(Text(text(number(record.get(name)))) for name in names))
        parts.append(table)
    told = [
        f"{finding.get('rule')}: {finding.get('cause', '')} To try: {finding.get('remedy', '')}"
        for finding in run.findings[-3:]
    ]
    told += [str(run.facts["error"])] if "error" in run.facts else []
    parts += [Text(plain(each), style="red") for each in told]
    return Panel(Group(*parts), title=Text(plain(f"{run.name}: {run.status}")))
