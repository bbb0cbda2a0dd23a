"""A run of a task on all ranks: `python -m ddbp.speedrun.race FILE` reads what to run from a file,
and writes there what came of it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from ddbp.files import whole
from ddbp.training.callbacks import Callback, Record
from ddbp.training.trainer import Trainer

from .tasks import SHARDS, TASKS, Task


class Clock(Callback):
    """Ends a run where the target is reached, and knows how long that took.

    Parameters
    ----------
    task
        The task.

    Attributes
    ----------
    seconds
        From the beginning of `fit` to the end of the last epoch, its evaluation included.
    reached
        Whether the target was reached.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.seconds = 0.0
        self.reached = task.target is None

    def __repr__(self) -> str:
        return f"Clock({self._task.name!r})"

    def on_fit_begin(self, trainer: Trainer, epochs: int, steps_per_epoch: int) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        self.seconds = time.perf_counter() - self._began
        if self._task.reached(record[self._task.metric]):
            self.reached = trainer.stop = True


def run(task: Task, numbers: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Run a task, and return what came of it; collective."""
    training, test = task.data()
    epochs, batch_size = numbers["epochs"], numbers["batch_size"]
    clock = Clock(task)
    trainer = Trainer(
        task.model(numbers),
        **task.options(numbers, epochs * -(-len(training) // batch_size)),
        batch_size=batch_size,
        seed=numbers["seed"],
        shards=SHARDS,
        drop_last=True,
        callbacks=[clock],
        quiet=quiet,
    )
    # Kernels are compiled by then; nothing of it is left in the run.
    trainer.evaluate(test)
    trainer.fork(2, data=training)
    history = trainer.fit(training, epochs=epochs, validation=None if task.target is None else test)
    kept = ("loss", "validation_loss", "validation_accuracy", "validation_bits_per_character")
    seconds = clock.seconds
    return {
        "reached": clock.reached,
        "ranks": trainer.comm.size,
        "seconds": seconds,
        "samples_per_second": trainer.step_count * batch_size / seconds,
        "steps": trainer.step_count,
        "epochs": [{name: each[name] for name in kept if name in each} for each in history],
        "data": training.digests() | {f"test {k}": v for k, v in test.digests().items()},
        "sha256": trainer.parameters_sha256(),
    }


def main() -> None:
    """Run what the file says."""
    path = Path(sys.argv[1])
    request = json.loads(path.read_text())
    task = TASKS[request["task"]]
    found = run(task, task.numbers(request["numbers"]), quiet=request["quiet"])
    from ddbp.comm.current import communicator

    if communicator().leads:
        with whole(path) as place:
            place.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
