"""Time checkpoints: what writing them in the background costs a step, and the rates at which they
are written and compared with their digests.

    python scripts/bench/checkpoint.py [--parameters N] [--json FILE] [--rounds R]

Writing is compared with a plain file of as many bytes in the same folder, by blocks of 4 MiB and
one fsync, as `dd conv=fsync` writes it; training with a checkpoint every 100 steps with training
without, block by block of 100 steps.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lib import harness

import numpy as np
import reduction

import ddbp
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from layers import Linear, MeanSquaredError, ReLU, Sequential

BLOCK = 4 << 20
EVERY = 100


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def plain(path: Path, size: int) -> None:
    """Write so many bytes and have the disk keep them."""
    block = os.urandom(BLOCK)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            file.write(block[: size - start])
        file.flush()
        os.fsync(file.fileno())


def rates(parameters: int, where: Path, rounds: int) -> dict[str, Any]:
    """Return the rates for a model of so many parameters with Adam's moments."""
    callback = ddbp.Checkpoints(path=where / "rates", background=False, keep_last=1)
    trainer = ddbp.Trainer(
        reduction.Weights(parameters),
        optimizer=ddbp.Adam(1e-3),
        batch_size=1,
        callbacks=[callback],
        quiet=True,
    )
    size = 3 * 4 * parameters
    times: dict[str, list[float]] = {"checkpoint": [], "plain": [], "verify": []}
    for turn in harness.turns(("checkpoint", "plain"), rounds):
        for name in turn:
            if name == "plain":
                times[name].append(seconds(lambda: plain(where / "plain", size)))
            else:
                times[name].append(seconds(lambda: callback.write(trainer)))
        newest = Checkpoint(folder.found(where / "rates")[-1])
        times["verify"].append(seconds(newest.require_whole))
    rate = {name: size / median(values) / 1e9 for name, values in times.items()}
    return {
        "parameters": parameters,
        "bytes": size,
        "gigabytes_per_second": {name: round(value, 3) for name, value in rate.items()},
        "ratio_to_plain": harness.ratio(times["plain"], times["checkpoint"]),
        "spread_ms": {name: harness.spread(values) for name, values in times.items()},
    }


def overhead(where: Path, rounds: int) -> dict[str, Any]:
    """Return what a checkpoint every 100 steps costs a step of an MLP."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((256, 784)), rng.standard_normal((256, 10))

    def made(callbacks: list[ddbp.Callback]) -> ddbp.Trainer:
        rng = np.random.default_rng(1)
        layers = [Linear(784, 512, rng=rng), ReLU(), Linear(512, 512, rng=rng), ReLU()]
        return ddbp.Trainer(
            Sequential(*layers, Linear(512, 10, rng=rng)),
            loss=MeanSquaredError(),
            optimizer=ddbp.Adam(1e-3),
            batch_size=256,
            callbacks=callbacks,
            quiet=True,
        )

    callback = ddbp.Checkpoints(path=where / "steps", every_steps=EVERY, keep_last=1)
    trainers = {"with": made([callback]), "without": made([])}
    data = x.astype(np.float32), y.astype(np.float32)

    def block(trainer: ddbp.Trainer) -> Callable[[], None]:
        def steps() -> None:
            for _ in range(EVERY):
                trainer.train_step(*data)

        return steps

    blocks = {name: block(trainer) for name, trainer in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for number, turn in enumerate(harness.turns(blocks, rounds + 1)):
        for name in turn:
            found = seconds(blocks[name])
            times[name] += [found / EVERY] if number else []
        # What is written in the background falls into the next block of either.
    callback.wait()
    return {
        "workload": "mlp 784-512-512-10, batch 256",
        "every": EVERY,
        "cost": harness.ratio(times["with"], times["without"]),
        "spread_ms": {name: harness.spread(values) for name, values in times.items()},
    }


def main() -> None:
    """Measure, print and write the file."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 9)
    parser.add_argument("--parameters", type=int, default=25_000_000)
    options = parser.parse_args()
    facts = harness.machine()
    where = Path(tempfile.mkdtemp(prefix="checkpoints-", dir="."))
    try:
        rows = [rates(options.parameters, where, options.rounds), overhead(where, options.rounds)]
    finally:
        shutil.rmtree(where)
    for row in rows:
        print(row)
    harness.write(options.json, facts, rows)


if __name__ == "__main__":
    main()
