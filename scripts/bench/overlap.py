"""Time training steps on two hosts with a network of limited speed, when gradients travel during
backward and when after it.

    python scripts/bench/overlap.py [--rounds R] [--json FILE]

Two network namespaces of this machine are the hosts, with a rank each; they reach each other by TCP
through a link that is as fast as it is (some tens of Gbit/s), or limited by `tc`. That needs Linux,
root, MPICH, and the commands ip, tc, unshare and nsenter. The sizes of buckets, DDBP_BUCKET, take
turns, each in processes of its own; 0 sends everything at once, after backward. The last contestant
has a thread, too, that calls MPI every 0.2 ms, so that messages need not wait for the next layer.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps, workers

from workloads import WORKLOADS, dense
from workloads.workload import Workload

import ddbp
from ddbp.commands import launch

NAMESPACES = Path(__file__).parents[2] / "tests" / "mpi" / "programs" / "namespaces.sh"
TCP = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "RANKS": "1"}
CHOSEN = {"mlp-wide": dense("mlp-wide", (784, 1024, 1024, 10), batch=1024), **WORKLOADS}
# Networks at which the messages of a step take about as long as backward; and much less.
CASES = (("mlp-wide", "1gbit"), ("resnet20", "100mbit"), ("mlp-wide", ""))
AT_ONCE = "at once"
# KiB of a bucket, and whether there is a thread.
CONTESTANTS = {
    AT_ONCE: (0, False),
    "256 KiB": (256, False),
    "1024 KiB": (1024, False),
    "256 KiB, thread": (256, True),
}
PAUSE = 2e-4
# No message has this tag.
UNUSED_TAG = 15


def call_mpi_for_ever() -> None:
    """Let messages get on."""
    comm: Any = ddbp.communicator()
    while True:
        comm.world.Iprobe(tag=UNUSED_TAG)
        time.sleep(PAUSE)


def worker(workload: Workload, thread: bool) -> None:
    """Measure on one of the ranks; the first prints the seconds per step of each block."""
    comm = ddbp.communicator()
    if thread:
        threading.Thread(target=call_mpi_for_ever, daemon=True).start()
    # The launcher takes each host for a machine of its own, and would bind both ranks to the first
    # core.
    harness.pin_to_core(comm.rank)
    times = workers.blocks(
        steps.ours(workload, steps.TIMING_RATE), lambda count: workers.agreed(comm, count)
    )
    if comm.rank == 0:
        print(json.dumps({"times": times}), flush=True)


def spawn(name: str, rate: str, bucket: int, thread: bool) -> float:
    """Run the workers and return the median seconds per step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "unshare",
            "--net",
            "--uts",
            "--mount",
            "sh",
            str(NAMESPACES),
            launch.find_mpiexec(),
            folder,
            sys.executable,
        ]
        script = [
            str(Path(__file__).resolve()),
            "--worker",
            name,
            *(["--thread"] if thread else []),
        ]
        environment = {**TCP, "RATE": rate, "DDBP_BUCKET": str(bucket)}
        return median(
            workers.printed(workers.at_once([([*command, *script], environment)])[0])["times"]
        )


def row(name: str, rate: str, rounds: int) -> dict[str, Any]:
    """Measure one workload on one network in turns."""
    times: dict[str, list[float]] = {contestant: [] for contestant in CONTESTANTS}
    for turn in harness.turns(CONTESTANTS, rounds):
        for contestant in turn:
            times[contestant].append(spawn(name, rate, *CONTESTANTS[contestant]))
    count = sum(parameter.size for parameter in CHOSEN[name].start().parameters())
    return {
        "name": name,
        "network": rate or "unlimited",
        "ranks": 2,
        "threads": 1,
        "megabytes": round(count * 4 / 1e6, 2),
        "ms": {
            contestant: harness.spread(values)["median"] for contestant, values in times.items()
        },
        "ratios": {
            name: harness.ratio(times[AT_ONCE], found)
            for name, found in times.items()
            if name != AT_ONCE
        },
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument("--worker", metavar="WORKLOAD", help=argparse.SUPPRESS)
    parser.add_argument("--thread", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(CHOSEN[options.worker], options.thread)
        return
    facts, rows = harness.machine(), []
    print(f"{'workload':12}{'network':>12}" + "".join(f"{name:>17}" for name in CONTESTANTS))
    for name, rate in CASES:
        rows.append(row(name, rate, options.rounds))
        print(
            f"{name:12}{rate or 'unlimited':>12}"
            + "".join(f"{ms:17.2f}" for ms in rows[-1]["ms"].values()),
            flush=True,
        )
    harness.write(options.json, facts, rows, rounds=options.rounds)


if __name__ == "__main__":
    main()
