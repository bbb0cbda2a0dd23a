"""Time what instruments cost a training step: without them, twice, with their defaults, and where
every step is measured; and what a doctor costs a run of 1,000 steps, and one of 10,000 if these are
small.

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
WHOLE_RUNS, SMALL_MS = 3, 5


def block(workload: str, *every: int, **options: Any) -> Callable[[], float]:
    """Return a function that takes a block of steps, and tells its processor seconds per step."""
    callbacks = [*map(ddbp.Instruments, every)]
    step = steps.ours(
        WORKLOADS[workload], steps.TIMING_RATE, callbacks=callbacks, shards=4, **options
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
        "off again": block(workload),
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
        "off_again_to_off": harness.ratio(times["off again"], times["off"]),
        "defaults_to_off": harness.ratio(times["defaults"], times["off"]),
        "measured_step_more_ms": round(of_one * 1e3, 4),
        "share_by_that": round(of_one / EVERY / off, 5),
    }


def watched(workload: str, length: int, rounds: int) -> dict[str, Any]:
    """Return the row of runs of so many steps, with a doctor and without."""
    shares = []
    for _ in range(rounds):
        contestants = {"off": block(workload), "doctor": block(workload, doctor=True)}
        times = dict.fromkeys(contestants, 0.0)
        for turn in harness.turns(contestants, length // EVERY):
            for name in turn:
                times[name] += EVERY * contestants[name]()
        shares.append(times["doctor"] / times["off"] - 1)
    return {
        "network": workload,
        "steps": length,
        "seconds": round(times["off"], 3),
        "share_of_the_doctor": harness.spread(shares, 1),
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
        small = rows[-1]["step_ms"]["off"]["median"] < SMALL_MS
        for length in (1000, 10_000) if small else (1000,):
            rows.append(watched(workload, length, WHOLE_RUNS))
            print(rows[-1], flush=True)
    rows.append({"row of mlp-tiny": size_of_a_row()})
    print(rows[-1])
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
