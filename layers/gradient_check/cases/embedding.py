"""The cases of embeddings."""

from collections.abc import Callable
from typing import Any

from layers.embedding import Embedding
from layers.engine.module import Module
from layers.linear import Linear
from layers.types import Array

from .case import BATCH, Apply, Case, Generator


def ids(tokens: int, *shape: int) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw token numbers (*shape,): some occur several times, some not at all."""
    return lambda rng: (rng.integers(0, tokens, shape),)


def embedding(tokens: int, features: int, **options: Any) -> Callable[[Generator], Embedding]:
    """Return the constructor of an embedding."""
    return lambda rng: Embedding(tokens, features, rng=rng, **options)


def _tied(rng: Generator) -> Module:
    table, head = Embedding(6, 4, rng=rng), Linear(4, 6, bias=False, rng=rng)
    head.weight = table.weight
    return Apply(lambda table, head, x: head(table(x)), table, head)


CASES = (
    Case("Embedding", embedding(9, 5), ids(9, BATCH, 4)),
    Case("Embedding of single tokens", embedding(5, 19), ids(5, BATCH)),
    Case("Embedding with padding", embedding(4, 3, padding=1), ids(4, BATCH, 2, 3)),
    Case("Embedding with the weight of the output", _tied, ids(6, BATCH, 3)),
)
