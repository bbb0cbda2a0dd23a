"""Time how long kernels take to compile, and to load from the cache: from the start of a process to
the end of its first step.

    python scripts/bench/compile_time.py [WORKLOAD ...] [--json FILE] [--rounds R]

Each process first meets an empty cache folder, then, R times, the one that the first left. Of the
first, CPU seconds are listed too, which other work on the machine prolongs less: those of LLVM, of
all compilation, and of the ten kernels that take longest, helpers included that they are the first
to need.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness, steps

from numba.core import event
from numba.core.codegen import CPUCodeLibrary
from workloads import WORKLOADS

SCRIPT = Path(__file__).resolve()
LLVM_STEPS = ("add_ir_module", "_optimize_final_module", "_finalize_final_module")


class Costs(event.Listener):
    """CPU seconds of compilation, by kernel, and the part that LLVM has in them."""

    def __init__(self) -> None:
        self.kernels: Counter[str] = Counter()
        self.specialisations: Counter[str] = Counter()
        self.llvm = 0.0
        self._running: list[tuple[str, float]] = []
        register: Any = event.register
        register("numba:compile", self)
        for step in LLVM_STEPS:
            setattr(CPUCodeLibrary, step, self._timed(getattr(CPUCodeLibrary, step)))

    def _timed(self, step: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            started = time.process_time()
            result = step(*arguments)
            self.llvm += time.process_time() - started
            return result

        return timed

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._running.append((name, time.process_time()))

    def on_end(self, event: Any) -> None:
        name, started = self._running.pop()
        self.specialisations[name] += 1
        if not self._running:
            self.kernels[name] += time.process_time() - started

    def facts(self) -> dict[str, Any]:
        """Return the facts, to write down."""
        total = sum(self.kernels.values())
        return {
            "compilation": round(total, 2),
            "llvm": round(self.llvm, 2),
            "kernels": len(self.kernels),
            "specialisations": self.specialisations.total(),
            "of_functions": len(self.specialisations),
            "top": {name: round(seconds, 2) for name, seconds in self.kernels.most_common(10)},
        }


def first_step(name: str, cache: str) -> dict[str, Any]:
    """Return the seconds of a fresh process, and of building the trainer and taking one step in it,
    with what compilation had in them.
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, str(SCRIPT), name, "--worker"]
    started = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    process = time.perf_counter() - started
    return {"process": process, **json.loads(done.stdout.splitlines()[-1])}


def worker(name: str) -> None:
    """Build the trainer, take one step and print what that took."""
    costs, cpu = Costs(), time.process_time()
    wall = harness.timed(lambda: steps.ours(WORKLOADS[name], steps.TIMING_RATE)(), 1)
    taken = {"first_step": wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**taken, "costs": costs.facts()}))


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)}; all unless named",
    )
    parser.add_argument("--worker", action="store_true", help="take one step in this process")
    options = parser.parse_args()
    if options.worker:
        worker(options.workloads[0])
        return
    facts = harness.machine()
    harness.pin_to_one_core()
    rows: list[dict[str, Any]] = []
    print(f"{'':18}{'cold s':>8}{'CPU s':>8}{'LLVM %':>8}{'warm s':>8}   (trainer and first step)")
    for name in options.workloads or WORKLOADS:
        with tempfile.TemporaryDirectory() as cache:
            cold = first_step(name, cache)
            warm = [first_step(name, cache) for _ in range(options.rounds)]
        costs, times = cold.pop("costs"), list(cold)
        medians = {key: round(median(run[key] for run in warm), 3) for key in times}
        rows.append(
            {
                "name": name,
                "cold_s": {key: round(value, 2) for key, value in cold.items()},
                "warm_s": medians,
                "compilation_cpu_s": costs,
            }
        )
        share = 100 * costs["llvm"] / max(costs["compilation"], 0.01)
        print(
            f"{name:18}{cold['first_step']:8.2f}{cold['cpu']:8.2f}{share:8.0f}"
            f"{medians['first_step']:8.2f}   {costs['specialisations']} specialisations of"
            f" {costs['of_functions']} functions, {costs['kernels']} of them kernels",
            flush=True,
        )
        print("".join(f"    {s:6.2f} {kernel}\n" for kernel, s in costs["top"].items()))
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
