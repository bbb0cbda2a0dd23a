"""What a workload is: a network whose training step is timed.

The same network is built three times, and starts from the same weights: an entry's torch module and
its JAX function take the parameters in the order and shapes of ours, unless it brings a `to_torch`
or `to_jax` of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import layers

Array = Any
# Several batches, so that no step sees data that the last one left in the caches.
BATCHES = 8


def _same(arrays: list[Array]) -> list[Array]:
    return arrays


@dataclass(frozen=True)
class Workload:
    """One network with its loss and its batch; every optimizer is Adam.

    `batch(rng)` gives (x, y) as our layers take them, `torch_x` turns x into what the torch module
    takes. `torch_loss(output, y)` and `jax_loss(parameters, x, y)` give the loss. PyTorch is tried
    with both memory formats on `images`; `scikit_learn` are those that its classifier can be.
    """

    name: str
    batch: Callable[[np.random.Generator], tuple[Array, Array]]
    model: Callable[[np.random.Generator], layers.Module]
    loss: Callable[[], layers.Loss]
    torch_model: Callable[[], Any]
    torch_loss: Callable[[Any, Any], Any]
    jax_loss: Callable[[list[Any], Any, Any], Any] | None = None
    torch_x: Callable[[Any], Any] = lambda x: x
    to_torch: Callable[[list[Array]], list[Array]] = _same
    to_jax: Callable[[list[Array]], list[Array]] = _same
    images: bool = False
    scikit_learn: bool = False

    def batches(self) -> list[tuple[Array, Array]]:
        """Return the batches that every contestant goes round."""
        rng = np.random.default_rng(0)
        return [self.batch(rng) for _ in range(BATCHES)]

    def start(self) -> layers.Module:
        """Return our model with its initial weights."""
        return self.model(np.random.default_rng(1))


def torch_cross_entropy(output: Any, y: Any) -> Any:
    """Return PyTorch's mean cross-entropy."""
    import torch

    return torch.nn.functional.cross_entropy(output, y)
