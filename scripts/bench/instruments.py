"""Time what instruments cost a training step: without them, with their defaults, and where every
step is measured.

    python scripts/bench/instruments.py [--workloads NAME ...] [--json FILE] [--rounds R]

All take turns in one process, in blocks of as many steps as lie between two that are measured by
default; what is measured is the time of the processor, so others that run there count little.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps

from workloads import WORKLOADS

import ddbp

EVERY = ddbp.Instruments().every
MOST_ROUNDS = 18
"""So that the run in which every step is measured is not thinned."""


def block(workload: str, *every: int) -> Callable[[], float]:
    """Return a function that takes a block of steps, and tells its processor seconds per step."""
    step = steps.ours(
        WORKLOADS[workload], steps.TIMING_RATE, callbacks=[*map(ddbp.Instruments, every)], shards=4
    )

    def run() -> float:
        started = time.process_time()
        for _ in range(EVERY):
            step()
        return (time.process_time() - started) / EVERY

    return run


def measured(workload: str, rounds: int) -> dict[str, Any]:
    """Return the row of a workload."""
    contestants = {
        "off": block(workload),
        "defaults": block(workload, EVERY),
        "every step": block(workload, 1),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number, turn in enumerate(harness.turns(contestants, rounds + 1)):
        for name in turn:
            found = contestants[name]()
            # Kernels are compiled, and caches filled, in the first one.
            times[name] += [found] if number else []
    off = median(times["off"])
    of_one = median(times["every step"]) - off
    return {
        "network": workload,
        "step_ms": {name: harness.spread(values) for name, values in times.items()},
        "defaults_to_off": harness.ratio(times["defaults"], times["off"]),
        "measured_step_more_ms": round(of_one * 1e3, 4),
        "share_by_that": round(of_one / EVERY / off, 5),
    }


def size_of_a_row() -> dict[str, float]:
    """Return the bytes of a measured step of the MLP in files, and the seconds to read 1000."""
    with tempfile.TemporaryDirectory() as folder:
        kept = ddbp.Instruments(1)
        workload = WORKLOADS["mlp-tiny"]
        x, y = workload.batches()[0]
        trainer = ddbp.Trainer(
            workload.start(),
            loss=workload.loss(),
            optimizer="adam",
            batch_size=len(x),
            callbacks=[kept],
            run_dir=folder,
            quiet=True,
        )
        trainer.fit(ddbp.ArrayDataset(x, y), epochs=1000)
        size = sum(path.stat().st_size for path in Path(folder, "instruments").iterdir())
        seconds = harness.timed(lambda: ddbp.Recording.read(folder), 3)
        return {"bytes": round(size / len(kept.recording.steps)), "read_1000_ms": seconds * 1e3}


def main() -> None:
    """Print the results and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 15)
    usual = ["mlp-tiny", "mlp", "lenet", "lstm-128", "gpt"]
    parser.add_argument("--workloads", nargs="*", default=usual, choices=WORKLOADS)
    options = parser.parse_args()
    harness.pin_to_one_core()
    facts, rows = harness.machine(), []
    for workload in options.workloads:
        rows.append(measured(workload, min(options.rounds, MOST_ROUNDS)))
        print(rows[-1], flush=True)
    rows.append({"row of mlp-tiny": size_of_a_row()})
    print(rows[-1])
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
