"""Small networks, and the same ones in PyTorch."""

from typing import Any

import numpy as np

from layers import (
    LSTM,
    Composite,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    PoolOverTime,
    ReLU,
    Sequential,
    Tanh,
)

CLASSES = 3


def cnn(pool: int = 2, stride: int = 2, dtype: Any = np.float64) -> Sequential:
    """Return a network for images (N, 8, 8, 2), whose layers are fused."""
    rng = np.random.default_rng(0)
    side = (8 - pool) // stride + 1
    return Sequential(
        Conv2d(2, 4, 3, padding=1, rng=rng),
        ReLU(),
        MaxPool2d(pool, stride=stride),
        Conv2d(4, 6, 3, padding=1, rng=rng),
        ReLU(),
        Flatten(),
        Linear(side * side * 6, 10, rng=rng),
        Tanh(),
        Linear(10, 7, rng=rng),
        ReLU(),
        Linear(7, CLASSES, rng=rng),
    ).astype(dtype)


def images(count: int = 5, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(1).standard_normal((count, 8, 8, 2)).astype(dtype)


def torch_cnn(model: Sequential, pool: int = 2, stride: int = 2) -> Any:
    """Return the network in PyTorch, with the same weights, for images (N, C, H, W)."""
    import torch
    from torch import nn

    side = (8 - pool) // stride + 1

    class ChannelsLast(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1)

    made = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(pool, stride)),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), ChannelsLast(), nn.Flatten()),
        *(nn.Linear(side * side * 6, 10), nn.Tanh(), nn.Linear(10, 7), nn.ReLU()),
        nn.Linear(7, CLASSES),
    ).double()
    with torch.no_grad():
        for theirs, ours in zip(made.parameters(), model.parameters(), strict=True):
            value = ours.value.transpose(3, 2, 0, 1) if ours.value.ndim == 4 else ours.value
            theirs.copy_(torch.from_numpy(np.array(value)))
    return made


def channels_first(x: Any) -> Any:
    """Return images (N, H, W, C) as a tensor (N, C, H, W)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def channels_last(x: Any) -> Any:
    return x.detach().numpy().transpose(0, 2, 3, 1)


def tagger(dtype: Any = np.float64) -> Sequential:
    """Return a classifier of sequences of tokens 0..10, of different lengths."""
    rng = np.random.default_rng(2)
    return Sequential(
        Embedding(11, 6, rng=rng), LSTM(6, 5, rng=rng), PoolOverTime(), Linear(5, CLASSES, rng=rng)
    ).astype(dtype)


class Bag(Composite):
    """The mean of vectors of tokens, a table beside them, and a mask of the steps."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.table = Embedding(11, 4, rng=rng)
        self.body = Sequential(Linear(7, 8, rng=rng), ReLU(), Linear(8, CLASSES, rng=rng))

    def __call__(self, tokens: Any, row: Any, mask: Any) -> Any:
        from layers import concatenate

        vectors = self.table(tokens) * mask[..., np.newaxis].astype(np.float32)
        return self.body(concatenate([vectors.sum(axis=1), row], axis=1))
