"""Runs that are stopped, and those that nobody has stopped, to compare them with."""

import pytest

import ddbp
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from layers import Dropout

from .small import DATA, make, network

EPOCHS = 4


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Ends the run after a step, whatever it is in the midst of."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, step, loss):
        if step == self.step:
            raise StopError


def checkpoints(**options):
    """Return a callback that writes at once, unless asked otherwise."""
    return ddbp.Checkpoints(**{"background": False, **options})


def trainer_in(run_dir, callbacks=(), **options):
    """Return a trainer of a network with random masks."""
    return make(network(Dropout(0.2)), run_dir=run_dir, callbacks=callbacks, **options)


def steps(run_dir):
    """Return the steps of the checkpoints of a run."""
    return [Checkpoint(path).step for path in folder.found(run_dir / "checkpoints")]


def undisturbed(run_dir, **options):
    """Return the digest and the history of a run that nobody stopped."""
    trainer = trainer_in(run_dir, **options)
    history = trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    return trainer.parameters_sha256(), timeless(history)


def timeless(history):
    return [{k: v for k, v in record.items() if "second" not in k} for record in history]


def stopped(run_dir, step, callback, **options):
    """Train until after a step."""
    trainer = trainer_in(run_dir, [callback, Stop(step)], **options)
    with pytest.raises(StopError):
        trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    callback.wait()
