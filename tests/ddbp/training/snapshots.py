"""States of runs that were stopped: what tests of them share."""

import json

import numpy as np
import pytest

import ddbp

from .small import DATA, make

SEQUENCES = ddbp.ArrayDataset(
    np.random.default_rng(2).standard_normal((83, 7, 4)),
    np.random.default_rng(3).standard_normal((83, 7, 2)),
)


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Takes the state after a step, and ends the run."""

    def __init__(self, step):
        self.step, self.snapshot = step, None

    def on_step_end(self, trainer, step, loss):
        if step == self.step:
            self.snapshot = trainer.state()
            raise StopError


def stopped(step, data=DATA, epochs=3, callbacks=(), **options):
    """Return the state after a step of a fit."""
    stop = Stop(step)
    with pytest.raises(StopError):
        make(callbacks=[*callbacks, stop], **options).fit(data, epochs=epochs)
    return stop.snapshot


def through_json(snapshot):
    """Return a snapshot whose values have been written and read."""
    return ddbp.Snapshot(dict(snapshot.arrays), json.loads(json.dumps(snapshot.values)))


def changed(snapshot, **values):
    """Return a snapshot with other values; two underscores stand for a dot."""
    new = {name.replace("__", "."): value for name, value in values.items()}
    return ddbp.Snapshot(snapshot.arrays, snapshot.values | new)


def without_times(history):
    """Return records without what a clock has to say."""
    return [{name: v for name, v in record.items() if "second" not in name} for record in history]
