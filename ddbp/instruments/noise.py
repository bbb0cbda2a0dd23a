"""The gradient noise scale, which tells about how large a batch is worth its cost."""

import math
from typing import Any

import numpy as np

from layers.engine.fixed_tree import tree_sum
from layers.types import Array


def noise_scale(shards: Array, total: float, samples: int) -> float:
    """Return tr(Σ) / |G|², estimated from one step: from there on larger batches bring ever less
    (McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A.1).

    With b = B / S samples in a shard, E|g_b|² = |G|² + tr(Σ) / b and E|g_B|² = |G|² + tr(Σ) / B;
    two equations for two unknowns.

    Parameters
    ----------
    shards
        The norms of the mean gradients of the shards (S,).
    total
        The squared norm of the mean gradient of the batch.
    samples
        B, the samples of the batch.

    Returns
    -------
    Samples. NaN where one step does not tell: with one shard, or where the estimate of |G|² is not
    positive.
    """
    count = len(shards)
    if count < 2 or samples <= count:
        return math.nan
    small = float(tree_sum(np.square(shards))) / count
    signal, noise = signal_and_noise(small, total, samples / count, samples)
    return noise / signal if signal > 0 else math.nan


def signal_and_noise(small: Any, total: Any, part: float, samples: float) -> tuple[Any, Any]:
    """Return the estimates of |G|² and tr(Σ) from the mean square of the norms of shards' gradients
    and the squared norm of the batch's, numbers or arrays of them; so many samples are a shard, and
    the batch.
    """
    signal = (samples * total - part * small) / (samples - part)
    noise = (small - total) / (1 / part - 1 / samples)
    return signal, noise
