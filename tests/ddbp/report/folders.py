"""Run folders as a trainer would leave them, without one: what tests of the report share."""

import json

import numpy as np

from ddbp.instruments.recording import QUANTITIES, Recorder, Recording

LAYERS = ["layers.0", "layers.1", "layers.2"]
BINS = np.array([0, *np.logspace(-8, 3, 12)])
COLUMNS = {"layers": 3, "parameters": 3, "shards": 4, "ranks": 2, "run": 1}


def lines(path, records):
    """Write records as lines of JSON."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def run_folder(folder, *, epochs=4, steps=40, **facts):
    """Write a folder with configuration, status, records and steps, and return it."""
    folder.mkdir(parents=True)
    configuration = {"command": ["train.py"], "model": "Linear(6, 3)", "epochs": epochs, "ranks": 2}
    (folder / "config.json").write_text(json.dumps(configuration))
    status = {"status": "finished", "started": "2026-01-01T10:00:00+00:00", "steps": steps}
    status |= {"ended": "2026-01-01T10:01:40+00:00", "parameters_sha256": "ab" * 32}
    (folder / "status.json").write_text(json.dumps(status | facts))
    every = steps // epochs
    records = [
        {"epoch": n, "step": n * every, "loss": 1 / n, "validation_loss": 2 / n}
        for n in range(1, epochs + 1)
    ]
    for record in records:
        record["validation_accuracy"] = 1 - 0.5 * record["loss"]
    lines(folder / "metrics.jsonl", records)
    noted = [{"step": n, "loss": 2 / n, "low": 1 / n, "high": 3 / n} for n in range(1, steps + 1)]
    lines(folder / "steps.jsonl", [line | {"learning_rate": 0.1} for line in noted])
    return folder


def record(folder, *, value=1.0, names=LAYERS, rows=8):
    """Add a recording in which every number is `value`."""
    columns = COLUMNS | {"layers": len(names), "parameters": len(names)}
    heading = Recording(names, names, BINS, np.zeros(0, np.int64), {}, QUANTITIES)
    recorder = Recorder(heading, every=5, row_bytes=1000, most_bytes=2**20, run_folder=folder)
    for step in range(0, 5 * rows, 5):
        shapes = {
            name: (columns[each.of], len(BINS) - 1) if each.binned else (columns[each.of],)
            for name, each in QUANTITIES.items()
        }
        recorder.add(step, {name: np.full(shape, value) for name, shape in shapes.items()})
    recorder.flush()


def find(folder, **finding):
    """Add a finding."""
    usual = {"rule": "dying units", "layer": "layers.1", "step": 20, "cause": "They never fire."}
    usual |= {"remedy": "Lower the rate.", "numbers": {"share": 0.75}}
    usual["evidence"] = "3 of 4 units are 0"
    lines(folder / "findings.jsonl", [usual | finding])
