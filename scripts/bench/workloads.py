"""The networks whose training steps are timed. A new one is one entry of `WORKLOADS`.

The same network is built three times, and starts from the same weights: an entry's torch module and its JAX function take the
parameters in the order and shapes of ours, unless it brings a `to_torch` or `to_jax` of its own.
"""

import itertools
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

    `batch(rng)` gives (x, y) as our layers take them, `torch_x` turns x into what the torch module takes. `torch_loss(output, y)`
    and `jax_loss(parameters, x, y)` give the loss.
    """

    name: str
    batch: Callable[[np.random.Generator], tuple[Array, Array]]
    model: Callable[[np.random.Generator], layers.Layer]
    loss: Callable[[], layers.Loss]
    torch_model: Callable[[], Any]
    torch_loss: Callable[[Any, Any], Any]
    jax_loss: Callable[[list[Any], Any, Any], Any] | None = None
    torch_x: Callable[[Any], Any] = lambda x: x
    to_torch: Callable[[list[Array]], list[Array]] = _same
    to_jax: Callable[[list[Array]], list[Array]] = _same

    def batches(self) -> list[tuple[Array, Array]]:
        """Return the batches that every contestant goes round."""
        rng = np.random.default_rng(0)
        return [self.batch(rng) for _ in range(BATCHES)]

    def start(self) -> layers.Layer:
        """Return our model with its initial weights."""
        return self.model(np.random.default_rng(1))


def _torch_cross_entropy(output: Any, y: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(output, y)


def _dense(name: str, sizes: tuple[int, ...], batch: int) -> Workload:
    """Return a dense network with ReLU between its layers, trained with softmax cross-entropy."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        return rng.standard_normal((batch, sizes[0]), np.float32), rng.integers(0, sizes[-1], batch)

    def model(rng: np.random.Generator) -> layers.Layer:
        stack: list[layers.Layer] = []
        for inputs, outputs in itertools.pairwise(sizes):
            stack += [layers.Linear(inputs, outputs, rng=rng), layers.ReLU()]
        return layers.Sequential(*stack[:-1])

    def torch_model() -> Any:
        from torch import nn

        stack: list[Any] = []
        for inputs, outputs in itertools.pairwise(sizes):
            stack += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*stack[:-1])

    def jax_loss(parameters: list[Any], x: Any, y: Any) -> Any:
        import jax
        import optax

        for i in range(0, len(parameters), 2):
            x = (x if i == 0 else jax.nn.relu(x)) @ parameters[i].T + parameters[i + 1]
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    return Workload(name, draw, model, layers.SoftmaxCrossEntropy, torch_model, _torch_cross_entropy, jax_loss)


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _dense("mlp", (784, 512, 256, 10), batch=128),
        _dense("mlp-tiny", (64, 128, 10), batch=32),
    )
}
