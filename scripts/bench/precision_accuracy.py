"""Compare what the training scripts reach in 16 bits with what they reach in float32, over seeds.

    python scripts/bench/precision_accuracy.py [--seeds K] [--workers N] [--json FILE]

Runs are short: seeds differ by more than they do at the end of long ones, and so do precisions. The
processes each take their share of the runs.
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lib import harness

from layers.kernels.llvm.simd_bf16 import HAS_DOTS

SCRIPTS = Path(__file__).resolve().parents[1]
NAMES = ("float32", "bf16", *["bf16-dot"] * HAS_DOTS, "float16")
_BITS = "bits_per_character"
TASKS = {
    "digits, MLP": ("train_digits", "accuracy", "--model", "mlp"),
    "digits, CNN": ("train_digits", "accuracy", "--model", "cnn", "--epochs", "4"),
    "characters, LSTM": ("train_char_lm", _BITS, "--hidden", "64", "--epochs", "1"),
    "forecast, GRU": ("train_forecast", "rmse", "--epochs", "4"),
}
"""Of each the script, the metric, and options."""


def reached(task: str, precision: str, seed: int) -> float:
    """Return the metric of a run on the data that is set aside."""
    module, metric, *options = TASKS[task]
    if str(SCRIPTS) not in sys.path:
        sys.path.insert(0, str(SCRIPTS))
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        options += ["--precision", precision, "--seed", str(seed), "--run-dir", f"{folder}/run"]
        sys.argv = [module, *options, "--quiet", "--no-doctor"]
        with contextlib.redirect_stdout(said):
            importlib.import_module(module).main()
    return float(json.loads(said.getvalue().splitlines()[-1])["metrics"][metric])


def row(task: str, found: dict[str, dict[int, float]]) -> dict[str, Any]:
    """Return the means over seeds, their deviations, and the differences to float32 of the same
    seeds with the standard errors of these.
    """
    seeds = sorted(set.intersection(*(set(each) for each in found.values())))
    of = {name: [found[name][seed] for seed in seeds] for name in NAMES}
    result: dict[str, Any] = {"name": task, "metric": TASKS[task][1], "seeds": seeds, "values": of}
    for name, values in of.items():
        result[name] = {"mean": mean(values), "deviation": stdev(values)}
        apart = [x - y for x, y in zip(values, of["float32"], strict=True)]
        result[name]["difference"] = mean(apart)
        result[name]["error"] = stdev(apart) / len(seeds) ** 0.5
    return result


def main() -> None:
    """Measure and write what there is after each seed."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 1)
    parser.add_argument("--seeds", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="(%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    found: dict[str, dict[str, dict[int, float]]] = {
        task: {name: {} for name in NAMES} for task in TASKS
    }
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn) as pool:
        runs = {
            pool.submit(reached, task, name, seed): (task, name, seed)
            for seed in range(options.seeds)
            for task in TASKS
            for name in NAMES
        }
        for done in as_completed(runs):
            task, name, seed = runs[done]
            found[task][name][seed] = done.result()
            print(task, name, seed, done.result(), flush=True)
            known = min(len(of) for each in found.values() for of in each.values())
            if known > 1:
                harness.write(options.json, facts, [row(*each) for each in found.items()])


if __name__ == "__main__":
    main()
