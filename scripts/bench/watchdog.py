"""Time what the watchdog costs a step: blocks of steps with its thread and without, one after the
other, in processor time of all threads of a rank.

    python scripts/bench/watchdog.py [--json FILE] [--rounds R]

Blocks last longer than the thread sleeps between two looks. A look, and what a rank does for others
to know how slow it is (one number in the header of the exchange), are timed apart, too.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from lib import harness, steps, workers

from workloads import WORKLOADS

from ddbp import settings
from ddbp.comm.current import communicator
from ddbp.observers import watchdog
from ddbp.reduction.reducer import Reducer

SECONDS = 1.5
"""Of a block."""
CASES = ("mlp-tiny", "lenet")


def busy(step: Callable[[], Any], count: int) -> float:
    """Return the seconds of a processor per step of so many."""
    started = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - started) / count


def worker(name: str, rounds: int) -> None:
    """Time a workload on this rank; the first one prints the seconds per step."""
    comm = communicator()
    (dog,) = watchdog._OWN
    step = steps.ours(WORKLOADS[name], steps.TIMING_RATE)
    harness.timed(step, 20)
    count = max(20, round(SECONDS / harness.timed(step, 50)))
    times: dict[str, list[float]] = {"with": [], "without": []}
    running = True
    for number, turn in enumerate(harness.turns(times, rounds + 1)):
        for kind in turn:
            if running != (kind == "with"):
                running = not running
                (dog.start if running else dog.stop)()
            found = busy(step, count)
            times[kind] += [found] if number else []
    print(json.dumps({**times, "header": header(comm), "look": look(dog)}))


def header(comm: Any) -> float:
    """Return the seconds of a processor of what states how long a rank has been busy."""
    stated = memoryview(bytearray(64)).cast("d")
    monotonic = Reducer._meet.__globals__["monotonic"]

    def state() -> None:
        stated[5] = monotonic() - comm.waited

    def nothing() -> None:
        stated[5] = 0.0

    return max(0.0, busy(state, 500_000) - busy(nothing, 500_000))


def look(dog: Any) -> float:
    """Return the seconds of a look, in processor time."""
    dog.stop()
    return busy(dog._look_once, 1000)


def main() -> None:
    """Measure, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 11)
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.rounds)
        return
    facts, rows = harness.machine(), []
    for name in CASES:
        script = [__file__, "--worker", name, "--rounds", str(options.rounds)]
        # Alone a rank is watched only if it has a limit.
        found = workers.on_ranks(1, script, **{settings.STALL_TIMEOUT: "600"})
        with_it, without = found["with"], found["without"]
        own = harness.spread(without)["median"] * 1e-3
        share = found["look"] / watchdog._LOOK + found["header"] / own
        rows.append(
            {
                "network": name,
                "step_ms": harness.spread(without)["median"],
                "thread_and_step_to_step": harness.ratio(with_it, without),
                "look_us": round(found["look"] * 1e6, 1),
                "looks_per_second": 1 / watchdog._LOOK,
                "header_us": round(found["header"] * 1e6, 3),
                "looks_and_header_to_step": round(share, 6),
            }
        )
        print(rows[-1])
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
