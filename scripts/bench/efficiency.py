"""Time training steps on one rank, on several up to the cores of the machine, with eight shards,
and on more ranks than cores.

    python scripts/bench/efficiency.py [WORKLOAD ...] [--ranks 2,4,8] [--rounds R] [--json FILE]

All take the same global batch (of the MLP twice that of `train_step.py`). The efficiency is the
throughput of N ranks over N times that of one. Runs take turns, each in processes of its own; ranks
are bound to cores.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps, workers

from workloads import WORKLOADS, dense
from workloads.workload import Workload

import ddbp

SHARDS = 8
LARGER = {"mlp": dense("mlp", (784, 512, 256, 10), batch=256)}


def worker(workload: Workload, shards: int | None, parts: int) -> None:
    """Measure on one of the ranks, with the first of so many parts of each batch; the first prints
    seconds per step of blocks.
    """
    comm = ddbp.communicator()
    step = steps.ours(workload, steps.TIMING_RATE, shards or "ranks", parts)
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


def rows(workload: Workload, numbers: list[int], rounds: int) -> list[dict[str, Any]]:
    """Measure one workload in turns, and return a row for each number of ranks."""
    most = max(numbers)
    crowd = max(SHARDS, 2 * most)
    kinds = {
        "one": lambda: spawn(workload, 1, None),
        "shards": lambda: spawn(workload, most, max(SHARDS, most)),
        "crowd": lambda: spawn(workload, crowd, None),
    }
    for n in numbers:
        kinds[f"{n} ranks"] = lambda n=n: spawn(workload, n, None)
        kinds[f"{n} apart"] = lambda n=n: apart(workload, n)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in harness.turns(kinds, rounds):
        for name in turn:
            times[name].append(kinds[name]())
    found = []
    for n in numbers:
        several, unrelated = times[f"{n} ranks"], times[f"{n} apart"]
        found.append(
            {
                "name": workload.name,
                "ranks": n,
                "threads": 1,
                "ms": {
                    name: harness.spread(values)["median"]
                    for name, values in (("one", times["one"]), ("several", several))
                },
                "efficiency": round(harness.ratio(times["one"], several)["ratio"] / n, 3),
                "efficiency_apart": round(harness.ratio(times["one"], unrelated)["ratio"] / n, 3),
            }
        )
    found[-1]["shards_ratio"] = harness.ratio(times["shards"], times[f"{most} ranks"])["ratio"]
    found[-1]["crowd_ratio"] = harness.ratio(times["crowd"], times["one"])["ratio"]
    return found


def doublings(cores: int) -> list[int]:
    """Return 2, 4, 8, … and the number of cores itself."""
    powers = [2**n for n in range(1, cores.bit_length())]
    return sorted({*powers, max(2, cores)})


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}"
    )
    parser.add_argument(
        "--ranks",
        type=lambda text: sorted({int(n) for n in text.split(",")}),
        default=doublings(len(os.sched_getaffinity(0))),
        metavar="N,N",
        help="how many: 2, 4, … and all cores (%(default)s)",
    )
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
    facts = harness.machine()
    found: list[dict[str, Any]] = []
    keys = ("efficiency", "efficiency_apart", "shards_ratio", "crowd_ratio")
    heads = ("1 rank ms", "ranks ms", "efficiency", "apart", "8 shards", "crowd")
    print(f"{'workload':12}{'ranks':>6}{''.join(f'{head:>12}' for head in heads)}")
    for workload in chosen:
        for row in rows(workload, options.ranks, options.rounds):
            found.append(row)
            numbers = [*row["ms"].values(), *(row.get(key, float("nan")) for key in keys)]
            shown = "".join(f"{number:12.3f}" for number in numbers)
            print(f"{row['name']:12}{row['ranks']:6}{shown}", flush=True)
        harness.write(options.json, facts, found)


if __name__ == "__main__":
    main()
