"""`Trainer.fit(ranks=…)`: a fit on ranks that are started for it, from a notebook or any single
process.

What the trainer is made of goes to a folder as JSON, arrays that ranks map, and a checkpoint of its
state; ranks make a trainer of that, and its state at the end comes back as another checkpoint. So
the fit is that of a run which goes on elsewhere: the bits are those of a fit here.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddbp import terminal
from ddbp.checkpoint.folder import Checkpoint, found
from ddbp.checkpoint.writer import Writer
from ddbp.comm.abort import ABORTED, BEFORE_ABORT, SAVED
from ddbp.comm.current import communicator
from ddbp.job import objects, temporary
from ddbp.job.objects import Anew
from ddbp.job.ranks import Job, note_error
from layers.checks import positive_int
from layers.errors import message

from . import checks, progress
from .history import History

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "Trainer.fit"
_START = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import main; main(sys.argv[1])"
"""What ranks run: nothing is imported before modules are looked for where this process does."""
_BEFORE, _AFTER = "before", "after"
"""The folders of states."""


def fit_in_ranks(trainer: "Trainer", ranks: Any, given: Mapping[str, Any]) -> History:
    """Train on so many ranks that are started for it, and have the trainer go on from where they
    end; return the history.

    Parameters
    ----------
    trainer
        A trainer that is alone.
    ranks
        How many.
    given
        The arguments of its `fit`.

    Raises
    ------
    ValueError
        There are too few samples in a batch, or shards, for so many; or this is a rank.
    TypeError
        Something cannot be had by other processes.
    RankError
        A rank has failed. The trainer is as it was, and checkpoints are kept.
    """
    ranks = positive_int(_OWNER, "ranks", ranks, "Leave it out to train in this process.")
    _require(trainer, ranks)
    if (over := trainer._fit.passed()) is not None:
        return over
    trainer._stream.leave()
    with temporary.folder("job") as folder:
        objects.write(_OWNER, made_of(trainer) | {"fit": dict(given)}, folder)
        _write_state(trainer, folder / _BEFORE, 1)
        command = [sys.executable, "-c", _START, str(folder), *sys.path]
        shown = progress.Hearing()
        job = Job(_OWNER, command, folder, ranks, shown.hear)
        try:
            job.run()
        except KeyboardInterrupt:
            if job.saved:
                text = 'interrupted; its checkpoint is that of Trainer(…, resume="auto")'
                terminal.say(f"{_OWNER}: {text}")
            raise
        finally:
            shown.end()
        trainer._go_on(Checkpoint(found(folder / _AFTER)[-1]).snapshot())
    _begin_anew(trainer)
    return trainer.history


def _require(trainer: "Trainer", ranks: int) -> None:
    """Refuse a trainer that is not alone, or that so many ranks cannot have."""
    if not sys.platform.startswith("linux"):
        must, fix = "ranks= needs Linux", "Write a script, and start it by `ddbp launch`."
        raise ValueError(message(_OWNER, must, sys.platform, fix))
    if trainer.comm.size > 1:
        must, got = "ranks= is for a process that is alone", f"a rank of {trainer.comm.size}"
        raise ValueError(message(_OWNER, must, got, "Leave it out: there are ranks already."))
    checks.between_runs(trainer._fit.running)
    checks.ranks_have_samples(trainer.options.batch_size, ranks)
    shards = trainer.options.shards
    if ranks > shards:
        must = "there must be a shard for each rank"
        fix = f"Make the trainer with shards={ranks}."
        raise ValueError(message(_OWNER, must, f"{ranks} ranks, {shards} shards", fix))


def made_of(trainer: "Trainer") -> dict[str, Any]:
    """Return what makes the same trainer elsewhere."""
    options = trainer.options.as_dict()
    if options["rule"] is not None:
        # It is bound to this model.
        options["rule"] = Anew.of(_OWNER, options["rule"])
    return {
        "trainer": type(trainer),
        "model": trainer.model,
        "loss": trainer.loss,
        "optimizer": trainer.optimizer.with_options(),
        "transforms": trainer.transforms,
        "metrics": trainer.metrics,
        "memory": trainer._memory.size,
        "run_dir": trainer.run_dir,
        "prefetch": trainer._stream.loader.prefetches,
        **options,
        **trainer._given,
        "callbacks": [Anew.of(_OWNER, each) for each in trainer._given["callbacks"]],
    }


def _write_state(trainer: "Trainer", path: Path, writers: int) -> None:
    """Write the state of a trainer as a checkpoint; collective."""
    writer = Writer(path, trainer.comm, writers)
    writer.write(trainer.step_count, {}, trainer.state(collected=False), background=False)


def _begin_anew(trainer: "Trainer") -> None:
    """Have the next fit come after those that are over in its state, and go on with one that is
    not.
    """
    trainer._stream.begin_anew()


# In a rank


def main(folder: str) -> None:
    """Train as a rank, and leave an exception for the process that has started this one."""
    place = Path(folder)
    comm = communicator()
    try:
        _train(place)
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code == SAVED:
            raise
        note_error(place, comm.rank, error)
        for note in BEFORE_ABORT:
            note()
        comm.abort(ABORTED)


def _train(folder: Path) -> None:
    arguments = objects.read(folder)
    make, given = arguments.pop("trainer"), arguments.pop("fit")
    trainer: Trainer = make(**arguments, resume=folder / _BEFORE)
    _begin_anew(trainer)
    trainer.fit(**given)
    _write_state(trainer, folder / _AFTER, trainer.comm.size)
