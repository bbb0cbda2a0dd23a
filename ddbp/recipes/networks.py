"""The networks of the recipes, made of plain layers, so that a bundle and other tools can have
them.
"""

from typing import Any

import numpy as np

import layers
from layers import (
    Dropout,
    Embedding,
    Flatten,
    Linear,
    Module,
    PoolOverTime,
    ReLU,
    Residual,
    Sequential,
    init,
    models,
)

RECURRENT = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.RNN}
RESNETS = {"resnet20": models.resnet20, "resnet32": models.resnet32, "resnet56": models.resnet56}
LENET_SIDE = 28
"""The side of the images of LeNet-5."""

Generator = np.random.Generator


def of_images(
    name: str, image: tuple[int, int, int], classes: int, hidden: int, rng: Generator
) -> Module:
    """Return a classifier of images (N, H, W, C), given (H, W, C)."""
    height, width, channels = image
    if name == "mlp":
        inputs = height * width * channels
        return Sequential(Flatten(), *dense(inputs, hidden, 1, classes, 0.0, rng))
    if name == "lenet":
        return models.lenet5(rng, channels, classes)
    if name == "cnn":
        return models.small_cnn(rng, image=image, classes=classes, hidden=hidden)
    # Statistics of the global batch do not depend on the number of ranks.
    return RESNETS[name](rng, channels, classes, synchronized=True)


def dense(
    inputs: int, hidden: int, depth: int, outputs: int, dropout: float, rng: Generator
) -> list[Module]:
    """Return dense layers, `depth` of them hidden."""
    stack: list[Module] = []
    for _ in range(depth):
        stack += [Linear(inputs, hidden, rng=rng), ReLU(), *[Dropout(dropout)] * bool(dropout)]
        inputs = hidden
    return [*stack, Linear(inputs, outputs, rng=rng)]


def of_tokens(
    name: str, tokens: int, hidden: int, embedding: int, window: int, rng: Generator
) -> Module:
    """Return a language model: logits (N, T, V) of the next token for tokens (N, T)."""
    if name == "gpt":
        return models.gpt(rng, tokens, window, hidden)
    return Sequential(
        Embedding(tokens, embedding, rng=rng),
        RECURRENT[name](embedding, hidden, rng=rng),
        Linear(hidden, tokens, rng=rng),
    )


def of_lines(
    name: str, tokens: int, hidden: int, embedding: int, classes: int, rng: Generator
) -> Module:
    """Return a classifier of texts, tokens (N, T), read in both directions."""
    table = Embedding(tokens, embedding, rng=rng)
    both = of_series(name, embedding, hidden, classes, rng, bidirectional=True)
    return Sequential(table, *both)


def of_series(
    name: str, channels: int, hidden: int, outputs: int, rng: Generator, **options: Any
) -> Sequential:
    """Return a network that reads sequences (N, T, C) to their own last step."""
    recurrent = RECURRENT[name](channels, hidden, rng=rng, last=True, **options)
    width = hidden * (2 if options.get("bidirectional") else 1)
    return Sequential(recurrent, Linear(width, outputs, rng=rng))


def of_forecast(name: str, hidden: int, steps: int, rng: Generator) -> Module:
    """Return a network that forecasts so many values of a series (N, T, 1): at the beginning about
    the last one that it has read.
    """
    body = of_series(name, 1, hidden, steps, rng)
    last = Sequential(PoolOverTime("last"), Linear(1, steps, rng=rng, weight_init=init.ones))
    return Residual(body, last)
