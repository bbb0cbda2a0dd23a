"""Train several networks as a whole, or stop in the midst of an epoch and go on elsewhere.

Usage: resume.py FOLDER [--stop STATES | --load STATES] [--forks]; every rank writes the digests of
parameters and the losses of each run. With --stop runs end early, and ranks write checkpoints to
STATES; with --load they go on from there. With --forks they try other options on the way.
"""

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
from resumed_fits import FITS
from resumed_loops import LOOPS
from resumed_parts import DATA, EPOCHS, MARKED, Forks, Stop, StopError, dense, make, write

import ddbp
from ddbp.checkpoint.folder import Checkpoint, found
from layers import BatchNorm


def fitted(name: str, loaded: ddbp.Snapshot | None, stopping: Path | None):
    """Return the trainer, its losses, and the state where it was stopped."""
    start, data, step = FITS[name]
    stop = Stop(step, stopping)
    trainer = start(callbacks=[stop])
    if loaded is not None:
        trainer.load_state(loaded)
    elif name == "a second fit":
        trainer.fit(data, epochs=1)
    try:
        history = trainer.fit(data, epochs=EPOCHS, validation=data)
    except StopError:
        return trainer, [], stop.snapshot
    names = ("epoch", "step", "loss", "validation_loss", "average_loss")
    return trainer, [record[name] for record in history for name in names if name in record], None


def looped(name: str, loaded: ddbp.Snapshot | None, stopping: Path | None):
    """Return the trainer, its losses, and the state where it was stopped."""
    start, last = LOOPS[name]
    trainer = start()
    if loaded is not None:
        trainer.load_state(loaded)
    losses = []
    data = MARKED if "left out" in name else DATA
    for number, batch in enumerate(trainer.batches(data, epochs=EPOCHS), 1):
        losses.append(trainer.step(trainer.loss(trainer.model(batch.x), batch.y)))
        if stopping and number == last:
            return trainer, [], write(trainer, stopping)
    # Of those before the stop the one that goes on knows nothing.
    return trainer, losses[-12:], None


def stepped(name: str, loaded: ddbp.Snapshot | None, stopping: Path | None):
    """Return the trainer, its losses, and the state where it was stopped, of steps on batches of
    the script's own, in the midst of a group; the first pass after it is for practice.
    """
    last = 6
    trainer = make(dense(BatchNorm(64, synchronized=True)), ddbp.Adam(0.01), accumulate=4)
    if loaded is not None:
        trainer.load_state(loaded)
    losses = []
    for number in range(last if loaded else 0, 12):
        rows = np.arange(14) + 4 * number
        losses.append(trainer.train_step(DATA.x[rows].astype(np.float32), DATA.y[rows]))
        if stopping and number + 1 == last:
            return trainer, [], write(trainer, stopping)
    return trainer, losses[-6:], None


def read(path: Path) -> ddbp.Snapshot:
    """Return the state of the checkpoint in a folder, whose arrays are read when they are used."""
    checkpoint = Checkpoint(found(path)[-1])
    checkpoint.require_whole()
    return checkpoint.snapshot()


def timeless(snapshot: ddbp.Snapshot) -> str:
    """Return the digest of a state without what clocks have to say."""

    def told(value):
        if isinstance(value, dict):
            return {name: told(each) for name, each in value.items() if "second" not in name}
        return [told(each) for each in value] if isinstance(value, list) else value

    fit = {name: told(value) for name, value in snapshot.values.items() if "fit." in name}
    values = snapshot.values | fit | {"fit.seconds": 0.0}
    return ddbp.Snapshot(snapshot.arrays, values).digest()


def run_all(load: Path | None, stop: Path | None) -> dict[str, np.ndarray]:
    """Return what there is to say of all runs."""
    results = {}
    runs = [*((name, fitted) for name in FITS), *((name, looped) for name in LOOPS)]
    for number, (name, run) in enumerate([*runs, ("single steps", stepped)]):
        loaded = read(load / str(number)) if load else None
        stopping = stop / str(number) if stop else None
        trainer, losses, snapshot = run(name, loaded, stopping)
        results[f"{name}: digest"] = np.array(trainer.parameters_sha256())
        results[f"{name}: losses"] = np.array(losses)
        if Forks.on:
            forks = next(each for each in trainer.callbacks if isinstance(each, Forks))
            results[f"{name}: forks"] = np.array(forks.losses)
        if snapshot is not None:
            results[f"{name}: state"] = np.array(timeless(snapshot))
    return results


def main() -> None:
    """Train, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop", type=Path)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--forks", action="store_true")
    options = parser.parse_args()
    # Other programs of a live rank make such trainers, too.
    with mock.patch.object(Forks, "on", options.forks):
        results = run_all(options.load, options.stop)
    np.savez(options.folder / f"rank{ddbp.communicator().rank}.npz", **results)


if __name__ == "__main__":
    main()
