"""Time the kernels within a training step: what is left is Python between them.

    python scripts/bench/breakdown.py [WORKLOAD …] [--json FILE] [--rounds R]

Beside both stands the time that the matrix products with weights would take at the rate of
multiply-adds in registers.
"""

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from lib import harness, peak, steps

from workloads import WORKLOADS
from workloads.workload import Workload

from layers import kernels

CHOSEN = ("mlp-tiny", "mlp", "rnn-128", "lstm-128", "gpt")


class Timed:
    """A kernel that adds the seconds of its calls, by way of Numba's dispatcher, to a list."""

    def __init__(self, function: Callable[..., Any], seconds: list[float]) -> None:
        self._function = function
        self._seconds = seconds

    def __call__(self, *arguments: Any) -> Any:
        """Call the kernel."""
        started = time.perf_counter()
        result = self._function(*arguments)
        self._seconds.append(time.perf_counter() - started)
        return result


@contextmanager
def kernels_timed(seconds: list[float]) -> Iterator[None]:
    """Return a context in which every kernel that layers and trainer look up in its module is a
    `Timed` one.
    """
    found = []
    for name in (
        module.name for module in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}.")
    ):
        module = importlib.import_module(name)
        own = [(key, value) for key, value in vars(module).items() if hasattr(value, "py_func")]
        found += [
            (module, key, value)
            for key, value in own
            if value.py_func.__module__ == module.__name__
        ]
    for module, key, kernel in found:
        setattr(module, key, Timed(kernel, seconds))
    try:
        yield
    finally:
        for module, key, kernel in found:
            setattr(module, key, kernel)


def row(workload: Workload, rounds: int) -> dict[str, Any]:
    """Measure one workload: whole steps and the peak in turns, then steps whose kernels are
    timed.
    """
    step = steps.ours(workload, steps.TIMING_RATE)
    times = harness.interleaved({"step": step, "peak": peak.contestant()}, rounds)
    seconds: list[float] = []
    shares = []
    with kernels_timed(seconds):
        for _ in range(rounds * harness.iterations_for(step, 0.1)):
            seconds.clear()
            started = time.perf_counter()
            step()
            shares.append(sum(seconds) / (time.perf_counter() - started))
    whole = median(times["step"]) * 1e3
    inside = whole * median(shares)
    products = (peak.operations(workload) or 0) / peak.OPERATIONS * median(times["peak"]) * 1e3
    found = {
        "ms": whole,
        "kernels_ms": inside,
        "between_ms": whole - inside,
        "products_at_peak_ms": products,
    }
    named = {"name": workload.name, "threads": 1, "kernel_calls": len(seconds)}
    return named | {key: round(value, 4) for key, value in found.items()}


def main() -> None:
    """Measure every workload, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 15)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(CHOSEN)} unless named"
    )
    options = parser.parse_args()
    facts, rows = harness.machine(), []
    harness.pin_to_one_core()
    for name in options.workloads or CHOSEN:
        rows.append(row(WORKLOADS[name], options.rounds))
        line = (
            "{name:10} step {ms:8.3f} ms, kernels {kernels_ms:8.3f} in {kernel_calls} calls,"
            " products {products_at_peak_ms:8.3f}"
        )
        print(line.format(**rows[-1]), flush=True)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
