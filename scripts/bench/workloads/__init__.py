"""The networks whose training steps are timed. A new one is one entry of `WORKLOADS`."""

import itertools
from typing import Any

import numpy as np

import layers

from . import images, sequences
from .workload import Array, Workload, torch_cross_entropy


def dense(name: str, sizes: tuple[int, ...], batch: int) -> Workload:
    """Return a dense network with ReLU between its layers, trained with softmax cross-entropy."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        return rng.standard_normal((batch, sizes[0]), np.float32), rng.integers(0, sizes[-1], batch)

    def model(rng: np.random.Generator) -> layers.Module:
        stack: list[layers.Module] = []
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

    return Workload(
        name,
        draw,
        model,
        layers.SoftmaxCrossEntropy,
        torch_model,
        torch_cross_entropy,
        jax_loss,
        scikit_learn=True,
    )


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        dense("mlp", (784, 512, 256, 10), batch=128),
        dense("mlp-tiny", (64, 128, 10), batch=32),
        dense("mlp-large", (1024, 2048, 2048, 10), batch=256),
        *images.WORKLOADS,
        *sequences.WORKLOADS,
    )
}
