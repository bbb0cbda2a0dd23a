"""The networks over sequences whose training steps are timed, and their twins in PyTorch: character language models."""

from collections.abc import Callable
from typing import Any

import numpy as np
from workload import Array, Workload

import layers
from layers import Embedding, Linear, Sequential

CHARACTERS, EMBEDDING = 96, 64


def _texts(samples: int, steps: int) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Return the function that draws characters (N, T) and those that follow."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        text = rng.integers(0, CHARACTERS, (samples, steps + 1))
        return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])

    return draw


def _torch_language_model(cell: str, hidden: int) -> Any:
    """Return PyTorch's model of characters (T, N), time first, as PyTorch computes."""
    from torch import nn

    class LanguageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(CHARACTERS, EMBEDDING)
            self.recurrent = getattr(nn, cell)(EMBEDDING, hidden)
            self.head = nn.Linear(hidden, CHARACTERS)

        def forward(self, x: Any) -> Any:
            return self.head(self.recurrent(self.embedding(x))[0])

    return LanguageModel()


def _torch_loss(output: Any, y: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(output.flatten(0, 1), y.t().flatten())


def _recurrent(cell: str, hidden: int, samples: int = 32, steps: int = 64) -> Workload:
    def model(rng: np.random.Generator) -> layers.Layer:
        recurrent = getattr(layers, cell)(EMBEDDING, hidden, rng=rng)
        return Sequential(Embedding(CHARACTERS, EMBEDDING, rng=rng), recurrent, Linear(hidden, CHARACTERS, rng=rng))

    return Workload(
        f"{cell.lower()}-{hidden}",
        _texts(samples, steps),
        model,
        layers.SoftmaxCrossEntropy,
        lambda: _torch_language_model(cell, hidden),
        _torch_loss,
        torch_x=lambda x: x.t(),
    )


WORKLOADS = (
    _recurrent("LSTM", 128),
    _recurrent("LSTM", 256),
    _recurrent("LSTM", 512, samples=64, steps=128),
    _recurrent("GRU", 128),
    _recurrent("GRU", 256),
    _recurrent("RNN", 128),
    _recurrent("RNN", 256),
)
