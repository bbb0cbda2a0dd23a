"""Time training steps of one process with several shards of the global batch against one.

    python scripts/bench/shards.py [WORKLOAD ...] [--shards S] [--json FILE] [--rounds R]

Several shards give the same bits for 1 to S ranks; this is what they cost, in processor time, for
which it does not matter what else the machine has to do. A ratio is the median of those of the
rounds, in each of which both take the same number of steps. `mlp/4` is `mlp` with an update for
every four batches.
"""

import gc
import time
from statistics import median

from lib import harness, steps

from workloads import WORKLOADS

USUAL = ("mlp", "mlp-large", "mlp-tiny", "lenet", "cnn", "resnet20", "lstm-128", "lstm-256")
USUAL += ("gru-256", "gpt", "mlp/4", "lstm-128/4")


def of_update(workload: str, shards: int, batches: int) -> steps.Step:
    """Return what takes all batches of an update."""
    step = steps.ours(WORKLOADS[workload], steps.TIMING_RATE, shards, accumulate=batches)
    return step if batches == 1 else lambda: [step() for _ in range(batches)]


def measured(name: str, shards: int, rounds: int) -> dict[str, object]:
    """Return the row of a workload."""
    workload, _, batches = name.partition("/")
    contestants = {count: of_update(workload, count, int(batches or 1)) for count in (1, shards)}
    counts = {
        count: harness.iterations_for(step, 0.1 if count == 1 else 1e-9)
        for count, step in contestants.items()
    }
    times: dict[int, list[float]] = {count: [] for count in contestants}
    gc.collect()
    gc.disable()
    for turn in harness.turns([str(count) for count in contestants], rounds):
        for count in map(int, turn):
            step = contestants[count]
            step()
            started = time.thread_time()
            for _ in range(counts[1]):
                step()
            times[count].append((time.thread_time() - started) / counts[1])
    gc.enable()
    found = harness.ratio(times[shards], times[1])
    pairs = zip(times[shards], times[1], strict=True)
    found["ratio"] = round(median(several / one for several, one in pairs), 3)
    named = {"one_ms": times[1], "several_ms": times[shards]}
    milliseconds = {key: harness.spread(values)["median"] for key, values in named.items()}
    return {"name": name, "shards": shards, **milliseconds, **found}


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 25)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)}; {', '.join(USUAL)} unless named",
    )
    parser.add_argument(
        "--shards", type=int, default=8, metavar="S", help="how many (default: %(default)s)"
    )
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    rows = []
    for name in options.workloads or USUAL:
        row = measured(name, options.shards, options.rounds)
        rows.append(row)
        print(
            f"{name}: {row['several_ms']:.3f} ms with {options.shards} shards,"
            f" {row['ratio']:.3f} ({row['low']} to {row['high']}) times that with one",
            flush=True,
        )
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
