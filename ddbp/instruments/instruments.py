"""The callback that measures every few steps, and records it."""

import math
import weakref
from collections.abc import Mapping
from functools import partial
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

from .alignment import Alignment
from .bias_gauge import BiasGauge
from .clock import PHASES, StepClock
from .layer_gauge import WIDTH, LayerGauge, bin_edges
from .noise import noise_scale
from .parameter_gauge import ParameterGauge, ShardNorms
from .recording import QUANTITIES, Recorder, Recording
from .target_gauge import WIDTH as WIDTH_OF_TARGETS
from .target_gauge import TargetGauge

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
        Steps from one that is measured to the next; the first step of a run is. None for ever more
        of them: the first eight steps are measured, then four of each doubling, so that a run pays
        the less the longer it is.
    """

    optional = True

    def __init__(self, every: int | None = _EVERY) -> None:
        if every is not None:
            every = positive_int(_OWNER, "every", every, "every=50 costs little.")
        self.every = every
        self._recorder: Recorder | None = None
        self._measuring = False
        self._stride = every or 1
        self._ended = 0.0
        self._flushed = 0.0

    def on_attach(self, trainer: "Trainer") -> None:
        """Begin anew, with the model of a trainer."""
        flat = trainer._flat
        self._trainer = weakref.ref(trainer)
        self._comm: Communicator = trainer.comm
        self._clock = StepClock(trainer.comm)
        self._layers = LayerGauge(trainer.model, flat.dtype, self._clock)
        self._parameters = ParameterGauge(trainer._update.learner, self._clock)
        self._alignment = Alignment(self._parameters.parameters, self._clock)
        self._targets = TargetGauge()
        self._shards: ShardNorms | None = None
        self._recorder = self._made(trainer.options.shards or 1, trainer.run_dir)
        self._measuring = False
        # The step that the run goes on from, until what the folder holds of those before is known.
        self._resumed: int | None = None
        self._stride = self.every or 1
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
        """What has been measured, on rank 0; on others no steps, unless they survive it.

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
        if self._trainer() is not trainer:
            must, fix = "a trainer must have instruments of its own", "Make others for each."
            got = "those that a later trainer was made with"
            raise RuntimeError(message(_OWNER, must, got, fix))
        self._measuring = True
        self._clock.begin(min(self._ended, perf_counter()))
        self._clock.mark("data")
        flat = trainer._flat
        if self._shards is None or self._shards.flat is not flat:
            self._shards = ShardNorms(flat, trainer._plan.local)
            self._bias = BiasGauge(trainer.model, trainer._plan.local)
        self._layers.scale = trainer._scaling.value
        if trainer.transforms:
            self._parameters.keep(trainer.partition)
        self._alignment.begin()
        trainer._update.group.before = partial(self._alignment.before, trainer)
        for gauge in (self._layers, self._targets, self._bias, self._shards):
            gauge.begin()
            if gauge is not self._shards or not self._shards.apart:
                trainer.tape_watchers.add(gauge)

    def on_phase(self, trainer: "Trainer", phase: StepPhase) -> None:
        if not self._measuring:
            return
        clock = self._clock
        if phase is StepPhase.EXCHANGE:
            clock.mark("backward")
            assert self._shards is not None
            clock.pause()
            self._shards.collect()
            self._alignment.collect()
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
            # Ranks that survive may have to go on with it.
            if row is not None and (self._comm.leads or self._comm.survives):
                self._add(trainer, step - 1, row)
        if not step % self._stride:
            self._ended = perf_counter()

    def _leave(self, trainer: "Trainer") -> None:
        self._measuring = False
        self._parameters.leave()
        trainer._update.group.before = None
        trainer.tape_watchers.remove(self._layers)
        trainer.tape_watchers.remove(self._targets)
        if self._shards is not None:
            trainer.tape_watchers.remove(self._bias)
            trainer.tape_watchers.remove(self._shards)

    def _add(self, trainer: "Trainer", step: int, row: Mapping[str, Array]) -> None:
        recorder = self._require_recorder()
        self._take_up()
        recorder.add(step, row)
        now = perf_counter()
        if now - self._flushed > _FLUSH_SECONDS:
            recorder.flush()
            self._flushed = perf_counter()

    def _take_up(self) -> None:
        """Take up what the folder holds of a run that goes on."""
        if self._resumed is not None:
            self._require_recorder().go_on(self._resumed)
            self._resumed = None

    def skip(self, seconds: float) -> None:
        """Leave out time between two steps that went by in something else."""
        self._ended += seconds

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
        shards, excess, *targets = self._of_all(self._of_shards(trainer), plan).T
        parameters = self._parameters.row()
        seconds = self._comm.all_gather(np.array([*self._clock.seconds.values()]))
        nothing = np.full(1, np.nan)
        transformed = {"gradient_kept": nothing, "gradient_lost": nothing}
        if trainer.transforms:
            transformed = self._parameters.transformed()
        squares = np.square(parameters["gradient_norm"])
        total = float(tree_sum(np.where(np.isnan(squares), 0, squares)))
        total = total if np.isfinite(shards).all() else np.nan
        samples = trainer._update.group.updated
        return {
            **self._layers.row(layers, silent),
            **parameters,
            "alignment_angle": self._alignment.row(trainer),
            "shard_gradient_norm": shards,
            "noise_scale": np.array([noise_scale(shards, total, samples)]),
            "gradient_excess": np.array([excess.max()]),
            **transformed,
            **_of_targets(*(float(tree_sum(each)) for each in targets)),
            **{f"seconds_{name}": seconds[:, i] for i, name in enumerate(PHASES)},
        }

    def _of_shards(self, trainer: "Trainer") -> Array:
        """Return what was measured of this rank's shards (shards, 5): the norms of their mean
        gradients, what `BiasGauge` and what `TargetGauge` has found.
        """
        assert self._shards is not None
        tape = self._layers.tape
        assert tape is not None
        rows = np.diff(tape.bounds(tape.rows))
        with np.errstate(all="ignore"):
            scale = trainer.partition.scale * (tape.samples or 0) / rows
            norms = scale * np.sqrt(self._shards.totals())
        targets = self._targets.sums
        if targets is None:
            targets = np.full((len(norms), WIDTH_OF_TARGETS), np.nan)
        return np.column_stack([norms, self._bias.excess, targets])

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
        if trainer.run_dir is not None and self._comm.leads:
            self._resumed = trainer.step_count
        self._stride = self.every or 1

    def state(self) -> dict[str, Any]:
        """Return nothing: a run that goes on finds the steps up to here in the files."""
        self._require_recorder().flush()
        return {}

    def load_state(self, state: Any) -> None:
        self._stride = self.every or 1

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        recorder = self._require_recorder()
        if self._comm.leads and trainer.run_dir is not None and not recorder.has_folder:
            recorder.write_to(trainer.run_dir, trainer.step_count)
        # The ranks that there are now have other shards, and may take the step again.
        measuring = self._measuring
        self._leave(trainer)
        self._shards = None
        if measuring:
            self._begin(trainer)

    def on_evaluation_end(self, trainer: "Trainer", values: Mapping[str, float]) -> None:
        self._ended = perf_counter()

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        self._take_up()
        self._require_recorder().flush()
        # What comes between two epochs is not the time that data take.
        self._ended = math.inf

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        self._take_up()
        self._require_recorder().flush()

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        self._leave(trainer)
        self._require_recorder().flush()


def _of_targets(count: float, total: float, squares: float) -> dict[str, Array]:
    """Return mean and standard deviation of targets, given their number and sums."""
    with np.errstate(all="ignore"):
        mean = np.float64(total) / count
        spread = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return {"target_mean": np.array([mean]), "target_std": np.array([spread])}
