"""Measure the memory that ranks take for an epoch over a set of samples that is mapped from a file.

    python scripts/bench/data_memory.py [--gigabytes G] [--ranks 1,2] [--json FILE]

Libraries, kernels and the network are there after an epoch over few samples in memory; what the
process has mapped and written by then is the base. During the epoch over the file /proc is read
after every step (Linux): anonymous memory, and pages of files, which the system could take back but
counts to the process. The file is sparse: it reads as zeros, and takes no place on the disk.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from lib import harness, workers

import numpy as np

import ddbp
from ddbp import communicator
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

FEATURES, CLASSES, BATCH, MB = 3072, 10, 256, 1e6
"""The size of a CIFAR image in float32."""


def resident() -> dict[str, int]:
    """Return the bytes of this process in memory: of its own, and of files."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, value = line.split(":", 1)
        if name.startswith("Rss"):
            fields[name] = 1024 * int(value.split()[0])
    return {"own": fields["RssAnon"] + fields["RssShmem"], "files": fields["RssFile"]}


class Watch(ddbp.Callback):
    """Reads the memory of the process after every step, and keeps the most."""

    def __init__(self) -> None:
        self.most = {"own": 0, "files": 0, "all": 0}

    def on_step_end(self, trainer: Any, step: int, loss: float) -> None:
        found = resident()
        found["all"] = sum(found.values())
        self.most = {name: max(most, found[name]) for name, most in self.most.items()}


def samples_of(gigabytes: float) -> int:
    """Return how many samples have so many bytes."""
    return int(gigabytes * 1e9) // (4 * FEATURES)


def write(folder: Path, samples: int) -> None:
    """Write the files of a set of so many samples, that of the inputs with a hole in it."""
    path = folder / "x.npy"
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (samples, FEATURES)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * samples * FEATURES)
    np.save(folder / "y.npy", np.arange(samples) % CLASSES)


def worker(folder: Path) -> None:
    """Train an epoch on one rank; the first prints what all of them measured."""
    watch, rng = Watch(), np.random.default_rng(0)
    trainer = ddbp.Trainer(
        Sequential(Linear(FEATURES, 64, rng=rng), ReLU(), Linear(64, CLASSES, rng=rng)),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(0.01),
        batch_size=BATCH,
        callbacks=[watch],
        quiet=True,
    )
    few = ddbp.ArrayDataset(np.zeros((4 * BATCH, FEATURES), np.float32), np.arange(4 * BATCH) % 10)
    trainer.fit(few, epochs=1)
    base = dict(watch.most)
    source = ddbp.data.ArraySource(folder / "x.npy", folder / "y.npy")
    started = time.perf_counter()
    trainer.fit(source, epochs=1)
    seconds = time.perf_counter() - started
    needed = [watch.most[name] - base[name] for name in ("all", "own", "files")]
    comm = communicator()
    found = comm.all_gather(np.array([*needed, watch.most["all"]], np.float64))
    if comm.rank == 0:
        rows = [dict(zip(("needed", "own", "files", "total"), row, strict=True)) for row in found]
        print(json.dumps({"ranks": rows, "seconds": seconds}), flush=True)


def row(folder: Path, samples: int, ranks: int) -> dict[str, Any]:
    """Return what an epoch takes on so many ranks, in millions of bytes."""
    script = [str(Path(__file__).resolve()), "--worker", str(folder)]
    found = workers.alone(script) if ranks == 1 else workers.on_ranks(ranks, script)

    def most(name: str) -> float:
        return round(max(rank[name] for rank in found["ranks"]) / MB, 1)

    return {
        "ranks": ranks,
        "samples": samples,
        "set_mb": round(4 * samples * FEATURES / MB),
        "needed_mb": most("needed"),
        "own_mb": most("own"),
        "files_mb": most("files"),
        "process_mb": most("total"),
        "seconds": round(found["seconds"], 1),
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks (%(default)s)")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of the set (%(default)s)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    facts, rows = harness.machine(), []
    print(f"{'ranks':>6}{'set MB':>8}{'needs MB':>10}{'own':>7}{'files':>7}{'process':>9}{'s':>7}")
    line = (
        "{ranks:>6}{set_mb:>8}{needed_mb:>10.0f}{own_mb:>7.0f}{files_mb:>7.0f}{process_mb:>9.0f}"
        "{seconds:>7.0f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        samples = samples_of(options.gigabytes)
        write(Path(folder), samples)
        for ranks in map(int, options.ranks.split(",")):
            rows.append(row(Path(folder), samples, ranks))
            print(line.format(**rows[-1]), flush=True)
    harness.write(options.json, facts, rows, batch=BATCH, features=FEATURES)


if __name__ == "__main__":
    main()
