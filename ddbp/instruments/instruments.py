"""The callback that measures every few steps, and records it."""

import weakref
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.observers.observer import StepPhase
from ddbp.reduction.shards import ShardPlan, dyadic
from ddbp.training.callbacks import OptionsCallback, Record
from layers.checks import positive_int
from layers.engine.fixed_tree import tree_sum
from layers.errors import message
from layers.types import Array

from .clock import PHASES, StepClock
from .layer_gauge import WIDTH, LayerGauge, bin_edges
from .noise import noise_scale
from .parameter_gauge import ParameterGauge, ShardNorms
from .recording import QUANTITIES, Recorder, Recording

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

_OWNER = "Instruments"
_EVERY = 50
_MOST_BYTES = 2**25
_FLUSH_SECONDS = 2.0


class Instruments(OptionsCallback):
    """Measures one step of every few: norms and distributions of outputs, gradients, parameters and
    updates, layer by layer; the norms of the shards' gradients, and the noise scale that they tell;
    where the time goes on each rank. See `ddbp.instruments.recording.QUANTITIES`.

    All but the times is the same for any number of ranks. It is recorded in `instruments/` of the
    run folder, if there is one; a long run keeps fewer steps, about 32 MiB at most.

    >>> trainer = Trainer(model, …, callbacks=[Instruments()], run_dir="runs/first")
    >>> trainer.fit(training, epochs=10)
    >>> Recording.read("runs/first").values["gradient_norm"]

    Parameters
    ----------
    every
        Steps from one that is measured to the next; the first step of a run is.
    """

    def __init__(self, every: int = _EVERY) -> None:
        self.every = positive_int(_OWNER, "every", every, "every=50 costs little.")
        self._recorder: Recorder | None = None
        self._measuring = False
        self._stride = self.every
        self._ended = 0.0
        self._flushed = 0.0

    def on_attach(self, trainer: "Trainer") -> None:
        """Begin anew, with the model of a trainer."""
        flat = trainer._flat
        self._trainer = weakref.ref(trainer)
        self._comm: Communicator = trainer.comm
        self._clock = StepClock(trainer.comm)
        self._layers = LayerGauge(trainer.model, flat.dtype, self._clock)
        self._parameters = ParameterGauge(trainer.model, self._clock)
        self._shards: ShardNorms | None = None
        self._recorder = self._made(trainer.options.shards or 1, trainer.run_dir)
        self._measuring = False
        self._resumed = False
        self._stride = self.every
        self._ended = perf_counter()

    def _made(self, shards: int, run_dir: Path | None) -> Recorder:
        empty = np.zeros(0, np.int64)
        heading = Recording(
            self._layers.layers, self._parameters.parameters, bin_edges(), empty, {}, QUANTITIES
        )
        # Without what depends on the number of ranks: what is kept must not.
        columns = {
            "layers": len(heading.layers),
            "parameters": len(heading.parameters),
            "shards": shards,
            "run": 1,
            "ranks": 1,
        }
        bins = len(heading.bins) - 1
        row = sum(columns[each.of] * (bins if each.binned else 1) for each in QUANTITIES.values())
        recorder = Recorder(
            heading,
            every=self.every,
            row_bytes=4 * row,
            most_bytes=_MOST_BYTES,
            run_folder=run_dir if self._comm.leads else None,
        )
        # A loop of a script's own has no end that anybody tells of.
        weakref.finalize(self, recorder.flush)
        return recorder

    @property
    def recording(self) -> Recording:
        """What has been measured, on rank 0; on others no steps.

        Raises
        ------
        RuntimeError
            No trainer has been made with these instruments.
        """
        return self._require_recorder().recording

    def _require_recorder(self) -> Recorder:
        if self._recorder is None:
            must, fix = "a trainer must have been made with them", "Pass callbacks=[instruments]."
            raise RuntimeError(message(_OWNER, must, "none", fix))
        return self._recorder

    # The events of a step

    def on_step_begin(self, trainer: "Trainer", step: int) -> None:
        if self._trainer() is not trainer:
            must, fix = "a trainer must have instruments of its own", "Make others for each."
            got = "those that a later trainer was made with"
            raise RuntimeError(message(_OWNER, must, got, fix))
        if self._measuring:
            # A step that was begun and not ended: it has failed, or comes once more.
            self._leave(trainer)
        if step % self._stride:
            return
        recorder = self._require_recorder()
        self._stride = recorder.stride(step)
        if not step % self._stride:
            self._begin(trainer)

    def _begin(self, trainer: "Trainer") -> None:
        """Begin to measure a step."""
        self._measuring = True
        self._clock.begin(self._ended)
        self._clock.mark("data")
        flat = trainer._flat
        if self._shards is None or self._shards.flat is not flat:
            self._shards = ShardNorms(flat, trainer._plan.local)
        self._layers.begin()
        self._shards.begin()
        trainer.tape_watchers.add(self._layers)
        if not self._shards.apart:
            trainer.tape_watchers.add(self._shards)

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        if not self._measuring:
            return
        clock = self._clock
        if phase is StepPhase.EXCHANGE:
            clock.mark("backward")
            assert self._shards is not None
            clock.pause()
            self._shards.collect()
            clock.go_on()
        elif phase is StepPhase.UPDATE:
            clock.mark("reduction")
            self._parameters.follow(trainer.partition)
            self._parameters.watch()
        elif phase is StepPhase.PUBLISH:
            clock.mark("optimizer")
            self._parameters.leave()

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self._measuring:
            self._clock.mark("reduction")
            self._leave(trainer)
            row = trainer.recovered(self._row, trainer)
            if row is not None and self._comm.leads:
                self._add(trainer, step - 1, row)
        if not step % self._stride:
            self._ended = perf_counter()

    def _leave(self, trainer: "Trainer") -> None:
        self._measuring = False
        self._parameters.leave()
        trainer.tape_watchers.remove(self._layers)
        if self._shards is not None:
            trainer.tape_watchers.remove(self._shards)

    def _add(self, trainer: "Trainer", step: int, row: Mapping[str, Array]) -> None:
        recorder = self._require_recorder()
        if self._resumed:
            recorder.go_on(step)
            self._resumed = False
        recorder.add(step, row)
        now = perf_counter()
        if now - self._flushed > _FLUSH_SECONDS:
            recorder.flush()
            self._flushed = perf_counter()

    # What is recorded

    def _row(self, trainer: "Trainer") -> dict[str, Array] | None:
        """Return what has been measured in a step, the same on all ranks; None if ranks have been
        lost, and with them what they had measured. Collective.
        """
        plan: ShardPlan = trainer._plan
        if not self._parameters.follows(trainer.partition) or self._layers.tape is None:
            return None
        assert self._shards is not None
        found = self._layers.numbers
        width = len(self._layers.layers) * WIDTH
        layers = self._total(found.reshape(len(found), width), plan).reshape(-1, WIDTH)
        silent = self._layers.silent(self._comm)
        shards = self._of_all(self._shard_norms(trainer), plan)[:, 0]
        parameters = self._parameters.row()
        seconds = self._comm.all_gather(np.array([*self._clock.seconds.values()]))
        squares = np.square(parameters["gradient_norm"])
        total = float(tree_sum(np.where(np.isnan(squares), 0, squares)))
        total = total if np.isfinite(shards).all() else np.nan
        samples = trainer._update.group.updated
        return {
            **self._layers.row(layers, silent),
            **parameters,
            "shard_gradient_norm": shards,
            "noise_scale": np.array([noise_scale(shards, total, samples)]),
            **{f"seconds_{name}": seconds[:, i] for i, name in enumerate(PHASES)},
        }

    def _shard_norms(self, trainer: "Trainer") -> Array:
        """Return the norms of the mean gradients of this rank's shards (shards, 1)."""
        assert self._shards is not None
        tape = self._layers.tape
        assert tape is not None
        rows = np.diff(tape.bounds(tape.rows))
        with np.errstate(all="ignore"):
            scale = trainer.partition.scale * (tape.samples or 0) / rows
            return (scale * np.sqrt(self._shards.totals()))[:, np.newaxis]

    def _of_all(self, numbers: Array, plan: ShardPlan) -> Array:
        """Return numbers of all shards (S, k), given those of this rank's; collective."""
        counts = [last - first for first, last in map(plan.owned, range(plan.ranks))]
        return self._gathered(numbers, counts)

    def _total(self, numbers: Array, plan: ShardPlan) -> Array:
        """Return the sum over all shards, by the fixed tree, of numbers (shards, k) of this rank's;
        collective.
        """
        pieces = [dyadic(*plan.owned(rank)) for rank in range(plan.ranks)]
        first, _ = plan.owned(plan.rank)
        mine = [
            tree_sum(numbers[start - first : start - first + size])
            for start, size in pieces[plan.rank]
        ]
        sizes = [size for each in pieces for _, size in each]
        return tree_sum(self._gathered(np.stack(mine), [*map(len, pieces)]), np.array(sizes))

    def _gathered(self, numbers: Array, counts: list[int]) -> Array:
        """Return the rows of all ranks, who have so many each; collective."""
        padded = np.zeros((max(counts), numbers.shape[1]))
        padded[: len(numbers)] = numbers
        parts = zip(self._comm.all_gather(padded), counts, strict=True)
        return np.concatenate([part[:count] for part, count in parts])

    # When there is something to write, or to begin

    def on_run_begin(self, trainer: "Trainer") -> None:
        self._ended = perf_counter()

    def on_resume(self, trainer: "Trainer") -> None:
        self._resumed = trainer.run_dir is not None and self._comm.leads
        self._stride = self.every

    def state(self) -> dict[str, Any]:
        """Return nothing: a run that goes on finds the steps up to here in the files."""
        self._require_recorder().flush()
        return {}

    def load_state(self, state: Any) -> None:
        self._stride = self.every

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        recorder = self._require_recorder()
        if self._comm.leads and trainer.run_dir is not None and not recorder.has_folder:
            self._recorder = self._made(trainer.options.shards or 1, trainer.run_dir)
            self._resumed = True
        # The ranks that there are now have other shards, and may take the step again.
        measuring = self._measuring
        self._leave(trainer)
        self._shards = None
        if measuring:
            self._begin(trainer)

    def on_evaluation_end(self, trainer: "Trainer", values: Mapping[str, float]) -> None:
        self._ended = perf_counter()

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        self._require_recorder().flush()
        self._ended = perf_counter()

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        self._require_recorder().flush()

    def on_exception(self, trainer: "Trainer", error: Exception) -> None:
        self._leave(trainer)
        self._require_recorder().flush()
