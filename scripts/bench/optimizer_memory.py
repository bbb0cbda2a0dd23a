"""Measure the memory that training takes with each optimizer: what it keeps from update to update,
and the most that all ranks take.

    python scripts/bench/optimizer_memory.py [--ranks 1,2] [--json FILE]

Each optimizer takes three steps with a dense network of ten million parameters, in processes of its
own. What it keeps is counted. The most is measured: the sum of the ranks' proportional set sizes
(pages that they share count once) after these steps, less that after three steps of a tiny network,
so that libraries and kernels are not counted.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib import harness, workers

import numpy as np
import workloads
from memory import resident

import ddbp

TINY, SIZES, BATCH, STEPS, MB = (64, 64, 16), (1024, 2304, 2304, 1000), 16, 3, 1e6
OPTIMIZERS: dict[str, Callable[[], ddbp.Optimizer]] = {
    "SGD": lambda: ddbp.SGD(1e-3),
    "SGD, momentum": lambda: ddbp.SGD(1e-3, momentum=0.9),
    "SGD, momentum, 8 bits": lambda: ddbp.SGD(1e-3, momentum=0.9, state_bits=8),
    "Lion": lambda: ddbp.Lion(1e-4),
    "Lion, 8 bits": lambda: ddbp.Lion(1e-4, state_bits=8),
    "Adam": lambda: ddbp.Adam(1e-3),
    "Adam, 8 bits": lambda: ddbp.Adam(1e-3, state_bits=8),
    "Adafactor": lambda: ddbp.Adafactor(),
    "LARS": lambda: ddbp.LARS(1e-3),
    "LAMB": lambda: ddbp.LAMB(1e-3),
}


def after_steps(kind: str, sizes: tuple[int, ...]) -> tuple[ddbp.Trainer, dict[str, int]]:
    """Return the trainer of a dense network after steps, and what this rank takes with it."""
    network = workloads.dense("mlp", sizes, BATCH)
    trainer = ddbp.Trainer(
        network.start(),
        loss=network.loss(),
        optimizer=OPTIMIZERS[kind](),
        batch_size=BATCH,
        shards="ranks",
        quiet=True,
    )
    for x, y in itertools.islice(itertools.cycle(network.batches()), STEPS):
        trainer.train_step(x, y)
    trainer.comm.all_gather(np.zeros(1))
    return trainer, resident()


def worker(kind: str) -> None:
    """Take the steps on one rank; the first prints what all of them keep and take."""
    _, before = after_steps(kind, TINY)
    trainer, after = after_steps(kind, SIZES)
    kept = sum(array.nbytes for array in trainer.optimizer.held.values())
    found = trainer.comm.all_gather(np.array([kept, after["pss"] - before["pss"]], np.int64))
    if trainer.comm.rank == 0:
        kept, most = found.sum(axis=0).tolist()
        print(json.dumps({"kept": kept, "most": most}), flush=True)


def row(kind: str, ranks: int) -> dict[str, Any]:
    """Return the row of an optimizer on some ranks, in millions of bytes over all of them."""
    script = [str(Path(__file__).resolve()), "--worker", kind]
    found = workers.on_ranks(ranks, script) if ranks > 1 else workers.alone(script)
    return {
        "optimizer": kind,
        "ranks": ranks,
        "kept_mb": round(found["kept"] / MB, 2),
        "most_mb": round(found["most"] / MB, 1),
    }


def main() -> None:
    """Measure, print a table and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], None)
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks (%(default)s)")
    parser.add_argument("--worker", choices=OPTIMIZERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    facts, rows = harness.machine(), []
    print(f"{'':24}{'ranks':>6}{'kept, MB':>10}{'most, MB':>10}")
    for kind, ranks in itertools.product(OPTIMIZERS, map(int, options.ranks.split(","))):
        rows.append(row(kind, ranks))
        line = "{optimizer:24}{ranks:6}{kept_mb:10.2f}{most_mb:10.1f}"
        print(line.format(**rows[-1]), flush=True)
    parameters = sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(SIZES))
    harness.write(options.json, facts, rows, parameters=parameters, batch=BATCH, steps=STEPS)


if __name__ == "__main__":
    main()
