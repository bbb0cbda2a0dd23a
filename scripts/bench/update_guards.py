"""Time what guards an update: the undo log that lets survivors finish it, the checksums that find
bits which have flipped since the one before, and a look at all gradients ahead of it.

    python scripts/bench/update_guards.py [--parameters N ...] [--workloads NAME ...] [--json FILE]
    [--rounds R]

The update alone, of gradients of two shards by Adam, with and without log and checksums; whole
training steps with and without checksums (DDBP_CHECK_MEMORY), and with on_nonfinite="skip", or
"rollback", in place of "stop". All take turns in one process, and what is
measured is the time of the processor: so others that run there count little.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from lib import harness, steps

import numpy as np
import reduction
from workloads import WORKLOADS

import ddbp
from ddbp.optim.checksums import Memory
from ddbp.optim.journal import Journal
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan

GUARDS = {"plain": (), "log": ("log",), "checksums": ("sums",), "both": ("log", "sums")}
GUARDED_STEPS = "plain", "checksums", "skip", "rollback"
SECONDS = 0.05


def in_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of the processor per call of each contestant in each round."""
    counts = {name: harness.iterations_for(run, SECONDS) for name, run in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in harness.turns(contestants, rounds):
        for name in turn:
            run = contestants[name]
            run()  # Its caches were another's a moment ago.
            started = time.process_time()
            for _ in range(counts[name]):
                run()
            times[name].append((time.process_time() - started) / counts[name])
    return times


def row(name: str, times: dict[str, list[float]], **facts: Any) -> dict[str, Any]:
    """Return the row of contestants."""
    return {
        "name": name,
        **facts,
        "ms": {guards: round(median(values) * 1e3, 4) for guards, values in times.items()},
        "ratio": {
            guards: harness.ratio(values, times["plain"])
            for guards, values in times.items()
            if guards != "plain"
        },
    }


def update(parameters: int, guards: tuple[str, ...]) -> Callable[[], None]:
    """Return an update of so many parameters, alone on this process."""
    comm, plan = ddbp.communicator(), ShardPlan(2, 1, 0)
    reduced = Reducer(reduction.Weights(parameters), plan, comm)
    part, sums, optimizer = Partition(reduced), np.ones(2), ddbp.Adam(1e-3)
    journal = Journal(comm, 1, 0, optimizer.arrays, reduced.flat.dtype) if "log" in guards else None
    optimizer.bind(part, journal, memory=Memory.CHECKED if "sums" in guards else Memory.TRUSTED)
    reduced.flat.gradients[:] = 1e-3

    def run() -> None:
        if journal is not None:
            journal.begin()
        reduced.exchange(0, 1, sums)
        part.forget()
        optimizer.step(part)
        reduced.publish(0)

    return run


def step(workload: str, guard: str, folder: str) -> Callable[[], Any]:
    """Return a training step of a workload."""
    os.environ["DDBP_CHECK_MEMORY"] = str(int(guard == "checksums"))
    options: dict[str, Any] = {"on_nonfinite": "stop"}
    if guard in ("skip", "rollback"):
        options = {
            "on_nonfinite": guard,
            "callbacks": [ddbp.Checkpoints(path=folder, every_steps=10**9)],
        }
    return steps.ours(WORKLOADS[workload], steps.TIMING_RATE, **options)


def main() -> None:
    """Print the results and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 101)
    parser.add_argument("--parameters", type=int, nargs="*", default=[1_000_000, 25_000_000])
    usual = ["mlp-tiny", "mlp", "lenet", "resnet20", "lstm-256"]
    parser.add_argument("--workloads", nargs="*", default=usual, choices=WORKLOADS)
    options = parser.parse_args()
    harness.pin_to_one_core()
    facts, rows = harness.machine(), []
    for parameters in options.parameters:
        contestants = {name: update(parameters, guards) for name, guards in GUARDS.items()}
        times = in_turns(contestants, options.rounds)
        rows.append(row("update", times, parameters=parameters))
        print(rows[-1], flush=True)
        del contestants
    for workload in options.workloads:
        with tempfile.TemporaryDirectory() as folder:
            contestants = {name: step(workload, name, folder) for name in GUARDED_STEPS}
            rows.append(row(f"step of {workload}", in_turns(contestants, options.rounds)))
        print(rows[-1], flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
