"""Time the reduction of gradients over ranks alone, against MPI's all-reduce and gloo's.

    python scripts/bench/reduction.py [--ranks N] [--rounds R] [--json FILE]

All three sum arrays of float32 over the ranks of one host, in the same processes and in turn;
afterwards every rank can read the sum. Ours is what a trainer does between backward and forward,
but for the optimizer: the exchange, the sums of the slices, and their publication.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, workers

import numpy as np

import ddbp
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan
from layers import Layer, Parameter

KIB = 1024
# 4 KiB to 64 MiB.
SIZES = tuple(KIB * 4**power for power in range(1, 9))
# Each rank writes its numbers anew before every timed call of large arrays, as backward does.
REWRITTEN = 1024 * KIB


class Weights(Layer):
    """A layer that is nothing but so many parameters."""

    def __init__(self, count: int) -> None:
        self.weight = Parameter(np.zeros(count, np.float32))


def ours(count: int) -> tuple[np.ndarray[Any, Any], Callable[[], None]]:
    """Return the gradients of this rank and the function that sums them into the parameters that
    all ranks read.
    """
    comm = ddbp.communicator()
    plan = ShardPlan(comm.size, comm.size, comm.rank)
    reduction = Reducer(Weights(count), plan, comm)
    part, sums = Partition(reduction), np.zeros(1)
    if len(part.chunks) == 1:
        reduction.expect(part.chunks[0].values, part.ranges[0][0])

    def step() -> None:
        reduction.exchange(0, 1, sums)
        for chunk in part.chunks:
            reduction.sum(chunk.values, chunk.start)
        reduction.publish(0)

    return reduction.flat.gradients[0], step


def contestants(count: int) -> dict[str, tuple[np.ndarray[Any, Any], Callable[[], Any]]]:
    """Return of each contestant the array that a rank fills and the function that sums it over the
    ranks.
    """
    import torch

    comm: Any = ddbp.communicator()
    source, total = np.ones(count, np.float32), np.empty(count, np.float32)
    tensor = torch.ones(count)
    return {
        "ours": ours(count),
        "mpi": (source, lambda: comm.world.Allreduce(source, total)),
        "gloo": (tensor.numpy(), lambda: torch.distributed.all_reduce(tensor)),
    }


def seconds(
    array: np.ndarray[Any, Any],
    step: Callable[[], Any],
    meet: Callable[[], Any],
    repeats: int,
    rewrite: bool,
) -> float:
    """Return the seconds per call, all ranks beginning together."""
    total = 0.0
    for _ in range(repeats if rewrite else 1):
        array[:] = 1
        meet()
        started = time.perf_counter()
        for _ in range(1 if rewrite else repeats):
            step()
        total += time.perf_counter() - started
    return total / repeats


def worker(rounds: int) -> None:
    """Measure on one of the ranks; the first prints a JSON object: by bytes, the seconds of each
    contestant in each round.
    """
    import torch

    comm = ddbp.communicator()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=comm.rank, world_size=comm.size)

    def meet() -> None:
        comm.all_gather(np.zeros(1))

    times: dict[int, dict[str, list[float]]] = {}
    for size in SIZES:
        rewrite = size > REWRITTEN
        repeats = 4 if rewrite else max(20, min(500, 4 * REWRITTEN // size))
        chosen = contestants(size // 4)
        times[size] = {name: [] for name in chosen}
        for r, turn in enumerate(harness.turns(chosen, rounds + 1)):
            for name in turn:
                found = float(
                    comm.all_gather(
                        np.array([seconds(*chosen[name], meet, repeats, rewrite)])
                    ).max()
                )
                # The first round warms up.
                times[size][name] += [found] if r else []
    torch.distributed.destroy_process_group()
    if comm.rank == 0:
        print(json.dumps(times), flush=True)


def main() -> None:
    """Start the ranks, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 9)
    parser.add_argument("--ranks", type=int, default=2, help="ranks on this host (%(default)s)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.rounds)
        return
    facts = harness.machine()
    inner = [str(Path(__file__).resolve()), "--worker", "--rounds", str(options.rounds)]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(harness.free_port())}
    times: dict[str, dict[str, list[float]]] = workers.on_ranks(
        options.ranks, inner, timeout=1200, **where
    )
    rows = []
    print(
        f"{'KiB':>8}{'ours µs':>12}{'MPI µs':>12}{'gloo µs':>12}{'MPI/ours':>10}{'gloo/ours':>10}"
    )
    for size, of in times.items():
        row = {"bytes": int(size), "ranks": options.ranks, "threads": 1}
        row |= {f"{name}_us": round(median(values) * 1e6, 2) for name, values in of.items()}
        row |= {
            f"ratio_{name}": harness.ratio(of[name], of["ours"])["ratio"]
            for name in ("mpi", "gloo")
        }
        rows.append(
            row | {"spread_us": {name: harness.spread(values, 1e6) for name, values in of.items()}}
        )
        line = (
            "{kib:8.0f}{ours_us:12.1f}{mpi_us:12.1f}{gloo_us:12.1f}{ratio_mpi:10.1f}"
            "{ratio_gloo:10.1f}"
        )
        print(line.format(kib=int(size) / KIB, **row), flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
