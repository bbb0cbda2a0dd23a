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

from .data import ArrayDataset, LocalBatch, batches, local_batch, sliced
from .metrics import Metric
from .samples import Ragged, Samples, call, leaves, of_leaves, spread

Passes = Callable[[LocalBatch], tuple[Any, Value]]


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

    `run_pass` takes this rank's part of a batch, and returns prediction and loss.
    """
    totals = []
    for rows in batches(len(data), batch_size):
        batch = local_batch(data, plan, rows, sliced)
        sums = np.zeros((plan.local, len(metrics)))
        prediction, loss = run_pass(batch)
        arrays = of_leaves(lambda value: value.array, prediction)
        for column, metric in enumerate(metrics.values()):
            if metric is None:
                sums[:, column] = shard_sums(loss, plan.local)
            else:
                values = metric(arrays, batch.y)
                sums[:, column] = [
                    values[a:b].sum(dtype=np.float64) for a, b in pairwise(batch.bounds)
                ]
        totals.append(sums)
    means = total_over_ranks(np.array(totals), plan, comm) / len(data)
    return dict(zip(metrics, means.tolist(), strict=True))


def predict(model: Module, x: Samples, batch_size: int) -> Any:
    """Return a model's output for samples, batch by batch; of an output that is a tuple or a dict,
    each array.
    """
    samples = [leaf for _, leaf in leaves("x", x)]
    ragged = [int(leaf.lengths.max()) for leaf in samples if type(leaf) is Ragged]
    steps = max(ragged, default=0)

    def part(rows: slice) -> Samples:
        def leaf(samples: Any) -> Any:
            return samples.padded(rows, rows, steps) if type(samples) is Ragged else samples[rows]

        return spread(lambda array: array, of_leaves(leaf, x))

    starts = range(0, max(1, len(samples[0])), batch_size)
    outputs = [call(model, part(slice(start, start + batch_size))) for start in starts]
    return of_leaves(lambda *arrays: np.concatenate(arrays), *outputs)
