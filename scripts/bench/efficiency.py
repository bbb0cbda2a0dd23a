"""Time training steps on one rank, on several, with eight shards, and on eight ranks that share the
cores.

    python scripts/bench/efficiency.py [WORKLOAD ...] [--ranks N] [--rounds R] [--json FILE]

All take the same global batch (of the MLP twice that of `train_step.py`). The efficiency is the
throughput of N ranks over N times that of one. Runs take turns, each in processes of its own; ranks
are bound to cores.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps, workers

from workloads import WORKLOADS, dense
from workloads.workload import Workload

import ddbp

SHARDS = CROWD = 8
LARGER = {"mlp": dense("mlp", (784, 512, 256, 10), batch=256)}


def worker(workload: Workload, shards: int | None, parts: int) -> None:
    """Measure on one of the ranks, with the first of so many parts of each batch; the first prints
    seconds per step of blocks.
    """
    comm = ddbp.communicator()
    step = steps.ours(workload, steps.TIMING_RATE, shards, parts)
    times = workers.blocks(step, lambda count: workers.agreed(comm, count))
    if comm.rank == 0:
        print(json.dumps({"times": times}), flush=True)


def spawn(workload: Workload, ranks: int, shards: int | None) -> float:
    """Run the workers and return the median seconds per step."""
    script = [str(Path(__file__).resolve()), workload.name, "--worker", str(shards or 0)]
    return median(workers.on_ranks(ranks, script)["times"])


def apart(workload: Workload, processes: int) -> float:
    """Run processes that know nothing of each other, each on a core and a part of each batch;
    return the slowest's median.
    """
    script = [
        str(Path(__file__).resolve()),
        workload.name,
        "--worker",
        "0",
        "--parts",
        str(processes),
    ]
    return max(median(found["times"]) for found in workers.on_cores(processes, script))


def row(workload: Workload, ranks: int, rounds: int) -> dict[str, Any]:
    """Measure one workload in turns."""
    kinds = {
        "one": lambda: spawn(workload, 1, None),
        "several": lambda: spawn(workload, ranks, None),
        "apart": lambda: apart(workload, ranks),
        "shards": lambda: spawn(workload, ranks, SHARDS),
        "crowd": lambda: spawn(workload, CROWD, None),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in harness.turns(kinds, rounds):
        for name in turn:
            times[name].append(kinds[name]())
    against = {name: harness.ratio(times[name], times["several"])["ratio"] for name in kinds}
    return {
        "name": workload.name,
        "ranks": ranks,
        "threads": 1,
        "ms": {name: harness.spread(values)["median"] for name, values in times.items()},
        "efficiency": round(against["one"] / ranks, 3),
        "efficiency_apart": round(harness.ratio(times["one"], times["apart"])["ratio"] / ranks, 3),
        "shards_ratio": against["shards"],
        "crowd_ratio": harness.ratio(times["crowd"], times["one"])["ratio"],
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--ranks", type=int, default=2, help="how many (%(default)s)")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [
        LARGER.get(name, WORKLOADS[name])
        for name in options.workloads or ("resnet20", "lstm-256", "mlp")
    ]
    if options.worker is not None:
        if options.core is not None:
            harness.pin_to_core(options.core)
        worker(chosen[0], options.worker or None, options.parts)
        return
    facts, rows = harness.machine(), []
    heads = ["efficiency", "apart", "8 shards", "8 ranks"]
    print(
        f"{'workload':12}{'1 rank ms':>10}{f'{options.ranks} ranks':>10}"
        f"{''.join(f'{head:>12}' for head in heads)}"
    )
    for workload in chosen:
        rows.append(row(workload, options.ranks, options.rounds))
        ms = rows[-1]["ms"]
        ratios = [
            rows[-1][name]
            for name in ("efficiency", "efficiency_apart", "shards_ratio", "crowd_ratio")
        ]
        print(
            f"{workload.name:12}{ms['one']:10.3f}{ms['several']:10.3f}"
            f"{''.join(f'{ratio:12.3f}' for ratio in ratios)}",
            flush=True,
        )
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
