"""Train with checkpoints; be asked to end by a signal, or go on.

Usage: checkpointed.py FOLDER RUN [--epochs N] [--accumulate N] [--signal NAME RANK STEP]...
[--apart] [--exit] [--changes]. The ranks write the digest of the parameters and the losses of all
epochs. With --signal a rank sends itself a signal in a step, once in a run; ranks that end by it
write their status, or end with it by --exit. With --apart ranks take it that they do not see one
folder. With --changes the script changes parameters between two fits, and layers are frozen and
thaw.
"""

import argparse
import os
import signal
from pathlib import Path

import numpy as np
from launcher import await_watch

import ddbp
from ddbp.training import checkpoints
from layers import BatchNorm, Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy

SAMPLES = 68
RNG = np.random.default_rng(3)
DATA = ddbp.ArrayDataset(RNG.standard_normal((SAMPLES, 20)), RNG.integers(0, 4, SAMPLES))


class SendSignal(ddbp.Callback):
    """Sends the process of a rank a signal in a step, once in a run."""

    def __init__(self, name: str, rank: str, step: str) -> None:
        self.number = signal.Signals[name]
        self.rank = int(rank)
        self.step = int(step)

    def on_step_begin(self, trainer, step):
        sent = trainer.run_dir / f"{self.number.name} in step {self.step}"
        if (trainer.comm.rank, step) == (self.rank, self.step) and not sent.exists():
            sent.touch()
            os.kill(os.getpid(), self.number)


class Thaw(ddbp.Callback):
    """Has a layer frozen in the second epoch, and another one in the third."""

    def on_epoch_begin(self, trainer, epoch):
        trainer.model.unfreeze()
        if epoch in (2, 3):
            trainer.model[0 if epoch == 2 else 4].freeze()


def halve(trainer: ddbp.Trainer) -> None:
    """Halve a weight, and the running statistics of all ranks."""
    with ddbp.modify_parameters(trainer) as mine:
        if mine:
            trainer.model[0].weight.value *= 0.5
        for _, state in trainer.model.named_states():
            state.value *= 0.5


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--signal", nargs=3, action="append", default=[])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--exit", action="store_true")
    parser.add_argument("--changes", action="store_true")
    options = parser.parse_args()
    if options.apart:
        checkpoints.sees_the_same = lambda path, comm: False
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(20, 64, rng=rng), BatchNorm(64), ReLU(), Dropout(0.2), Linear(64, 4, rng=rng)
    )
    # Of a process that replaces another one, and is rank 0 as long as it is alone, it is its own.
    slot = ddbp.communicator().slot
    await_watch()
    callbacks: list[ddbp.Callback] = [ddbp.Checkpoints(every_steps=3)]
    callbacks += [Thaw()] if options.changes else []
    callbacks += [SendSignal(*given) for given in options.signal]
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(0.01),
        batch_size=14,
        accumulate=options.accumulate,
        shards=6,
        callbacks=callbacks,
        run_dir=options.run,
        resume="auto",
        quiet=True,
    )
    try:
        if options.changes:
            halve(trainer)
            trainer.fit(DATA, epochs=1)
            halve(trainer)
        history = trainer.fit(DATA, epochs=options.epochs, validation=DATA)
    except SystemExit as end:
        if options.exit:
            raise
        np.savez(options.folder / f"rank{slot}.npz", status=np.array(end.code))
        return
    losses = [record[name] for record in history for name in ("step", "loss", "validation_loss")]
    digest = np.array(trainer.parameters_sha256())
    np.savez(options.folder / f"rank{slot}.npz", digest=digest, losses=np.array(losses))


if __name__ == "__main__":
    main()
