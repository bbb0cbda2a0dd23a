"""Time how long kernels take to compile, and to load from the cache: from the start of a process to
the end of its first step.

    python scripts/bench/compile_time.py [WORKLOAD ...] [--json FILE] [--rounds R]

Each process first meets an empty cache folder, then, R times, the one that the first left.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps

from workloads import WORKLOADS

SCRIPT = Path(__file__).resolve()


def first_step(name: str, cache: str) -> dict[str, float]:
    """Return the seconds of a fresh process, and of building the trainer and taking one step in
    it.
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, str(SCRIPT), name, "--worker"]
    started = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return {"process": time.perf_counter() - started, "first_step": float(done.stdout.split()[-1])}


def worker(name: str) -> None:
    """Build the trainer, take one step and print the seconds."""
    print(harness.timed(lambda: steps.ours(WORKLOADS[name], steps.TIMING_RATE)(), 1))


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)}; all unless named",
    )
    parser.add_argument("--worker", action="store_true", help="take one step in this process")
    options = parser.parse_args()
    if options.worker:
        worker(options.workloads[0])
        return
    facts = harness.machine()
    harness.pin_to_one_core()
    rows: list[dict[str, Any]] = []
    print(f"{'':18}{'cold s':>8}{'warm s':>8}   (trainer and first step)")
    for name in options.workloads or WORKLOADS:
        with tempfile.TemporaryDirectory() as cache:
            cold = first_step(name, cache)
            warm = [first_step(name, cache) for _ in range(options.rounds)]
        medians = {key: round(median(run[key] for run in warm), 3) for key in cold}
        rows.append(
            {
                "name": name,
                "cold_s": {key: round(value, 2) for key, value in cold.items()},
                "warm_s": medians,
            }
        )
        print(f"{name:18}{cold['first_step']:8.2f}{medians['first_step']:8.2f}", flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
