"""Evaluation: loss and metrics over a data set, every sample counted once. What is averaged, and
what that is divided by, are summed over shards and batches by the fixed tree.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.data.order import batches
from ddbp.data.samples import Ragged, Samples, call, leaves, of_leaves, recorded, spread
from ddbp.data.source import Dataset, Source
from ddbp.reduction import replicate
from ddbp.reduction.reducer import total_over_ranks
from ddbp.reduction.shards import ShardPlan
from layers import Module, Tape, Value
from layers.engine.hooks import TapeHooks
from layers.engine.shares import required
from layers.types import Array

from . import checks
from .batch import LocalBatch, local_batch, sliced
from .learning import require_bound
from .metrics import Metric, shard_sums

if TYPE_CHECKING:
    from .trainer import Trainer

_BETWEEN = 8
"""Batches of an evaluation from one look at whether it shall end to the next."""

Passes = Callable[[LocalBatch], tuple[Any, Value]]


class Evaluating:
    """What a trainer offers to see what its model makes of data."""

    @property
    def predictor(self) -> Any:
        """What predicts, and is evaluated: the model, unless the rule that it learns by has it
        predict by something else (`layers.Rule.predictor`), with the same parameters.
        """
        trainer: Any = self
        rule, model = trainer.options.rule, trainer.model
        found = model if rule is None else rule.predictor(model)
        if found is not model:
            require_bound(rule, model)
        return found

    def evaluate(self, dataset: Dataset) -> dict[str, float]:
        """Return loss and metrics over a data set, every sample counted once, the same on all ranks
        for any number of them.
        """
        trainer: Any = self
        with trainer._update.resting():
            return of_trainer(trainer, trainer.recovered(trainer._data.one, dataset))

    def predict(self, x: Any) -> Any:
        """Return the model's output for x, as `ArrayDataset` takes it, or for that of a `Source`,
        computed batch by batch on this process alone; nothing is recorded. An output that is a
        tuple or a dict is one of arrays (N, …). Sequences of different lengths are padded to the
        longest of all.
        """
        trainer: Any = self
        samples = checks.samples_to_predict(x, trainer._flat.dtype)
        with trainer._update.resting():
            return predict(trainer.predictor, samples, trainer.options.batch_size)

    def parameters_sha256(self) -> str:
        """Return a digest of all parameters and states."""
        trainer: Any = self
        with trainer._update.resting():
            return replicate.digest(trainer.model)


def of_trainer(trainer: "Trainer", data: Dataset) -> dict[str, float]:
    """Return loss and metrics of a trainer over a data set, having told its hooks; collective."""
    loss = checks.has_loss("Trainer.evaluate", trainer.loss)
    model, hooks = trainer.predictor, trainer.tape_watchers.hooks
    one = partial(forward, model, loss, trainer._gather, hooks)
    run_pass = partial(trainer._warm_up, one)
    metrics = {"loss": None, **trainer.metrics}
    for begin in trainer._hooks.evaluation_begin:
        begin(trainer)
    size, comm, between = trainer.options.batch_size, trainer.comm, trainer._fit.between
    result = trainer.recovered(
        lambda: evaluate(run_pass, data, metrics, size, trainer._plan, comm, between)
    )
    for end in trainer._hooks.evaluation_end:
        end(trainer, result)
    return result


def evaluate(
    run_pass: Passes,
    data: Dataset,
    metrics: Mapping[str, Metric | None],
    batch_size: int,
    plan: ShardPlan,
    comm: Communicator,
    between: Callable[[], None] | None,
) -> dict[str, float]:
    """Return the mean of each metric over what counts, of the loss where the function is None; NaN
    if nothing does; collective.

    `run_pass` takes this rank's part of a batch, and returns prediction and loss; `between`, if
    given, is called now and then.
    """
    totals = []
    known: set[float] = set()
    first, _ = plan.owned(plan.rank)
    for number, rows in enumerate(batches(len(data), batch_size), 1):
        if between is not None and number % _BETWEEN == 0:
            between()
        batch = local_batch(data, plan, rows, sliced)
        # Of each shard and metric what is averaged, and what it counts for.
        sums = np.zeros((plan.local, len(metrics), 2))
        prediction, loss = run_pass(batch)
        arrays = of_leaves(_array, prediction)
        weights = () if batch.weights is None else (batch.weights,)
        for place, (name, metric) in enumerate(metrics.items()):
            if metric is None:
                sums[:, place, 0], divisor = required(loss, "Trainer.evaluate", known)
                # All ranks know it: that of the first shard has it added.
                if first == 0:
                    sums[0, place, 1] = len(rows) if divisor is None else divisor
            else:
                arguments = arrays, batch.y, *weights
                sums[:, place] = shard_sums(name, metric, arguments, batch.bounds)
        totals.append(sums.reshape(plan.local, -1))
    values, counted = total_over_ranks(np.array(totals), plan, comm).reshape(-1, 2).T
    means = np.divide(values, counted, out=np.full(len(values), np.nan), where=counted != 0)
    return dict(zip(metrics, means.tolist(), strict=True))


def forward(
    model: Module,
    loss: Callable[..., Value],
    gather: Callable[[Array], Array],
    hooks: TapeHooks | None,
    rows: LocalBatch,
) -> tuple[Any, Value]:
    """Return a model's output and the loss of this rank's part of a batch; `gather` and `hooks` are
    those of the tape.
    """
    tape = Tape(shards=rows.bounds, samples=rows.samples, gather=gather, hooks=hooks)
    prediction = call(model, recorded(tape, rows.x))
    weights = () if rows.weights is None else (rows.weights,)
    return prediction, loss(prediction, rows.y, *weights)


def _array(part: Any) -> Any:
    return part.array if isinstance(part, Value) else part


def predict(model: Module, x: Samples | Source, batch_size: int) -> Any:
    """Return a model's output for samples, batch by batch; of an output that is a tuple or a dict,
    each array.
    """
    source = x if isinstance(x, Source) else None
    samples = [] if source is not None else [leaf for _, leaf in leaves("x", x)]
    lengths = [leaf.lengths for leaf in samples if type(leaf) is Ragged]
    if source is not None:
        lengths = [each for name, each in source.lengths.items() if name.startswith("x")]
    steps = max((int(each.max()) for each in lengths), default=0)
    count = len(samples[0] if source is None else source)

    def part(rows: slice) -> Samples:
        given = x
        if source is not None:
            given = source.take(np.arange(rows.start, min(rows.stop, count))).x
            rows = slice(None)

        def leaf(samples: Any) -> Any:
            return samples.padded(rows, rows, steps) if type(samples) is Ragged else samples[rows]

        return spread(lambda array: array, of_leaves(leaf, given))

    starts = range(0, max(1, count), batch_size)
    outputs = [call(model, part(slice(start, start + batch_size))) for start in starts]
    return of_leaves(lambda *arrays: np.concatenate(arrays), *outputs)
