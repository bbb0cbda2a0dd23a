"""Time training steps on one rank, on several, with eight shards, and on eight ranks that share the cores.

    python scripts/bench/efficiency.py [WORKLOAD ...] [--ranks N] [--rounds R] [--json FILE]

All take the same global batch (of the MLP twice that of `train_step.py`). The efficiency is the throughput of N ranks over N times
that of one. Runs take turns, each in processes of its own; ranks are bound to cores.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import harness  # Before NumPy: it decides the threads.
import steps
import workers
from workload import Workload
from workloads import WORKLOADS, dense

import ddbp

SHARDS = CROWD = 8
LARGER = {"mlp": dense("mlp", (784, 512, 256, 10), batch=256)}


def worker(workload: Workload, shards: int | None) -> None:
    """Measure on one of the ranks; the first prints the seconds per step of each block."""
    comm = ddbp.communicator()
    times = workers.blocks(steps.ours(workload, steps.TIMING_RATE, shards), lambda count: workers.agreed(comm, count))
    if comm.rank == 0:
        print(json.dumps({"times": times}), flush=True)


def spawn(workload: Workload, ranks: int, shards: int | None) -> float:
    """Run the workers and return the median seconds per step."""
    script = [str(Path(__file__).resolve()), workload.name, "--worker", str(shards or 0)]
    return median(workers.on_ranks(ranks, script)["times"])


def row(workload: Workload, ranks: int, rounds: int) -> dict[str, Any]:
    """Measure one workload in turns."""
    kinds = {"one": (1, None), "several": (ranks, None), "shards": (ranks, SHARDS), "crowd": (CROWD, None)}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    names = list(kinds)
    for r in range(rounds):
        for name in names[r % 4 :] + names[: r % 4]:
            times[name].append(spawn(workload, *kinds[name]))
    against = {name: harness.ratio(times[name], times["several"])["ratio"] for name in names}
    return {
        "name": workload.name,
        "ranks": ranks,
        "threads": 1,
        "ms": {name: harness.spread(values)["median"] for name, values in times.items()},
        "efficiency": round(against["one"] / ranks, 3),
        "shards_ratio": against["shards"],
        "crowd_ratio": harness.ratio(times["crowd"], times["one"])["ratio"],
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--ranks", type=int, default=2, help="how many (%(default)s)")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [LARGER.get(name, WORKLOADS[name]) for name in options.workloads or ("resnet20", "lstm-256", "mlp")]
    if options.worker is not None:
        worker(chosen[0], options.worker or None)
        return
    facts, rows = harness.machine(), []
    print(f"{'workload':12}{'1 rank ms':>12}{f'{options.ranks} ranks':>10}{'efficiency':>12}{'8 shards':>10}{'8 ranks':>10}")
    for workload in chosen:
        rows.append(row(workload, options.ranks, options.rounds))
        ms = rows[-1]["ms"]
        line = f"{workload.name:12}{ms['one']:12.3f}{ms['several']:10.3f}{rows[-1]['efficiency']:12.3f}"
        print(f"{line}{rows[-1]['shards_ratio']:10.3f}{rows[-1]['crowd_ratio']:10.3f}", flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
