"""Measure the size of a run's report, and how long it takes to make it.

    python scripts/bench/run_report.py [--steps N] [--keep FOLDER] [--json FILE] [--rounds R]

The folders are those of runs that there never were, of invented numbers, with all that can be in
one: a record per epoch, lines of steps, recordings of layers, parameters, shards and ranks, samples
and findings. What is timed is reading the folder and writing the page.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from lib import harness

import numpy as np

from ddbp.instruments.recording import QUANTITIES, Recorder, Recording
from ddbp.report import page
from ddbp.report.run import Run
from ddbp.training.run_log import is_noted

SIZES = {"small": (6, 2), "usual": (24, 4), "deep": (200, 16), "thousands of layers": (3000, 4)}
"""Layers and ranks of the runs."""
EPOCHS, BINS, EVERY = 100, 64, 10


def invented(folder: Path, layers: int, ranks: int, steps: int) -> None:
    """Write the folder of a run that there never was."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    configuration = {"command": ["train.py"], "model": "…", "batch_size": 64, "ranks": ranks}
    (folder / "config.json").write_text(json.dumps(configuration | {"epochs": EPOCHS}))
    status = {"status": "finished", "started": "2026-01-01T00:00:00+00:00", "epochs": EPOCHS}
    status |= {"ended": "2026-01-01T01:02:03+00:00", "parameters_sha256": "0" * 64}
    (folder / "status.json").write_text(json.dumps(status))
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(1, EPOCHS + 1):
            loss = 2.3 / epoch**0.5
            record = {"epoch": epoch, "step": epoch * steps // EPOCHS, "loss": loss}
            record |= {"samples_per_second": rng.uniform(9e4, 1e5), "validation_loss": 1.1 * loss}
            record["validation_accuracy"] = 1 - loss / 4
            file.write(json.dumps(record) + "\n")
    with (folder / "steps.jsonl").open("w") as file:
        for step in filter(is_noted, range(1, steps + 1)):
            loss = 2.3 / (1 + step * EPOCHS / steps) ** 0.5 * rng.lognormal(0, 0.1)
            line = {"step": step, "loss": loss, "low": 0.9 * loss, "high": 1.1 * loss}
            file.write(json.dumps(line | {"learning_rate": 1e-3 * (1 - step / steps)}) + "\n")
    finding = {"rule": "vanishing gradient", "layer": "layers.0", "step": steps // 3}
    finding |= {"cause": "Gradients shrink from layer to layer.", "remedy": "Use ReLU."}
    (folder / "findings.jsonl").write_text(json.dumps(finding | {"numbers": {"ratio": 1e-7}}))
    _samples(folder, rng)
    _recording(folder, rng, layers, ranks, steps)


def _samples(folder: Path, rng: np.random.Generator) -> None:
    pairs = [(a, b, 90 if a == b else int(rng.integers(3))) for a in range(10) for b in range(10)]
    facts = {"data": "validation", "samples": 1000, "seen": 1000, "input": "x"}
    np.savez_compressed(
        folder / "samples.npz",
        facts=np.array(json.dumps(facts)),
        pairs=np.array(pairs),
        numbers=np.arange(12),
        losses=np.linspace(5, 3, 12),
        targets=np.arange(12) % 10,
        predictions=np.arange(1, 13) % 10,
        probabilities=np.full(12, 0.9),
        **{f"input{n}": rng.random((64, 64, 3)).astype(np.float32) for n in range(12)},
    )


def _recording(folder: Path, rng: np.random.Generator, layers: int, ranks: int, steps: int) -> None:
    names = [f"layers.{n}" for n in range(layers)]
    bins = np.array([0, *np.logspace(-12, 4, BINS)])
    columns = {"layers": layers, "parameters": layers, "shards": 8, "ranks": ranks, "run": 1}
    heading = Recording(names, names, bins, np.zeros(0, np.int64), {}, QUANTITIES)
    recorder = Recorder(
        heading,
        every=EVERY,
        row_bytes=4 * layers * (2 * BINS + 10),
        most_bytes=2**25,
        run_folder=folder,
    )
    middles = np.arange(BINS)
    for step in range(0, steps, EVERY):
        if step % recorder.stride(step):
            continue
        row: dict[str, Any] = {}
        for name, quantity in QUANTITIES.items():
            count = columns[quantity.of]
            depth = np.linspace(-3, 0, count)
            if quantity.binned:
                centre = 30 + 4 * depth[:, np.newaxis] - 6 * step / steps
                weights = np.exp(-((middles - centre) ** 2) / 40)
                row[name] = weights / weights.sum(axis=1, keepdims=True)
            else:
                row[name] = 10 ** (depth - step / steps + 0.1 * rng.standard_normal(count))
        recorder.add(step, row)
    recorder.flush()


def main() -> None:
    """Measure, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 5)
    parser.add_argument("--steps", type=int, default=10_000, help="of each run (%(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the runs there")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, (layers, ranks) in SIZES.items():
            folder = (options.keep or Path(temporary)) / name.replace(" ", "-")
            invented(folder, layers, ranks, options.steps)
            times = []
            for _ in range(options.rounds):
                started = time.perf_counter()
                page.write([Run.read(folder)], folder / page.NAME)
                times.append(time.perf_counter() - started)
            size = (folder / page.NAME).stat().st_size
            row = {"name": name, "layers": layers, "ranks": ranks, "bytes": size}
            rows.append(row | {"seconds": harness.spread(times, 1)})
            print(f"{name:20} {size / 1e6:.2f} MB, {min(times):.2f} to {max(times):.2f} s")
    harness.write(options.json, harness.machine(), rows, steps=options.steps)


if __name__ == "__main__":
    main()
