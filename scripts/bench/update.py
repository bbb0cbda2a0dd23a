"""Time the reduction with Adam's update of 25 million parameters against the time its bytes take at
the bandwidth of the memory.

    python scripts/bench/update.py [--ranks N] [--parameters N] [--json FILE] [--rounds R]

The bandwidth is that of c = a + b, which all ranks compute at once between the updates.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

from lib import harness, workers

import numpy as np
import reduction

import ddbp
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan

# Of each parameter a rank reads value, mean and square, and writes them.
STATES = 6


def worker(parameters: int, rounds: int) -> None:
    """Measure on one of the ranks; the first prints the seconds of updates and sums in each round,
    and the bytes of both.
    """
    comm = ddbp.communicator()
    plan = ShardPlan(comm.size, comm.size, comm.rank)
    reduced = Reducer(reduction.Weights(parameters), plan, comm)
    part, optimizer, sums = Partition(reduced), ddbp.Adam(1e-3), np.ones(1)
    optimizer.bind(part)
    a, b, c = (np.ones(part.values.size, np.float32) for _ in range(3))
    times: dict[str, list[float]] = {"update": [], "sum": []}

    def update() -> None:
        reduced.exchange(0, 1, sums)
        part.forget()
        optimizer.step(part)
        reduced.publish(0)

    for _ in range(rounds + 1):
        for name, run in (("update", update), ("sum", lambda: np.add(a, b, out=c))):
            # As backward leaves them.
            reduced.flat.gradients[:] = 1e-3
            comm.all_gather(np.zeros(1))
            started = time.perf_counter()
            run()
            times[name].append(
                float(comm.all_gather(np.array([time.perf_counter() - started])).max())
            )
    size = part.values.nbytes
    if comm.rank == 0:
        # The first round warms up.
        result = {"times": {name: values[1:] for name, values in times.items()}}
        print(
            json.dumps(
                {**result, "update_bytes": (comm.size + STATES) * size, "sum_bytes": 3 * size}
            ),
            flush=True,
        )


def main() -> None:
    """Start the ranks, print the result and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 15)
    parser.add_argument("--ranks", type=int, default=2, help="ranks on this host (%(default)s)")
    parser.add_argument("--parameters", type=int, default=25_000_000, help="how many (%(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.parameters, options.rounds)
        return
    facts = harness.machine()
    inner = [
        str(Path(__file__).resolve()),
        "--worker",
        "--rounds",
        str(options.rounds),
        "--parameters",
        str(options.parameters),
    ]
    found = workers.on_ranks(options.ranks, inner)
    seconds = {name: median(values) for name, values in found["times"].items()}
    at_bandwidth = found["update_bytes"] / found["sum_bytes"] * seconds["sum"]
    row = {
        "name": "reduction and Adam",
        "ranks": options.ranks,
        "threads": 1,
        "parameters": options.parameters,
    }
    row |= {
        "ms": round(seconds["update"] * 1e3, 3),
        "at_bandwidth_ms": round(at_bandwidth * 1e3, 3),
    }
    row |= {"gb_per_second": round(options.ranks * found["sum_bytes"] / seconds["sum"] / 1e9, 2)}
    row |= {"ratio": round(seconds["update"] / at_bandwidth, 3)}
    line = (
        "{parameters} parameters, {ranks} ranks: {ms} ms; its bytes at {gb_per_second} GB/s:"
        " {at_bandwidth_ms} ms; {ratio}"
    )
    print(line.format(**row))
    harness.write(options.json, facts, [row])


if __name__ == "__main__":
    main()
