"""The networks over sequences whose training steps are timed, and their twins in PyTorch: character
language models.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import layers
from layers import Embedding, Linear, Sequential, models

from .workload import Array, Workload, torch_cross_entropy

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


def _recurrent(cell: str, hidden: int, samples: int = 32, steps: int = 64) -> Workload:
    def model(rng: np.random.Generator) -> layers.Module:
        recurrent = getattr(layers, cell)(EMBEDDING, hidden, rng=rng)
        return Sequential(
            Embedding(CHARACTERS, EMBEDDING, rng=rng),
            recurrent,
            Linear(hidden, CHARACTERS, rng=rng),
        )

    return Workload(
        f"{cell.lower()}-{hidden}",
        _texts(samples, steps),
        model,
        layers.SoftmaxCrossEntropy,
        lambda: _torch_language_model(cell, hidden),
        lambda output, y: torch_cross_entropy(output.flatten(0, 1), y.t().flatten()),
        torch_x=lambda x: x.t(),
    )


def _torch_gpt(context: int, width: int, depth: int, heads: int) -> Any:
    """Return PyTorch's model of characters (N, T), with its fused attention; parameters stand in
    the order of ours.
    """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_attention = nn.LayerNorm(width)
            self.projection = nn.Linear(width, 3 * width)
            self.output = nn.Linear(width, width)
            self.norm_dense = nn.LayerNorm(width)
            self.dense = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x: Any) -> Any:
            samples, steps, _ = x.shape
            parts = self.projection(self.norm_attention(x)).view(
                samples, steps, 3, heads, width // heads
            )
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.output(seen.transpose(1, 2).reshape(samples, steps, width))
            return x + self.dense(self.norm_dense(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.characters = nn.Embedding(CHARACTERS, width)
            self.positions = nn.Parameter(torch.zeros(context, width))
            self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, CHARACTERS)

        def parameters(self, recurse: bool = True) -> Any:
            # A module's own parameters come before those of its parts, unless told otherwise.
            for part in (self.characters, [self.positions], self.blocks, self.norm, self.head):
                yield from part if isinstance(part, list) else part.parameters()

        def forward(self, x: Any) -> Any:
            return self.head(
                self.norm(self.blocks(self.characters(x) + self.positions[: x.shape[1]]))
            )

    return GPT()


def _gpt(
    context: int = 64, width: int = 128, depth: int = 4, heads: int = 4, samples: int = 16
) -> Workload:
    return Workload(
        "gpt",
        _texts(samples, context),
        lambda rng: models.gpt(rng, CHARACTERS, context, width, depth, heads),
        layers.SoftmaxCrossEntropy,
        lambda: _torch_gpt(context, width, depth, heads),
        lambda output, y: torch_cross_entropy(output.flatten(0, 1), y.flatten()),
    )


WORKLOADS = (
    _recurrent("LSTM", 128),
    _recurrent("LSTM", 256),
    _recurrent("LSTM", 512, samples=64, steps=128),
    _recurrent("GRU", 128),
    _recurrent("GRU", 256),
    _recurrent("RNN", 128),
    _recurrent("RNN", 256),
    _gpt(),
)
