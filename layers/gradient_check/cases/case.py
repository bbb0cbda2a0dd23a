"""What a case is, and what tables of cases are written with: samplers of inputs and constructors of
layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from layers.engine.module import Composite, Module
from layers.init import normal
from layers.linear import Linear
from layers.types import Array

BATCH = 7
"""Rows of the batch in every case; no axis 0 of an input that is not the batch has this size."""

Generator = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A layer with options, and inputs to try it on.

    Attributes
    ----------
    name
        Unique; the layer's name, and the option in a few words.
    make
        Returns the layer, in float32, given a generator.
    inputs
        Returns the inputs, floating ones in float64, away from kinks and singularities.
    per_sample
        Whether row i of the output depends on row i of the inputs alone (of those whose axis 0 is
        the batch).
    constant
        Numbers of floating inputs without a gradient.
    training
        Whether the layer is run as in training.
    per_shard
        Whether a shard's output and gradients depend on that shard alone.
    """

    name: str
    make: Callable[[Generator], Module]
    inputs: Callable[[Generator], tuple[Any, ...]]
    per_sample: bool = True
    constant: tuple[int, ...] = ()
    training: bool = True
    per_shard: bool = True

    def __repr__(self) -> str:
        return self.name


class Apply(Composite):
    """A function of values as a layer, with the layers that it uses, which it gets first."""

    def __init__(self, function: Callable[..., Any], *layers: Module) -> None:
        self.function = function
        self.layers = layers

    def __repr__(self) -> str:
        return "Apply()"

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*self.layers, *inputs)


# ---- samplers: away from kinks and singularities, of size 1


def real(*shapes: tuple[int, ...]) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw from the normal distribution."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def off_zero(*shapes: tuple[int, ...]) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw numbers of both signs, at least 0.1 away from 0."""
    return lambda rng: tuple(
        rng.choice((-1.0, 1.0), shape) * rng.uniform(0.1, 2, shape) for shape in shapes
    )


def positive(*shapes: tuple[int, ...]) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw from 0.5 to 2."""
    return lambda rng: tuple(rng.uniform(0.5, 2, shape) for shape in shapes)


def distinct(*shapes: tuple[int, ...]) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw numbers evenly spaced from -2 to 2, over all inputs: a maximum then has one winner."""

    def draw(rng: Generator) -> tuple[Array, ...]:
        sizes = [int(np.prod(shape)) for shape in shapes]
        numbers = rng.permutation(np.linspace(-2, 2, sum(sizes)))
        parts = np.split(numbers, np.cumsum(sizes)[:-1])
        return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))

    return draw


def with_labels(classes: int, *shape: int) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw logits (*shape, classes) and labels (*shape,)."""
    return lambda rng: (rng.standard_normal((*shape, classes)), rng.integers(0, classes, shape))


def with_probabilities(*shape: int) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw logits and target probabilities."""

    def draw(rng: Generator) -> tuple[Array, ...]:
        p = rng.uniform(0.1, 1, shape)
        return rng.standard_normal(shape), p / p.sum(axis=-1, keepdims=True)

    return draw


def with_weights(
    draw: Callable[[Generator], tuple[Any, ...]],
) -> Callable[[Generator], tuple[Any, ...]]:
    """Draw logits and targets, and weights of the positions, of which some are 0."""

    def weighted(rng: Generator) -> tuple[Any, ...]:
        x, *rest = draw(rng)
        weights = rng.uniform(0.5, 2, x.shape[:-1])
        weights.reshape(-1)[1::3] = 0
        return x, *rest, weights

    return weighted


def with_signs(*shape: int) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw predictions with margins off 0, and targets of -1 and 1."""

    def draw(rng: Generator) -> tuple[Array, ...]:
        x = 1 + rng.choice((-1.0, 1.0), shape) * rng.uniform(0.1, 2, shape)
        t = rng.choice((-1.0, 1.0), shape)
        return x * t, t

    return draw


def with_targets(*shape: int) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw predictions, and targets from 0.1 to 0.9."""
    return lambda rng: (rng.standard_normal(shape), rng.uniform(0.1, 0.9, shape))


# ---- layers


def layer(
    make: Callable[..., Module], *options: Any, **named: Any
) -> Callable[[Generator], Module]:
    """Return the constructor of a layer that draws nothing."""
    return lambda rng: make(*options, **named)


def dense(inputs: int, outputs: int, **options: Any) -> Callable[[Generator], Module]:
    """Return the constructor of a Linear whose biases are not 0."""
    return lambda rng: Linear(inputs, outputs, rng=rng, bias_init=normal(1), **options)


def values(function: Callable[..., Any]) -> Callable[[Generator], Module]:
    """Return the constructor of a layer that applies a function of values."""
    return lambda rng: Apply(function)
