"""Disturb training as a seed draws it, and see whether it comes to the bits of the undisturbed run.

    python scripts/bench/chaos.py [--seed S] [--faults N] [--modes …] [--only KIND] [--json FILE]
    python scripts/bench/chaos.py --ways [--faults N] [--json FILE]
    python scripts/bench/chaos.py --replay "restart 2: kill forward rank=1 step=7 amount=300"

What is drawn is printed with every failure, and --replay does it again. Modes: `alone` runs on one
rank, in a child of a process that has all libraries, so that a start takes no time; `restart` runs
`ddbp launch --max-restarts`, `survive` runs
`ddbp launch --survive --max-restarts`, and `hosts` runs ranks on two network namespaces. With
--ways trainers compress gradients, exchange seldom, learn by other rules or keep to a budget of
memory.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from lib import harness

from faults.jobs import LIMIT, Outcome, Runner
from faults.plan import MEANING, MISSED, RANKS, WAYS, Job, Schedule

SHARE = {"alone": 0.45, "restart": 0.22, "survive": 0.31, "hosts": 0.02}
"""The share of each mode in the faults."""
MOST_MISSED = 0.05
"""So many of the faults that are drawn, or one, may find nothing to happen to, as no checkpoint
that could be damaged; of those that are replayed none. What did not happen was not survived.
"""
PER_JOB = {"alone": 8, "restart": 6, "survive": 10, "hosts": 4}

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
    schedule = Schedule(options.seed, calls, tuple(options.only), ways(options))
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
    random.Random(options.seed).shuffle(jobs)
    return jobs


def ways(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the ways that are drawn."""
    return tuple(WAYS) if options.ways == [] else tuple(options.ways or ())


def in_mounts_of_its_own() -> None:
    """Run this command again where its mounts are seen by nobody else, if that is allowed."""
    apart = ["unshare", "-m"]
    if os.geteuid() or "CHAOS_APART" in os.environ or shutil.which("unshare") is None:
        return
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode == 0:
        os.environ["CHAOS_APART"] = "1"
        os.execvp("unshare", [*apart, sys.executable, *sys.argv])


def main() -> int:
    """Run jobs; return 1 if one has come to a bad end, or too few faults have happened."""
    in_mounts_of_its_own()
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--modes", nargs="+", choices=[*SHARE], default=[*SHARE])
    parser.add_argument("--only", nargs="+", choices=[*MEANING], default=[], help="draw these only")
    help_of_ways = "draw options of trainers, of these or of all; none unless given"
    parser.add_argument("--ways", nargs="*", choices=[*WAYS], help=help_of_ways)
    parser.add_argument("--replay", nargs="+", metavar="JOB", help="texts of jobs")
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time (%(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds until a job hangs")
    parser.add_argument("--keep", action="store_true", help="leave the folders of failures")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    campaign = Campaign(options)
    try:
        with ProcessPoolExecutor(
            options.workers,
            multiprocessing.get_context("fork"),
            initializer=begin,
            initargs=(folder, options.limit),
        ) as pool:
            if not options.replay:
                needed = {n for mode in options.modes for n in RANKS[mode]}
                campaign.calls = {
                    (ranks, rank): number
                    for ranks, numbers in zip(needed, pool.map(disk_calls, needed), strict=True)
                    for rank, number in enumerate(numbers)
                }
            jobs = drawn(options, campaign.calls)
            running = {pool.submit(run, str(job)): job for job in jobs}
            for done in as_completed(running):
                job, outcome = running[done], done.result()
                campaign.add(job, outcome)
                said = f"{len(campaign.results)}/{len(jobs)} {outcome.seconds:5.1f} s"
                print(f"{said} {outcome.verdict}: {job}", flush=True)
                for fault in outcome.missed:
                    print(f"{MISSED}: {fault}", flush=True)
                if outcome.detail:
                    print(outcome.detail, flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return campaign.end()


class Campaign:
    """What has come of jobs; it is written after each, so that a campaign may be stopped.

    Parameters
    ----------
    options
        The command's.

    Attributes
    ----------
    results
        Jobs and what came of them.
    calls
        How many calls change the disk in a checkpoint, by number of ranks and rank.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.results: list[tuple[Job, Outcome]] = []
        self.calls: dict[tuple[int, int], int] = {}
        self._options = options
        self._machine = harness.machine()
        self._began = time.monotonic()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Note what came of a job."""
        self.results.append((job, outcome))
        harness.write(self._options.json, self._machine, self.rows(), **self.summary())

    def rows(self) -> list[dict[str, Any]]:
        """Return how often each fault has happened in each mode, and what came of the runs; and how
        often it has not.
        """
        found: dict[tuple[str, str, str], Counter[str]] = {}
        for job, outcome in self.results:
            told = ((outcome.verdict, outcome.happened), (MISSED, outcome.missed))
            for verdict, faults in told:
                for fault in faults:
                    place = job.mode, job.way, fault.name
                    found.setdefault(place, Counter())[verdict] += 1
        return [
            {"mode": mode, **({"way": way} if way else {}), "fault": name, **verdicts}
            for (mode, way, name), verdicts in sorted(found.items())
        ]

    @property
    def _missed(self) -> int:
        return sum(len(outcome.missed) for _, outcome in self.results)

    def summary(self) -> dict[str, Any]:
        """Return what is known of all jobs together."""
        points = {
            (job.ranks, fault.rank, fault.amount)
            for job, outcome in self.results
            for fault in outcome.happened
            if fault.place == "disk" and fault.kind != "full"
        }
        return {
            "seed": self._options.seed,
            "faults": sum(len(outcome.happened) for _, outcome in self.results),
            "missed": self._missed,
            "runs": len(self.results),
            "starts": sum(outcome.starts for _, outcome in self.results),
            "seconds": round(time.monotonic() - self._began),
            "verdicts": dict(Counter(outcome.verdict for _, outcome in self.results)),
            "disk_calls": {"in_a_checkpoint": sum(self.calls.values()), "disturbed": len(points)},
            "failures": [
                {
                    "job": str(job),
                    "verdict": outcome.verdict,
                    # What processes have said since names paths of this machine.
                    "detail": outcome.detail.partition("\n")[0],
                }
                for job, outcome in self.results
                if outcome.verdict != "same bits"
            ],
        }

    def end(self) -> int:
        """Print what came of all; return 1 if something went wrong."""
        for row in self.rows():
            print(*(f"{name}={value}" for name, value in row.items()))
        summary = self.summary()
        print({name: value for name, value in summary.items() if name != "failures"})
        for failure in summary["failures"]:
            print(f"{failure['verdict']}: --replay {failure['job']!r}")
        drawn = summary["faults"] + summary["missed"]
        most = 0 if self._options.replay else max(1, int(MOST_MISSED * drawn))
        few = summary["missed"] > most or not summary["faults"]
        if few:
            print(f"{MISSED}: {summary['missed']} of {drawn}, of which {most} may")
        return int(bool(summary["failures"]) or few or not self.results)


if __name__ == "__main__":
    sys.exit(main())
