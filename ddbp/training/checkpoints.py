"""The callback that writes checkpoints, and how a trainer goes on from one."""

import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp import files, settings, terminal
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.checkpoint.writer import Writer, sees_the_same
from ddbp.comm.agreement import gather_texts
from ddbp.comm.base import Communicator
from ddbp.observers.observer import Request, StepPhase
from layers.checks import boolean, one_of, positive, positive_int
from layers.errors import message

from .callbacks import OptionsCallback, Record, require_own
from .monitors import Monitor
from .paths import path_of

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "Checkpoints"


class Checkpoints(OptionsCallback):
    """Write all that training has changed to a folder, whole or not at all, while training goes on.

    A checkpoint is a folder `step-000000100` of safetensors files, one of each rank, and of
    `state.json`, which has the digests of all arrays. `Trainer(resume=…)` goes on from the newest
    that is whole, on any number of ranks.

    Parameters
    ----------
    every_steps
        Updates from one checkpoint to the next.
    every_seconds
        Seconds from one to the next, by the clock of rank 0.
    every_epochs
        Epochs from one to the next; each, if no other interval is given.
    keep_last
        How many of the last ones stay.
    keep_best
        A number of the records and how many checkpoints with the best values of it stay beside
        them: ("validation_loss", 1). One is written whenever there is a better value.
    path
        The folder; `checkpoints` in the run folder unless given.
    background
        Whether a thread writes while training goes on; it writes what there was at the step.
    busy
        What is done about a checkpoint while the one before is not written yet: "wait" or "skip".
        One with a better value waits.

    Notes
    -----
    Within `fit` and `batches`, SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 ask a run with this callback to
    end: all ranks finish their step, write a checkpoint and leave with the status 75. A second
    signal ends at once.

    Where ranks do not see one folder, on hosts without a common file system, rank 0 writes all.

    A run that goes on from an older checkpoint leaves those of later steps behind: when its first
    new one is on the disk, they are moved to `set-aside` beside it, and that is said. None of them
    counts for `keep_last` and `keep_best`, or is taken by `resume="auto"`, then.
    """

    _folder: Path

    def __init__(
        self,
        *,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        every_epochs: int | None = None,
        keep_last: int = 3,
        keep_best: tuple[str, int] | None = None,
        path: str | Path | None = None,
        background: bool = True,
        busy: str = "wait",
    ) -> None:
        if every_epochs is None and every_steps is None and every_seconds is None:
            every_epochs = 1
        if every_steps is not None:
            every_steps = positive_int(_OWNER, "every_steps", every_steps)
        if every_epochs is not None:
            every_epochs = positive_int(_OWNER, "every_epochs", every_epochs)
        if every_seconds is not None:
            fix = "600 is usual."
            every_seconds = positive(_OWNER, "every_seconds", every_seconds, fix, finite=True)
        self.every_steps = every_steps
        self.every_seconds = every_seconds
        self.every_epochs = every_epochs
        self.keep_last = positive_int(_OWNER, "keep_last", keep_last, "1 is the least.")
        fix = 'busy="skip" leaves out one that would have to wait.'
        self.busy = one_of(_OWNER, "busy", busy, ("wait", "skip"), fix)
        self.keep_best = keep_best
        self.background = boolean(_OWNER, "background", background)
        self.path = None if path is None else path_of(_OWNER, "path", path)
        self._monitor: Monitor | None = None
        self._best = 0
        # The step of the last one that was written because of a better value.
        self._better_at: int | None = None
        # Those of steps that come again.
        self._left_behind: set[Path] = set()
        if keep_best is not None:
            self._monitor, self._best = _checked(keep_best)

    def on_attach(self, trainer: "Trainer") -> None:
        path = self.path or in_run(trainer)
        if path is None:
            fix = "Pass run_dir= to Trainer, or path= here."
            raise ValueError(message(_OWNER, "checkpoints must have a folder", None, fix))
        # Those before it are attached.
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(each, Checkpoints) and each._folder == path for each in before):
            must, got = "each must have a folder of its own", f"two in {path}"
            fix = "One takes several intervals: Checkpoints(every_steps=…, every_epochs=…)."
            raise ValueError(message(_OWNER, must, got, fix))
        self._collected = not sees_the_same(path, trainer.comm)
        writers = 1 if self._collected else trainer.comm.size
        self._writer = Writer(path, trainer.comm, writers, self._publish)
        self._folder = path
        self._trainer = trainer
        require_none_of_another_run(trainer, path)
        self._since = time.monotonic()

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        self._writer.regroup(1 if self._collected else trainer.comm.size)
        if newcomers and self._monitor is not None:
            best = np.array([self._monitor.best])
            trainer.comm.broadcast(best)
            self._monitor.best = best.item()

    def on_run_begin(self, trainer: "Trainer") -> None:
        if self._monitor is not None:
            self._monitor.begin()

    def on_resume(self, trainer: "Trainer") -> None:
        found = folder.found(self._folder)
        before = [path for path in found if folder.step_of(path) <= trainer.step_count]
        self._left_behind = {*found} - {*before}
        if self._monitor is not None:
            paths = before if trainer.comm.rank == 0 else []
            values = [value for path in paths if (value := _best_value(path)) is not None]
            best = np.array([values[-1] if values else self._monitor.best])
            trainer.comm.broadcast(best)
            self._monitor.best = best.item()

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        if (
            self.every_seconds
            and phase == StepPhase.EXCHANGE
            and not trainer.comm.rank
            and time.monotonic() - self._since >= self.every_seconds
        ):
            trainer.request(Request.CHECKPOINT)

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        require_own(self, trainer, self._trainer)

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        self._better_at = None
        self._writer.require_no_error()
        every = self.every_steps
        if trainer.requested & Request.STOP:
            trainer._signals.save()
        if trainer.requested & Request.CHECKPOINT or (every and step % every == 0):
            self.write(trainer)

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        better = self._monitor is not None and self._monitor.improved(trainer, record)
        if better or (self.every_epochs and record["epoch"] % self.every_epochs == 0):
            self.write(trainer, best=self._monitor.best if better and self._monitor else None)

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        self.wait()

    def wait(self) -> None:
        """Return when all checkpoints that were begun are on the disk; collective.

        Raises
        ------
        OSError
            One could not be written.
        """
        self._trainer.recovered(self._writer.wait)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, once all that was begun is written, the same
        on all ranks; collective.
        """
        self.wait()
        try:
            return self._trainer.recovered(to_resume, self._folder, None, self._trainer.comm)
        except DamagedError:
            return None

    def write(self, trainer: "Trainer", *, best: float | None = None) -> bool:
        """Write a checkpoint now, between two steps; return whether it is, or will be; collective.
        None is of parameters that are not finite.

        Parameters
        ----------
        trainer
            The trainer.
        best
            The best value so far of what `keep_best` names, if it has just come.

        Raises
        ------
        OSError
            One could not be written, this one or the one before.
        FloatingPointError
            A parameter is not finite, and `on_nonfinite` of the trainer is no rollback.
        """
        require_own(self, trainer, self._trainer)
        if not trainer._guard.may_be_saved(trainer):
            return False
        if best is not None:
            self._better_at = trainer.step_count
        elif self._monitor is not None and self._better_at == trainer.step_count:
            # It takes the place of that one.
            best = self._monitor.best
        self._since = time.monotonic()
        facts = {
            "epoch": trainer.epoch,
            "best": best,
            "resumed": _named(trainer.resume),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: metadata.version(name) for name in ("ddbp", "numpy", "numba")},
        }
        for tell in trainer._hooks.checkpoint_begin:
            tell(trainer, trainer.step_count)
        written = trainer.recovered(
            lambda: self._writer.write(
                trainer.step_count,
                facts | {"ranks": trainer.comm.size},
                trainer.state(collected=self._collected),
                background=self.background,
                skip=self.busy == "skip" and best is None,
            )
        )
        for tell in trainer._hooks.checkpoint_end:
            tell(trainer, trainer.step_count)
        return written

    def _publish(self, new: Path, path: Path) -> None:
        """Give a checkpoint its name, set those of later steps aside, and remove what shall not
        stay.
        """
        left_behind = [
            each
            for each in folder.found(self._folder)
            if each in self._left_behind or folder.step_of(each) > folder.step_of(path)
        ]
        self._left_behind.clear()
        for each in left_behind:
            moved = folder.set_aside(each)
            said = f"Checkpoints: {each} is of a later step than this run has gone on from, and is"
            terminal.say(terminal.plain(f"{said} {moved} now."))
        folder.replace(new, path)
        self._prune()

    def _prune(self) -> None:
        """Remove what shall not stay."""
        paths = folder.found(self._folder)
        keep = set(paths[-self.keep_last :])
        better = [path for path in paths if _best_value(path) is not None]
        if self._best:
            keep.update(better[-self._best :])
        for path in paths:
            if path not in keep:
                folder.remove(path)


def _best_value(path: Path) -> float | None:
    """Return the best value so far, if a checkpoint was written because of it."""
    try:
        found = Checkpoint(path).facts.get("best")
    except DamagedError:
        return None
    return found if isinstance(found, float) else None


def _named(resume: str | Path | None) -> str | None:
    """Return the path that a run goes on from, None if no path was named."""
    return None if resume in (None, "auto") else str(files.expanded(str(resume)).absolute())


def require_none_of_another_run(trainer: "Trainer", path: Path | None) -> None:
    """Refuse to begin anew, or to go on from elsewhere, where there are checkpoints of another run,
    before anything of it is replaced: who resumes later would go on from these; on the rank that
    leads.
    """
    comm, named = trainer.comm, _named(trainer.resume)
    if path is None or not comm.leads or comm.takes_over or trainer.resume == "auto":
        return
    if settings.launched_in_job() is not None:
        # The trainer that has started this one goes on, in its own folder.
        return
    found = folder.found(path)
    if found and named is None:
        must, got = "a new run must have a folder of its own", f"checkpoints in {path}"
        fix = 'Go on with resume="auto" (--resume), choose another folder, or remove them.'
        raise ValueError(message("Trainer", must, got, fix))
    others = [each for each in found if named is not None and not _is_of(each, named)]
    if others:
        must = f"a run that goes on from {named} must have a folder of its own"
        got = f"a checkpoint of another run, {others[-1]}"
        fix = "Choose another folder (--run-dir), or remove what is in this one."
        raise ValueError(message("Trainer", must, got, fix))


def _is_of(path: Path, origin: str) -> bool:
    """Return whether a checkpoint is of the run that goes on from `origin`: in the same folder, or
    written since. That of a damaged one is not known.
    """
    place = folder.within(Path(origin)).resolve()
    if path.parent.resolve() in (place, *place.parents):
        return True
    try:
        return Checkpoint(path).facts.get("resumed") == origin
    except DamagedError:
        return True


def in_run(trainer: "Trainer") -> Path | None:
    """Return the folder of checkpoints in that of the run, if it has one."""
    return None if trainer.run_dir is None else trainer.run_dir / folder.IN_RUN


def to_resume(resume: str | Path, run_dir: Path | None, comm: Communicator) -> Checkpoint | None:
    """Return the checkpoint to go on from, the same on all ranks, None for a new run; collective.

    Parameters
    ----------
    resume
        "auto" for the newest whole one in the run folder, if there is any; or a checkpoint, or a
        folder that has some.
    run_dir
        The run folder.
    comm
        The ranks.

    Raises
    ------
    DamagedError
        There are checkpoints, and none is whole; or the one that was named is not.
    """
    chosen, refusal = "", ""
    if comm.rank == 0:
        try:
            chosen = _chosen(resume, run_dir)
        except ValueError as error:
            refusal = str(error)
    refusal = gather_texts(comm, refusal)[0]
    if refusal:
        raise DamagedError(refusal)
    chosen = gather_texts(comm, chosen)[0]
    return Checkpoint(chosen) if chosen else None


def _chosen(resume: str | Path, run_dir: Path | None) -> str:
    """Return the path of the checkpoint to go on from, "" for none."""
    if resume == "auto":
        if run_dir is None:
            fix = "Pass run_dir=, the folder of the run to go on with."
            raise ValueError(message("Trainer", 'resume="auto" needs a run folder', None, fix))
        path = run_dir / folder.IN_RUN
        folder.recover(path)
    else:
        if settings.resumes() and (since := _since(resume, run_dir)):
            return since
        path = files.expanded(resume)
        if (path / folder.STATE).exists():
            checkpoint = Checkpoint(path)
            checkpoint.require_whole()
            return str(path.absolute())
        path = folder.within(path)
    damages: list[DamagedError] = []
    for found in folder.newest_whole(path):
        if isinstance(found, Checkpoint):
            for damage in damages:
                print(f"{damage} {found.path.name} is taken.", file=sys.stderr)
            return str(found.path.absolute())
        damages.append(found)
    if damages:
        raise damages[0]
    if resume != "auto":
        fix = "Name a checkpoint, or a folder that has some, such as that of a run."
        raise ValueError(message("Trainer", "resume must have a checkpoint", str(path), fix))
    return ""


def _since(resume: str | Path, run_dir: Path | None) -> str:
    """Return the newest whole checkpoint that a run has written since it went on from a path, ""
    for none: one that begins again goes on from there.
    """
    for path in reversed([] if run_dir is None else folder.found(run_dir / folder.IN_RUN)):
        try:
            checkpoint = Checkpoint(path)
            if checkpoint.facts.get("resumed") == _named(resume):
                checkpoint.require_whole()
                return str(path.absolute())
        except DamagedError as damage:
            print(damage, file=sys.stderr)
    return ""


def _checked(given: Any) -> tuple[Monitor, int]:
    """Return what decides which checkpoints are best, and how many of them stay."""
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str)):
        fix = 'keep_best=("validation_loss", 1).'
        must = "keep_best must be the name of a number of the records, and how many to keep"
        raise ValueError(message(_OWNER, must, repr(given), fix))
    return Monitor(_OWNER, given[0], None, 0.0), positive_int(_OWNER, "keep_best", given[1], "1.")
