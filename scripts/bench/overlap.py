"""Time training steps on two hosts with a network of limited speed, when gradients travel during backward and when after it.

    python scripts/bench/overlap.py [--rounds R] [--json FILE]

Two network namespaces of this machine are the hosts, with a rank each; they reach each other by TCP through a link that is as fast
as it is (some tens of Gbit/s), or limited by `tc`. That needs Linux, root, MPICH, and the commands ip, tc, unshare and nsenter. The
sizes of buckets, DDBP_BUCKET, take turns, each in processes of its own; 0 sends everything at once, after backward.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import harness  # Before NumPy: it decides the threads.
import steps
import workers
from workload import Workload
from workloads import WORKLOADS, dense

import ddbp
from ddbp import launch

NAMESPACES = Path(__file__).parents[2] / "tests" / "mpi" / "programs" / "namespaces.sh"
TCP = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "RANKS": "1"}
CHOSEN = {"mlp-wide": dense("mlp-wide", (784, 1024, 1024, 10), batch=1024), **WORKLOADS}
# Networks at which the messages of a step take about as long as backward; and much less.
CASES = (("mlp-wide", "1gbit"), ("resnet20", "100mbit"), ("mlp-wide", ""))
BUCKETS = (0, 256, 1024)


def worker(workload: Workload) -> None:
    """Measure on one of the ranks; the first prints the seconds per step of each block."""
    comm = ddbp.communicator()
    if hasattr(os, "sched_setaffinity"):
        # The launcher takes each host for a machine of its own, and would bind both ranks to the first core.
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[comm.rank % len(usable)]})
    times = workers.blocks(steps.ours(workload, steps.TIMING_RATE), lambda count: workers.agreed(comm, count))
    if comm.rank == 0:
        print(json.dumps({"times": times}), flush=True)


def spawn(name: str, rate: str, bucket: int) -> float:
    """Run the workers and return the median seconds per step."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "--net", "--uts", "--mount", "sh", str(NAMESPACES), launch.find_mpiexec(), folder, sys.executable]
        script = [str(Path(__file__).resolve()), "--worker", name]
        environment = {**TCP, "RATE": rate, "DDBP_BUCKET": str(bucket)}
        return median(workers.printed(workers.at_once([([*command, *script], environment)])[0])["times"])


def row(name: str, rate: str, rounds: int) -> dict[str, Any]:
    """Measure one workload on one network in turns."""
    times: dict[int, list[float]] = {bucket: [] for bucket in BUCKETS}
    for r in range(rounds):
        for bucket in BUCKETS[r % len(BUCKETS) :] + BUCKETS[: r % len(BUCKETS)]:
            times[bucket].append(spawn(name, rate, bucket))
    ratios = {bucket: harness.ratio(times[0], times[bucket]) for bucket in BUCKETS if bucket}
    count = sum(parameter.size for parameter in CHOSEN[name].start().parameters())
    return {
        "name": name,
        "network": rate or "unlimited",
        "ranks": 2,
        "threads": 1,
        "megabytes": round(count * 4 / 1e6, 2),
        "ms": {str(bucket): harness.spread(values)["median"] for bucket, values in times.items()},
        "ratios": {str(bucket): ratio for bucket, ratio in ratios.items()},
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument("--worker", metavar="WORKLOAD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(CHOSEN[options.worker])
        return
    facts, rows = harness.machine(), []
    print(f"{'workload':12}{'network':>12}{'at once ms':>12}" + "".join(f"{f'{bucket} KiB':>12}" for bucket in BUCKETS[1:]))
    for name, rate in CASES:
        rows.append(row(name, rate, options.rounds))
        print(f"{name:12}{rate or 'unlimited':>12}" + "".join(f"{ms:12.2f}" for ms in rows[-1]["ms"].values()), flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
