"""Evaluation: loss and metrics over a data set, every sample counted once. What is averaged, and
what that is divided by, are summed over shards and batches by the fixed tree.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.reduction.reducer import total_over_ranks
from ddbp.reduction.shards import ShardPlan
from layers import Module, Value
from layers.engine.shares import required
from layers.types import Array, Integers

from .data import ArrayDataset, batches
from .metrics import Metric, shard_sums

Passes = Callable[[Array, Array, Integers, int], tuple[Value, Value]]


def evaluate(
    run_pass: Passes,
    data: ArrayDataset,
    metrics: Mapping[str, Metric | None],
    batch_size: int,
    plan: ShardPlan,
    comm: Communicator,
) -> dict[str, float]:
    """Return the mean of each metric over what counts, of the loss where the function is None; NaN
    if nothing does; collective.

    `run_pass` takes x and y of this rank's part of a batch, the bounds of its shards and the
    samples of the whole batch, and returns prediction and loss.
    """
    totals = []
    first, _ = plan.owned(plan.rank)
    for rows in batches(len(data), batch_size):
        start, stop, bounds = plan.rows(len(rows))
        x, y = data.x[rows[start:stop]], data.y[rows[start:stop]]
        # Of each shard and metric what is averaged, and what it counts for.
        sums = np.zeros((plan.local, len(metrics), 2))
        prediction, loss = run_pass(x, y, bounds, len(rows))
        for number, (name, metric) in enumerate(metrics.items()):
            if metric is None:
                sums[:, number, 0], divisor = required(loss, "Trainer.evaluate")
                # All ranks know it: that of the first shard has it added.
                if first == 0:
                    sums[0, number, 1] = len(rows) if divisor is None else divisor
            else:
                sums[:, number] = shard_sums(name, metric, (prediction.array, y), bounds)
        totals.append(sums.reshape(plan.local, -1))
    values, counted = total_over_ranks(np.array(totals), plan, comm).reshape(-1, 2).T
    means = np.divide(values, counted, out=np.full(len(values), np.nan), where=counted != 0)
    return dict(zip(metrics, means.tolist(), strict=True))


def predict(model: Module, x: Any, dtype: Any, batch_size: int) -> Array:
    """Return a model's output for x (N, …), floating ones in the given type, batch by batch."""
    x = np.asarray(x)
    if x.dtype.kind == "f":
        x = x.astype(dtype, copy=False)
    starts = range(0, max(1, len(x)), batch_size)
    return np.concatenate([model(x[start : start + batch_size]) for start in starts])
