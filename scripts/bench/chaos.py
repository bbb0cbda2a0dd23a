"""Disturb training as a seed draws it, and see whether it comes to the bits of the undisturbed run.

    python scripts/bench/chaos.py [--seed S] [--faults N] [--modes …] [--only KIND] [--json FILE]
    python scripts/bench/chaos.py --replay "restart 2: kill forward rank=1 step=7 amount=300"

What is drawn is printed with every failure, and --replay does it again. Modes: `alone` runs on one
rank, in a child of a process that has all libraries, so that a start takes no time; `restart` runs
`ddbp launch --max-restarts`, and `survive` runs `ddbp launch --survive --max-restarts`.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from lib import harness

from faults import training
from faults.jobs import Outcome, Runner
from faults.plan import MEANING, Job, Schedule

SHARE = {"alone": 0.3, "restart": 0.35, "survive": 0.35}
"""The share of each mode in the faults."""
PER_JOB = {"alone": 8, "restart": 6, "survive": 10}
RANKS = (1, 2, 3, 4)

_RUNNER: list[Runner] = []
"""That of a worker."""


def begin(folder: Path, limit: float) -> None:
    """Begin a worker, whose children have the libraries that it loads here."""
    _RUNNER.append(Runner(folder / f"worker-{os.getpid()}", limit))
    _RUNNER[0].expected(5)


def disk_calls(ranks: int) -> list[int]:
    """Return how many calls change the disk in a checkpoint, for each of so many ranks."""
    return _RUNNER[0].disk_calls(ranks)


def run(text: str) -> Outcome:
    """Run a job."""
    return _RUNNER[0].run(Job.of(text))


def drawn(options: argparse.Namespace, calls: dict[tuple[int, int], int]) -> list[Job]:
    """Return the jobs of a campaign."""
    if options.replay:
        return [Job.of(text) for text in options.replay]
    schedule = Schedule(options.seed, calls, tuple(options.only))
    whole = sum(SHARE[mode] for mode in options.modes)
    jobs = []
    for mode in options.modes:
        left = round(options.faults * SHARE[mode] / whole)
        while left > 0:
            job = schedule.job(mode, min(left, PER_JOB[mode]))
            if not job.faults:
                break
            jobs.append(job)
            left -= len(job.faults)
    # The long ones first.
    return sorted(jobs, key=lambda job: job.mode == "alone")


def rows(results: list[tuple[Job, Outcome]]) -> list[dict[str, Any]]:
    """Return how often each fault has happened in each mode, and what came of the runs."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for job, outcome in results:
        for fault in outcome.happened:
            found.setdefault((job.mode, fault.name), Counter())[outcome.verdict] += 1
    return [
        {"mode": mode, "fault": name, **verdicts}
        for (mode, name), verdicts in sorted(found.items())
    ]


def main() -> int:
    """Run jobs; return 1 if one has come to a bad end."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--modes", nargs="+", choices=[*SHARE], default=[*SHARE])
    parser.add_argument("--only", nargs="+", choices=[*MEANING], default=[], help="draw these only")
    parser.add_argument("--replay", nargs="+", metavar="JOB", help="texts of jobs")
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time (%(default)s)")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds until a job hangs")
    parser.add_argument("--keep", action="store_true", help="leave the folders of failures")
    options = parser.parse_args()
    facts = harness.machine()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    results: list[tuple[Job, Outcome]] = []
    try:
        with ProcessPoolExecutor(
            options.workers,
            multiprocessing.get_context("fork"),
            initializer=begin,
            initargs=(folder, options.limit),
        ) as pool:
            needed = [n for n in RANKS if n == 1 or options.modes != ["alone"]]
            counted = pool.map(disk_calls, [] if options.replay else needed)
            calls = {
                (ranks, rank): number
                for ranks, numbers in zip(needed, counted, strict=False)
                for rank, number in enumerate(numbers)
            }
            jobs = drawn(options, calls)
            running = {pool.submit(run, str(job)): job for job in jobs}
            for done in as_completed(running):
                job, outcome = running[done], done.result()
                results.append((job, outcome))
                said = f"{len(results)}/{len(jobs)} {outcome.seconds:5.1f} s {outcome.verdict}"
                print(f"{said}: {job}", flush=True)
                if outcome.detail:
                    print(outcome.detail, flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return report(options, facts, results, time.monotonic() - began)


def report(
    options: argparse.Namespace,
    facts: dict[str, Any],
    results: list[tuple[Job, Outcome]],
    seconds: float,
) -> int:
    """Print and write what came of all; return 1 if something went wrong."""
    table = rows(results)
    verdicts = Counter(outcome.verdict for _, outcome in results)
    faults = sum(len(outcome.happened) for _, outcome in results)
    failures = [
        {"job": str(job), "verdict": outcome.verdict, "detail": outcome.detail}
        for job, outcome in results
        if outcome.verdict != "same bits"
    ]
    for row in table:
        print(*row.values())
    print(f"{faults} faults in {len(results)} runs, {seconds:.0f} s: {dict(verdicts)}")
    for failure in failures:
        print(f"{failure['verdict']}: --replay {failure['job']!r}")
    more = {
        "seed": options.seed,
        "faults": faults,
        "runs": len(results),
        "starts": sum(outcome.starts for _, outcome in results),
        "seconds": round(seconds),
        "verdicts": dict(verdicts),
        "failures": failures,
    }
    harness.write(options.json, facts, table, **more)
    return int(bool(failures) or not results)


if __name__ == "__main__":
    sys.exit(main())
