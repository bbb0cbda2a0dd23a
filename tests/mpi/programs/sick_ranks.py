"""Train while something is wrong on rank 1, or nothing; every rank writes what the doctor finds.

Usage: sick_ranks.py FOLDER WHAT, one of `FAULTS`, or nothing.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np

import ddbp
from ddbp.comm import packages
from ddbp.doctor import ranks
from layers import BatchNorm, Linear, ReLU, Sequential, SoftmaxCrossEntropy, TapeHook

GUILTY, STEP = 1, 11


def flip(array: np.ndarray) -> None:
    """Flip a bit."""
    array.reshape(-1).view(np.uint32)[7] ^= np.uint32(1 << 3)


def flip_copy(trainer: ddbp.Trainer) -> None:
    """Flip a bit of what this rank does not update."""
    values, (start, stop) = trainer._flat.values, trainer.partition.ranges[0]
    flip(values[stop:] if start == 0 else values[:start])


def halve_rate(trainer: ddbp.Trainer) -> None:
    """Have the optimizer of this rank take smaller steps."""
    trainer.optimizer.factor = 0.5


def change_data(trainer: ddbp.Trainer) -> None:
    """Change the samples of this rank in place."""
    trainer._stream.data.x[...] *= 2


FAULTS = {
    "state": lambda trainer: flip(trainer.model[1].running_mean.value),
    "value": lambda trainer: flip(trainer.partition.values),
    "moment": lambda trainer: flip(trainer.optimizer.moments["square"]),
    "copy": flip_copy,
    "rate": halve_rate,
    "data": change_data,
}
"""What happens after step 11 on rank 1; "copy" after a step in which the doctor looks."""


class Fault(ddbp.Callback, TapeHook):
    """Does what shall be wrong."""

    def __init__(self, what: str, guilty: bool) -> None:
        self.what, self.guilty = what, guilty

    def on_backward_pass_begin(self, tape: object) -> None:
        """Be slow."""
        if self.what == "slow" and self.guilty:
            time.sleep(0.15)

    def on_step_end(self, trainer: ddbp.Trainer, step: int, loss: float) -> None:
        """Do it."""
        if step == (20 if self.what == "copy" else STEP) and self.guilty and self.what in FAULTS:
            FAULTS[self.what](trainer)


def main() -> None:
    """Train."""
    folder, what = Path(sys.argv[1]), sys.argv[2]
    rank = ddbp.communicator().rank
    guilty = rank == GUILTY
    rng = np.random.default_rng(1)
    x = rng.standard_normal((240, 5))
    y = x[:, :3].argmax(axis=1)
    wide = 512 if what == "crowded" else 64
    model = Sequential(
        Linear(5, wide, rng=rng),
        BatchNorm(wide),
        ReLU(),
        Linear(wide, wide, rng=rng),
        ReLU(),
        Linear(wide, 3, rng=rng),
    )
    if what == "module":
        own = folder / f"rank{rank}"
        own.mkdir()
        (own / "module_of_ranks.py").write_text(f'"""A part of a script."""\n\nRANK = {guilty}\n')
        with mock.patch.object(sys, "path", [str(own), *sys.path]):
            importlib.import_module("module_of_ranks")
    cores = os.sched_getaffinity(0)
    if what == "crowded":
        os.sched_setaffinity(0, {min(cores)})
    doctor = ddbp.Doctor()
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(1e-3),
        batch_size=48,
        shards=6,
        callbacks=[ddbp.Instruments(every=2), Fault(what, guilty), doctor],
        run_dir=folder / "run",
        quiet=True,
    )
    versions = packages._version
    if what == "package" and guilty:
        versions = "other {}".format
    with (
        mock.patch.object(packages, "_version", versions),
        mock.patch.object(ranks, "_SECONDS", 0.5 if what == "crowded" else 1e9),
    ):
        if what == "batch":
            for step in range(25):
                noise = 1e-6 if guilty and step == 19 else 0.0
                trainer.train_step((x[:48] + noise).astype(np.float32), y[:48])
        else:
            epochs = 8 if what == "slow" else 60 if what == "crowded" else 5
            data = ddbp.ArrayDataset(x, y)
            trainer.fit(data, epochs=epochs, validation=data)
    os.sched_setaffinity(0, cores)
    sys.modules.pop("module_of_ranks", None)
    found = [asdict(each) for each in doctor.findings]
    (folder / f"findings{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
