"""What a network is to rules that give each layer a target or a loss of its own: a chain of blocks,
each a layer with weights and what follows it.
"""

from collections.abc import Sequence
from typing import Any

from layers.containers import Sequential, unnested
from layers.engine.module import Module
from layers.errors import message

from .base import CARRYING


class Chain:
    """The blocks of a Sequential, and of those in it, as Sequentials with the same layers.

    Parameters
    ----------
    owner
        The rule, for errors.
    model
        The network.
    between
        What may stand between layers with weights, and before them.

    Attributes
    ----------
    heads
        The layers with weights.
    following
        What follows each in its block.
    first
        What comes before all of them.
    blocks
        The blocks; the first one begins with `first`.
    """

    def __init__(self, owner: str, model: Module, between: tuple[type, ...]) -> None:
        fix = "Write Sequential(Linear(…), Tanh(), Linear(…), Tanh(), Linear(…))."
        if type(model) is not Sequential:
            must = "the model must be one Sequential of layers and activations"
            raise ValueError(message(owner, must, f"{model!r}", fix))
        self.first: list[Any] = []
        self.heads: list[Any] = []
        self.following: list[list[Any]] = []
        for layer in unnested(model, fused=False):
            if isinstance(layer, CARRYING):
                self.heads.append(layer)
                self.following.append([])
            elif not isinstance(layer, between):
                names = ", ".join(kind.__name__ for kind in between)
                must = f"between layers with weights there must be one of {names}"
                raise ValueError(message(owner, must, f"{layer!r}", fix))
            else:
                (self.following[-1] if self.heads else self.first).append(layer)
        if len(self.heads) < 2:
            must = "the model must have a hidden layer with weights, and an output layer"
            raise ValueError(message(owner, must, f"{len(self.heads)} with weights", fix))
        parts: list[Sequence[Any]] = [
            (head, *rest) for head, rest in zip(self.heads, self.following, strict=True)
        ]
        parts[0] = (*self.first, *parts[0])
        self.blocks = [Sequential(*layers, fuse=model.fuse) for layers in parts]
