"""Evaluation: loss and metrics over a data set, every sample counted once, summed over ranks by the
fixed tree.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.reduction.reducer import total_over_ranks
from ddbp.reduction.shards import ShardPlan, shard_sums
from layers import Module, Value
from layers.types import Array, Integers

from .data import ArrayDataset, batches
from .metrics import Metric

Passes = Callable[[Array, Array, Integers, int], tuple[Value, Value]]


def evaluate(
    run_pass: Passes,
    data: ArrayDataset,
    metrics: Mapping[str, Metric | None],
    batch_size: int,
    plan: ShardPlan,
    comm: Communicator,
) -> dict[str, float]:
    """Return the mean of each metric over the samples, of the loss where the function is None;
    collective.

    `run_pass` takes x and y of this rank's part of a batch, the bounds of its shards and the
    samples of the whole batch, and returns prediction and loss.
    """
    totals = []
    for rows in batches(len(data), batch_size):
        start, stop, bounds = plan.rows(len(rows))
        x, y = data.x[rows[start:stop]], data.y[rows[start:stop]]
        sums = np.zeros((plan.local, len(metrics)))
        prediction, loss = run_pass(x, y, bounds, len(rows))
        for column, metric in enumerate(metrics.values()):
            if metric is None:
                sums[:, column] = shard_sums(loss, plan.local)
            else:
                values = metric(prediction.array, y)
                sums[:, column] = [values[a:b].sum(dtype=np.float64) for a, b in pairwise(bounds)]
        totals.append(sums)
    means = total_over_ranks(np.array(totals), plan, comm) / len(data)
    return dict(zip(metrics, means.tolist(), strict=True))


def predict(model: Module, x: Any, dtype: Any, batch_size: int) -> Array:
    """Return a model's output for x (N, …), floating ones in the given type, batch by batch."""
    x = np.asarray(x)
    if x.dtype.kind == "f":
        x = x.astype(dtype, copy=False)
    starts = range(0, max(1, len(x)), batch_size)
    return np.concatenate([model(x[start : start + batch_size]) for start in starts])
