"""The cases of attention, of transformers' blocks and of positions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers.attention import Attention, MultiHeadAttention
from layers.engine.module import Composite, Module
from layers.models import gpt
from layers.positional import LearnedPositions, SinusoidalPositions
from layers.transformer import DecoderBlock, EncoderBlock
from layers.types import Array

from .case import BATCH, Case, Generator, layer, real
from .embedding import ids


class Masked(Composite):
    """A layer with masks, that are further inputs, by name."""

    def __init__(self, layer: Module, *names: str) -> None:
        self.layer = layer
        self.names = names

    def __call__(self, *inputs: Any) -> Any:
        sequences = len(inputs) - len(self.names)
        return self.layer(
            *inputs[:sequences], **dict(zip(self.names, inputs[sequences:], strict=True))
        )


def masks(*shape: int) -> Callable[[Generator], Array]:
    """Draw a mask in which the last query of the first sample sees nothing."""

    def draw(rng: Generator) -> Array:
        mask = rng.random(shape) < 0.6
        mask[0, ..., -1, :] = False
        return mask

    return draw


def lengths(*counts: int) -> Callable[[Generator], Array]:
    """Return the lengths of the samples."""
    return lambda rng: np.array(counts)


def together(
    inputs: Callable[[Generator], tuple[Any, ...]], *further: Callable[[Generator], Any]
) -> Any:
    """Draw inputs and what comes after them."""
    return lambda rng: (*inputs(rng), *(draw(rng) for draw in further))


def biased(made: Callable[[Generator], Module]) -> Callable[[Generator], Module]:
    """Return the constructor of a layer whose parameters of one axis are not those of the
    beginning.
    """

    def make(rng: Generator) -> Module:
        result = made(rng)
        for parameter in result.parameters():
            if len(parameter.shape) == 1:
                parameter.value = parameter.value + 0.3 * rng.standard_normal(parameter.shape)
        return result

    return make


def several(*options: Any, **named: Any) -> Callable[[Generator], Module]:
    """Return the constructor of a MultiHeadAttention with biases."""
    return biased(lambda rng: MultiHeadAttention(*options, rng=rng, **named))


_SEQUENCES, _OTHERS = (BATCH, 5, 6), (BATCH, 4, 6)

CASES = (
    Case("Attention", layer(Attention, 2), real(_SEQUENCES, _OTHERS, _OTHERS)),
    Case("Attention causal", layer(Attention, 3, causal=True), real((BATCH, 5, 18))),
    Case(
        "Attention of keys and values side by side",
        layer(Attention, 1),
        real(_SEQUENCES, (BATCH, 4, 12)),
    ),
    Case(
        "Attention with mask",
        layer(Attention, 2),
        together(real((BATCH, 5, 18)), masks(BATCH, 2, 5, 5)),
    ),
    Case(
        "Attention with mask of keys",
        layer(Attention, 2),
        together(real((BATCH, 5, 18)), masks(BATCH, 1, 1, 5)),
    ),
    Case(
        "Attention with lengths",
        layer(Attention, 2),
        together(real((BATCH, 5, 18)), lengths(5, 3, 0, 1, 5, 4, 2)),
    ),
    Case(
        "Attention causal with lengths",
        layer(Attention, 2, causal=True),
        together(real((BATCH, 4, 12)), lengths(4, 3, 0, 1, 4, 4, 2)),
    ),
    Case(
        "Attention of several blocks",
        layer(Attention, 1),
        real((BATCH, 35, 2), (BATCH, 100, 2), (BATCH, 100, 2)),
    ),
    Case(
        "Attention of several blocks, causal",
        layer(Attention, 1, causal=True),
        real((BATCH, 100, 9)),
    ),
    Case("Attention with dropout", layer(Attention, 2, dropout=0.4), real((BATCH, 5, 18))),
    Case("MultiHeadAttention", several(6, 2), real(_SEQUENCES)),
    Case(
        "MultiHeadAttention causal without bias",
        several(6, 3, causal=True, bias=False),
        real(_SEQUENCES),
    ),
    Case(
        "MultiHeadAttention of two sequences", several(6, 2, cross=True), real(_SEQUENCES, _OTHERS)
    ),
    Case(
        "MultiHeadAttention with masks",
        lambda rng: Masked(several(6, 2)(rng), "lengths", "keys", "mask"),
        together(
            real(_SEQUENCES),
            lengths(5, 3, 0, 1, 5, 4, 2),
            lambda rng: rng.random((BATCH, 5)) < 0.7,
            masks(1, 1, 5, 5),
        ),
    ),
    Case("SinusoidalPositions", layer(SinusoidalPositions, 6, 5), real((BATCH, 4, 5))),
    Case("LearnedPositions", lambda rng: LearnedPositions(6, 5, rng=rng), real((BATCH, 4, 5))),
    Case("EncoderBlock", biased(lambda rng: EncoderBlock(6, 2, rng=rng)), real(_SEQUENCES)),
    Case(
        "EncoderBlock causal",
        biased(lambda rng: EncoderBlock(6, 3, 5, rng=rng, causal=True)),
        real(_SEQUENCES),
    ),
    Case(
        "DecoderBlock", biased(lambda rng: DecoderBlock(6, 2, rng=rng)), real(_SEQUENCES, _OTHERS)
    ),
    Case(
        "gpt",
        biased(lambda rng: gpt(rng, 8, context=5, features=6, depth=2, heads=2)),
        ids(8, BATCH, 4),
    ),
    Case(
        "gpt tied",
        biased(lambda rng: gpt(rng, 8, context=5, features=6, depth=1, heads=2, tied=True)),
        ids(8, BATCH, 4),
    ),
)
